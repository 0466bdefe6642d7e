"""The tester's agent.

Run as `python -m fastbridge.bench.tester.agent`, it takes commands as JSON lines on stdin and answers on stdout. It
stays alive between trials and ends with its stdin. It is a separate process, so the bench's own work (progress,
statistics) takes no time from the sender. Frames leave by sockets that the agent inherits. TCP and pings need the pod's
own addresses, and so an agent in that pod.
"""

from __future__ import annotations

import json
import mmap
import os
import resource
import selectors
import socket
import struct
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from typing import Any

from fastbridge.core.tester.arrivals import Arrivals, Heard
from fastbridge.core.tester.requests import answer, connect_each, converse, ping
from fastbridge.core.tester.traffic import Addresses, Generator, Lane

STAMPED, NEVER_SENT = 0x88B5, 0x88B6  # EtherTypes (IEEE 802 local experimental 1 and 2)
TCP_TIMEOUT = 2.0
_SO_SNDBUFFORCE = 32  # Linux: without a limit of the system's
TCP_BUFFER = 1 << 20  # large enough to hide Python's own cost per byte


class Agent:
    """The commands, by name."""

    def __init__(self) -> None:
        self._log: tuple[memoryview, memoryview] | None = None
        self._sockets: list[socket.socket] = []
        self._attached: set[int] = set()
        self._rooms: dict[int, int] = {}
        self._arrivals: Arrivals | None = None
        self._thread = ThreadPoolExecutor(1)
        self._heard: Future[Heard] | None = None

    def close(self) -> None:
        """End the thread."""
        if self._arrivals is not None:
            self._arrivals.stop()
        self._thread.shutdown()

    def send(
        self,
        lanes: list[dict[str, Any]],
        phases: list[Any],
        sample: int = 0,
        most: int = 0,
        trial: int = 0,
        log: int = 0,
        room: int = 0,
    ) -> dict[str, Any]:
        """Send, and say when that begins. Answer how many frames were intended, sent, refused and stamped.

        At most `most` frames are stamped. `room`: bytes of its frames that may be in the kernel's queues; 0: as usual.
        """
        for lane in lanes:
            self._make_room(lane["socket"], room)
        times = self._logs(log)[0][: most * 8] if sample else None
        generator = Generator([_lane(**lane) for lane in lanes], sample=sample, log=times, trial=trial)
        say({"sending": "begins"})
        before = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
        sent = generator.send(phases)
        switches = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw - before
        return {**sent._asdict(), "involuntary_switches": switches}

    def _make_room(self, fd: int, room: int) -> None:
        with socket.socket(fileno=os.dup(fd)) as sender:
            usual = self._rooms.setdefault(fd, sender.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF))
            wanted = room or usual // 2  # the kernel doubles what it is given
            if sender.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) != 2 * wanted:
                try:
                    sender.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, wanted)
                except PermissionError:  # an ordinary user gets what net.core.wmem_max allows
                    sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, wanted)

    def open(self, sockets: list[int], interface: str, log: int) -> dict[str, Any]:
        """Take the receiving sockets, one for each port. They hear nothing yet."""
        self._sockets = [socket.socket(fileno=fd) for fd in sockets]
        self._arrivals = Arrivals(sockets, *self._logs(log))
        self._interface = interface
        return {}

    def listen(self, ports: list[int], trial: int = 0, streams: int = 0, copies: bool = False) -> dict[str, Any]:
        """Take the samples of a trial from `ports`. Without ports the receiver costs nothing."""
        assert self._arrivals is not None
        if self._heard is not None:  # of an abandoned trial
            self.heard()
        # A socket bound to the frames' EtherType slows its pod's frames, even if it takes none.
        for port in self._attached.symmetric_difference(ports):
            self._sockets[port].bind((self._interface, STAMPED if port in ports else NEVER_SENT))
        self._attached = set(ports)
        if ports:
            self._arrivals.begin(trial, streams, copies)
            self._heard = self._thread.submit(self._arrivals.run)
        return {}

    def heard(self) -> dict[str, Any]:
        """End what listen() began. Answer the counts that the log lacks."""
        assert self._arrivals is not None and self._heard is not None
        self._arrivals.stop()
        heard, self._heard = self._heard.result(), None
        return heard._asdict()

    def _logs(self, fd: int) -> tuple[memoryview, memoryview]:
        if self._log is None:
            whole = memoryview(mmap.mmap(fd, 0))
            self._log = whole[: len(whole) // 2], whole[len(whole) // 2 :]
        return self._log

    def receive_tcp(self, address: str, warm_up: float, seconds: float, connections: int) -> dict[str, Any]:
        """Accept the connections and count their bytes for `seconds` after `warm_up`.

        It says the port first, and later when the counted window begins.
        """
        buffer = bytearray(TCP_BUFFER)
        with ExitStack() as stack:
            with socket.create_server((address, 0), backlog=connections) as listener:
                listener.settimeout(TCP_TIMEOUT)
                say({"port": listener.getsockname()[1]})
                accepted = [stack.enter_context(listener.accept()[0]) for _ in range(connections)]
            ready = _watch(stack, accepted, selectors.EVENT_READ)
            _count(ready, buffer, warm_up)
            say({"window": "begins"})
            received, elapsed = _count(ready, buffer, seconds)
        return {"bytes": received, "seconds": elapsed}

    def send_tcp(self, address: str, port: int, connections: int) -> dict[str, Any]:
        """Send zeros over all connections until the receiver closes one of them."""
        data = memoryview(bytes(TCP_BUFFER))
        sent = 0
        with ExitStack() as stack:
            opened = [
                stack.enter_context(socket.create_connection((address, port), timeout=TCP_TIMEOUT))
                for _ in range(connections)
            ]
            ready = _watch(stack, opened, selectors.EVENT_WRITE)
            try:
                while True:
                    for connection in _ready(ready):
                        sent += connection.send(data)
            except (ConnectionResetError, BrokenPipeError):
                return {"bytes": sent}

    def answer_requests(self, address: str, size: int, each: bool) -> dict[str, Any]:
        """Answer the requests of send_requests until there are no more. It says the port first."""
        with socket.create_server((address, 0)) as listener:
            _send_at_once(listener)  # accepted connections inherit it
            say({"port": listener.getsockname()[1]})
            return {"requests": answer(listener.fileno(), size, each)}

    def send_requests(
        self, address: str, port: int, size: int, each: bool, warm_up: float, seconds: float, log: int
    ) -> dict[str, Any]:
        """Send requests for `seconds` after `warm_up`, over one connection or with a connection for each.

        Each request waits for the answer to the one before. It says when the counted window begins. The log gets the
        times of each request and its answer.
        """
        with ExitStack() as stack:
            ask: Callable[..., int]
            if each:
                target = struct.pack("=H", socket.AF_INET) + struct.pack("!H4s8x", port, socket.inet_aton(address))
                ask = partial(connect_each, target, size)
            else:
                connection = stack.enter_context(socket.create_connection((address, port), timeout=TCP_TIMEOUT))
                connection.setblocking(True)
                _send_at_once(connection)
                ask = partial(converse, connection.fileno(), size)
            logs = self._numbers(log)
            ask(warm_up, *logs)
            say({"window": "begins"})
            began = time.monotonic()
            requests = ask(seconds, *logs)
            elapsed = time.monotonic() - began
        socket.create_connection((address, port), timeout=TCP_TIMEOUT).close()  # there are no more
        return {"requests": requests, "seconds": elapsed}

    def ping(self, address: str, rate: float, warm_up: float, seconds: float, log: int) -> dict[str, Any]:
        """Send echo requests. The rest is as in send_requests."""
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as raw:
            raw.connect((address, 0))
            ask, logs = partial(ping, raw.fileno(), os.getpid() & 0xFFFF, rate), self._numbers(log)
            ask(warm_up, *logs)
            say({"window": "begins"})
            began = time.monotonic()
            requests, altered = ask(seconds, *logs)
            return {"requests": requests, "altered": altered, "seconds": time.monotonic() - began}

    def _numbers(self, log: int) -> list[memoryview]:
        return [half.cast("Q") for half in self._logs(log)]


def say(answer: dict[str, Any]) -> None:
    """Write one JSON line to stdout."""
    print(json.dumps(answer), flush=True)


def _lane(socket: int, frames: list[tuple[str, int]], sources: list[Any] | None, targets: list[list[Any]]) -> Lane:
    whole = [bytes.fromhex(start)[:length].ljust(length, b"\0") for start, length in frames]
    own = _addresses(*sources) if sources else None
    return Lane(socket, whole, own, [_addresses(*range_) for range_ in targets])


def _addresses(own: str, behind: str, first: int, count: int) -> Addresses:
    return Addresses(bytes.fromhex(own), bytes.fromhex(behind), first, count)


def _send_at_once(connection: socket.socket) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _watch(stack: ExitStack, connections: list[socket.socket], event: int) -> selectors.BaseSelector:
    selector = stack.enter_context(selectors.DefaultSelector())
    for connection in connections:
        connection.setblocking(False)
        selector.register(connection, event)
    return selector


def _ready(selector: selectors.BaseSelector) -> list[socket.socket]:
    ready: list[Any] = [key.fileobj for key, _ in selector.select(TCP_TIMEOUT)]
    if not ready:
        raise TimeoutError("timed out")
    return ready


def _count(selector: selectors.BaseSelector, buffer: bytearray, seconds: float) -> tuple[int, float]:
    received, started, now = 0, time.monotonic(), 0.0
    while (now := time.monotonic()) < started + seconds:
        for connection in _ready(selector):
            size = connection.recv_into(buffer)
            if size == 0:
                raise ConnectionError("the sender closed the connection")
            received += size
    return received, now - started


def main() -> None:
    """Obey until stdin ends."""
    agent = Agent()
    commands: dict[str, Callable[..., dict[str, Any]]] = {
        act.__name__: act
        for act in (
            agent.send,
            agent.open,
            agent.listen,
            agent.heard,
            agent.receive_tcp,
            agent.send_tcp,
            agent.answer_requests,
            agent.send_requests,
            agent.ping,
        )
    }
    say({"ready": True})
    try:
        for line in sys.stdin:
            command = json.loads(line)
            try:
                answer = commands[command.pop("do")](**command)
            except OSError as error:
                answer = {"error": error.strerror or str(error)}
            say(answer)
    finally:
        agent.close()


if __name__ == "__main__":
    main()
