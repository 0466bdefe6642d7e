"""The tester's hand in a pod.

Run in a pod as `python -m fastbridge.bench.station`, it takes commands as JSON lines on stdin and
answers on stdout. It stays alive between trials and ends with its stdin. It is a process of its own
so that nothing the bench does meanwhile (progress, statistics) takes time from the sender.
"""

from __future__ import annotations

import json
import resource
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

from fastbridge.core.traffic import Generator

TCP_TIMEOUT = 2.0
TCP_BUFFER = 1 << 20  # large enough that Python's own cost a byte does not show


def send(interface: str, frames: list[str], seconds: float, rate: float | None) -> dict[str, Any]:
    """Send `frames` (hex) in turn; say when it begins, answer what was intended, offered and refused."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sender:
        sender.bind((interface, 0))  # protocol 0: sends only, and puts no tap on the pod end
        generator = Generator(sender.fileno(), [bytes.fromhex(frame) for frame in frames])
        say({"sending": "begins"})
        before = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
        sent = generator.send(seconds, rate)
        switches = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw - before
    return {**sent._asdict(), "involuntary_switches": switches}


def announce(interface: str, frames: list[str]) -> dict[str, Any]:
    """Send each of `frames` once, so that a switch learns their sources."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sender:
        sender.bind((interface, 0))
        for frame in frames:
            sender.send(bytes.fromhex(frame))
    return {}


def receive_tcp(address: str, warm_up: float, seconds: float) -> dict[str, Any]:
    """Accept one connection and count its bytes for `seconds` after `warm_up`.

    Says the port first, then when the counted window begins.
    """
    buffer = bytearray(TCP_BUFFER)
    with socket.create_server((address, 0)) as listener:
        listener.settimeout(TCP_TIMEOUT)
        say({"port": listener.getsockname()[1]})
        connection, _ = listener.accept()
    with connection:
        connection.settimeout(TCP_TIMEOUT)
        _count(connection, buffer, warm_up)
        say({"window": "begins"})
        received, elapsed = _count(connection, buffer, seconds)
    return {"bytes": received, "seconds": elapsed}


def send_tcp(address: str, port: int) -> dict[str, Any]:
    """Send zeros until the receiver closes the connection."""
    data = memoryview(bytes(TCP_BUFFER))
    sent = 0
    with socket.create_connection((address, port), timeout=TCP_TIMEOUT) as connection:
        try:
            while True:
                sent += connection.send(data)
        except (ConnectionResetError, BrokenPipeError):
            return {"bytes": sent}


def say(answer: dict[str, Any]) -> None:
    """Write one JSON line to stdout."""
    print(json.dumps(answer), flush=True)


def _count(connection: socket.socket, buffer: bytearray, seconds: float) -> tuple[int, float]:
    received, started, now = 0, time.monotonic(), 0.0
    while (now := time.monotonic()) < started + seconds:
        size = connection.recv_into(buffer)
        if size == 0:
            raise ConnectionError("the sender closed the connection")
        received += size
    return received, now - started


COMMANDS: dict[str, Callable[..., dict[str, Any]]] = {
    "send": send,
    "announce": announce,
    "receive_tcp": receive_tcp,
    "send_tcp": send_tcp,
}


def main() -> None:
    """Obey until stdin ends."""
    say({"ready": True})
    for line in sys.stdin:
        command = json.loads(line)
        try:
            answer = COMMANDS[command.pop("do")](**command)
        except OSError as error:
            answer = {"error": str(error)}
        say(answer)


if __name__ == "__main__":
    main()
