"""A network namespace that only this process holds. The core listens there for the frames that the kernel hands it.

No other process sees it. Everything in it vanishes with the process, SIGKILL included.
"""

from __future__ import annotations

import ctypes
import os
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from fastbridge.switch.port_socket import open_packet

_CLONE_NEWNET = 0x40000000


class Inside:
    """Such a namespace, and a thread in it that opens sockets there."""

    def __init__(self, fd: int | None = None) -> None:
        """fd: a descriptor of one that is there. Raises OSError where this process may not make one."""
        self._thread = ThreadPoolExecutor(1, "fastbridge-inside")
        try:
            self.fd = self._thread.submit(_enter, fd).result()
        except BaseException:
            self._thread.shutdown()
            raise

    def open_socket(self, family: int, kind: int, protocol: int) -> socket.socket:
        """As socket.socket, in that namespace."""
        return self._thread.submit(socket.socket, family, kind, protocol).result()

    def open_packet(self) -> socket.socket:
        """A packet socket there for a port, with the buffers that take rights."""
        return self._thread.submit(open_packet).result()

    def run(self, action: Callable[[], None]) -> None:
        """Call a function in that namespace."""
        self._thread.submit(action).result()

    def end_thread(self) -> None:
        """Open nothing more there; whoever has the descriptor may."""
        self._thread.shutdown()

    def leave_to_parent(self) -> None:
        """In a forked child: else it would last as long as this process."""
        os.close(self.fd)

    def close(self) -> None:
        """Let go of it; it lasts as long as its sockets."""
        os.close(self.fd)
        self._thread.shutdown()


def _enter(fd: int | None) -> int:
    """Take this thread into the one of this descriptor, or a new one; returns its descriptor."""
    libc = ctypes.CDLL(None, use_errno=True)
    if (libc.unshare(_CLONE_NEWNET) if fd is None else libc.setns(fd, _CLONE_NEWNET)) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY) if fd is None else fd


def make() -> Inside | None:
    """A new one; None where we may not make one."""
    try:
        return Inside()
    except OSError:
        return None
