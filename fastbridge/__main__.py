"""Command line, by `python -m fastbridge`."""

from __future__ import annotations

from .cli import main

main()
