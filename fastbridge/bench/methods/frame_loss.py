"""Frame loss rate, RFC 2544 §26.3."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from fastbridge.bench.tester.offer import steady
from fastbridge.bench.tester.trial import Trial

from . import Findings, Method
from .bounds import positive, whole
from .measurer import Measurer
from .patterns import counted, full_load, known_pattern, loss_of, streams_of


@dataclass(frozen=True)
class FrameLoss(Method):
    """Loss ratio from the maximum offered load down in equal steps, until two trials in a row lose nothing.

    What only buffers hold until after the trial counts as lost (see `patterns.sustained`).
    """

    name = "frame-loss"
    section = "RFC 2544 §26.3"
    units: ClassVar[Mapping[str, str]] = {
        "loss_free": "frames/s",
        "loss_at_max": "ratio",
        "max_offered": "frames/s",
        "loss": "frames/s → ratio",
    }
    primary = "loss_free"

    sizes: tuple[int, ...] = (64,)
    pattern: str = "pair"
    seconds: float = 60.0
    steps: int = 10  #: from 100 % to none: 10 are the RFC's fewest

    def __post_init__(self) -> None:
        known_pattern(self.pattern)
        positive(self, "seconds")
        whole(self, steps=2)

    def run(self, measurer: Measurer) -> Findings:
        """The unpaced trial is that at 100 %; loads are as offered, and the lower of the last two loses nothing."""
        streams = streams_of(self.pattern, self.sizes)
        full = full_load(measurer, streams, self.seconds)
        curve = [_point(full)]
        for step in range(self.steps - 1, 0, -1):
            load = curve[0][0] * step / self.steps
            curve.append(_point(measurer.trial(steady(streams, self.seconds, load))))
            if curve[-1][1] == curve[-2][1] == 0.0:
                break
        values = {"max_offered": curve[0][0], "loss_at_max": curve[0][1]}
        remarks: tuple[str, ...] = ()
        if curve[-1][1] == curve[-2][1] == 0.0:
            values["loss_free"] = curve[-2][0]
        else:
            remarks = (f"no two trials in a row without loss, down to {curve[-1][0]:,.1f} frames/s",)
        if curve[0][1] == 0.0:
            remarks = ("no loss even at the most the tester can offer",)
        return Findings(values, {"loss": tuple(reversed(curve))}, remarks)


def _point(trial: Trial) -> tuple[float, float]:
    return counted(trial.offered_rate, "sent"), loss_of(trial)
