"""Measurers run the trials.

A method sees only a measurer, and its findings depend only on the trials that this returns. So the trials can be
recorded, and the method can run again on the record: any machine can recompute a report's numbers from raw trials.
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
        """How many pods there are."""
        ...

    def trial(self, offer: Offer) -> Trial:
        """Run one trial; raise BenchError when the DUT has died or nothing arrives."""
        ...

    def restart(self) -> None:
        """Stop the DUT and start it again: its FDB is empty then."""
        ...


class Recorder:
    """Passes trials on, and keeps them."""

    def __init__(self, measurer: Measurer) -> None:
        self._measurer = measurer
        self.trials: list[Trial] = []

    @property
    def ports(self) -> int:
        """The pods of the measurer."""
        return self._measurer.ports

    def trial(self, offer: Offer) -> Trial:
        """Run one trial, and keep it."""
        self.trials.append(self._measurer.trial(offer))
        return self.trials[-1]

    def restart(self) -> None:
        """Restart the DUT."""
        self._measurer.restart()


class Replay:
    """Returns recorded trials in their order; raises BenchError if the method asks for another one."""

    def __init__(self, trials: Iterable[Trial], ports: int) -> None:
        self._trials: Iterator[tuple[int, Trial]] = enumerate(trials)
        self.ports = ports

    def trial(self, offer: Offer) -> Trial:
        """The next recorded trial."""
        number, trial = next(self._trials, (-1, None))
        if trial is None:
            raise BenchError("the record ends before the method does: it was interrupted")
        if not _is_same(trial.offer, offer):
            raise BenchError(f"trial {number} of the record is not the one its method asks for: another version's?")
        return trial

    def restart(self) -> None:
        """Nothing to do: the trials show its effect."""

    def finish(self) -> None:
        """Raise BenchError when trials are left that the method did not ask for."""
        if (left := sum(1 for _ in self._trials)) > 0:
            raise BenchError(f"{left} trials are on record that the method does not ask for: another version's?")


def _is_same(one: Offer, other: Offer) -> bool:
    # Searches compute loads with logarithms: another machine's last digit may differ.
    if len(one.phases) != len(other.phases):
        return False
    for phase, asked in zip(one.phases, other.phases, strict=True):
        if not math.isclose(phase.rate or 0.0, asked.rate or 0.0, rel_tol=1e-9):
            return False
    phases = zip(one.phases, other.phases, strict=True)
    return one == replace(other, phases=tuple(replace(asked, rate=phase.rate) for phase, asked in phases))
