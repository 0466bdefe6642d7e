"""Readiness, by trial.

A program that does not say when it is ready is ready when it forwards: broadcasts from the first pod have been
heard in every other one, and one from the second in the first.
"""

from __future__ import annotations

import select
import socket
import time
from contextlib import ExitStack

from fastbridge.errors import BenchError

from .running import Programs

_ETHERTYPE = 0x88B6  # IEEE 802 local experimental 2: the tester's is the first, so that none is taken for another
_INTERVAL = 0.02  # seconds


def await_forwarding(programs: Programs, seconds: float) -> None:
    """Wait until the lab's host ends are joined; raise BenchError when they are not after so many seconds."""
    if not forwards(programs, seconds):
        raise BenchError(f"{programs.name} forwarded nothing in {seconds:g} s{programs.processes[-1].last_words()}")


def forwards(programs: Programs, seconds: float) -> bool:
    """Wait until the lab's host ends are joined; False when they are not after so many seconds.

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
