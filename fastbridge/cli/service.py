"""A run as a service: what the service manager hears of it."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from fastbridge.sd_notify import Notifier

if TYPE_CHECKING:
    from fastbridge.switch.live import Switch

_log = logging.getLogger(__name__)


class Service:
    """Tells the manager what a switch does, and that it is alive as long as its workers breathe.

    A manager that asked for it hears the latter twice in its time, from a thread that waits for nothing: what changes
    ports may take longer.
    """

    def __init__(self, notifier: Notifier, switch: Switch) -> None:
        self._notifier, self._switch = notifier, switch
        self._ends = threading.Event()
        self._watching: threading.Thread | None = None

    def ready(self) -> None:
        """It forwards, by a new configuration, too."""
        self._notifier.ready(self._status())
        if self._notifier.watchdog is not None and self._watching is None:
            interval = self._notifier.watchdog / 2
            self._watching = threading.Thread(
                target=self._watch, args=(interval,), name="fastbridge-watchdog", daemon=True
            )
            self._watching.start()

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
        before: tuple[int, ...] = (-1,) * self._switch.options.workers
        while not self._ends.is_set():
            now = self._switch.breaths()
            stuck = [str(n) for n, (was, breaths) in enumerate(zip(before, now, strict=True)) if was == breaths]
            if stuck:
                _log.error("worker %s is stuck; the service manager hears nothing", ", ".join(stuck))
            else:
                self._notifier.ping()
            before = now
            self._ends.wait(interval)

    def _status(self) -> str:
        ports = self._switch.ports
        up = sum(port.state == "up" for port in ports)
        return f"forwarding, {up} of {len(ports)} ports up, fast path {self._switch.fast_path}"
