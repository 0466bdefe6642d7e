"""The endpoint: metrics by HTTP, on loopback TCP or a Unix socket.

One thread serves all clients and waits for none of them. A client that is slow, silent or wrong loses its own
connection. Many clients at once, or many requests, take a small share of a CPU at most: see the limits below.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import selectors
import socket
import stat
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics

from fastbridge.errors import ConfigError
from fastbridge.forks import in_child
from fastbridge.threads import start_thread

from .collector import collector

if TYPE_CHECKING:
    from fastbridge.switch.base import SwitchBase

_log = logging.getLogger(__name__)

# Clients at a time; one more takes the place of the oldest. A second's new ones; more wait in the kernel.
_MOST_CLIENTS, _NEW_A_SECOND = 32, 100
_CLIENT_SECONDS = 10.0  # from a connection to its end: as long as Prometheus waits by default
_LONGEST_REQUEST = 8192
# An answer is made again only after this many times the CPU time that it took.
_PAUSE = 20
_UNIX = "unix:"
_ADDRESS = re.compile(r"(?:(?P<host>\[[^][]+\]|[^][:]+):)?(?P<port>[0-9]{1,5})")


@dataclass(eq=False)
class _Client:
    sock: socket.socket
    deadline: float
    request: bytearray = field(default_factory=bytearray)
    answer: memoryview = field(default_factory=lambda: memoryview(b""))  # what is left to send


class Endpoint:
    """A listening socket for a switch's metrics, opened at once, and the thread that serves them after start().

    address: "PORT" on 127.0.0.1, "ADDRESS:PORT", "[IPV6]:PORT" or "unix:PATH". Port 0: any free one.
    take_over: also where another endpoint of this user is, which shall end soon: see move_in().

    Raises ConfigError for a wrong address, or one that is taken.
    """

    def __init__(self, address: str, *, take_over: bool = False) -> None:
        self._path: Path | None = None
        if address.startswith(_UNIX):
            self._path = self._bound = Path(address.removeprefix(_UNIX))
            if take_over and self._path.is_socket():
                self._bound = Path(f"{self._path}~")
            self._listener = _listen_at(self._bound)
            self._inode = self._bound.lstat().st_ino
        else:
            self._listener = _listen_on(address, take_over)
        self._listener.setblocking(False)
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._clients: dict[socket.socket, _Client] = {}
        self._made: dict[str, tuple[float, bytes]] = {}  # answers, and until when they hold, by content type
        self._registry = CollectorRegistry()
        self._thread: threading.Thread | None = None
        self._closing = False
        in_child(self, Endpoint._leave_to_parent)

    @property
    def url(self) -> str:
        """Where it answers."""
        if self._path is not None:
            return f"{_UNIX}{self._path}"
        host, port = self._listener.getsockname()[:2]
        return f"http://{f'[{host}]' if ':' in host else host}:{port}/metrics"

    def move_in(self) -> None:
        """Take the place of the Unix socket of the one before, who kept it so far. start() does this, too.

        Raises ConfigError.
        """
        if self._path is not None and self._bound != self._path:
            try:
                self._bound.rename(self._path)
            except OSError as error:
                raise ConfigError(f"no metrics at {self._path}: {error.strerror}; give another path") from None
            self._bound = self._path

    def start(self, switch: SwitchBase) -> None:
        """Serve the metrics of a switch, and of this process, from now on. Raises ConfigError."""
        self.move_in()
        self._registry.register(collector(switch))
        ProcessCollector(registry=self._registry)
        self._thread = start_thread("fastbridge-metrics", self._serve)

    def close(self) -> None:
        """Stop serving. Close all connections, and remove the Unix socket. A second call does nothing."""
        if self._closing:
            return
        self._closing = True
        os.eventfd_write(self._wake, 1)
        if self._thread is not None:
            self._thread.join()
        self._let_go()
        if self._path is not None:
            with contextlib.suppress(FileNotFoundError):
                if self._bound.lstat().st_ino == self._inode:  # else it is another's by now
                    self._bound.unlink()

    def _leave_to_parent(self) -> None:
        self._closing = True
        self._let_go()

    def _let_go(self) -> None:
        for client in self._clients.values():
            client.sock.close()
        self._clients.clear()
        self._listener.close()
        os.close(self._wake)

    def _serve(self) -> None:
        with selectors.DefaultSelector() as ready:
            ready.register(self._wake, selectors.EVENT_READ)
            ready.register(self._listener, selectors.EVENT_READ)
            second, taken = time.monotonic(), 0
            while not self._closing:
                for key, _ in ready.select(self._patience()):
                    if key.fileobj is self._listener:
                        taken += self._take(ready)
                    elif client := self._clients.get(key.fileobj):  # type: ignore[call-overload] # the eventfd is none
                        self._go_on(ready, client)
                now = time.monotonic()
                for client in [client for client in self._clients.values() if client.deadline <= now]:
                    self._end(ready, client)
                if now - second >= 1:
                    second, taken = now, 0
                if taken >= _NEW_A_SECOND:
                    time.sleep(second + 1 - now)

    def _patience(self) -> float | None:
        """Seconds until the next client has had its time."""
        if not self._clients:
            return None
        return max(0.0, min(client.deadline for client in self._clients.values()) - time.monotonic())

    def _take(self, ready: selectors.BaseSelector) -> int:
        try:
            sock, _ = self._listener.accept()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS):
                time.sleep(0.1)  # the connection waits
            return 0
        if len(self._clients) >= _MOST_CLIENTS:
            self._end(ready, next(iter(self._clients.values())))
        sock.setblocking(False)
        self._clients[sock] = _Client(sock, time.monotonic() + _CLIENT_SECONDS)
        ready.register(sock, selectors.EVENT_READ)
        return 1

    def _end(self, ready: selectors.BaseSelector, client: _Client) -> None:
        ready.unregister(client.sock)
        del self._clients[client.sock]
        client.sock.close()

    def _go_on(self, ready: selectors.BaseSelector, client: _Client) -> None:
        """Read more of a request, or send more of its answer."""
        try:
            if not client.answer:
                piece = client.sock.recv(_LONGEST_REQUEST)
                if not piece:
                    raise ConnectionResetError
                client.request += piece
                answer = self._answer(bytes(client.request))
                if answer is None:
                    return
                client.answer = memoryview(answer)
                ready.modify(client.sock, selectors.EVENT_WRITE)
            client.answer = client.answer[client.sock.send(client.answer) :]
        except BlockingIOError:
            return
        except OSError:  # it has gone
            self._end(ready, client)
            return
        if not client.answer:
            self._end(ready, client)

    def _answer(self, request: bytes) -> bytes | None:
        """The answer to a request; None: it has yet to come."""
        head, complete, _ = request.partition(b"\r\n\r\n")
        if len(head) > _LONGEST_REQUEST:
            return _response("431 Request Header Fields Too Large", b"the request is too long\n")
        if not complete:
            return None
        first, *fields = head.decode("latin-1").split("\r\n")
        method, _, rest = first.partition(" ")
        path, _, version = rest.partition(" ")
        if not version.startswith("HTTP/1."):
            return _response("400 Bad Request", b"ask in HTTP/1.1\n")
        if method not in ("GET", "HEAD"):
            return _response("405 Method Not Allowed", b"only GET and HEAD are answered\n")
        if path.partition("?")[0] != "/metrics":
            return _response("404 Not Found", b"the metrics are at /metrics\n")
        accepted = [value for name, _, value in (each.partition(":") for each in fields) if name.lower() == "accept"]
        kind = openmetrics.CONTENT_TYPE_LATEST if "application/openmetrics-text" in ",".join(accepted) else _PLAIN
        try:
            body = self._metrics(kind)
        except Exception:  # nothing may end this thread
            _log.exception("metrics failed")
            return _response("500 Internal Server Error", b"the metrics failed; the log says why\n")
        return _response("200 OK", body, kind, send_body=method == "GET")

    def _metrics(self, kind: str) -> bytes:
        """The metrics as this content type, as long as they hold the same as before."""
        until, body = self._made.get(kind, (0.0, b""))
        if time.monotonic() < until:
            return body
        began = time.thread_time()
        body = (generate_latest if kind == _PLAIN else openmetrics.generate_latest)(self._registry)
        self._made[kind] = time.monotonic() + _PAUSE * (time.thread_time() - began), body
        return body


_PLAIN = CONTENT_TYPE_PLAIN_0_0_4


def _response(status: str, body: bytes, kind: str = "text/plain; charset=utf-8", *, send_body: bool = True) -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return head.encode() + (body if send_body else b"")


def _listen_on(address: str, take_over: bool) -> socket.socket:
    parts = _ADDRESS.fullmatch(address)
    if not parts or int(parts["port"]) > 65535:
        raise ConfigError(f"{address!r} is no address for metrics; give PORT, ADDRESS:PORT, [IPV6]:PORT or unix:PATH")
    host = (parts["host"] or "127.0.0.1").strip("[]")
    try:
        found = socket.getaddrinfo(host, int(parts["port"]), type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError) as error:
        raise ConfigError(f"no address {host!r} for metrics: {getattr(error, 'strerror', error)}") from None
    family, kind, protocol, _, where = found[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Sockets with this option may share an address. So it is set before bind() by the one that takes over alone.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, take_over)
        listener.bind(where)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, True)
        listener.listen()
    except OSError as error:
        listener.close()
        raise ConfigError(f"no metrics on {address}: {error.strerror}; give another port or address") from None
    return listener


def _listen_at(path: Path) -> socket.socket:
    """A Unix socket; one that nobody listens on any more is replaced."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_old(path)
        listener.bind(os.fspath(path))
        listener.listen()
    except OSError as error:
        listener.close()
        why = error.strerror or str(error)  # a path that is too long has no number
        raise ConfigError(f"no metrics at {path}: {why}; give another path") from None
    return listener


def _remove_old(path: Path) -> None:
    """Raises OSError where something else, or somebody who listens, has the path."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise OSError(errno.EEXIST, "there is a file that is no socket")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        asking.setblocking(False)
        with contextlib.suppress(ConnectionRefusedError):
            asking.connect(os.fspath(path))
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
    path.unlink()
