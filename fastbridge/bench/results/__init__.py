"""Results.

What a comparison leaves behind: every trial as it was counted, so that all else can be computed again.

- results: the dataclasses, saved as JSON
- decoding: JSON into these dataclasses, strictly; schema: their JSON Schema
- files: files that are written whole or not at all
"""
