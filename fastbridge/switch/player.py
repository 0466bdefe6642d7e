"""Scenarios, played: each step is done when its time has come.

No frame waits for it. A running switch has a thread for each scenario. A switch in memory does what is due when its
clock is looked at.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from fastbridge.closes import Closes
from fastbridge.errors import FastbridgeError
from fastbridge.forks import in_child
from fastbridge.journal import Journal
from fastbridge.links.places import Place, spoken
from fastbridge.links.scenario import Scenario, Step
from fastbridge.links.units import show_time
from fastbridge.threads import start_thread

if TYPE_CHECKING:
    from .base import SwitchBase

_log = logging.getLogger(__name__)

_ENDS = {"down": "up", "cut": "mend", "reset": "mend"}


class Playing(Closes):
    """A scenario that is played. It ends with its last step, with close(), or with the switch.

    Links stay as they are then, but one that flaps is there again.
    """

    def __init__(self, scenario: Scenario, do: Callable[[Step], None], journal: Journal) -> None:
        self.scenario = scenario
        #: When it began, in ns by the switch's clock; None: it has not.
        self.began: int | None = None
        self._do, self._journal = do, journal
        self._moments = scenario.moments()
        self._next = next(self._moments, None)
        self._failed: dict[tuple[Place, str], None] = {}  # by flaps, each with what ends it
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        in_child(self, Playing._leave_to_parent)

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self._over.is_set()

    @property
    def next_step(self) -> Step | None:
        """What comes next; None: nothing."""
        return self._next

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it has ended, for so many seconds; returns whether it has. A flap, or `repeat`, has no end."""
        return self._over.wait(timeout)

    def close(self) -> None:
        """End it."""
        self._over.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
        for place, end in self._failed:
            self._try(Step(0, end, (place,)), f"scenario ended: {spoken(place)} {end}")
        self._failed.clear()

    @property
    def due(self) -> int:
        """When its next step is due, in ns by the switch's clock. There is one, and it has begun, unless it is over."""
        assert self._next is not None and self.began is not None
        return self.began + self._next.at

    def do_next(self) -> None:
        """Do the next step."""
        step, self._next = self._next, next(self._moments, None)
        assert step is not None
        for place in step.places:
            self._failed.pop((place, _ENDS.get(step.do, step.do)), None)
        if step.flaps and step.do in _ENDS:
            self._failed[step.places[0], _ENDS[step.do]] = None
        self._try(step, f"scenario at {show_time(step.at)}: {step}")
        if self._next is None:
            self._over.set()

    def start(self, clock: Callable[[], float]) -> None:
        """Have a thread do the steps at their times, from now on."""
        self.began = round(clock() * 1e9)

        def play() -> None:
            while not self.over:
                if not self._over.wait(self.due / 1e9 - clock()):
                    self.do_next()

        self._thread = start_thread("fastbridge-scenario", play)

    def _leave_to_parent(self) -> None:
        """In a forked child: what a thread plays is the parent's, and that thread may have held the lock of this.

        What is played in memory goes on in both.
        """
        over, self._over = self._over, threading.Event()
        if self._thread is not None:
            self._failed.clear()
        if self._thread is not None or over.is_set():
            self._over.set()

    def _try(self, step: Step, text: str) -> None:
        level = logging.INFO
        try:
            self._do(step)
        except FastbridgeError as error:  # such as a port that has gone meanwhile
            level, text = logging.WARNING, f"{text}: {error}; going on"
        self._journal.warn(_log, "steps of scenarios", text, level=level)


def do_step(switch: SwitchBase, step: Step) -> None:
    """Do what a step says. Raises FastbridgeError."""
    places = step.places
    if step.do == "set":
        switch.set_links(dict.fromkeys(places, step.value))
    elif step.do == "reset":
        switch.reset_links(places)
    elif step.do == "change":
        switch.change_links(places, step.value)
    elif step.do == "cut":
        switch.cut(*places, direction=step.value or "both")
    elif step.do == "mend":
        switch.mend(*places)
    elif step.do == "partition":
        switch.partition(step.value)
    elif step.do == "heal":
        switch.heal()
    else:
        for port in step.ports:
            switch.set_carrier(port, step.do == "up")
