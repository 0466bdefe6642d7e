"""Waits: how long frames waited for a policy."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from typing import NamedTuple

#: Upper bounds of the classes that waits are counted in, seconds.
BOUNDS = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)


class Waits(NamedTuple):
    """Frames by how long they waited, from their arrival in the core until what became of them was ordered."""

    counts: tuple[int, ...] = (0,) * (len(BOUNDS) + 1)  #: by class, not cumulative; the last has no bound
    seconds: float = 0.0  #: of all frames


class WaitCounter:
    """Counts waits. One thread notes them, any other may read them."""

    def __init__(self) -> None:
        self.waits = Waits()

    def note(self, since: Iterable[int], now: int) -> None:
        """Frames that arrived then are decided now, ns."""
        counts, seconds = list(self.waits.counts), self.waits.seconds
        for began in since:
            waited = (now - began) * 1e-9
            counts[bisect_left(BOUNDS, waited)] += 1
            seconds += waited
        self.waits = Waits(tuple(counts), seconds)
