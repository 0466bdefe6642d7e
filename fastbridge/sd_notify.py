"""sd_notify, to the service manager.

Datagrams to the socket that NOTIFY_SOCKET names, as sd_notify(3) describes them. Without that variable nothing is sent.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import MutableMapping

_PATIENCE_SECONDS = 1.0  # for a manager whose queue is full


class Notifier:
    """Tells the service manager how this process does. A manager that is gone, or does not listen, stops nothing."""

    def __init__(self, environment: MutableMapping[str, str] = os.environ) -> None:
        """Takes its variables out of the environment: programs that are started from here must not speak for us."""
        address = environment.pop("NOTIFY_SOCKET", "")
        interval = environment.pop("WATCHDOG_USEC", "")
        meant = environment.pop("WATCHDOG_PID", "") in ("", str(os.getpid()))
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._socket: socket.socket | None = None
        #: Seconds within which the manager wants to hear ping(); None: it does not.
        self.watchdog: float | None = None
        if not self._address.startswith(("/", "\0")):
            return
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.settimeout(_PATIENCE_SECONDS)
        if interval.isdecimal() and int(interval) > 0 and meant:
            self.watchdog = int(interval) / 1e6

    def close(self) -> None:
        """Say no more."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def ready(self, status: str) -> None:
        """It works; also after reloading()."""
        self._say("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        """It reads its configuration again. ready() must follow."""
        self._say("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def status(self, status: str) -> None:
        """What it does, for people."""
        self._say(f"STATUS={status}")

    def stopping(self) -> None:
        """It ends now."""
        self._say("STOPPING=1")

    def ping(self) -> None:
        """It is alive."""
        self._say("WATCHDOG=1")

    def _say(self, *words: str) -> None:
        if self._socket is not None:
            text = "\n".join(word.replace("\n", " ") for word in words)
            with contextlib.suppress(OSError):
                self._socket.sendto(text.encode(errors="replace"), self._address)
