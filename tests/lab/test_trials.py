"""What people know from Mininet: all pods ping each other, and iperf3 measures between two."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from live import PATIENCE, eventually

from fastbridge import ConfigError, Lab, LabError, Switch, Topology
from fastbridge.lab import trials
from fastbridge.lab.trials import iperf, ping_all

pytestmark = pytest.mark.live


@pytest.mark.parametrize("ipv4", ["10.0.0.0/16", None])
def test_all_reach_each_other(ipv4: str | None) -> None:
    with Lab(Topology.of(4, ipv4=ipv4)) as lab, Switch(lab.ports):
        found = ping_all(lab.pods, PATIENCE)
    assert {(reach.source, reach.target) for reach in found} == {
        (f"pod{one}", f"pod{other}") for one in range(1, 5) for other in range(1, 5) if one != other
    }
    assert all(reach.result for reach in found)


def test_who_is_out_of_reach() -> None:
    with Lab(3) as lab, Switch(lab.ports):
        lab["pod3"].set_down()

        def found() -> bool:
            reached = {(reach.source, reach.target): bool(reach.result) for reach in ping_all(lab.pods, 0.5)}
            return reached == {pair: "pod3" not in pair for pair in reached} and len(reached) == 6

        eventually(found, "the two that are left")


def test_one_pod_pings_nobody() -> None:
    with Lab(1) as lab, pytest.raises(ConfigError, match="nobody to ping"):
        ping_all(lab.pods, 1)


@pytest.mark.skipif(shutil.which("iperf3") is None, reason="iperf3 is not installed (package iperf3)")
@pytest.mark.parametrize("ipv4", ["10.0.0.0/16", None])
def test_iperf(ipv4: str | None) -> None:
    with Lab(Topology.of(2, ipv4=ipv4)) as lab, Switch(lab.ports):
        found = iperf(*lab, 1)
    assert found.bits_per_second > 0 and found.seconds > 0.5 and found.retransmits >= 0


@pytest.mark.skipif(shutil.which("iperf3") is None, reason="iperf3 is not installed (package iperf3)")
def test_iperf_says_why_it_fails() -> None:
    with Lab(2) as lab:
        lab["pod1"].set_down()
        with pytest.raises(LabError, match=r"^iperf3 in pod pod1: unable to connect to server"):
            iperf(*lab, 1)
        with pytest.raises(ConfigError, match="not from pod1 to itself"):
            iperf(lab["pod1"], lab["pod1"], 1)


def test_an_iperf3_that_is_killed_is_told() -> None:
    with pytest.raises(LabError, match=r"^iperf3 in pod pod1: it ended with exit status -9$"):
        trials._measured(subprocess.CompletedProcess([], -9, "", ""), "pod1")


def test_without_iperf3(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trials, "find_program", lambda name: None)
    with Lab(2) as lab, pytest.raises(LabError, match="there is no program iperf3 on the PATH"):
        iperf(*lab, 1)
