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
from fastbridge.journal import Journal
from fastbridge.links.scenario import Scenario, Step
from fastbridge.links.units import show_time

if TYPE_CHECKING:
    from .base import SwitchBase

_log = logging.getLogger(__name__)


class Playing(Closes):
    """A scenario that is played. It ends with its last step, with close(), or with the switch.

    Links stay as they are then: close() undoes no step.
    """

    def __init__(self, scenario: Scenario, do: Callable[[Step], None], journal: Journal) -> None:
        self.scenario = scenario
        self._do, self._journal = do, journal
        self._moments = scenario.moments()
        self._next = next(self._moments, None)
        #: When it began, in ns by the switch's clock.
        self.began = 0
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self._over.is_set()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it has ended, for so many seconds; returns whether it has. A flap, or `repeat`, has no end."""
        return self._over.wait(timeout)

    def close(self) -> None:
        """End it. A step that is being done is done to its end."""
        self._over.set()
        if self._thread not in (None, threading.current_thread()):
            self._thread.join()

    @property
    def due(self) -> int:
        """When its next step is due, in ns by the switch's clock. There is one unless it is over."""
        assert self._next is not None
        return self.began + self._next.at

    def do_next(self) -> None:
        """Do the next step."""
        step, self._next = self._next, next(self._moments, None)
        assert step is not None
        text = f"scenario at {show_time(step.at)}: {step}"
        try:
            self._do(step)
        except FastbridgeError as error:  # such as a port that has gone meanwhile
            text += f": {error}; going on"
        self._journal.warn(_log, "steps of scenarios", text)
        if self._next is None:
            self._over.set()

    def start(self, clock: Callable[[], float]) -> None:
        """Have a thread do the steps at their times, from now on."""
        self.began = round(clock() * 1e9)

        def play() -> None:
            while not self.over:
                if not self._over.wait(self.due / 1e9 - clock()):
                    self.do_next()

        self._thread = threading.Thread(target=play, name="fastbridge-scenario", daemon=True)
        self._thread.start()


def do_step(switch: SwitchBase, step: Step) -> None:
    """Do what a step says. Raises FastbridgeError."""
    places = step.places
    if step.do == "set":
        switch.set_links(dict.fromkeys(places, step.value))
    elif step.do == "reset":
        switch.set_links(dict.fromkeys(places))
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
