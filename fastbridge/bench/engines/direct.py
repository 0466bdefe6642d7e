"""No switch: the ceiling.

One veth pair from pod to pod (`Lab.direct`). Its frames/s and TCP rate are the highest that any switch on this machine
can reach, and its latency is the lowest. Works with default offloads, TCP included.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from fastbridge.lab.topology import Lab

from .engine import Engine, only_two
from .running import Running


class _Wire(Running):
    command, buffers = "veth pair from pod to pod", "none"

    def restart(self, kill: bool) -> None:
        """Nothing to do: a wire has neither process nor FDB."""

    def stop(self) -> None:
        """Nothing to do: the pair belongs to the lab."""


@dataclass(frozen=True)
class Direct(Engine):
    """Two pods, one veth pair."""

    name: str = "direct"
    ceiling = True
    most_ports = 2

    @contextmanager
    def attach(self, lab: Lab, cpu: int) -> Iterator[Running]:
        """Replace the pods' pairs by one between them; `cpu` is not used."""
        only_two(self.name, lab)
        with lab.direct():
            yield _Wire()
