"""A run as a service: what the service manager hears of it."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from fastbridge.sd_notify import Notifier

if TYPE_CHECKING:
    from fastbridge.switch.live import Switch

_log = logging.getLogger(__name__)


class Service:
    """Tells the manager what a switch does, and that it is alive as long as its workers breathe."""

    def __init__(self, notifier: Notifier, switch: Switch) -> None:
        self._notifier, self._switch = notifier, switch
        self._due = 0.0
        self._breaths: tuple[int, ...] = (-1,) * switch.options.workers

    def ready(self) -> None:
        """It forwards, by a new configuration, too."""
        self._notifier.ready(self._status())

    def reloading(self) -> None:
        """It reads its configuration again; ready() must follow."""
        self._notifier.reloading()

    def changed(self) -> None:
        """Ports have come or gone, or their links."""
        self._notifier.status(self._status())

    def stopping(self) -> None:
        """It ends now. Nothing follows."""
        self._notifier.stopping()
        self._notifier.close()

    def watch(self) -> None:
        """Call it often. A manager that asked for it hears twice in its time that every worker has breathed since."""
        now = time.monotonic()
        if self._notifier.watchdog is None or now < self._due:
            return
        self._due = now + self._notifier.watchdog / 2
        before, self._breaths = self._breaths, self._switch.breaths()
        stuck = [n for n, (was, breaths) in enumerate(zip(before, self._breaths, strict=True)) if was == breaths]
        if stuck:
            _log.error("worker %s is stuck; the service manager hears nothing", ", ".join(map(str, stuck)))
        else:
            self._notifier.ping()

    def _status(self) -> str:
        ports = self._switch.ports
        up = sum(port.state == "up" for port in ports)
        return f"forwarding, {up} of {len(ports)} ports up, fast path {self._switch.fast_path}"
