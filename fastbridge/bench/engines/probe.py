"""Readiness, by trial.

Not every program says when it is ready. It is ready when it forwards: every other pod has heard a broadcast from the
first pod, and the first pod one from the second.
"""

from __future__ import annotations

import select
import socket
import time
from contextlib import ExitStack

from fastbridge.errors import BenchError

from .running import Programs

_ETHERTYPE = 0x88B6  # IEEE 802 local experimental 2: the tester has 1, so frames cannot be confused
_INTERVAL = 0.02  # seconds


def await_forwarding(programs: Programs, seconds: float) -> None:
    """Wait until the lab's host ends are joined; raise BenchError if they are not within the time."""
    if not forwards(programs, seconds):
        raise BenchError(f"{programs.name} forwarded nothing in {seconds:g} s{programs.processes[-1].last_words()}")


def forwards(programs: Programs, seconds: float) -> bool:
    """Wait until the lab's host ends are joined; False if they are not within the time.

    Raises BenchError when the engine has died meanwhile. The probes teach its FDB the first two pods' addresses.
    """
    lab = programs.lab
    deadline = time.monotonic() + seconds
    with ExitStack() as stack:
        ears = [stack.enter_context(pod.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)) for pod in lab]
        waiting = select.poll()
        for ear, pod in zip(ears, lab, strict=True):
            ear.bind((pod.interface, _ETHERTYPE))
            waiting.register(ear, select.POLLIN)
        deaf = {ear.fileno() for ear in ears}
        while deaf and time.monotonic() < deadline:
            programs.check()
            for ear, pod in zip(ears[:2], lab.pods, strict=False):
                ear.send(b"\xff" * 6 + pod.mac.packed + _ETHERTYPE.to_bytes(2, "big") + bytes(46))
            limit = time.monotonic() + _INTERVAL
            while deaf and (rest := limit - time.monotonic()) > 0:
                for fd, _ in waiting.poll(rest * 1e3):
                    waiting.unregister(fd)
                    deaf.discard(fd)
    return not deaf
