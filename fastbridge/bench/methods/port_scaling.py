"""Port scaling: how the forwarding rate changes with the number of ports.

No RFC has this test; the measure is that of RFC 2285 §3.6. One run has one number of ports.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

from fastbridge.bench.tester.offer import Stream, full_mesh, steady
from fastbridge.errors import BenchError

from . import Findings, Method
from .bounds import positive, whole
from .measurer import Measurer
from .mesh import Pattern
from .patterns import counted, flood_aware, forwarding_rate, full_load, gigabits, loss_of, subject_of


def ring(ports: int, sizes: tuple[int, ...]) -> tuple[Stream, ...]:
    """Every port to the next one."""
    return tuple(Stream(port, ((port + 1) % ports,), sizes) for port in range(ports))


PATTERNS: Mapping[str, Pattern] = MappingProxyType({"ring": ring, "mesh": full_mesh})


@dataclass(frozen=True)
class PortScaling(Method):
    """The rate that comes out of the DUT with traffic over all its ports.

    "ring": every port sends to the next one, so every port is busy both ways, and the number of pairs grows with the
    ports and not with their square. "mesh": every port sends to every other. `load` is in frames/s, over all ports;
    without it the tester offers its highest load. It sends from one CPU: the number of ports changes how the frames are
    spread, not how many there can be.
    """

    name = "port-scaling"
    section = "RFC 2285 §3.6"
    units: ClassVar[Mapping[str, str]] = {
        "rate": "frames/s",
        "rate_gbps": "Gb/s",
        "loss": "ratio",
        "offered": "frames/s",
    }
    primary = "rate"

    ports: int = 2
    pattern: str = "ring"
    sizes: tuple[int, ...] = (64,)
    load: float | None = None
    seconds: float = 1.0

    def __post_init__(self) -> None:
        whole(self, ports=2)
        positive(self, "load", "seconds")
        if self.pattern not in PATTERNS:
            raise BenchError(f"no traffic pattern {self.pattern!r}; there are {', '.join(PATTERNS)}")

    @property
    def subject(self) -> str:
        """Port count, pattern, frame size and load."""
        load = "" if self.load is None else f"{self.load:,.0f} frames/s"
        return subject_of(self.sizes, self.pattern, load, f"{self.ports} ports")

    def run(self, measurer: Measurer) -> Findings:
        """One trial."""
        streams = PATTERNS[self.pattern](self.ports, self.sizes)
        if self.load is None:
            trial = full_load(measurer, streams, self.seconds)
        else:
            trial = measurer.trial(steady(streams, self.seconds, self.load))
        trial, remarks = flood_aware(measurer, trial)
        offered, rate = counted(trial.offered_rate, "sent"), forwarding_rate(trial)
        values = {
            "rate": rate,
            "rate_gbps": gigabits(rate, self.sizes),
            "loss": loss_of(trial),
            "offered": offered,
        }
        if self.load is not None and offered < 0.99 * self.load:
            remarks += (f"only {offered:,.0f} of {self.load:,.0f} frames/s were offered",)
        return Findings(values, remarks=remarks)
