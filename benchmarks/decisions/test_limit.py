"""The floor: what fastbridge takes beyond a forwarder with the same system calls and nothing else (limit/forward.c).

And whether there is a lower one: the same forwarder, sending by TX rings (limit/forward_tx_ring.c). Frames that are
not IP, so that nothing is coalesced; in interleaved blocks, at the maximum offered load and of a full ring.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from full_ring import THERE, times_a_frame
from peers import Peers
from places import compared
from work import Figures, Work, record

from fastbridge.bench import ENGINES, CommandEngine, Engine, Task
from fastbridge.bench.methods.forwarding_rate import ForwardingRate
from fastbridge.bench.report.statistics import ratio

pytestmark = [pytest.mark.live, pytest.mark.benchmark(group="limit", timer=Work.time)]

FLOOR, SWITCH = "floor", "fastbridge"
SOURCES = {FLOOR: "forward.c", "floor/tx-ring": "forward_tx_ring.c"}
METHOD = ForwardingRate((64,), seconds=0.3)
RINGS = 8  # a block


@pytest.fixture(scope="module")
def task(request: pytest.FixtureRequest) -> Task:
    return Task(METHOD, request.config.getoption("--blocks"), seconds=0.6)


@pytest.fixture(scope="module")
def forwarders(tmp_path_factory: pytest.TempPathFactory) -> list[Engine]:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler cc on the PATH: install gcc or clang")
    floors: list[Engine] = []
    for name, source in SOURCES.items():
        program = tmp_path_factory.mktemp("limit") / "forward"
        command = [compiler, "-O3", "-Wall", "-Wextra", "-o", program, Path(__file__).parent / "limit" / source]
        built = subprocess.run(command, capture_output=True, text=True, check=False)
        assert built.returncode == 0, built.stderr
        floors.append(CommandEngine(f"{shlex.quote(str(program))} {{ports}}", name=name, most_ports=2))
    return [*floors, ENGINES[SWITCH]]


@pytest.fixture(scope="module")
def peers(task: Task, forwarders: list[Engine]) -> Peers:
    return Peers.measure(forwarders, FLOOR, [task])


@pytest.mark.parametrize("who", [*SOURCES, SWITCH])
def test_limit(benchmark: Any, peers: Peers, task: Task, who: str) -> None:
    figures: dict[str, float | list[float]] = {}
    if who == SWITCH:
        ours, floor = ({n: 1e9 / rate for n, rate in peers.found(task.name, name).items()} for name in (SWITCH, FLOOR))
        common = ours.keys() & floor.keys()
        if common:
            figures["ns a frame over the floor"] = median(ours[n] - floor[n] for n in common)
        if measured := ratio(ours, floor, seed=peers.run.results.seed):
            figures["cost / floor"] = [measured.mean, measured.low, measured.high]
        cpu, least = (peers.row(task.name, name).cpu_switch_ns for name in (SWITCH, FLOOR))
        if cpu is not None and least is not None:
            figures["CPU ns a frame over the floor"] = cpu - least
    peers.put(benchmark, task, who, **figures)


def test_full_ring(benchmark: Any, request: pytest.FixtureRequest, forwarders: list[Engine]) -> None:
    """The row is the switch's."""
    seconds = times_a_frame(forwarders, THERE, RINGS * request.config.getoption("--blocks"))
    ns = {name: 1e9 * median(values.values()) for name, values in seconds.items()}
    figures: Figures = {f"{name}, ns a frame": value for name, value in ns.items()}
    for name in [name for name in seconds if name != FLOOR]:
        figures |= compared(f"{name}, cost / floor", seconds[name], seconds[FLOOR])
    record(benchmark, list(seconds[SWITCH].values()), "frame, ring full", figures)
    benchmark.extra_info["ns"] = ns[SWITCH]
