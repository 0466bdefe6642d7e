"""A network namespace that only this process holds. The core listens there for the frames that the kernel hands it.

No other process sees it. Everything in it vanishes with the process, SIGKILL included.
"""

from __future__ import annotations

import ctypes
import os
import socket
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

_CLONE_NEWNET = 0x40000000

_ready: list[Inside] = []
_made: weakref.WeakSet[Inside] = weakref.WeakSet()


class Inside:
    """Such a namespace, and a thread in it that opens sockets there."""

    def __init__(self) -> None:
        """Raises OSError where this process may not make one."""
        self._thread = ThreadPoolExecutor(1, "fastbridge-inside")
        try:
            self.fd = self._thread.submit(_enter).result()
        except BaseException:
            self._thread.shutdown()
            raise
        _made.add(self)

    def open_socket(self, family: int, kind: int, protocol: int) -> socket.socket:
        """As socket.socket, in that namespace."""
        return self._thread.submit(socket.socket, family, kind, protocol).result()

    def run(self, action: Callable[[], None]) -> None:
        """Call a function in that namespace."""
        self._thread.submit(action).result()

    def seal(self) -> None:
        """End the thread; nothing more can be opened there."""
        self._thread.shutdown()

    def close(self) -> None:
        """Let go of it; it lasts as long as its sockets."""
        os.close(self.fd)
        self._thread.shutdown()


def _enter() -> int:
    """Take this thread into a new one; returns its descriptor."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY)


def prepare() -> None:
    """Make one for the next switch, if this process may; else the switch does without."""
    if (made := make()) is not None:
        _ready.append(made)


def seal() -> None:
    """End the threads, which still have this process's earlier rights. Nothing more can be opened inside."""
    for made in list(_made):
        made.seal()


def take() -> Inside | None:
    """One that was prepared, or a new one; None where we may not make one."""
    return _ready.pop() if _ready else make()


def make() -> Inside | None:
    """A new one; None where we may not make one."""
    try:
        return Inside()
    except OSError:
        return None
