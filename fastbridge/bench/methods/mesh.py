"""Meshed traffic, RFC 2889 §5.1 and §5.2."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

from fastbridge.bench.tester.offer import Stream, full_mesh, many_to_one, one_to_many
from fastbridge.errors import BenchError

from . import Findings, Method
from .bounds import search_parameters, whole
from .measurer import Measurer
from .patterns import flood_aware, full_load, loss_of, subject_of
from .throughput import Throughput, throughput_below

Pattern = Callable[[int, tuple[int, ...]], tuple[Stream, ...]]

PATTERNS: Mapping[str, Pattern] = MappingProxyType(
    {"mesh": full_mesh, "one-to-many": one_to_many, "many-to-one": many_to_one}
)


@dataclass(frozen=True)
class Mesh(Method):
    """Throughput, frame loss and forwarding rate between many ports.

    "mesh" is every port to every other, each beginning with its next neighbour (§5.1); "one-to-many" and
    "many-to-one" are one port to or from all the others (§5.2). Loads and rates are those of all ports together.
    The RFC's forwarding rate at an offered load is given at the maximum load; the curve below it
    is `frame-loss`'s business.
    """

    name = "mesh"
    section = "RFC 2889 §5.1, §5.2"
    units: ClassVar[Mapping[str, str]] = {**Throughput.units, "loss": "ratio"}
    primary = "ndr"

    ports: int = 5
    pattern: str = "mesh"
    sizes: tuple[int, ...] = (64,)
    seconds: float = 1.0  #: of a trial
    duration_sum: float = 21.0  #: of all trials of a load
    width: float = 0.005  #: between the bounds, relative

    def __post_init__(self) -> None:
        whole(self, ports=2)
        search_parameters(self)
        if self.pattern not in PATTERNS:
            raise BenchError(f"no traffic pattern {self.pattern!r}; there are {', '.join(PATTERNS)}")

    @property
    def subject(self) -> str:
        """Frame size, pattern and port count."""
        return subject_of(self.sizes, self.pattern, f"{self.ports} ports")

    def run(self, measurer: Measurer) -> Findings:
        """Offer the highest load, then search below it."""
        full = full_load(measurer, PATTERNS[self.pattern](self.ports, self.sizes), self.seconds)
        full, flooded = flood_aware(measurer, full)
        found = throughput_below(measurer, full, seconds=self.seconds, duration_sum=self.duration_sum, width=self.width)
        return Findings({**found.values, "loss": loss_of(full)}, remarks=(*flooded, *found.remarks))
