"""What one direction of a link does, in pure numbers: what the core takes.

The stages are netem's, in its order: loss and duplication, corruption, a queue with a limit, rate, delay and jitter.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass

from fastbridge.errors import ConfigError

# The core's own figures. Words are read where no core is needed, and its import takes a fifth of a second.
TABLE_STEPS = 4096  #: A table of delays has one value more.
POOL_BYTES = 256 << 20  #: What the frames in flight of one worker may take.

MOST_RATE = 10**12  #: bit/s
MOST_TIME = 3600 * 10**9  #: ns
MOST_OVERHEAD = 65535  #: bytes a frame

Bursts = tuple[float, float, float, float]
Step = tuple[int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stages:
    """One direction of a link. Raises ConfigError.

    Probabilities are 0 … 1, times ns, rates bit/s, sizes bytes. 0 and () stand for: it does nothing.
    """

    seed: int = 0  #: 64 bit
    cut: bool = False  #: nothing passes
    loss: float = 0.0
    bursts: Bursts | None = None  #: Gilbert-Elliott: P(good → bad), P(bad → good), loss in good, loss in bad
    lose_every: int = 0
    lose_frames: tuple[int, ...] = ()  #: counted from 1, ascending
    duplicate: float = 0.0
    corrupt: float = 0.0
    reorder: float = 0.0  #: of frames that take no delay
    keeps_order: bool = True
    rate: int = 0  #: 0: no limit
    overhead: int = 0  #: what a frame takes on the wire beside its length without FCS
    limit_bytes: int = 0
    limit_ns: int = 0
    limit_frames: int = 0
    delay_ns: int = 0
    jitter_ns: int = 0
    table: tuple[int, ...] = ()  #: the inverse CDF at 0/4096 … 4096/4096, in 1/65536 of the jitter
    steps: tuple[Step, ...] = ()  #: from when, rate (-1: `rate`; 0: nothing leaves), delay (-1: `delay_ns`)
    period_ns: int = 0  #: the steps repeat after it; 0: the last one stays

    def __post_init__(self) -> None:
        self._check_range("seed", self.seed, (1 << 64) - 1)
        for name in ("loss", "duplicate", "corrupt", "reorder"):
            self._check_range(name, getattr(self, name), 1)
        for probability in self.bursts or ():
            self._check_range("each of bursts", probability, 1)
        self._check_range("rate", self.rate, MOST_RATE)
        self._check_range("overhead", self.overhead, MOST_OVERHEAD)
        for name in ("delay_ns", "jitter_ns"):
            self._check_range(name, getattr(self, name), MOST_TIME)
        for name in ("lose_every", "limit_bytes", "limit_ns", "limit_frames", "period_ns"):
            self._check_range(name, getattr(self, name), (1 << 63) - 1)
        if self.lose_frames and (self.lose_frames[0] < 1 or not _ascends(self.lose_frames)):
            raise ConfigError("lose_frames must ascend, from 1")
        self._check_table()
        self._check_steps()

    def seeded(self, seed: int) -> Stages:
        """The same with another seed. Nothing else is checked again: links by the hundred thousand differ in it."""
        other = copy(self)
        self._check_range("seed", seed, (1 << 64) - 1)
        object.__setattr__(other, "seed", seed)
        return other

    @staticmethod
    def _check_range(name: str, value: float, most: int) -> None:
        if not 0 <= value <= most:
            raise ConfigError(f"{name} must be 0 … {most}, not {value}")

    def _check_table(self) -> None:
        if self.jitter_ns and not self.table:
            raise ConfigError("jitter_ns needs a table")
        if not self.table:
            return
        if len(self.table) != TABLE_STEPS + 1:
            raise ConfigError(f"table must have {TABLE_STEPS + 1} values, not {len(self.table)}")
        if list(self.table) != sorted(self.table):
            raise ConfigError("table must not descend")
        widest = max(-self.table[0], self.table[-1])
        if widest >= 1 << 31 or widest * max(self.jitter_ns, 1) >= 1 << 62:
            raise ConfigError(f"table: {widest / 65536:.0f} times the jitter is too far away")

    def _check_steps(self) -> None:
        if not self.steps:
            if self.period_ns:
                raise ConfigError("period_ns needs steps")
            return
        times = [at for at, _, _ in self.steps]
        if times[0] != 0 or not _ascends(times):
            raise ConfigError("steps must ascend, from 0 ns")
        if self.period_ns and self.period_ns <= times[-1]:
            raise ConfigError(f"period_ns must be longer than the last step's start, {times[-1]} ns")
        rates = {rate for _, rate, _ in self.steps}
        delays = {delay for _, _, delay in self.steps}
        for name, values, most in (("rate", rates, MOST_RATE), ("delay", delays, MOST_TIME)):
            if min(values) < -1 or max(values) > most:
                raise ConfigError(f"a step's {name} must be -1 … {most}, not {min(values)} … {max(values)}")
        if -1 in rates and len(rates) > 1 and not self.rate:
            raise ConfigError("steps must all have a rate, or none, or the link must have one")
        if rates == {0}:
            raise ConfigError("steps without any rate let nothing leave; say cut")


def _ascends(numbers: Sequence[int]) -> bool:
    return list(numbers) == sorted(set(numbers))
