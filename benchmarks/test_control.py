"""What the control socket costs: frames/s at full load without it, with it, and while somebody asks for the counters.

One switch in one lab, so that nothing else differs; each way once a block, in random order.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from arp_parts import Sender
from meanwhile import meanwhile
from places import SEED, compared
from work import Figures, Work, record

from fastbridge import Lab, PrivilegeError, Switch, Topology
from fastbridge.bench.machine.cpus import Layout
from fastbridge.bench.report.statistics import interleave
from fastbridge.control.client import Client
from fastbridge.control.server import ControlServer
from fastbridge.control.verbs import Verbs

pytestmark = [pytest.mark.live, pytest.mark.benchmark(group="control socket", timer=Work.time)]

NONE, AGAIN, IDLE, STATS = "no socket", "no socket again", "idle socket", "stats every second"
WAYS = (NONE, AGAIN, IDLE, STATS)  # the second shows the noise
SECONDS, WARM_UP = 1.05, 0.2  # so that the counters are asked for twice
FRAME = b"\x88\xb5" + bytes(46)  # IEEE 802 local experimental, and padding


@contextmanager
def asked(switch: Switch, path: Path, way: str) -> Iterator[None]:
    """The switch, with a socket and a client who is connected, or without."""
    if way in (NONE, AGAIN):
        yield
        return
    verbs = Verbs()
    verbs.add("stats", lambda: [switch.counters().as_dict()])
    with (
        ControlServer(path, verbs),
        Client(path=path) as client,
        meanwhile(lambda: client.call("stats"), pause=1.0) if way == STATS else nullcontext(),
    ):
        yield


@pytest.mark.parametrize("fast_path", ["off", "nft"])
def test_control_socket(benchmark: Any, request: pytest.FixtureRequest, tmp_path: Path, fast_path: str) -> None:
    rates: dict[str, dict[int, float]] = {way: {} for way in WAYS}
    layout = Layout.of_machine()
    with ExitStack() as stack:
        try:
            lab = stack.enter_context(Lab(Topology.of(2, ipv6=None)))
        except PrivilegeError as error:
            pytest.skip(str(error))
        switch = stack.enter_context(Switch(lab.ports, cpu=layout.switch, fast_path=fast_path))
        one, two = lab
        assert one.ping(two)
        sender = Sender(stack, one, layout.sender)

        def passed() -> tuple[float, int]:
            total = switch.counters().total
            return time.monotonic(), total.tx_frames + total.fast_sent

        for block, order in enumerate(interleave(WAYS, request.config.getoption("--blocks"), SEED)):
            for way in order:
                with asked(switch, tmp_path / "switch.sock", way):
                    sender.begin([two.mac.packed + one.mac.packed + FRAME], SECONDS + 2 * WARM_UP, None)
                    time.sleep(WARM_UP)
                    began, before = passed()
                    time.sleep(SECONDS)
                    ended, after = passed()
                    sender.end(SECONDS + 10)
                rates[way][block] = (after - before) / (ended - began)
    figures: Figures = {f"{way}, frames/s": round(median(values.values())) for way, values in rates.items()}
    for way in WAYS[1:]:
        figures |= compared(f"{way} / {NONE}", rates[way], rates[NONE])
    rounds = [1e5 / rate for rate in rates[STATS].values()]
    record(benchmark, rounds, f"100,000 frames, stats every second, fast path {fast_path}", figures)
