"""Talks with a control socket: verbs to ask, a server with them, and clients that know no manners."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import sys
import termios
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from fastbridge.control.server import ControlServer
from fastbridge.control.verbs import Verbs
from fastbridge.errors import ConfigError, PortError, PrivilegeError

Side = Literal["left", "right"]


class Ticker:
    """A stream: what is said to it, the newest 100."""

    def __init__(self) -> None:
        self._fd = os.eventfd(0, os.EFD_NONBLOCK)
        self._said: deque[dict[str, Any]] = deque()
        self._lost = 0
        self._lock = threading.Lock()
        self.closed = threading.Event()
        self.ended = False
        self.error: Exception | None = None

    def say(self, **event: Any) -> None:
        with self._lock:
            if self.closed.is_set():
                return
            if len(self._said) >= 100:
                self._said.popleft()
                self._lost += 1
            self._said.append(event)
            os.eventfd_write(self._fd, 1)

    def end(self, error: Exception | None = None) -> None:
        with self._lock:
            self.ended, self.error = True, error
            os.eventfd_write(self._fd, 1)

    def fileno(self) -> int:
        return self._fd

    def read(self) -> list[dict[str, Any]] | None:
        with self._lock:
            os.eventfd_read(self._fd)
            if self.error:
                raise self.error
            said = [{"event": "lost", "count": self._lost}] if self._lost else []
            said += self._said
            self._said.clear()
            self._lost = 0
            if self.ended and said:
                os.eventfd_write(self._fd, 1)
        return said or (None if self.ended else [])

    def close(self) -> None:
        with self._lock:
            assert not self.closed.is_set()
            self.closed.set()
            os.close(self._fd)


class Asked:
    """What the verbs were asked, and what they wait for."""

    def __init__(self) -> None:
        self.verbs = Verbs()
        self.streams: list[Ticker] = []
        self.echoed: list[Any] = []
        self.go_on = threading.Event()
        self.waits = threading.Event()
        add = self.verbs.add
        add("echo", self.echo)
        add("side", self.side)
        add("many", self.many)
        add("fail", self.fail)
        add("wait", self.wait)
        add("ticks", self.ticks, stream=True)
        add("not.a.stream", self.not_a_stream, stream=True)

    def echo(self, value: Any = None) -> Any:
        """Say the same."""
        self.echoed.append(value)
        return value

    def side(self, port: str, number: int = 0, side: Side = "left", names: list[str] | None = None) -> dict[str, Any]:
        """Take parameters of several kinds."""
        return {"port": port, "number": number, "side": side, "names": names}

    def many(self, count: int) -> list[dict[str, Any]]:
        """So many objects."""
        return [{"number": number, "text": "x" * 90} for number in range(count)]

    def fail(self, how: str) -> None:
        """Fail in one of several ways."""
        raise {
            "config": ConfigError("no such port; name one of these: a, b"),
            "port": PortError("port a is gone"),
            "privilege": PrivilegeError("the kernel refused"),
            "other": RuntimeError("two\nlines"),
        }[how]

    def wait(self) -> str:
        """Answer late."""
        self.waits.set()
        assert self.go_on.wait(60)
        return "done"

    def ticks(self) -> Ticker:
        """What the test says."""
        self.streams.append(Ticker())
        return self.streams[-1]

    def not_a_stream(self) -> int:
        """A mistake."""
        return 1


@contextmanager
def asked(path: Path) -> Iterator[Asked]:
    """Somebody who answers at this path."""
    found = Asked()
    with ControlServer(path, found.verbs):
        yield found


def environment() -> dict[str, str]:
    """For a Python that imports this file."""
    search = os.environ.get("PYTHONPATH")
    return os.environ | {"PYTHONPATH": f"{Path(__file__).parent}{f':{search}' if search else ''}"}


class Raw:
    """A client that sends whatever it is given."""

    def __init__(self, path: Path, seconds: float = 60) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        try:
            self.sock.connect(str(path))
        except OSError:
            self.sock.close()
            raise
        self.sock.settimeout(seconds)
        self._lines = self.sock.makefile("rb")

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def ask(self, number: int | str, verb: str, **params: Any) -> None:
        self.send(json.dumps({"jsonrpc": "2.0", "id": number, "method": verb, "params": params}).encode() + b"\n")

    def on_its_way(self) -> int:
        """Of what was sent, so much the server has not read; 0: it has read all (unix(7), SIOCOUTQ)."""
        return int.from_bytes(fcntl.ioctl(self.sock, termios.TIOCOUTQ, bytes(4)), sys.byteorder)

    def line(self) -> dict[str, Any] | None:
        """The next line; None: the connection has ended."""
        try:
            text = self._lines.readline()
        except ConnectionResetError:
            return None
        return json.loads(text) if text else None

    def rest(self) -> list[dict[str, Any]]:
        """All lines until the end."""
        return list(iter(self.line, None))  # type: ignore[arg-type]

    def close(self) -> None:
        self._lines.close()
        self.sock.close()

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
