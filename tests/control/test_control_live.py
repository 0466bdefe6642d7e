"""The control socket under attack, beside traffic: neither the pods nor a good client notice."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from live import PATIENCE
from meanwhile import meanwhile
from streams import Stream
from talks import Asked, environment

from fastbridge import Lab, Switch
from fastbridge.control.client import Client
from fastbridge.control.server import ControlServer

pytestmark = [pytest.mark.live, pytest.mark.slow]

# 1,000 connections at a time, each with something else wrong, over and over until its input ends.
ATTACKS = """
import contextlib, itertools, os, random, select, sys, time
from pathlib import Path
from talks import Raw
from fastbridge.open_files import reserve_files
from fastbridge.waiting import wait_for

path, good = Path(sys.argv[1]), b'{"jsonrpc": "2.0", "id": 1, "method": "echo"}\\n'
stream = b'{"jsonrpc": "2.0", "id": 1, "method": "ticks"}\\n'
reserve_files(1100)
open_ones = []
for number in itertools.count():
    if len(open_ones) == 1000:
        open_ones.pop(random.randrange(1000)).close()
    began, raw = time.process_time(), Raw(path)
    with contextlib.suppress(OSError):
        raw.send([b"", b'{"half', os.urandom(1000), b"x" * 70_000, good * 20, b"[" * 9000 + b"\\n"][number % 6])
        if number in (3, 999):
            raw.send(stream)
    open_ones.append(raw)
    if number == 1000:
        print("there", flush=True)
    if number >= 1000:
        time.sleep(max(0.005, 9 * (time.process_time() - began)))  # or it would be a test of who gets the CPUs
        if wait_for(0, select.POLLIN, 0):
            break
"""


@contextmanager
def attack(path: Path) -> Iterator[None]:
    process = subprocess.Popen(
        [sys.executable, "-c", ATTACKS, path],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment(),
    )  # fmt: skip
    try:
        assert process.stdout and process.stdout.readline() == "there\n"
        yield
        process.communicate(timeout=PATIENCE)
        assert process.returncode == 0
    finally:
        process.kill()
        process.communicate()


def test_streams_and_a_good_client_beside_a_thousand_bad_ones(tmp_path: Path) -> None:
    path, there = tmp_path / "one.sock", Asked()
    asked = 0

    def ask() -> None:
        nonlocal asked
        assert good.call("echo", value=asked) == asked
        with Client(path=path, timeout=PATIENCE) as new:
            assert new.call("echo", value=-asked) == -asked
        asked += 1

    with Lab(2) as lab, Switch(lab.ports) as switch, ControlServer(path, there.verbs):
        assert lab["pod1"].ping("pod2", timeout=PATIENCE)
        with Client(path=path, timeout=PATIENCE) as good, good.stream("ticks") as events, attack(path):
            with meanwhile(ask, pause=0.01), Stream(lab["pod1"], lab["pod2"], 4) as stream:
                stream.exchange(50)
            for number in range(100):
                there.streams[0].say(number=number)
                assert next(events) == {"number": number}
        assert asked > 0
        counters = switch.counters()
        assert not any(counters.total.dropped.values())


@contextmanager
def listening(pod: Any) -> Iterator[None]:
    process = pod.popen(["iperf3", "-s", "--forceflush"], stdout=subprocess.PIPE, text=True)
    try:
        while "listening" not in process.stdout.readline():
            pass
        drain = threading.Thread(target=process.stdout.read)
        drain.start()
        yield
    finally:
        process.terminate()
        drain.join()
        process.wait()
        process.stdout.close()


@pytest.mark.alone
def test_iperf3_is_as_fast_beside_them(tmp_path: Path) -> None:
    """The median of rates that follow one another: the machine does other things, too, and its speed drifts."""
    if shutil.which("iperf3") is None:
        pytest.skip("needs iperf3")
    path, there = tmp_path / "one.sock", Asked()

    def rate() -> float:
        done = lab["pod1"].run(["iperf3", "-J", "-t", "1", "-c", str(lab["pod2"].ipv4.ip)], timeout=PATIENCE)
        return float(json.loads(done.stdout)["end"]["sum_received"]["bits_per_second"])

    alone, beside = [], []

    def ratio() -> float:
        return median(b / a for a, b in zip(alone, beside, strict=True))

    with Lab(2) as lab, Switch(lab.ports), ControlServer(path, there.verbs), listening(lab["pod2"]):
        assert lab["pod1"].ping("pod2", timeout=PATIENCE)
        for _ in range(10):
            alone.append(rate())
            with attack(path):
                beside.append(rate())
            if len(beside) >= 3 and ratio() > 0.8:
                break
    assert ratio() > 0.8, (alone, beside)
