"""A restart under load: how long no frame passes.

A probe leaves one pod every millisecond, beside a TCP stream, and the longest gap between two that arrive is the
outage. With `--take-over` the new process has everything open before it asks the old one to end; what remains is the
kernel's time for lifting the old shield and the old fast path. After a stop and a start Python's own start comes on
top. The stream pauses longer than the outage: TCP waits for at least 200 ms before it repeats what was lost.
"""

from __future__ import annotations

import itertools
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fastbridge import Lab, PrivilegeError, Topology
from fastbridge.switch.fast_path import hands

pytestmark = [pytest.mark.live, pytest.mark.benchmark(group="restart")]

ROUNDS, MOST_SECONDS = 5, 0.1
PROBE_SECONDS, BEFORE_SECONDS, AFTER_SECONDS = 0.001, 0.3, 0.7


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    try:
        with Lab(Topology.of(3, ipv6=None)) as made:
            one, two = made["pod1"], made["pod2"]
            for pod, other in ((one, two), (two, one)):  # a long outage must not become one of ARP
                entry = f"{other.ipv4.ip} lladdr {other.mac} dev {pod.interface} nud permanent"
                pod.run(["ip", "neigh", "replace", *entry.split()])
            yield made
    except PrivilegeError as error:
        pytest.skip(str(error))


class Probes:
    """Frames from one pod to another, one a millisecond, and a TCP stream beside them."""

    def __init__(self, lab: Lab) -> None:
        one, two = lab["pod1"], lab["pod2"]
        self._receiver = two.socket(socket.AF_INET, socket.SOCK_DGRAM, 0)
        self._receiver.bind(("", 0))
        self._receiver.settimeout(0.1)
        self._sender = one.socket(socket.AF_INET, socket.SOCK_DGRAM, 0)
        self._sender.connect((str(two.ipv4.ip), self._receiver.getsockname()[1]))
        with two.socket(socket.AF_INET, socket.SOCK_STREAM, 0) as listener:
            listener.bind(("", 0))
            listener.listen()
            self._from = one.socket(socket.AF_INET, socket.SOCK_STREAM, 0)
            self._from.connect((str(two.ipv4.ip), listener.getsockname()[1]))
            self._to, _ = listener.accept()
        for sock in (self._from, self._to):
            sock.settimeout(60)
        self._times: list[float] = []
        self._stream: list[float] = []
        self._ends = threading.Event()
        works = self._probe, self._hear, self._push, self._pull
        self._threads = [threading.Thread(target=work, daemon=True) for work in works]
        for thread in self._threads:
            thread.start()

    def _probe(self) -> None:
        while not self._ends.wait(PROBE_SECONDS):
            self._sender.send(b"probe")

    def _hear(self) -> None:
        while not self._ends.is_set():
            try:
                self._receiver.recv(16)
            except TimeoutError:
                continue
            self._times.append(time.monotonic())

    def _push(self) -> None:
        with self._from:
            while not self._ends.wait(PROBE_SECONDS):
                self._from.sendall(bytes(16384))

    def _pull(self) -> None:
        with self._to:
            while self._to.recv(1 << 16):
                self._stream.append(time.monotonic())

    def begin(self) -> None:
        self._times[:] = self._stream[:] = [time.monotonic()]

    def gaps(self) -> tuple[float, float]:
        """The longest of the probes, and of the stream."""
        found = []
        for times in (self._times, self._stream):
            until_now = [*times, time.monotonic()]  # the stream may not go on yet
            found.append(max(after - before for before, after in itertools.pairwise(until_now)))
        return found[0], found[1]

    def close(self) -> None:
        self._ends.set()
        for thread in self._threads:
            thread.join()
        self._receiver.close()
        self._sender.close()


def begin(lab: Lab, state: Path, path: str, *more: str) -> subprocess.Popen[str]:
    ports = [port.name for port in lab.ports]
    command = [sys.executable, "-m", "fastbridge", "run", "--json", "--fast-path", path, "--state", str(state)]
    process = lab.popen_host([*command, *more, *ports], stdout=subprocess.PIPE, text=True)
    return process


def ready(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["event"] == "ready"


def end(process: subprocess.Popen[str]) -> None:
    out, _ = process.communicate()
    assert json.loads(out.splitlines()[-1])["event"] == "stopped"


@pytest.mark.parametrize("path", ["off", "nft", "bpf"])
@pytest.mark.parametrize("how", ["take over", "stop and start"])
def test_outage(benchmark: Any, lab: Lab, tmp_path: Path, how: str, path: str) -> None:
    if path != "off" and (why := hands.missing(path)):
        pytest.skip(why)
    hands.settle()
    outages: list[float] = []
    pauses: list[float] = []
    process = begin(lab, tmp_path / "state.json", path)
    ready(process)
    probes = Probes(lab)

    def once() -> None:
        nonlocal process
        time.sleep(BEFORE_SECONDS)
        probes.begin()
        before = process
        if how == "take over":
            process = begin(lab, tmp_path / "state.json", path, "--take-over")
        else:
            before.terminate()
            end(before)
            process = begin(lab, tmp_path / "state.json", path)
        ready(process)
        if how == "take over":
            end(before)
        time.sleep(AFTER_SECONDS)
        outage, pause = probes.gaps()
        outages.append(outage)
        pauses.append(pause)

    benchmark.pedantic(once, rounds=ROUNDS)
    probes.close()
    process.terminate()
    end(process)
    if benchmark.stats:
        figures = {
            "outage": min(outages),
            "median outage": sorted(outages)[len(outages) // 2],
            "pause of TCP": min(pauses),
            "load average": os.getloadavg()[0],
        }
        benchmark.extra_info.update(what=f"{how}, fast path {path}", figures=figures)
        assert how != "take over" or min(outages) <= MOST_SECONDS
