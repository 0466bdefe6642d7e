"""No switch: the tester's ceiling.

A veth pair has no line rate. What the sender can push into its own pair, with nothing behind the
host end, is the most that can be offered to any engine on this machine, and its CPU time a frame is
the part of every engine's that is the tester's own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from fastbridge.topology import Lab

from . import Running


@dataclass(frozen=True)
class Direct:
    """Joins nothing; frames are counted where they leave the sender's pair."""

    name: str = "no switch"
    joins: bool = False

    def version(self) -> str:
        """Nothing that could have one."""
        return "-"

    @contextmanager
    def attach(self, lab: Lab, cpu: int) -> Iterator[Running]:
        """Leave the host ends as they are."""
        yield Running("-", "-")
