"""Trends.

Benchmarks that pytest-benchmark has saved, commit after commit.

- storage: reads them; track: finds where they became faster or slower
- words: says it in a terminal; page: draws it
"""
