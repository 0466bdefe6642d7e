"""Batches, a command a line.

All lines ask one running switch, by one connection, as `bridge -batch` does.
"""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import rich_click as click

from fastbridge.control.client import Client
from fastbridge.control.directory import the_one

PATIENCE = 30.0  # seconds: an FDB of a million entries takes some to write down

#: The commands that a line may begin with: they ask a running switch, and end.
COMMANDS = ("status", "port", "link", "scenario", "fdb", "neigh", "policy", "stats")


@dataclass(frozen=True, slots=True)
class Line:
    """One command of a batch."""

    client: Client  #: the connection of all lines
    switch: str  #: the name of the switch
    text: str
    place: str  #: FILE:NUMBER

    def words(self) -> list[str]:
        """The arguments; after # comes a comment. Raises UsageError."""
        try:
            words = shlex.split(self.text, comments=True)
        except ValueError as error:
            raise click.UsageError(str(error)) from None
        if words and words[0] not in COMMANDS:
            raise click.UsageError(f"{words[0]!r} is no command of a batch; there are: {', '.join(COMMANDS)}")
        return words

    def connection(self, name: str | None) -> Client:
        """The connection, for a command with --switch NAME. Raises UsageError where that is another switch."""
        if name not in (None, self.switch):
            raise click.UsageError(f"this batch asks {self.switch}; the option --switch goes before --batch")
        return self.client


def run_batch(file: str, name: str | None, force: bool, run: Callable[[Line], int]) -> int:
    """Run each line; returns the exit status of the first that failed. `force`: go on after it."""
    failed = 0
    switch = the_one(name)
    with _opened(file) as lines, Client(switch, timeout=PATIENCE) as client:
        for number, text in enumerate(lines, 1):
            status = run(Line(client, switch, text, f"{'stdin' if file == '-' else file}:{number}"))
            failed = failed or status
            if status and not force:
                break
    return failed


def _opened(file: str) -> contextlib.AbstractContextManager[TextIO]:
    return contextlib.nullcontext(sys.stdin) if file == "-" else Path(file).open(encoding="utf-8", errors="replace")
