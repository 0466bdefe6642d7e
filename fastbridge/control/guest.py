"""A guest, one client of the server.

What it has sent and not yet got answered, and what it has yet to read. All of it is bounded: a guest whose requests
wait, or who does not read, is not read from.
"""

from __future__ import annotations

import select
import socket
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from .protocol import MOST_BYTES, PARSE, RpcError
from .verbs import Stream

_MOST_WAITING = 64  # requests
_RATE, _BURST = 500, 500  # requests/s, and at once
_STALLED_SECONDS = 30.0  # a client that has read nothing for so long
_PIECE = 65536  # bytes read at once


@dataclass(slots=True)
class Subscription:
    """A stream that a client reads."""

    number: int
    stream: Stream
    descriptor: int
    followed: bool = False  # whether epoll tells of its events; not while the client does not read


class Guest:
    """One client. Only the server's thread touches it."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.descriptor = sock.fileno()
        self.asked = False  # a request, ever
        self.heard = self.moved = time.monotonic()  # when something came last, and when something went
        self.calling = False  # a verb of its is being called
        self.subscriptions: dict[int, Subscription] = {}  # by number
        self.interest = select.EPOLLIN  # as epoll knows it
        self.ended = False  # it sends no more
        self.leaving = False  # it is closed when it has read what there is
        self._half = bytearray()  # a line that has no end yet, or whole ones for which there was no room
        self._lines: deque[bytes | RpcError] = deque()
        self._unread: deque[memoryview] = deque()
        self._paid = 0.0  # until when its requests have used its rate up

    def read(self) -> None:
        """Take what has come."""
        try:
            data = self.sock.recv(_PIECE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self.heard = time.monotonic()
        if not data:
            self.ended = True
        self._half += data
        self._split()

    def next_line(self, now: float) -> bytes:
        """The request that waits longest. Raises RpcError where what came is no line."""
        line = self._lines.popleft()
        self._paid = max(self._paid, now) + 1 / _RATE
        self._split()
        if isinstance(line, RpcError):
            raise line
        return line

    def due(self, now: float) -> float:
        """Seconds until its next request may be served; infinity: it has none, or has to read or to wait first."""
        if not self._lines or self._unread or self.calling or self.leaving:
            return float("inf")
        return max(0.0, self._paid - now - _BURST / _RATE)

    def write(self, lines: Iterable[bytes]) -> None:
        """Have it read these."""
        if not self._unread:
            self.moved = time.monotonic()
        self._unread.extend(map(memoryview, lines))
        self.flush()

    def flush(self) -> None:
        """Send what it takes."""
        try:
            while self._unread:
                sent = self.sock.send(self._unread[0])
                self.moved = time.monotonic()
                self._unread[0] = self._unread[0][sent:]
                if not self._unread[0]:
                    self._unread.popleft()
        except BlockingIOError:
            pass
        except OSError:  # it is gone
            self.leaving = True
            self._unread.clear()

    @property
    def reads(self) -> bool:
        """Whether it has read all there is."""
        return not self._unread

    @property
    def idle(self) -> bool:
        """Whether nothing of its is going on."""
        return not (self._lines or self._unread or self.calling or self.subscriptions)

    def stalled(self, now: float) -> bool:
        """Whether it has not read for long, though there is something to read."""
        return bool(self._unread) and now - self.moved > _STALLED_SECONDS

    @property
    def over(self) -> bool:
        """Whether its connection can be closed."""
        return (self.leaving and self.reads) or (self.ended and self.idle)

    @property
    def wanted(self) -> int:
        """What epoll is to tell of it."""
        reading = 0 if self.ended or self.leaving or len(self._lines) >= _MOST_WAITING else select.EPOLLIN
        return reading | (select.EPOLLOUT if self._unread else 0)

    def _split(self) -> None:
        """Queue the whole lines for which there is room."""
        while len(self._lines) < _MOST_WAITING:
            line, end, rest = self._half.partition(b"\n")
            if len(line) >= MOST_BYTES:
                self._refuse(f"this line has more than {MOST_BYTES} bytes")
            elif end:
                self._lines.append(bytes(line))
                self._half = rest
                continue
            elif self.ended and line:
                self._refuse("this line has no end: a request ends with a newline")
            return

    def _refuse(self, why: str) -> None:
        self._lines.append(RpcError(PARSE, why))
        self._half.clear()
        self.ended = True
