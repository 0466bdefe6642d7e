"""Search for throughput.

MLRsearch (RFC 9971) finds the highest loads that meet two goals at once: no loss (NDR), and a loss ratio of at most
0.5 % (PDR). A load meets a goal if at most half of its trials, by length, lose more: one hiccup of the machine decides
nothing. The result is the lower bound: a load that was measured and met the goal.

A load must also come out at the offered rate, to within the width of the search. In a short trial, large buffers take
the frames that the DUT cannot forward, and release them after the last frame was sent: in the end none is missing (see
`patterns.sustained`; trials of less than 0.2 s have no window that could show it).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from fastbridge.bench.tester.offer import Stream, steady
from fastbridge.bench.tester.trial import Trial
from fastbridge.errors import BenchError
from fastbridge.extras import way_to

from .measurer import Measurer
from .patterns import counted, loss_of, sampling, sustained

GOALS = {"ndr": 0.0, "pdr": 0.005}  #: loss ratio
EXCEED_RATIO = 0.5  # CSIT's, like all constants of the search that are not set here
LOWEST = 1e-3  # of the maximum load: a DUT that loses frames there has no throughput worth a search
FEWEST = 10  # frames a trial at maximum load must have
# A search visits about 25 loads for each goal. The library's own limit is a clock, and a replay would not stop where
# the run did.
MOST_DURATION_SUMS = 200


@dataclass(frozen=True)
class Bounds:
    """The bounds for a goal, frames/s."""

    lower: float | None  #: None: even the lowest load lost more
    upper: float | None  #: None: even the maximum load lost no more
    sent_short: bool  #: the tester set the upper bound: the DUT lost no more, but not all frames were offered


@dataclass
class Adapter:
    """A measurer in the shape that MLRsearch wants."""

    measurer: Measurer
    streams: tuple[Stream, ...]
    most_seconds: float
    library: ModuleType
    width: float  #: by which a window's rate may be less than the load, relative
    sampled: bool  #: whether samples tell the loss, because copies of flooded frames hide it
    seconds: float = 0.0
    trials: list[tuple[float, Trial]] = field(default_factory=list)

    def measure(self, intended_duration: float, intended_load: float) -> Any:
        """Run a trial. Frames that were intended and not offered count as lost: the load was not carried."""
        if self.seconds > self.most_seconds:
            raise BenchError(f"the search for throughput does not settle: {self.seconds:.0f} s of trials contradict")
        every = 0
        if self.sampled:
            every = sampling(intended_load, self.streams, intended_duration, self.measurer.ports)
        trial = self.measurer.trial(steady(self.streams, intended_duration, intended_load, sample=every))
        self.trials.append((intended_load, trial))
        length = max(trial.seconds, intended_duration)
        self.seconds += length
        return self.library.MeasurementResult(
            intended_duration,
            intended_load,
            intended_count=counted(trial.intended, "intended"),
            offered_count=counted(trial.offered, "sent"),
            forwarding_count=sustained(trial, self.width),
            duration_with_overheads=length,
        )

    def sent_short(self, load: float, loss_ratio: float) -> bool:
        """Whether no trial at this load lost more than this ratio of the offered frames."""
        return all(loss_of(trial, self.width) <= loss_ratio for tried, trial in self.trials if tried == load)


def search(
    measurer: Measurer,
    streams: tuple[Stream, ...],
    maximum: float,
    *,
    seconds: float,
    duration_sum: float,
    width: float,
    sampled: bool = False,
) -> dict[str, Bounds]:
    """The bounds of each goal, up to `maximum` frames/s over all streams.

    seconds: length of a trial; duration_sum: length of all trials of a load; width: relative distance of the bounds at
    the end; sampled: tell loss by samples.
    Raises BenchError when MLRsearch is missing, and for a maximum too low to tell loads apart.
    """
    library = _library()
    if maximum * seconds < FEWEST:
        raise BenchError(
            f"{maximum:.3g} frames/s are too few for a search by trials of {seconds:g} s: make them longer"
        )
    goals = {
        name: library.SearchGoal(
            loss_ratio=loss_ratio,
            exceed_ratio=EXCEED_RATIO,
            relative_width=width,
            initial_trial_duration=seconds,
            final_trial_duration=seconds,
            duration_sum=max(duration_sum, seconds),
            fail_fast=False,
        )
        for name, loss_ratio in GOALS.items()
    }
    config = library.Config()
    config.goals = goals.values()
    config.min_load = max(maximum * LOWEST, 1 / seconds)
    config.max_load = maximum
    config.search_duration_max = math.inf
    config.warmup_duration = None
    adapter = Adapter(measurer, streams, MOST_DURATION_SUMS * max(duration_sum, seconds), library, width, sampled)
    results = library.MultipleLossRatioSearch(config).search(adapter)
    return {name: _bounds(results[goal], adapter, GOALS[name]) for name, goal in goals.items()}


def _bounds(result: Any, adapter: Adapter, loss_ratio: float) -> Bounds:
    lower, upper = result.relevant_lower_bound, result.relevant_upper_bound
    return Bounds(
        None if lower is None else float(lower),
        None if upper is None else float(upper),
        upper is not None and adapter.sent_short(float(upper), loss_ratio),
    )


def _library() -> ModuleType:
    try:
        import MLRsearch
    except ImportError:
        raise BenchError(f"the search for throughput needs MLRsearch: {way_to('bench')}") from None
    module: ModuleType = MLRsearch
    return module
