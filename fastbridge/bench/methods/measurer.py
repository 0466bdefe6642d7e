"""Who runs the trials.

A method sees nothing of the machine but a measurer, and is a function of what it returns. So it can be
recorded, and run again on the record: a report's numbers are recomputed from raw trials by the very method
that asked for them, on any machine.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Protocol

from fastbridge.bench.tester.offer import Offer
from fastbridge.bench.tester.trial import Trial
from fastbridge.errors import BenchError


class Measurer(Protocol):
    """A DUT with pods around it."""

    @property
    def ports(self) -> int:
        """How many there are."""
        ...

    def trial(self, offer: Offer) -> Trial:
        """Run one trial; raise BenchError when the DUT has died or nothing arrives."""
        ...

    def restart(self) -> None:
        """Give the DUT an empty FDB: by stopping it and starting it again."""
        ...


class Recorder:
    """Passes trials through, and keeps them."""

    def __init__(self, measurer: Measurer) -> None:
        self._measurer = measurer
        self.trials: list[Trial] = []

    @property
    def ports(self) -> int:
        """The measurer's."""
        return self._measurer.ports

    def trial(self, offer: Offer) -> Trial:
        """The measurer's, kept."""
        self.trials.append(self._measurer.trial(offer))
        return self.trials[-1]

    def restart(self) -> None:
        """The measurer's."""
        self._measurer.restart()


class Replay:
    """Gives recorded trials again, in their order; raises BenchError where another one is asked for."""

    def __init__(self, trials: Iterable[Trial], ports: int) -> None:
        self._trials: Iterator[tuple[int, Trial]] = enumerate(trials)
        self.ports = ports

    def trial(self, offer: Offer) -> Trial:
        """The next one on record."""
        number, trial = next(self._trials, (-1, None))
        if trial is None:
            raise BenchError("the record ends before the method does: it was interrupted")
        if not _is_same(trial.offer, offer):
            raise BenchError(f"trial {number} of the record is not the one its method asks for: another version's?")
        return trial

    def restart(self) -> None:
        """Nothing to do: what came of it is in the trials."""

    def finish(self) -> None:
        """Raise BenchError when trials are left that the method did not ask for."""
        if (left := sum(1 for _ in self._trials)) > 0:
            raise BenchError(f"{left} trials are on record that the method does not ask for: another version's?")


def _is_same(one: Offer, other: Offer) -> bool:
    # Loads are computed, by searches with logarithms: another machine's last digit may differ.
    if len(one.phases) != len(other.phases):
        return False
    for mine, its in zip(one.phases, other.phases, strict=True):
        if not math.isclose(mine.rate or 0.0, its.rate or 0.0, rel_tol=1e-9):
            return False
    return one == replace(
        other, phases=tuple(replace(its, rate=mine.rate) for mine, its in zip(one.phases, other.phases, strict=True))
    )
