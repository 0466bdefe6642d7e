"""The link that a trial asks an engine to emulate, in plain numbers that any emulator has words for."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

from fastbridge.errors import ConfigError

_TAIL = 6.0  # standard deviations; beyond them is one frame of a thousand million


@dataclass(frozen=True)
class WantedLink:
    """A link one way, from port 0 to port 1. The way back stays as it is."""

    delay: float = 0.0  #: seconds
    jitter: float = 0.0  #: seconds: half the width of a uniform distribution, the standard deviation of a normal one
    distribution: Literal["uniform", "normal"] = "uniform"
    overtakes: bool = False  #: whether frames overtake each other where the jitter has it so
    loss: float = 0.0  #: ratio
    burst: float = 0.0  #: mean frames lost in a row, by Gilbert's model; 0: each frame is lost or not by itself
    rate: int = 0  #: bit/s of frames without FCS; 0: no limit
    limit: int = 0  #: bytes that may wait for the rate

    def __post_init__(self) -> None:
        numbers = (self.delay, self.jitter, self.loss, self.burst, self.rate, self.limit)
        if not all(math.isfinite(number) and number >= 0 for number in numbers):
            raise ConfigError("delay, jitter, loss, burst, rate and limit of a link must be finite and 0 or more")
        if self.loss >= 1 or 0 < self.burst < 1:
            raise ConfigError(f"a link loses less than all ({self.loss:g}), and 1 frame in a row or more")
        if self.burst and not self.loss:
            raise ConfigError("a link without loss has no bursts of it")
        if bool(self.rate) != bool(self.limit):
            raise ConfigError("rate and limit of a link belong together")

    def __str__(self) -> str:
        parts = []
        if self.delay or self.jitter:
            spread = f" ± {self.jitter * 1e3:g}" if self.jitter else ""
            parts.append(f"delay {self.delay * 1e3:g}{spread} ms")
        if self.jitter:
            parts += [self.distribution, "overtaking" if self.overtakes else "in order"]
        if self.loss:
            parts.append(f"loss {self.loss * 100:g} %" + (f" in bursts of {self.burst:g}" if self.burst else ""))
        if self.rate:
            parts.append(f"rate {self.rate / 1e6:g} Mb/s, queue {self.limit * 8e3 / self.rate:g} ms")
        return ", ".join(parts) or "no link"

    @property
    def wait(self) -> float:
        """Seconds that a frame waits for the rate where the queue is full."""
        return self.limit * 8 / self.rate if self.rate else 0.0

    @property
    def longest(self) -> float:
        """Seconds after which a frame has come out, if it does."""
        return self.delay + self.jitter * (_TAIL if self.distribution == "normal" else 1.0) + 2 * self.wait

    @property
    def leaving(self) -> tuple[float, float]:
        """Gilbert's model: probabilities to leave the state without loss, and the one in which all is lost."""
        back = 1 / self.burst
        return self.loss * back / (1 - self.loss), back

    def share_within(self, seconds: float) -> float:
        """The share of frames that should take so long or less, where they may overtake each other."""
        if not self.jitter:
            return float(seconds >= self.delay)
        if self.distribution == "normal":
            return NormalDist(self.delay, self.jitter).cdf(seconds)
        return min(1.0, max(0.0, (seconds - self.delay + self.jitter) / (2 * self.jitter)))
