"""A lab of 200 switches with 5 pods each, all switches in this process: made, pinged once on each, removed.

On two CPUs it takes some 15 s of CPU until all forward; beside other programs that is much longer on the clock.
"""

from __future__ import annotations

import os
import resource
import time
from typing import Any

import pytest

from fastbridge import Lab, PrivilegeError, Switches, Topology

pytestmark = [pytest.mark.live, pytest.mark.benchmark(group="topologies")]

SWITCHES, PODS = 200, 5
MOST_SECONDS = 30.0  # until all pods can talk


@pytest.mark.parametrize("what", ["line", "apart"])
def test_200_switches(benchmark: Any, what: str) -> None:
    """In a line with trunks, and each a LAN of its own."""
    plan = Topology.linear(SWITCHES, PODS, ipv6=None)
    if what == "apart":
        table = plan.to_dict()
        for name in table["switch"]:
            table["switch"][name]["trunks"] = []
        plan = Topology.from_dict(table)
    figures: dict[str, float] = {"switches": SWITCHES, "pods": len(plan.pods), "load average": os.getloadavg()[0]}

    def once() -> None:
        began, used = time.perf_counter(), time.process_time()
        with Lab(plan) as lab:
            figures["lab up"] = time.perf_counter() - began
            with Switches(lab.switches) as switches:
                figures["up"] = time.perf_counter() - began
                figures["CPU s"] = time.process_time() - used
                for name in switches:
                    one, *_, other = (port for port in lab.switches[name] if port.name in lab)
                    assert lab[one.name].ping(lab[other.name], timeout=10)
                figures["pinged"] = time.perf_counter() - began
                figures["MiB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
                began = time.perf_counter()
        figures["down"] = time.perf_counter() - began

    try:
        benchmark.pedantic(once, rounds=1)
    except PrivilegeError as error:
        pytest.skip(str(error))
    benchmark.extra_info.update(what=what, figures=figures)
    if benchmark.stats:
        assert figures["up"] <= MOST_SECONDS
