"""Engines, one a module.

An engine is a switch that can be measured: it joins the host ends of a lab, in the lab's own
namespace, for as long as a `with` block lasts, and leaves nothing behind however the block ends.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from fastbridge.bench.child import Child
from fastbridge.topology import Lab


@dataclass(frozen=True)
class Running:
    """An engine at work; `child` is its process, None where the kernel does the work."""

    command: str
    buffers: str  #: what holds frames that wait for it
    child: Child | None = None

    def check(self) -> None:
        """Raise BenchError when the engine has died."""
        if self.child is not None:
            self.child.check()

    def cpu_seconds(self) -> float | None:
        """CPU time of the engine's process so far."""
        return None if self.child is None else self.child.cpu_seconds()


class Engine(Protocol):
    """A switch that can be measured."""

    @property
    def name(self) -> str:
        """What the results call it."""
        ...

    @property
    def joins(self) -> bool:
        """False only for the tester's own ceiling, which joins nothing."""
        ...

    def version(self) -> str:
        """What was measured, as its own maker numbers it."""
        ...

    def attach(self, lab: Lab, cpu: int) -> AbstractContextManager[Running]:
        """Join the lab's host ends, on `cpu` where it is a process; ready when the block begins."""
        ...
