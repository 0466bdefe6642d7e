"""How delays are spread: inverse CDFs as tables.

A table has the values of the inverse CDF at 0/4096 … 4096/4096, in 1/65536 of the jitter. The core draws a place and
interpolates. At an end where the inverse CDF is infinite, a table has what gives the last interval its right mean.
"""

from __future__ import annotations

import math
import re
from functools import cache, lru_cache
from pathlib import Path
from statistics import NormalDist, fmean, pstdev

from fastbridge.errors import ConfigError

from .files import read_text, stamp
from .stages import TABLE_STEPS

NAMES = ("uniform", "normal", "pareto")

_ONE = 65536  # the jitter
_NETEM_ONE = 8192  # … in a .dist file
_FEWEST_SAMPLES = 2
_PARETO_SHAPE = 3.0


def table(distribution: str) -> tuple[int, ...]:
    """The table of a distribution of NAMES, or of a file. Raises ConfigError."""
    if distribution in NAMES:
        return _named(distribution)
    return _from_file(distribution, stamp("distribution", distribution))


@cache
def _named(name: str) -> tuple[int, ...]:
    return _rounded({"uniform": _uniform, "normal": _normal, "pareto": _pareto}[name]())


def _rounded(values: list[float]) -> tuple[int, ...]:
    return tuple(round(value * _ONE) for value in values)


def _uniform() -> list[float]:
    """Delay - jitter … delay + jitter."""
    return [2 * i / TABLE_STEPS - 1 for i in range(TABLE_STEPS + 1)]


def _normal() -> list[float]:
    """The jitter is the standard deviation. The table ends at 4 of them."""
    normal = NormalDist()
    inner = [normal.inv_cdf(i / TABLE_STEPS) for i in range(1, TABLE_STEPS)]
    tail_mean = normal.pdf(inner[-1]) * TABLE_STEPS  # of what lies beyond
    end = 2 * tail_mean - inner[-1]
    return [-end, *inner, end]


def _pareto() -> list[float]:
    """A Pareto distribution of shape 3, moved and scaled: mean 0, and the jitter is its standard deviation."""
    a = _PARETO_SHAPE
    mean, deviation = a / (a - 1), math.sqrt(a / ((a - 1) ** 2 * (a - 2)))
    values = [(1 - i / TABLE_STEPS) ** (-1 / a) for i in range(TABLE_STEPS)]
    tail_mean = mean * values[-1]
    values.append(2 * tail_mean - values[-1])
    return [(value - mean) / deviation for value in values]


@lru_cache(maxsize=16)
def _from_file(path: str, version: object) -> tuple[int, ...]:
    """A table of netem (NAME.dist), or samples: any numbers. Errors quote no word: the asker may not read the file."""
    numbers = []
    for line, text in enumerate(read_text("distribution", path).splitlines(), 1):
        for word in re.split(r"[\s,;]+", text.partition("#")[0].strip()):
            if word:
                numbers.append(_number(word, f"{path}:{line}"))
    if len(numbers) < _FEWEST_SAMPLES:
        raise ConfigError(f"distribution: {path} must have two numbers or more, not {len(numbers)}")
    if Path(path).suffix == ".dist":
        return _resampled([number / _NETEM_ONE for number in sorted(numbers)], path)
    mean, deviation = fmean(numbers), pstdev(numbers)
    if not deviation:
        raise ConfigError(f"distribution: all numbers of {path} are the same: there is no jitter")
    return _resampled([(number - mean) / deviation for number in sorted(numbers)], path)


def _number(word: str, where: str) -> float:
    try:
        number = float(word)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ConfigError(f"distribution: {where}: a word is not a number; samples have no units")
    return number


def _resampled(values: list[float], path: str) -> tuple[int, ...]:
    """The inverse CDF of as many values as there are, by straight lines through them."""
    last = len(values) - 1
    points = []
    for i in range(TABLE_STEPS + 1):
        whole, part = divmod(i * last, TABLE_STEPS)
        low, high = values[whole], values[min(whole + 1, last)]
        points.append(low + (high - low) * part / TABLE_STEPS)
    if max(-points[0], points[-1]) >= (1 << 31) / _ONE:
        raise ConfigError(f"distribution: {path} has values more than {(1 << 31) // _ONE} times the jitter away")
    return _rounded(points)
