"""Round-trip time of pings.

There and back, from the program that asks to the same program: what a user sees. The pod's kernel answers, so no other
program has to be woken. Clocks are read in the program, as `ping -U` does: no kernel's time stamp is in it, which
tells less than the whole way where frames do not pass every interface.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from fastbridge.bench.tester.offer import Stream, steady
from fastbridge.errors import BenchError

from . import Findings, Method
from .bounds import positive, whole
from .latency import PERCENTILES, irregular, percentiles_of
from .measurer import Measurer


@dataclass(frozen=True)
class Ping(Method):
    """Round-trip times near idle, or beside a TCP bulk transfer in the same direction."""

    name = "ping"
    section = "RFC 2681"
    units: ClassVar[Mapping[str, str]] = {
        **dict.fromkeys(PERCENTILES, "µs"),
        "lost": "ratio",
        "beside_gbps": "Gb/s",
        "samples": "pings",
    }
    primary = "p50"
    higher_is_better = False

    load: float = 1000.0  #: pings a second, at most one at a time
    bulk: int = 0  #: TCP connections beside them
    seconds: float = 10.0

    def __post_init__(self) -> None:
        positive(self, "load", "seconds")
        whole(self, bulk=0)

    @property
    def subject(self) -> str:
        """How often, and beside what."""
        beside = f", while TCP bulk runs ({self.bulk})" if self.bulk else ""
        return f"{self.load:,.0f} a second{beside}"

    def run(self, measurer: Measurer) -> Findings:
        """One trial."""
        streams = [Stream(0, (1,), kind="ping")]
        if self.bulk:
            streams.append(Stream(0, (1,), kind="tcp", flows=self.bulk))
        trial = measurer.trial(steady(streams, self.seconds, self.load))
        samples = trial.samples
        if samples is None or not samples.received:
            raise BenchError("not a ping was answered")
        values = {**percentiles_of(samples), "lost": 1 - samples.received / samples.sent}
        if self.bulk:
            values["beside_gbps"] = trial.gigabits_per_second
        values["samples"] = float(samples.received)
        return Findings(values, remarks=tuple(irregular(samples)))
