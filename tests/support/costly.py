"""A pod that is expensive to send to: filters of its packet sockets run within the sender's call."""

from __future__ import annotations

import contextlib
import ctypes
import socket
import struct
import time
from collections.abc import Iterator
from typing import Any

from frames import GROUP, ethernet
from meanwhile import meanwhile

SO_ATTACH_FILTER, ETH_P_ALL = 26, 3
DIVIDE, RETURN = 0x34, 0x06  # linux/filter.h: divide, which is slow; return 0: drop
STEPS = 2000  # of a filter: as many as the net.core.optmem_max of any kernel takes


@contextlib.contextmanager
def costly(pod: Any, sockets: int) -> Iterator[None]:
    """Make each frame to the pod cost some 10 µs for each of these sockets."""
    step, end = struct.pack("=HBBI", DIVIDE, 0, 0, 3), struct.pack("=HBBI", RETURN, 0, 0, 0)
    program = ctypes.create_string_buffer(step * (STEPS - 1) + end)
    with contextlib.ExitStack() as stack:
        for _ in range(sockets):
            sock = stack.enter_context(pod.socket(socket.AF_PACKET, socket.SOCK_RAW, 0))
            sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HL", STEPS, ctypes.addressof(program)))
            sock.bind((pod.interface, ETH_P_ALL))
        yield


@contextlib.contextmanager
def broadcasting(pod: Any, rate: float) -> Iterator[None]:
    """Broadcast this many frames a second, from another thread, until the block ends."""
    frame = ethernet(GROUP, int(pod.mac), payload=bytes(46))
    due = time.monotonic()

    def broadcast() -> None:
        nonlocal due
        wire.send(frame)
        due += 1 / rate
        time.sleep(max(0.0, due - time.monotonic()))

    with pod.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as wire:
        wire.bind((pod.interface, 0))
        with meanwhile(broadcast):
            yield
