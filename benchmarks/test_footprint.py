"""What a switch takes up: memory a port, and the time to open and close all of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fastbridge import Lab, PrivilegeError, Switch

pytestmark = pytest.mark.live


@pytest.fixture(scope="module", params=[2, 100, 250], ids="{} ports".format)
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    try:
        with Lab(request.param) as made:
            yield made
    except PrivilegeError as error:
        pytest.skip(str(error))


def resident_mb() -> float:
    """This process's memory, the mapped rings included."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


@pytest.mark.benchmark(group="footprint: a switch opened and closed")
def test_open_and_close(benchmark: Any, lab: Lab) -> None:
    def grown() -> float:
        before = resident_mb()
        with Switch(lab.ports, policy="suppress"):
            return resident_mb() - before

    memory = grown()  # the first one: later ones find memory that the process already has
    benchmark.pedantic(grown, rounds=3)
    if benchmark.stats:
        each = benchmark.stats.stats.median / len(lab.ports)
        benchmark.extra_info.update(what="port", ns=each * 1e9, megabytes=memory / len(lab.ports))
