"""System recovery, RFC 2544 §26.5."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from fastbridge.bench.tester.offer import Offer, Phase

from . import Findings, Method
from .bounds import positive, search_parameters, whole
from .measurer import Measurer
from .patterns import sampling, streams_of
from .throughput import Throughput

OVERLOAD = 1.1  # of the throughput


@dataclass(frozen=True)
class Recovery(Method):
    """The time from the end of an overload to the last lost frame: 110 % of throughput, then half of that.

    The load changes without a pause, and the last lost frame is the last lost sample: about 10,000 a second. A DUT
    that the tester cannot overload has nothing to recover from, and no number.
    """

    name = "recovery"
    section = "RFC 2544 §26.5"
    units: ClassVar[Mapping[str, str]] = {"recovery": "s", "longest": "s", **Throughput.units}
    primary = "recovery"
    higher_is_better = False

    sizes: tuple[int, ...] = (64,)
    overload_seconds: float = 60.0
    relief_seconds: float = 60.0
    repeats: int = 3
    seconds: float = 1.0  #: of the search for throughput, and the next two
    duration_sum: float = 21.0
    width: float = 0.005

    def __post_init__(self) -> None:
        positive(self, "overload_seconds", "relief_seconds")
        whole(self, repeats=1)
        search_parameters(self)

    def run(self, measurer: Measurer) -> Findings:
        """Search for throughput, then overload `repeats` times."""
        search = Throughput(self.sizes, "pair", self.seconds, self.duration_sum, self.width).run(measurer)
        values, remarks = dict(search.values), list(search.remarks)
        if "ndr" not in values:
            return Findings(values, remarks=(*remarks, "no recovery time: no throughput to begin from"))
        load = min(OVERLOAD * values["ndr"], values["max_offered"])
        streams = streams_of("pair", self.sizes)
        phases = (Phase(self.overload_seconds, load), Phase(self.relief_seconds, load / 2))
        seconds = self.overload_seconds + self.relief_seconds
        offer = Offer(streams, phases, sample=sampling(load, streams, seconds, measurer.ports))
        trials = [measurer.trial(offer) for _ in range(self.repeats)]
        lost = [trial.samples.last_lost for trial in trials if trial.samples and trial.samples.last_lost is not None]
        if not lost:
            text = f"no recovery time: no sample was lost at {load:,.0f} frames/s, the DUT was not overloaded"
            return Findings(values, remarks=(*remarks, text))
        if len(lost) < len(trials):
            remarks.append(f"{len(trials) - len(lost)} of {len(trials)} overloads lost no sample, and do not count")
        if missed := sum(trial.samples.missed for trial in trials if trial.samples):
            remarks.append(f"the receiver had no room for {missed} samples, which count as lost by the DUT")
        times = [max(0.0, time - self.overload_seconds) for time in lost]
        if max(times) > 0.98 * self.relief_seconds:
            remarks.append(
                f"frames are still being lost at the end: recovery takes more than {self.relief_seconds:g} s"
            )
        values |= {"recovery": statistics.fmean(times), "longest": max(times)}
        return Findings(values, remarks=tuple(remarks))
