"""Stations learned and looked for.

RFC 2889 §5.7 and §5.8 share this: many addresses behind a learning port send a frame each, then a test port sends one
to each of them, and a third port watches. A frame that it sees was flooded: the DUT does not know that address.
"""

from __future__ import annotations

from dataclasses import dataclass

from fastbridge.bench.tester.offer import Offer, Phase, Stream
from fastbridge.bench.tester.trial import Trial
from fastbridge.errors import BenchError

from .measurer import Measurer
from .patterns import came_out, counted, of_port

LEARNING, TEST, MONITOR = range(3)  # ports
PORTS = 3


@dataclass(frozen=True)
class LookupTrials:
    """A trial in which addresses were learned, and one that looked for them."""

    learning: Trial
    test: Trial

    @property
    def count(self) -> int:
        """How many addresses were looked for."""
        return of_port(self.test.sent, TEST, "sent")

    @property
    def known(self) -> int:
        """How many of them the DUT knew: their frames came out of the learning port only."""
        return max(0, min(self.count, came_out(self.test, LEARNING, TEST)) - came_out(self.test, MONITOR, TEST))

    @property
    def flooded(self) -> float:
        """Ratio of their frames that the monitor port saw."""
        return min(1.0, came_out(self.test, MONITOR, TEST) / self.count) if self.count else 0.0

    @property
    def lost(self) -> int:
        """Frames of both trials that were intended and did not come out."""
        learning = counted(self.learning.intended, "intended") - came_out(self.learning, TEST, LEARNING)
        return max(0, learning) + max(0, counted(self.test.intended, "intended") - came_out(self.test, LEARNING, TEST))

    @property
    def is_complete(self) -> bool:
        """Whether every address was always known, the test port's too, and no frame was lost."""
        return not (self.lost or self.flooded or came_out(self.learning, MONITOR, LEARNING))


def look_up(measurer: Measurer, count: int, learning_rate: float | None, test_rate: float) -> LookupTrials:
    """Let an empty DUT learn `count` addresses at one rate (None: at full speed), and look for them at another.

    Raise BenchError if no frame gets through.
    """
    measurer.restart()
    measurer.trial(_burst(Stream(TEST, (LEARNING,)), 1, test_rate))  # so the DUT knows where learning frames go
    learning = measurer.trial(_burst(Stream(LEARNING, (TEST,), sources=count), count, learning_rate))
    test = measurer.trial(_burst(Stream(TEST, (LEARNING,), targets=count), count, test_rate))
    if not came_out(learning, TEST, LEARNING) and not came_out(test, LEARNING, TEST):
        raise BenchError(f"the DUT forwarded none of {count:,} frames")
    return LookupTrials(learning, test)


def _burst(stream: Stream, frames: int, rate: float | None) -> Offer:
    return Offer((stream,), (Phase(frames=frames, rate=rate),), learn=False)
