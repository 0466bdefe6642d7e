"""FDB scaling: how the forwarding rate changes with the number of stations.

No RFC has this test; the measure is that of RFC 2285 §3.6.2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from fastbridge.bench.tester.offer import Stream
from fastbridge.errors import BenchError

from . import Findings, Method
from .bounds import positive
from .measurer import Measurer
from .patterns import came_out, counted, forwarding_rate, full_load, subject_of

MONITOR = 2


@dataclass(frozen=True)
class FdbScaling(Method):
    """FRMOL with many stations in the FDB: half are sources behind one port, half are targets behind another.

    All are learned before the trial, which uses them in turn: no cache can hold more than the FDB. The fewest are 2.
    Each number's stations are among those of the next, so an FDB that was empty at first holds no others. A third
    port watches. If frames come out of it, the FDB does not hold all stations, or frames were lost while it learned
    (`address-caching` tells which); the rate is that of flooding then.
    """

    name = "fdb-scaling"
    section = "RFC 2285 §3.6.2"
    units: ClassVar[Mapping[str, str]] = {
        "fewest": "frames/s",
        "most": "frames/s",
        "kept": "ratio",
        "rate": "stations → frames/s",
        "flooded": "stations → ratio",
    }
    primary = "most"
    ports = 3

    stations: tuple[int, ...] = (2, 1_000, 10_000, 100_000, 1_000_000)
    sizes: tuple[int, ...] = (64,)
    seconds: float = 1.0

    def __post_init__(self) -> None:
        positive(self, "seconds")
        if not self.stations or min(self.stations) < 2 or list(self.stations) != sorted(set(self.stations)):
            raise BenchError(f"numbers of stations {self.stations}: at least one, ascending, and each 2 or more")

    @property
    def subject(self) -> str:
        """Frame size, and the most stations."""
        return subject_of(self.sizes, f"up to {self.stations[-1]:,} stations")

    def run(self, measurer: Measurer) -> Findings:
        """One unpaced trial for each number of stations."""
        rates, flooded, remarks = [], [], []
        measurer.restart()
        for count in self.stations:
            stream = Stream(0, (1,), self.sizes, sources=count // 2, targets=count - count // 2)
            trial = full_load(measurer, (stream,), self.seconds)
            offered = counted(trial.offered, "sent")
            rates.append((float(count), forwarding_rate(trial)))
            flooded.append((float(count), min(1.0, came_out(trial, MONITOR, 0) / offered)))
            if flooded[-1][1]:
                remarks.append(
                    f"{flooded[-1][1]:.1%} of the frames were flooded with {count:,} stations: "
                    "more than the FDB holds, or frames were lost while learning"
                )
            if offered < stream.targets:
                remarks.append(f"only {offered:,} of {count:,} stations were used in {trial.seconds:g} s")
        values = {"fewest": rates[0][1], "most": rates[-1][1]}
        if rates[0][1]:  # a DUT slow to begin may have forwarded nothing in the window
            values["kept"] = rates[-1][1] / rates[0][1]
        return Findings(values, {"rate": tuple(rates), "flooded": tuple(flooded)}, tuple(remarks))
