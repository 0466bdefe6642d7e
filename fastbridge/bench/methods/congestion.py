"""Congestion control, RFC 2889 §5.5.

Port A sends half of its frames to C and half to D, port B all to C: C gets three quarters of the load, D one. In the
RFC, A and B send at line rate: C is offered 150 % of the rate that it can take, and D half. A veth has no line rate.
The rate that the DUT forwards to C alone stands for it. If the tester cannot overload C, the test shows nothing (the
Linux bridge does its work in the sender's own system call).

A software switch whose ports have separate limits (a thread or a queue each) loses nothing on D. If a single CPU does
all the work, no port has a limit of its own: the switch is overloaded as a whole, and D loses as much as C. For the
host behind D that looks like head-of-line blocking, but no queue design is to blame. A remark tells the two apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from typing import ClassVar

from fastbridge.bench.tester.offer import Stream, steady
from fastbridge.bench.tester.trial import Trial
from fastbridge.errors import BenchError

from . import Findings, Method
from .bounds import positive
from .measurer import Measurer
from .patterns import came_out, counted, forwarding_rate, full_load, of_port

A, B, C, D = range(4)
SHARE_OF_C = 0.75  # of the load
OVERLOAD = 1.5  # of the rate that can come out of C: the RFC's
APART = 1.1  # C must be overloaded by that before the DUT as a whole is, or its ports cannot be told apart
BOUNDING = 3  # trials of a bound
ALIKE = 0.9  # of C's loss: a DUT that is overloaded as a whole loses that much on D, too
HELD_BACK = 0.9  # of the intended load: a lower offered load was held back; the tester's maximum varies by some %


@dataclass(frozen=True)
class Congestion(Method):
    """Loss on D, which is not overloaded, while C is: head-of-line blocking; and a sender held back: back pressure.

    Unpaced trials, the median of three each, say how much comes out of C alone, and out of C and D. The load then
    offers C half as much again as it can take, or less where the DUT as a whole or the tester does not reach that.
    Back pressure is the ratio of that load the sender could not get rid of, though it could when the frames were for
    C and D alike.
    """

    name = "congestion"
    section = "RFC 2889 §5.5"
    units: ClassVar[Mapping[str, str]] = {
        "loss_d": "ratio",
        "loss_c": "ratio",
        "back_pressure": "ratio",
        "load": "frames/s",
        "rate_c": "frames/s",
        "rate_c_and_d": "frames/s",
    }
    primary = "loss_d"
    higher_is_better = False
    ports = 4

    sizes: tuple[int, ...] = (64,)
    seconds: float = 1.0

    def __post_init__(self) -> None:
        positive(self, "seconds")

    def run(self, measurer: Measurer) -> Findings:
        """Find the load that overloads C, then offer it."""
        one = self._bound(measurer, (Stream(A, (C,), self.sizes), Stream(B, (C,), self.sizes)))
        two = self._bound(measurer, (Stream(A, (D,), self.sizes), Stream(B, (C,), self.sizes)))
        values = {"rate_c": one.rate, "rate_c_and_d": two.rate}
        full = one.rate / SHARE_OF_C  # the load that just fills C
        are_apart = two.rate > APART * full
        load = min(OVERLOAD * full, two.rate if are_apart else two.offered_rate)
        if load <= full:
            return Findings(values, remarks=(_nothing(load),))
        trial = measurer.trial(steady((Stream(A, (C, D), self.sizes), Stream(B, (C,), self.sizes)), self.seconds, load))
        values |= {"load": load, "back_pressure": _held_back(trial)}
        values["loss_c"], loss_d = _losses(trial)
        if not values["loss_c"] and not values["back_pressure"]:
            return Findings(values, remarks=(_nothing(load),))
        values["loss_d"] = loss_d
        return Findings(values, remarks=tuple(_remarks(values, are_apart)))

    def _bound(self, measurer: Measurer, streams: tuple[Stream, ...]) -> _Bound:
        trials = [full_load(measurer, streams, self.seconds) for _ in range(BOUNDING)]
        offered = [counted(trial.offered_rate, "sent") for trial in trials]
        return _Bound(median(map(forwarding_rate, trials)), median(offered))


@dataclass(frozen=True)
class _Bound:
    """The rate that came out at full load, and the offered rate: frames/s."""

    rate: float
    offered_rate: float


def _losses(trial: Trial) -> tuple[float, float]:
    """Loss ratios of C and D; of A's frames the first goes to C, the second to D, and so on."""
    of_a = of_port(trial.sent, A, "sent")
    to_d = of_a // 2
    to_c = of_a - to_d + of_port(trial.sent, B, "sent")
    if not to_d:
        raise BenchError(f"{trial.offered} frames are too few to see congestion by")
    return max(0.0, 1 - came_out(trial, C, A) / to_c), max(0.0, 1 - came_out(trial, D, A) / to_d)


def _held_back(trial: Trial) -> float:
    offered = counted(trial.offered, "sent") / (trial.intended or 1)
    return 1 - offered if offered < HELD_BACK else 0.0


def _nothing(load: float) -> str:
    return f"{load:,.0f} frames/s do not overload C: nothing is shown"


def _remarks(values: Mapping[str, float], are_apart: bool) -> list[str]:
    remarks = []
    if values["loss_d"] and (not are_apart or values["loss_d"] >= ALIKE * values["loss_c"]):
        why = "C loses as much" if are_apart else "the ports have no limit of their own"
        remarks.append(
            f"{values['loss_d']:.2%} of the frames to D are lost, but {why}: it is the DUT as a whole that is "
            "overloaded, and that is no head-of-line blocking"
        )
    elif values["loss_d"]:
        remarks.append(f"head-of-line blocking: {values['loss_d']:.2%} of the frames to D are lost")
    else:
        remarks.append("no head-of-line blocking")
    if values["back_pressure"]:
        remarks.append(f"back pressure: {values['back_pressure']:.1%} of the intended frames were not offered")
    return remarks
