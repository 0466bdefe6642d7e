"""A stage whose switch has a fast path, and what the kernel was told by it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from effort import few
from live import PATIENCE, eventually, stage

from fastbridge import Lab, Switch, Topology
from fastbridge.switch.fast_path import hands
from fastbridge.switch.fast_path.hand import Pair

HANDS = pytest.mark.parametrize("hand", few(1, ["nft", "bpf"]))


@contextmanager
def fast(hand: str = "nft", pods: int | Topology = 3, **options: Any) -> Iterator[tuple[Lab, Switch]]:
    """As stage(), of pods that say nothing by themselves; skipped where the kernel has no such hand for us."""
    topology = Topology.of(pods, ipv6=None) if isinstance(pods, int) else pods
    need(hand)
    with stage(topology, fast_path=hand, **options) as (lab, switch):
        assert switch.fast_path == hand
        yield lab, switch


def need(hand: str) -> None:
    """Skip the test where the kernel has no such hand for us."""
    with Lab(Topology.of(1)) as lab:
        why = hands.missing(hand, lab.ports[0].open_socket)
        hands.settle()
    if why:
        pytest.skip(why)


def pairs(switch: Switch) -> dict[Pair, int]:
    """What is promoted, and to which port."""
    assert switch._fast.lane is not None and switch._fast.lane.head is not None
    return switch._fast.lane.head.pairs


def promoted(switch: Switch) -> int:
    return len(pairs(switch))


def forwarded(switch: Switch, *names: str) -> list[int]:
    """How many frames the kernel has forwarded from these ports, once two readings agree."""
    readings: list[list[int]] = []

    def agree() -> bool:
        ports = switch.counters().ports
        readings.append([ports[name].fast for name in names])
        return readings[-2:-1] == readings[-1:]

    eventually(agree, "readings that agree")
    return readings[-1]


def know_each_other(lab: Lab, switch: Switch, one: str = "pod1", other: str = "pod2") -> None:
    """Two stations known to the core, and their pair to the kernel."""
    macs = {int(lab[one].mac), int(lab[other].mac)}

    def each_way() -> bool:
        assert lab[one].ping(other, family=4, timeout=PATIENCE).received == 1
        return sum({pair.source, pair.destination} == macs for pair in pairs(switch)) >= 2

    eventually(each_way, "a pair promoted each way")


def received(switch: Switch, name: str) -> int:
    """How many frames came in by a port, by either path, those that were lost in the ring included."""
    port = switch.counters().ports[name]
    return port.rx_frames + port.fast + port.rx_missed
