"""Punt pairs of ports that were lost: what is removed later is the switch's own, whatever has its name or its index."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from fast import know_each_other, need
from live import PATIENCE, eventually, state

from fastbridge import Lab, Switch, Topology

pytestmark = pytest.mark.live


def links(lab: Lab) -> dict[str, int]:
    """The interfaces of the host ends' namespace, and their indexes."""
    return {link["ifname"]: link["ifindex"] for link in json.loads(lab.run_host(["ip", "-j", "link"]).stdout)}


@contextmanager
def lost_and_taken() -> Iterator[tuple[Lab, Switch, Switch]]:
    """A switch that has lost pod 1's port, and another one that has it now."""
    need("nft")
    with Lab(Topology.of(3, ipv6=None)) as lab, Switch(lab.ports[:2], fast_path="nft") as first:
        know_each_other(lab, first)
        lab.run_host(["ip", "link", "add", "bridge", "type", "bridge"])
        lab.run_host(["ip", "link", "set", "pod1", "master", "bridge"])
        eventually(lambda: state(first, "pod1") == "gone", "the loss")
        lab.run_host(["ip", "link", "delete", "bridge"])
        with Switch([lab.ports[0], lab.ports[2]], fast_path="nft") as second:
            know_each_other(lab, second, "pod1", "pod3")
            yield lab, first, second


@pytest.mark.parametrize("removal", ["remove_port", "stop"])
def test_another_switchs_pair_of_the_port_stays(removal: str) -> None:
    with lost_and_taken() as (lab, first, second):
        before = links(lab)
        if removal == "stop":
            first.stop()
        else:
            first.remove_port("pod1")
        pair = f"fbo{before['pod1']}"
        assert links(lab)[pair] == before[pair]
        counted = second.counters().total.fast
        assert lab["pod1"].ping("pod3", family=4, count=5, interval=0.01, timeout=PATIENCE).received == 5
        eventually(lambda: second.counters().total.fast >= counted + 10, "echoes by the kernel")
        assert lab["pod3"].ping("pod1", family=4, timeout=PATIENCE).received == 1  # and by the core: asked by ARP anew


def test_an_interface_that_has_a_pairs_old_index_stays() -> None:
    """It came from another namespace, say, with the index that it had there."""
    with lost_and_taken() as (lab, first, _):
        listen = first._members[0].listen
        assert listen is not None and listen.punt not in links(lab).values()
        lab.run_host(["ip", "link", "add", "stranger", "index", str(listen.punt), "type", "bridge"])
        first.remove_port("pod1")
        assert links(lab)["stranger"] == listen.punt
        lab.run_host(["ip", "link", "delete", "stranger"])
