"""What the kernel takes of a CPU for a small frame: through the bridge, through the fast path, past the shield.

veth forwards within the sender's call. So the CPU time of the sending thread has all of it, and other programs hardly
change it: where rates differ by 10 %, this differs by 1 %.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, nullcontext
from statistics import quantiles
from typing import Any

import pytest
from frames import ethernet
from places import SEED, compared, enter
from work import Figures, Work, record

from fastbridge import Lab, PrivilegeError
from fastbridge.bench import Testbed
from fastbridge.bench.engines import parse_engines
from fastbridge.bench.machine.cpus import Layout
from fastbridge.bench.report.statistics import interleave
from fastbridge.core.tester.traffic import Generator, Lane
from fastbridge.switch.port_socket import PortLike
from fastbridge.switch.shield import Shield, let_pass

pytestmark = [pytest.mark.live, pytest.mark.benchmark(group="the kernel's share", timer=Work.time)]

BASELINE = "linux-bridge"
ENGINES = (BASELINE, "fastbridge/nft", "fastbridge/bpf", "direct")
FRAMES, ROUNDS = 256, 200  # in one call, and calls in a block


def cost(sock: socket.socket, destination: int, source: int) -> float:
    """CPU seconds of this thread for a frame: those of the least disturbed tenth of the calls."""
    packet = bytes.fromhex("4500002e00000000401100000a0900010a090002").ljust(46, b"\0")
    sender = Generator([Lane(sock.fileno(), [ethernet(destination, source, ethertype=0x0800, payload=packet)])])
    taken = []
    for _ in range(ROUNDS):
        before = time.thread_time()
        sent = sender.send([(None, None, FRAMES)])
        taken.append((time.thread_time() - before) / sum(sent.sent))
    return quantiles(taken, n=10)[0]


@contextmanager
def pinned() -> Iterator[None]:
    before = os.sched_getaffinity(thread := threading.get_native_id())
    os.sched_setaffinity(thread, {Layout.of_machine().sender})
    try:
        yield
    finally:
        os.sched_setaffinity(thread, before)


@contextmanager
def shield(port: PortLike) -> Iterator[None]:
    with closing(Shield(port.open_socket)) as made:
        made.add([(1, port.name)])
        yield


def measure(names: Sequence[str], blocks: int, trial: Callable[[str], float]) -> dict[str, dict[int, float]]:
    found: dict[str, dict[int, float]] = {name: {} for name in names}
    with pinned():
        for block, order in enumerate(interleave(tuple(names), blocks, SEED)):
            for name in order:
                found[name][block] = trial(name)
    return found


def report(benchmark: Any, what: str, found: dict[str, dict[int, float]], baseline: str, ours: str) -> None:
    figures: Figures = {f"{name}, ns": 1e9 * sum(values.values()) / len(values) for name, values in found.items()}
    for name in found.keys() - {baseline}:
        figures |= compared(f"{name} / {baseline}", found[name], found[baseline])
    record(benchmark, list(found[ours].values()), what, figures)


def test_forwarding(benchmark: Any, request: pytest.FixtureRequest) -> None:
    with ExitStack() as stack:
        beds = {
            engine.name: enter(stack, Testbed(engine))
            for engine in parse_engines(",".join(ENGINES))
            if engine.missing() is None
        }

        def trial(name: str) -> float:
            with beds[name].alone():
                one, two = beds[name].lab.pods
                one.ping(two, count=20, interval=0.01)  # known, and promoted
                with one.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sock:
                    sock.bind((one.interface, 0))
                    return cost(sock, int(two.mac), int(one.mac))

        for bed in beds.values():
            bed.running.pause()
        found = measure(list(beds), request.config.getoption("--blocks"), trial)
    report(benchmark, "64 B from pod to pod", found, BASELINE, "fastbridge/nft")


def test_sending_past_the_shield(benchmark: Any, request: pytest.FixtureRequest) -> None:
    with ExitStack() as stack:
        try:
            lab = stack.enter_context(Lab(1))
        except PrivilegeError as error:
            pytest.skip(str(error))
        port, pod = lab.ports[0], lab.pods[0]
        sock = stack.enter_context(port.open_socket(socket.AF_PACKET, socket.SOCK_RAW, 0))
        sock.bind((port.name, 0))
        let_pass(sock)

        def trial(name: str) -> float:
            with shield(port) if name == "shielded" else nullcontext():
                return cost(sock, int(pod.mac), 2 << 40)

        found = measure(["bare", "shielded"], request.config.getoption("--blocks"), trial)
    report(benchmark, "64 B into a pod", found, "bare", "shielded")
