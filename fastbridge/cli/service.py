"""A run as a service: what the service manager hears of it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fastbridge.sd_notify import Notifier
from fastbridge.threads import start_thread

if TYPE_CHECKING:
    from fastbridge.switch.live import Switch

_log = logging.getLogger(__name__)


class Service:
    """Tells the manager what a run's switches do, and that it is alive as long as their workers breathe.

    A manager that asked for it hears the latter twice in its time, from a thread that waits for nothing: what changes
    ports may take longer.
    """

    def __init__(self, notifier: Notifier, switches: Sequence[Switch]) -> None:
        self._notifier, self._switches = notifier, switches
        self._ends = threading.Event()
        self._watching: threading.Thread | None = None

    def ready(self) -> None:
        """It forwards, by a new configuration, too."""
        self._notifier.ready(self._status())
        if self._notifier.watchdog is not None and self._watching is None:
            interval = self._notifier.watchdog / 2
            self._watching = start_thread("fastbridge-watchdog", self._watch, interval)

    def reloading(self) -> None:
        """It reads its configuration again; ready() must follow."""
        self._notifier.reloading()

    def changed(self) -> None:
        """Ports have come or gone, or their links."""
        self._notifier.status(self._status())

    def stopping(self) -> None:
        """It ends now. Nothing follows."""
        self._ends.set()
        if self._watching is not None:
            self._watching.join()
        self._notifier.stopping()
        self._notifier.close()

    def _watch(self, interval: float) -> None:
        before = [-1 for switch in self._switches for _ in range(switch.options.workers)]
        while not self._ends.is_set():
            now = [breaths for switch in self._switches for breaths in switch.breaths()]
            stuck = [str(n) for n, (was, breaths) in enumerate(zip(before, now, strict=True)) if was == breaths]
            if stuck:
                _log.error("worker %s is stuck; the service manager hears nothing", ", ".join(stuck))
            else:
                self._notifier.ping()
            before = now
            self._ends.wait(interval)

    def _status(self) -> str:
        ports = [port for switch in self._switches for port in switch.ports]
        up = sum(port.state == "up" for port in ports)
        several = f"{len(self._switches)} switches, " if len(self._switches) > 1 else ""
        return f"forwarding, {several}{up} of {len(ports)} ports up, fast path {self._switches[0].fast_path}"
