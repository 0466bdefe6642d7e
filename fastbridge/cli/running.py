"""A run, from its first frame to its end: what its switches do is reported, what its signals ask for is done."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import time
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

from fastbridge.errors import FastbridgeError
from fastbridge.waiting import wait_for

from .reports import Report, Reports
from .service import Service

if TYPE_CHECKING:
    from fastbridge.switch.config import Config
    from fastbridge.switch.config_apply import Configured
    from fastbridge.switch.helper import Helper
    from fastbridge.switch.live import Switch

_log = logging.getLogger(__name__)

# Between two looks at the links. Each holds the data plane for some microseconds.
_LOOK_SECONDS = 0.1
_STDIN = 0


class Running:
    """One switch of a run, and its report."""

    def __init__(self, switch: Switch, report: Report, configured: Configured) -> None:
        self.switch, self.report, self.configured = switch, report, configured
        self.links: dict[str, str] = {}  # the ports' states, as last reported

    def ready(self, metrics: str | None) -> None:
        """It forwards."""
        self.links = {port.name: "up" for port in self.switch.ports}
        self.report.ready(
            list(self.links), self.configured.config.match, self.switch.fast_path, self.switch.name, metrics
        )

    @property
    def waits(self) -> bool:
        """Whether interfaces may still come by themselves."""
        return bool(self.configured.config.match)

    def look(self) -> bool:
        """Report changes of links; returns whether there are any."""
        with self.switch.still():  # a port that is on its way out looks blocked
            before, self.links = self.links, {port.name: port.state for port in self.switch.ports}
        for name, link in {**dict.fromkeys(before, "gone"), **self.links}.items():
            if link != before.get(name):
                self.report.link(name, link)
        return self.links != before


class Signals:
    """Notes the signals that end a run, and, with a file to read again, SIGHUP.

    Signals ignored at the start stay ignored: SIGHUP under nohup, SIGINT in the background of a script. SIGTERM never
    is, and with a file SIGHUP is not either.
    """

    def __init__(self, reloads: bool, until_eof: bool) -> None:
        """until_eof: the end of stdin counts as one, too."""
        self.stop = False
        self.reload = False
        self._until_eof = until_eof
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if number == signal.SIGTERM or signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._end)
        if reloads:
            signal.signal(signal.SIGHUP, self._again)

    def look(self) -> None:
        """See whether stdin has ended. What comes by it says nothing."""
        if self._until_eof and wait_for(_STDIN, select.POLLIN, 0) and not os.read(_STDIN, 4096):
            self.stop = True

    def _end(self, number: int, frame: object) -> None:
        self.stop = True

    def _again(self, number: int, frame: object) -> None:
        self.reload = True


class Silence(contextlib.ExitStack):
    """Where the switches have no shield: settings of their interfaces, which are the next best."""

    def __init__(self, unshielded: str, names: Collection[str]) -> None:
        """unshielded: why there is no shield; "": there is one. names: the ports of all switches."""
        super().__init__()
        self._needed = bool(unshielded)
        self._silent: list[tuple[set[str], contextlib.ExitStack]] = []
        if self._needed:
            _log.warning(
                "nf_tables is not available (%s): interface settings keep the host silent instead, but it hears the "
                "pods",
                unshielded,
            )
            self.callback(self.follow, ())
            self.follow(names)

    def follow(self, names: Collection[str]) -> None:
        """These are the ports now."""
        if not self._needed:
            return
        from fastbridge.lab.silence import silence  # pyroute2 is slow to import

        fresh = set(names)
        for some, undo in list(self._silent):
            fresh -= some
            some &= set(names)
            if not some:
                undo.close()
        self._silent = [(some, undo) for some, undo in self._silent if some]
        if fresh:
            undo = contextlib.ExitStack()
            undo.enter_context(silence(sorted(fresh)))
            self._silent.append((fresh, undo))


def follow(
    running: Sequence[Running],
    reports: Reports,
    helper: Helper,
    silence: Silence,
    interval: float | None,
    signals: Signals,
    service: Service,
    read: Callable[[], Sequence[Config]],
) -> None:
    """Report changes of links, and counters every `interval`, until a signal comes or all interfaces are gone.

    read: gives the configuration of each switch as it is by then, for SIGHUP.
    """
    due = time.monotonic() + interval if interval else float("inf")
    service.ready()
    while not signals.stop and not _all_gone(running):
        reports.check()
        helper.check()
        signals.look()
        if signals.reload:
            signals.reload = False
            service.reloading()
            _reload(running, read)
            service.ready()
        if [one for one in running if one.look()]:  # each looks
            service.changed()
            silence.follow([name for one in running for name, link in one.links.items() if link != "gone"])
        if time.monotonic() >= due:
            for one in running:
                one.report.counters(one.switch.counters())
            due += interval or 0
        time.sleep(max(0.0, min(_LOOK_SECONDS, due - time.monotonic())))


def _reload(running: Sequence[Running], read: Callable[[], Sequence[Config]]) -> None:
    """Have all follow what their configuration says now, or none. Then the log says why."""
    from fastbridge.switch.config_apply import follow_together

    try:
        changes = follow_together([(one.configured, new) for one, new in zip(running, read(), strict=True)])
    except FastbridgeError as error:
        goes_on = "the switch goes on as it is" if len(running) == 1 else "the switches go on as they are"
        _log.error("%s; %s", error, goes_on)
        return
    for one, changed in zip(running, changes, strict=True):
        one.report.reloaded(changed)


def _all_gone(running: Sequence[Running]) -> bool:
    """Whether there were interfaces, and none is left, nor waited for."""
    return {link for one in running for link in one.links.values()} == {"gone"} and not any(
        one.waits for one in running
    )
