"""Broadcast frames, RFC 2889 §5.10."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from fastbridge.bench.tester.offer import Stream, steady
from fastbridge.errors import BenchError

from . import Findings, Method
from .bounds import positive, search_parameters, whole
from .latency import LOADS, PERCENTILES, irregular, percentiles_of
from .measurer import Measurer
from .patterns import full_load, loss_of, sampling, subject_of
from .throughput import Throughput, throughput_below


@dataclass(frozen=True)
class Broadcast(Method):
    """How fast one port can reach all others, and the latency of that.

    Rates count frames, not copies: they are the sender's, and each receiver's. A frame is lost if one copy is. Latency
    is that of all copies, at shares of the PDR (see `latency`).
    """

    name = "broadcast"
    section = "RFC 2889 §5.10"
    units: ClassVar[Mapping[str, str]] = {
        **Throughput.units,
        "loss": "ratio",
        **{f"{at}_{name}": "µs" for at in LOADS for name in PERCENTILES},
        "median": "frames/s → µs",
        "p99": "frames/s → µs",
    }
    primary = "ndr"

    ports: int = 4
    sizes: tuple[int, ...] = (64,)
    stream_seconds: float = 120.0  #: of a sampled trial
    seconds: float = 1.0  #: of the search, as of Throughput, and the next two
    duration_sum: float = 21.0
    width: float = 0.005

    def __post_init__(self) -> None:
        whole(self, ports=2)
        positive(self, "stream_seconds")
        search_parameters(self)

    @property
    def subject(self) -> str:
        """Frame size and port count."""
        return subject_of(self.sizes, f"{self.ports} ports")

    def run(self, measurer: Measurer) -> Findings:
        """Search, then one sampled trial for each load."""
        streams = (Stream(0, (), self.sizes),)
        full = full_load(measurer, streams, self.seconds)
        found = throughput_below(measurer, full, seconds=self.seconds, duration_sum=self.duration_sum, width=self.width)
        values, remarks = {**found.values, "loss": loss_of(full)}, list(found.remarks)
        if "pdr" not in values:
            return Findings(values, remarks=(*remarks, "no latency: there is no PDR to take shares of"))
        points = []
        for at, share in LOADS.items():
            load = share * values["pdr"]
            every = sampling(load, streams, self.stream_seconds, measurer.ports)
            trial = measurer.trial(steady(streams, self.stream_seconds, load, sample=every))
            if trial.samples is None or not trial.samples.received:
                raise BenchError(f"no sample arrived at {load:,.0f} frames/s: no latency")
            remarks += [f"at {load:,.0f} frames/s {text}" for text in irregular(trial.samples)]
            found_here = percentiles_of(trial.samples)
            values |= {f"{at}_{name}": value for name, value in found_here.items()}
            points.append((load, found_here))
        series = {
            "median": tuple((load, here["p50"]) for load, here in points),
            "p99": tuple((load, here["p99"]) for load, here in points),
        }
        return Findings(values, series, tuple(remarks))
