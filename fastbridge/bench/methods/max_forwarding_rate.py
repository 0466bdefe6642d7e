"""Maximum forwarding rate, RFC 2889 §5.6.

The other half of that section, forward pressure, sends with less than the legal gap between frames. A veth pair has
neither a gap nor a line rate, so there is nothing to press.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from fastbridge.bench.tester.offer import steady
from fastbridge.bench.tester.trial import Trial

from . import Findings, Method
from .bounds import positive, whole
from .measurer import Measurer
from .patterns import counted, forwarding_rate, full_load, gigabits, known_pattern, loss_of, streams_of


@dataclass(frozen=True)
class MaxForwardingRate(Method):
    """The peak of the forwarding rate over all loads, and the load at which it is reached.

    A DUT that does useless work in an overload forwards the most at some load below the maximum. Loads step down
    from there, until the next one is less than what has already been seen to come out: it cannot beat that.
    """

    name = "max-forwarding-rate"
    section = "RFC 2889 §5.6"
    units: ClassVar[Mapping[str, str]] = {
        "mfr": "frames/s",
        "mfr_gbps": "Gb/s",
        "mfr_load": "frames/s",
        "frmol": "frames/s",
        "max_offered": "frames/s",
        "forwarding_rate": "frames/s → frames/s",
    }
    primary = "mfr"

    sizes: tuple[int, ...] = (64,)
    pattern: str = "pair"
    seconds: float = 1.0
    steps: int = 20  #: from the maximum load to none

    def __post_init__(self) -> None:
        known_pattern(self.pattern)
        positive(self, "seconds")
        whole(self, steps=2)

    def run(self, measurer: Measurer) -> Findings:
        """The first trial is unpaced; x of the curve is the load as offered."""
        streams = streams_of(self.pattern, self.sizes)
        full = full_load(measurer, streams, self.seconds)
        maximum, frmol = _point(full)
        curve = [(maximum, frmol)]
        best = curve[0]
        for step in range(self.steps - 1, 0, -1):
            load = maximum * step / self.steps
            if load <= best[1]:
                break
            curve.append(_point(measurer.trial(steady(streams, self.seconds, load))))
            best = max(best, curve[-1], key=lambda point: point[1])
        values = {
            "mfr": best[1],
            "mfr_gbps": gigabits(best[1], self.sizes),
            "mfr_load": best[0],
            "frmol": frmol,
            "max_offered": maximum,
        }
        remarks = ("the tester cannot overload the DUT",) if loss_of(full) == 0.0 else ()
        return Findings(values, {"forwarding_rate": tuple(reversed(curve))}, remarks)


def _point(trial: Trial) -> tuple[float, float]:
    return counted(trial.offered_rate, "sent"), forwarding_rate(trial)
