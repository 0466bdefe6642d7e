"""What a capture costs: the core, for each frame that it looks at; and a running switch, in frames a second."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from places import enter

from fastbridge import ConfigError, Switch
from fastbridge.bench import Testbed
from fastbridge.bench.engines import parse_engines
from fastbridge.bench.methods.forwarding_rate import ForwardingRate
from fastbridge.control.directory import running
from fastbridge.core.memory_ports import MemoryPorts
from fastbridge.pcap_filter import compile_filter
from fastbridge.switch.capture import Wish

BATCH, REPLAYS, ROUNDS, PAIRS = 64, 1000, 20, 5
FILTER = "tcp port 80 and host 10.9.9.9"  # no frame here matches
FRAME = bytes.fromhex("020000000002 020000000001 0800 45000032 00000000 40110000 0a000001 0a000002 00090009 001e0000")
WISHES = {
    "no capture": None,
    "drops": {"drops": True},
    "another port": {"ports": ["c"]},
    "filter": {"filter": FILTER},
}


@pytest.fixture(autouse=True, scope="module")
def libpcap() -> None:
    try:
        compile_filter(FILTER)
    except ConfigError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("wish", WISHES)
@pytest.mark.benchmark(group="capture: a frame in the core that it does not show")
def test_look_at(benchmark: Any, wish: str) -> None:
    switch = Switch.in_memory(["a", "b", "c"])
    switch.fdb.add("02:00:00:00:00:02", "b")
    words = WISHES[wish]
    capture = switch.watch(Wish(**words)) if words is not None else None  # type: ignore[arg-type]
    batch = [FRAME.ljust(60, b"\0")] * BATCH
    replay = MemoryPorts(switch._dataplane).replay
    benchmark.pedantic(replay, args=(0, batch, 1, REPLAYS), rounds=ROUNDS, warmup_rounds=2)
    if capture is not None:
        assert capture.read() == []
        capture.close()
    if benchmark.stats:
        each = benchmark.stats.stats.median / BATCH / REPLAYS
        benchmark.extra_info.update(what="frame", ns=1e9 * each, mega_per_second=1e-6 / each)


@contextmanager
def captured(name: str) -> Iterator[None]:
    """While a filtered capture of a running switch is written to nowhere."""
    command = [sys.executable, "-m", "fastbridge", "capture", "--switch", name, "--filter", FILTER, "-w"]
    before = running()
    process = subprocess.Popen([*command, "/dev/null"], stderr=subprocess.PIPE, text=True)
    try:
        assert name in before
        while not any(path.readlink() == Path("/dev/null") for path in Path(f"/proc/{process.pid}/fd").glob("[3-9]*")):
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        _, said = process.communicate()
    assert said == "0 frames captured, 0 lost by the capture\n"


@pytest.mark.live
@pytest.mark.benchmark(group="capture: forwarding rate beside it")
def test_forward_beside_a_filtered_capture(benchmark: Any) -> None:
    """Pairs of trials, one with a capture and one without. What counts is their ratio."""
    method = ForwardingRate()
    ratios, alone = [], []
    with ExitStack() as stack:
        bed = enter(stack, Testbed(parse_engines("fastbridge/af-packet")[0]))
        (name,) = (each for each in running() if f"{bed.running.processes[0].process.pid}" in each)

        def pair() -> None:
            alone.append(method.run(bed).values["frmol"])
            with captured(name):
                ratios.append(method.run(bed).values["frmol"] / alone[-1])

        benchmark.pedantic(pair, rounds=PAIRS, warmup_rounds=1)
    if benchmark.stats:
        benchmark.extra_info.update(what="frame", mega_per_second=1e-6 * median(alone))
        benchmark.extra_info["figures"] = {"with a filtered capture, of the rate without": median(ratios[1:])}
