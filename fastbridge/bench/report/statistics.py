"""Ratios with intervals.

Engines are compared block by block: every engine runs once a block, in random order, and a block's
ratio to the baseline is one observation. Slow drift of the machine hits both sides of it alike and
cancels. The ratios' geometric mean is quoted with a bootstrap interval over the blocks, and the same
statistic of one engine under two names (the A/A control) is the noise floor no claim may fall under.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 10_000
# With fewer blocks a bootstrap interval is far too short: of two equal engines with 5 % noise, two blocks would name
# a winner in 8 % of all runs, five in 0.05 % (and ten, as docs/methods.md asks for claims, in none of 2,000).
FEWEST_BLOCKS = 5
# "No difference" is a claim, too: that there is none of more than SAME, or than the noise floor where that is larger.
# Where it is larger than COARSE nothing is said to be the same.
SAME, COARSE = 0.05, 0.10


@dataclass(frozen=True)
class Ratio:
    """Geometric mean of per-block ratios to the baseline, with its 95 % bootstrap interval."""

    mean: float
    low: float
    high: float
    blocks: int

    @property
    def noise_floor(self) -> float:
        """Of an A/A control: the largest departure from 1 its interval allows."""
        return max(abs(self.low - 1.0), abs(self.high - 1.0))


def interleave(names: Sequence[str], blocks: int, seed: int) -> list[list[str]]:
    """The order of every block: each name once, shuffled anew; the same for the same seed."""
    generator = random.Random(seed)  # noqa: S311 - an order, no secret
    return [generator.sample(names, len(names)) for _ in range(blocks)]


def ratio(values: Mapping[int, float], baseline: Mapping[int, float], *, seed: int) -> Ratio | None:
    """Compare `values` with `baseline`, both by block, over the blocks in which both are above zero.

    None when there are fewer than FEWEST_BLOCKS of them.
    """
    common = [block for block in sorted(values) if values[block] > 0 and baseline.get(block, 0) > 0]
    if len(common) < FEWEST_BLOCKS:
        return None
    logs = np.log([values[block] / baseline[block] for block in common])
    generator = np.random.default_rng(seed)
    means = logs[generator.integers(len(logs), size=(RESAMPLES, len(logs)))].mean(axis=1)
    low, high = np.exp(np.percentile(means, [2.5, 97.5]))
    return Ratio(float(np.exp(logs.mean())), float(low), float(high), len(common))


def verdict(measured: Ratio | None, noise_floor: float | None, *, higher_is_better: bool = True) -> str:
    """Say win or loss only where the whole interval lies outside 1 ± the noise floor.

    And "no difference" only where it lies within that, or within 1 ± SAME: else it is that the trials cannot tell.
    """
    if measured is None or noise_floor is None:
        return "not measured"
    if measured.low > 1.0 + noise_floor:
        return "win" if higher_is_better else "loss"
    if measured.high < 1.0 - noise_floor:
        return "loss" if higher_is_better else "win"
    bound = max(SAME, noise_floor)
    is_same = noise_floor <= COARSE and 1.0 - bound <= measured.low and measured.high <= 1.0 + bound
    return "no difference" if is_same else "cannot tell"
