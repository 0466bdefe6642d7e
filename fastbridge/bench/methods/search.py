"""Search for throughput.

MLRsearch (RFC 9971) finds the highest loads that meet two goals at once: no loss (NDR), and a loss ratio of at most
0.5 % (PDR). A load meets a goal when at most half of its trials, by length, lose more: one hiccup of the machine
decides nothing. What is reported is the lower bound: a load that was measured and met the goal.

A load must also come out at the rate at which it is offered, to within the search's own width: in a short trial
large buffers swallow what the DUT cannot forward, and give it back after the last frame was sent, so that none is
missing in the end (see `patterns.sustained`; trials of less than 0.2 s have no window to tell it by).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from fastbridge.bench.extras import way_to
from fastbridge.bench.tester.offer import Stream, steady
from fastbridge.bench.tester.trial import Trial
from fastbridge.errors import BenchError

from .measurer import Measurer
from .patterns import counted, loss_of, sampling, sustained

GOALS = {"ndr": 0.0, "pdr": 0.005}  #: loss ratio
EXCEED_RATIO = 0.5  # CSIT's, as the other constants of the search that are not set here
LOWEST = 1e-3  # of the maximum load: who loses frames there has no throughput worth a search
FEWEST = 10  # frames a trial at maximum load must have
# A search visits some 25 loads a goal. The library's own limit is a clock's: a replay would not stop where the run did.
MOST_DURATION_SUMS = 200


@dataclass(frozen=True)
class Bounds:
    """What was found for a goal, frames/s."""

    lower: float | None  #: None: even the lowest load lost more
    upper: float | None  #: None: even the maximum load lost no more
    sent_short: bool  #: the upper bound is the tester's: the DUT lost no more, but not all frames were offered


@dataclass
class Adapter:
    """Our measurer, as MLRsearch sees one."""

    measurer: Measurer
    streams: tuple[Stream, ...]
    most_seconds: float
    library: ModuleType
    width: float  #: by which a window's rate may be less than the load, relative
    sampled: bool  #: whether loss is to be told by samples, as copies of flooded frames hide it
    seconds: float = 0.0
    trials: list[tuple[float, Trial]] = field(default_factory=list)

    def measure(self, intended_duration: float, intended_load: float) -> Any:
        """Run a trial; frames that were intended and not offered count as lost (docs/methods.md)."""
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
        """Whether no trial at this load lost more than that of what it offered."""
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

    seconds: a trial's; duration_sum: of a load's trials together; width: of what remains between the bounds, relative;
    sampled: tell loss by samples.
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
