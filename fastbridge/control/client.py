"""The client, who asks a running switch."""

from __future__ import annotations

import contextlib
import itertools
import math
import select
import socket
import threading
import time
from collections import deque
from pathlib import Path
from typing import Any

from fastbridge.closes import Closes
from fastbridge.errors import ConfigError
from fastbridge.waiting import wait_for

from .directory import socket_path, the_one
from .protocol import BUSY, ENDED, MOST_BYTES, OTHER, SILENT, RpcError, load, request

_PIECE = 1 << 18  # bytes received at once
_RETRY_SECONDS = 0.02  # where the server has no place


class Client(Closes):
    """Asks a running switch: client.call("status").

    name: of the switch; None: the only one that runs. path: its socket, in place of a name. timeout: seconds to wait
    for an answer; None: for ever. Any thread may use it.

    Raises ConfigError where there is no such switch, and RpcError for what the switch refuses, or when it has ended.
    """

    def __init__(self, name: str | None = None, *, path: Path | str | None = None, timeout: float | None = 5.0) -> None:
        self._path = socket_path(the_one(name)) if path is None else Path(path)
        self._timeout = math.inf if timeout is None else timeout
        self._lock = threading.Lock()
        self._line = _Line(self._path, self._timeout)

    def call(self, verb: str, /, **params: Any) -> Any:
        """Ask for something, and return the answer."""
        with self._lock:
            return self._line.ask(verb, params)

    def stream(self, verb: str, /, **params: Any) -> EventStream:
        """Ask for events. They come by a connection of their own."""
        line = _Line(self._path, self._timeout)
        try:
            result = line.ask(verb, params)
            if not isinstance(result, dict) or "stream" not in result:
                raise ConfigError(f"{verb} gives one answer and no stream: use call()")
        except BaseException:
            line.close()
            raise
        return EventStream(line)

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self._line.close()


class EventStream(Closes):
    """The events of one stream verb, as an iterator that waits for the next, or by fileno() and read()."""

    def __init__(self, line: _Line) -> None:
        self._line = line
        self._events: deque[dict[str, Any]] = deque()
        self._ended = False

    def fileno(self) -> int:
        """Readable when events wait, and when the stream has ended."""
        return self._line.fileno()

    def read(self) -> list[dict[str, Any]] | None:
        """The events that wait; None: the stream has ended. Raises RpcError when the switch has."""
        if not self._ended:
            self._receive()
        events = list(self._events)
        self._events.clear()
        return None if self._ended and not events else events

    def close(self) -> None:
        """No more of them. Another thread that waits for one gets none."""
        self._ended = True
        self._line.close()

    def __iter__(self) -> EventStream:
        return self

    def __next__(self) -> dict[str, Any]:
        while not self._events:
            if self._ended:
                self.close()
                raise StopIteration
            self._line.wait(math.inf)
            self._receive()
        return self._events.popleft()

    def _receive(self) -> None:
        try:
            received = self._line.receive()
        except RpcError:
            if self._ended:  # by another thread
                return
            raise
        for said in received:
            params = said.get("params", {})
            if "event" in params:
                self._events.append(params["event"])
            elif "end" in params:
                self._ended = True
                self._line.end()
                if params["end"] is not None:
                    raise RpcError(OTHER, params["end"])


class _Line:
    """A connection to the server."""

    def __init__(self, path: Path, timeout: float) -> None:
        self._path, self._timeout = path, timeout
        self._numbers = itertools.count(1)
        self._half = bytearray()
        self._sock = self._connect(time.monotonic() + timeout)

    def ask(self, verb: str, params: dict[str, Any]) -> Any:
        """Ask, and wait for the answer. Asks again where the server had no place, for then nobody heard it."""
        ends = time.monotonic() + self._timeout
        busy: RpcError | None = None
        while True:
            try:
                return self._ask(verb, params, ends)
            except RpcError as error:
                if error.code == SILENT and busy:
                    raise busy from None
                if error.code in (BUSY, ENDED):
                    self.close()
                if error.code != BUSY or time.monotonic() > ends:
                    raise
                if busy:  # not just a place lost while nothing was asked
                    time.sleep(_RETRY_SECONDS)
                busy = error

    def receive(self, *, one: bool = False) -> list[dict[str, Any]]:
        """What has come, without waiting; one: nothing behind the first line, so that fileno() tells of it."""
        try:
            piece = self._sock.recv(_PIECE, socket.MSG_PEEK if one else 0)
            if one:
                piece = self._sock.recv(piece.find(b"\n") + 1 or len(piece))
        except BlockingIOError:
            return []
        except OSError:
            piece = b""
        if not piece:
            raise RpcError(ENDED, f"the switch {self._path.stem} has ended")
        whole, end, rest = piece.rpartition(b"\n")
        if not end:
            self._half += piece
            return []
        lines = bytes(self._half) + whole
        self._half = bytearray(rest)
        return [load(line) for line in lines.split(b"\n")]

    def wait(self, seconds: float, for_what: int = select.POLLIN) -> bool:
        """Wait until something can be received or sent; returns whether it can."""
        if self.fileno() < 0:  # closed by another thread
            return True
        return wait_for(self._sock.fileno(), for_what, None if seconds == math.inf else max(0.0, seconds))

    def fileno(self) -> int:
        """Readable when something has come."""
        return self._sock.fileno()

    def close(self) -> None:
        """Close it. ask() opens it again."""
        self._half.clear()
        self.end()  # wakes who waits for it
        self._sock.close()

    def end(self) -> None:
        """End it. From now on fileno() is readable."""
        with contextlib.suppress(OSError):  # not connected any more
            self._sock.shutdown(socket.SHUT_RDWR)

    def _connect(self, ends: float) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.setblocking(False)
        while True:
            try:
                sock.connect(str(self._path))
                return sock
            except BlockingIOError:  # many wait to be let in
                if time.monotonic() > ends:
                    sock.close()
                    raise self._silent("the connection") from None
                time.sleep(_RETRY_SECONDS)
            except OSError as error:
                sock.close()
                why = error.strerror or error
                raise ConfigError(f"no switch named {self._path.stem} runs: {self._path}: {why}") from None

    def _ask(self, verb: str, params: dict[str, Any], ends: float) -> Any:
        number = next(self._numbers)
        try:
            line = memoryview(request(number, verb, params))
        except (TypeError, ValueError) as error:  # such as NaN, or an object of Python's own
            raise ConfigError(f"{verb}: these parameters cannot be written as JSON: {error}") from None
        if len(line) > MOST_BYTES:
            raise ConfigError(f"{verb}: the request has {len(line):,} bytes, and {MOST_BYTES:,} are the most")
        if self._sock.fileno() < 0:
            self._sock = self._connect(ends)
        while line:
            try:
                line = line[self._sock.send(line) :]
            except BlockingIOError:
                if not self.wait(ends - time.monotonic(), select.POLLOUT):
                    self.close()  # half a request would spoil the next
                    raise self._silent(verb) from None
            except OSError:
                break  # what was said before the end says why
        while True:
            for said in self.receive(one=True):
                if said.get("id") not in (number, None):
                    continue  # the answer to a question that nobody waits for any more
                if "error" in said:
                    raise RpcError(said["error"]["code"], said["error"]["message"])
                if "result" in said:
                    return said["result"]
            if not self.wait(ends - time.monotonic()):
                raise self._silent(verb)

    def _silent(self, what: str) -> RpcError:
        return RpcError(SILENT, f"the switch {self._path.stem} did not answer {what} within {self._timeout:g} s")
