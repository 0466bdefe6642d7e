"""A clock of work: what the benchmarks share whose rounds are not timed by the wall clock."""

from __future__ import annotations

from typing import Any

Figures = dict[str, "float | int | list[float]"]  #: by label; a list is a ratio and its interval


class Work:
    """The clock of these benchmarks: a round's time is what was measured in it, not how long it took."""

    seconds = 0.0

    @classmethod
    def time(cls) -> float:
        return cls.seconds


def record(benchmark: Any, samples: list[float], what: str, figures: Figures) -> None:
    """Give the benchmark rounds of these lengths, and its row these figures."""
    left = iter(samples)

    def one() -> None:
        Work.seconds += next(left)

    benchmark.pedantic(one, rounds=len(samples))
    benchmark.extra_info.update(what=what, figures=figures)
