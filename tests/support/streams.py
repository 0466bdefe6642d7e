"""Streams and datagrams of the pods' own stacks, over IPv4 and IPv6."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from live import PATIENCE

FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
MEGABYTE = 1 << 20
SOL_UDP, UDP_SEGMENT = 17, 103
families = pytest.mark.parametrize("family", [4, 6], ids=["IPv4", "IPv6"])


def address(pod: Any, family: int) -> str:
    return str((pod.ipv4 if family == 4 else pod.ipv6).ip)


def socket_in(pod: Any, family: int, kind: socket.SocketKind) -> socket.socket:
    """A socket of the pod, bound to its address and a free port."""
    made: socket.socket = pod.socket(FAMILIES[family], kind, 0)
    made.settimeout(PATIENCE)
    made.bind((address(pod, family), 0))
    return made


@contextmanager
def datagram_sockets(one: Any, two: Any, family: int) -> Iterator[tuple[socket.socket, socket.socket]]:
    """A UDP socket in each of two pods."""
    with socket_in(one, family, socket.SOCK_DGRAM) as first, socket_in(two, family, socket.SOCK_DGRAM) as second:
        yield first, second


class Stream:
    """A TCP connection whose two ends stand in two pods."""

    def __init__(self, client: Any, server: Any, family: int) -> None:
        with socket_in(server, family, socket.SOCK_STREAM) as listener:
            listener.listen()
            self.client = socket_in(client, family, socket.SOCK_STREAM)
            self.client.connect(listener.getsockname())
            self.server, _ = listener.accept()
        self.server.settimeout(PATIENCE)

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()
        self.server.close()

    def exchange(self, megabytes: int) -> None:
        """Both ends send at the same time, and each must get exactly what the other one sent."""
        with ThreadPoolExecutor(4) as pool:
            received = [pool.submit(drink, end) for end in (self.server, self.client)]
            sent = [pool.submit(pour, end, megabytes, n) for n, end in enumerate((self.client, self.server))]
            assert [future.result() for future in received] == [future.result() for future in sent]


def pour(end: socket.socket, megabytes: int, flavour: int) -> tuple[int, str]:
    digest = hashlib.blake2b()
    block = hashlib.shake_128(bytes([flavour])).digest(MEGABYTE)
    for n in range(megabytes):
        part = block[n * 997 :] + block[: n * 997]  # no two alike
        end.sendall(part)
        digest.update(part)
    end.shutdown(socket.SHUT_WR)
    return megabytes * MEGABYTE, digest.hexdigest()


def drink(end: socket.socket) -> tuple[int, str]:
    digest, total = hashlib.blake2b(), 0
    while part := end.recv(MEGABYTE):
        digest.update(part)
        total += len(part)
    return total, digest.hexdigest()
