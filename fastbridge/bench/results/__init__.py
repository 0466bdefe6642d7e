"""Results.

What a comparison leaves behind: every trial as it was counted. Everything else can be computed again.

- results: the dataclasses, saved as JSON
- shapes: JSON into these dataclasses, strictly, and their JSON Schema
- files: writes files whole or not at all
"""
