"""Latency, RFC 2544 §26.2.

It is one-way and sampled. Only some frames, about 10,000 a second, carry number and time; the others cost the receiver
nothing. The RFC reports the mean of twenty frames; this method reports percentiles of all samples.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from fastbridge.bench.tester.offer import steady
from fastbridge.bench.tester.trial import Samples
from fastbridge.errors import BenchError

from . import Findings, Method
from .bounds import positive, search_parameters
from .measurer import Measurer
from .patterns import known_pattern, sampling, streams_of, subject_of
from .throughput import Throughput

PERCENTILES = {"p50": 50.0, "p90": 90.0, "p99": 99.0, "p99_9": 99.9, "max": 100.0}
LOADS = {"at_10": 0.1, "at_50": 0.5, "at_90": 0.9}  #: shares of the PDR
FEWEST = 1000  # samples; with fewer, the 99.9th percentile is the maximum


@dataclass(frozen=True)
class LatencyAtLoad(Method):
    """Latency at one fixed load: near idle, or the same for every DUT."""

    name = "latency-at-load"
    section = "RFC 2544 §26.2"
    units: ClassVar[Mapping[str, str]] = {**dict.fromkeys(PERCENTILES, "µs"), "samples": "frames"}
    primary = "p50"
    higher_is_better = False

    load: float = 1000.0  #: frames/s
    sizes: tuple[int, ...] = (64,)
    pattern: str = "pair"
    seconds: float = 120.0

    def __post_init__(self) -> None:
        known_pattern(self.pattern)
        positive(self, "load", "seconds")

    @property
    def subject(self) -> str:
        """Frame size, pattern and load."""
        return subject_of(self.sizes, self.pattern, f"{self.load:,.0f} frames/s")

    def run(self, measurer: Measurer) -> Findings:
        """One sampled trial."""
        streams = streams_of(self.pattern, self.sizes)
        every = sampling(self.load, streams, self.seconds, measurer.ports)
        trial = measurer.trial(steady(streams, self.seconds, self.load, sample=every))
        samples = trial.samples
        if samples is None or not samples.received:
            raise BenchError(f"no sample arrived at {self.load:,.0f} frames/s: no latency")
        values = percentiles_of(samples)
        values["samples"] = float(samples.received)
        return Findings(values, remarks=tuple(f"at {self.load:,.0f} frames/s {text}" for text in irregular(samples)))


@dataclass(frozen=True)
class Latency(Method):
    """Latency near idle and at 10, 50 and 90 % of the PDR. The search for the PDR comes first.

    The RFC asks for the latency at throughput. On a noisy machine queues begin to fill there, and the result is the
    size of the buffers. So the loads are shares of the PDR, as in CSIT.
    """

    name = "latency"
    section = "RFC 2544 §26.2"
    units: ClassVar[Mapping[str, str]] = {
        **{f"{at}_{name}": unit for at in ("idle", *LOADS) for name, unit in LatencyAtLoad.units.items()},
        **Throughput.units,
        "median": "frames/s → µs",
        "p99": "frames/s → µs",
    }
    primary = "at_50_p50"
    higher_is_better = False

    sizes: tuple[int, ...] = (64,)
    pattern: str = "pair"
    stream_seconds: float = 120.0  #: length of a sampled trial
    idle: float = 1000.0  #: frames/s
    seconds: float = 1.0  #: this and the next two: for the search, as in Throughput
    duration_sum: float = 21.0
    width: float = 0.005

    def __post_init__(self) -> None:
        known_pattern(self.pattern)
        positive(self, "stream_seconds", "idle")
        search_parameters(self)

    def run(self, measurer: Measurer) -> Findings:
        """Search, then run one sampled trial at each load."""
        search = Throughput(self.sizes, self.pattern, self.seconds, self.duration_sum, self.width).run(measurer)
        loads = {"idle": self.idle}
        if "pdr" in search.values:
            loads |= {at: share * search.values["pdr"] for at, share in LOADS.items()}
            loads["idle"] = min(self.idle, loads["at_10"])
        values, remarks = dict(search.values), list(search.remarks)
        points = []
        for at, load in loads.items():
            found = LatencyAtLoad(load, self.sizes, self.pattern, self.stream_seconds).run(measurer)
            values |= {f"{at}_{name}": value for name, value in found.values.items()}
            remarks += found.remarks
            points.append((load, found.values))
        points.sort(key=lambda point: point[0])
        series = {
            "median": tuple((load, found["p50"]) for load, found in points),
            "p99": tuple((load, found["p99"]) for load, found in points),
        }
        return Findings(values, series, tuple(remarks))


def percentiles_of(samples: Samples) -> dict[str, float]:
    """Percentiles by name, in µs; 0 if no sample arrived."""
    found = samples.percentiles(PERCENTILES.values())
    return {name: found.get(percent, 0.0) / 1000 for name, percent in PERCENTILES.items()}


def irregular(samples: Samples) -> list[str]:
    """What is wrong with the samples, and what it means for the result."""
    remarks = []
    if samples.received < FEWEST:
        remarks.append(f"only {samples.received} samples arrived: p99.9 is the maximum")
    for count, what in (
        (samples.reordered, "out of order"),
        (samples.duplicated, "twice"),
        (samples.corrupted, "corrupted"),
    ):
        if count:
            remarks.append(f"{count} of {samples.sent} samples arrived {what}")
    if samples.early:
        remarks.append(
            f"{samples.early} of {samples.sent} samples were stamped before the last queue, because a program on this "
            "machine asks the kernel for time stamps (SO_TIMESTAMP: chronyd, systemd-timesyncd). Latency lacks that "
            "queue, and behind fastbridge/bpf the whole switch: stop the program, or compare pings"
        )
    if samples.missed:
        remarks.append(f"the receiver had no room for {samples.missed} of {samples.sent} samples")
    return remarks
