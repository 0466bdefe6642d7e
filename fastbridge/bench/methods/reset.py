"""Reset, RFC 6201.

The DUT's program is restarted under load: once it is asked to stop, and once it is killed.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from fastbridge.bench.tester.offer import Offer, Phase, Restart, steady
from fastbridge.bench.tester.trial import Trial

from . import Findings, Method
from .bounds import positive, whole
from .measurer import Measurer
from .patterns import counted, forwarding_rate, full_load, sampling, streams_of

SHARE = 0.5  # of the rate at full load; at throughput, frames lost to noise would count as outage
RESTARTS: tuple[Restart, ...] = ("graceful", "killed")


@dataclass(frozen=True)
class Reset(Method):
    """How long the DUT forwards nothing when its process is reset (RFC 6201 §4.2), by both methods of §1.3.

    By loss: frames lost over the rate at which they were offered. By time: the longest gap between two samples.
    """

    name = "reset"
    section = "RFC 6201 §4.2"
    units: ClassVar[Mapping[str, str]] = {f"{restart}_{by}": "s" for restart in RESTARTS for by in ("loss", "gap")}
    primary = "graceful_loss"
    higher_is_better = False

    sizes: tuple[int, ...] = (64,)
    seconds: float = 60.0  #: of a trial; the restart is half way
    repeats: int = 3
    full_seconds: float = 1.0  #: of the unpaced trial before

    def __post_init__(self) -> None:
        positive(self, "seconds", "full_seconds")
        whole(self, repeats=1)

    def run(self, measurer: Measurer) -> Findings:
        """A trial without a restart for comparison, then `repeats` trials with each kind of restart."""
        streams = streams_of("pair", self.sizes)
        load = SHARE * forwarding_rate(full_load(measurer, streams, self.full_seconds))
        calm = measurer.trial(steady(streams, self.full_seconds, load))
        remarks = []
        if calm.loss_ratio:
            remarks.append(f"{calm.loss_ratio:.2%} of the frames are lost without any reset; they count as outage here")
        values = {}
        for restart in RESTARTS:
            every = sampling(load, streams, self.seconds, measurer.ports)
            offer = Offer(streams, (Phase(self.seconds, load),), sample=every, restart=restart)
            trials = [measurer.trial(offer) for _ in range(self.repeats)]
            losses = [_lost_seconds(trial) for trial in trials]
            values[f"{restart}_loss"] = statistics.fmean(losses)
            if max(losses) > 0.98 * self.seconds / 2:
                remarks.append(
                    f"{restart}: forwarded nothing until the end; the outage is {self.seconds / 2:g} s or more"
                )
            else:
                gaps = [trial.samples.longest_gap for trial in trials if trial.samples]
                values[f"{restart}_gap"] = statistics.fmean(gaps)
        return Findings(values, remarks=tuple(remarks))


def _lost_seconds(trial: Trial) -> float:
    """Frames lost over the rate offered (RFC 6201 §1.3.1)."""
    return counted(trial.loss_ratio, "received") * trial.seconds
