"""A named port whose interface is deleted and made again, 1,000 times: how long until it is a port again.

pytest --benchmark-only benchmarks/decisions/test_made_again.py      # two to four minutes
"""

from __future__ import annotations

import socket
import time
from contextlib import closing
from typing import Any

import pytest
from host import Host
from live import eventually

from fastbridge import PrivilegeError, Switch
from fastbridge.lab.namespaces import NamespaceHelper

pytestmark = [pytest.mark.live, pytest.mark.benchmark(group="ports made again")]

TIMES = 1_000


def is_back(switch: Switch) -> bool:
    """Whether the present interface of this name is a port, not the one before."""
    port = next((port for port in switch.ports if port.name == "p3"), None)
    link = switch._members[port.index].link if port and port.state == "up" else None
    return link is not None and link.link.index == socket.if_nametoindex("p3")


@pytest.mark.parametrize("path", ["off", "nft"])
def test_made_again(benchmark: Any, path: str) -> None:
    waits: list[float] = []
    try:
        with (
            NamespaceHelper() as helper,
            closing(Host(helper)) as host,
            Switch(["p1", "p2", "p3"], match=(), shield=True, fast_path=path) as switch,
        ):

            def once() -> None:
                host.links.delete("p3")
                host.connect(3)
                began = time.perf_counter()
                eventually(lambda: is_back(switch), "the port again")
                waits.append(time.perf_counter() - began)

            benchmark.pedantic(once, rounds=TIMES if benchmark.enabled else 1)
            assert host.ping(3, 1)
    except PrivilegeError as error:
        pytest.skip(str(error))
    figures = {"back after, ms": 1000 * sum(waits) / len(waits), "at most, ms": 1000 * max(waits)}
    if benchmark.stats:
        benchmark.extra_info.update(what=f"a port made again {TIMES:,} times", figures=figures)
    print(figures)
