"""Ratios with intervals.

Engines are compared block by block. Every engine runs once in a block, in random order, and a block's ratio to the
baseline is one observation. A slow drift of the machine changes both sides alike and cancels. The report quotes the
geometric mean of the ratios with a bootstrap interval over the blocks. The same statistic of one engine under two names
(the A/A control) is the noise floor: a smaller difference is no claim.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 10_000
# With fewer blocks a bootstrap interval is far too short: of two equal engines with 5 % noise, two blocks would name
# a winner in 8 % of all runs, five in 0.05 % (and ten in none of 2,000).
FEWEST_BLOCKS = 5
# "No difference" is a claim, too: no difference of more than SAME, or than the noise floor if that is larger. With a
# noise floor above COARSE nothing is called the same.
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
        """The largest departure from 1 that the interval of an A/A control allows."""
        return max(abs(self.low - 1.0), abs(self.high - 1.0))


def interleave(names: Sequence[str], blocks: int, seed: int) -> list[list[str]]:
    """The order of every block: each name once, shuffled for each block. The seed decides it."""
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
    """The word for a ratio.

    Win or loss: the whole interval lies outside 1 ± the noise floor. No difference: it lies within 1 ± the noise floor,
    or within 1 ± SAME. Otherwise the trials cannot tell.
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
