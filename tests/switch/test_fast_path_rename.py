"""A port's interface is renamed: the switch follows in one step, and nothing else notices."""

from __future__ import annotations

import logging
from itertools import pairwise

import pytest
from fast import HANDS, fast, know_each_other, need, pairs
from live import PATIENCE, Wire, eventually, state, wires
from test_fast_path_live import udp

from fastbridge import Lab, Switch
from fastbridge.switch.fast_path.nft import NftHand

pytestmark = pytest.mark.live


def name_of(switch: Switch, index: int) -> str:
    """The name by which the kernel takes a port's frames."""
    lane = switch._fast.lane
    assert lane is not None
    return lane.hand._links[index].name


@HANDS
def test_promoted_pairs_stay_promoted(hand: str) -> None:
    """Those of the port, too: they go by the interface's index."""
    with fast(hand, ports_fail=True) as (lab, switch):  # what comes in before the switch has followed is the host's
        know_each_other(lab, switch)
        know_each_other(lab, switch, "pod2", "pod3")
        before, revoked = pairs(switch), switch.vitals().fast_path.revoked
        lab.run_host(["ip", "link", "set", "pod1", "name", "other"])
        eventually(lambda: name_of(switch, 0) == "other", "the new name")
        assert before.items() <= pairs(switch).items()
        assert switch.vitals().fast_path.revoked == revoked
        counted = switch.counters().ports["pod1"].fast
        assert lab["pod1"].ping("pod2", family=4, count=5, interval=0.01, timeout=PATIENCE).received == 5
        eventually(lambda: switch.counters().ports["pod1"].fast >= counted + 5, "echoes by the kernel")


@HANDS
def test_the_guard_of_a_renamed_port_lets_no_forged_source_pass(hand: str) -> None:
    need(hand)
    with (
        Lab(3) as lab,
        Switch(lab.ports, fast_path=hand, policy="guard=strict", trusted=True, loop_detection=False) as switch,
        wires(lab) as (_, _, three),
    ):
        know_each_other(lab, switch)
        eventually(lambda: lab["pod3"].ping("pod2", family=4, timeout=1).received == 1, "an answer")
        lab.run_host(["ip", "link", "set", "pod3", "name", "other"])
        eventually(lambda: name_of(switch, 2) == "other", "the new name")
        send_forged(lab, three)
        eventually(lambda: switch.counters().ports["pod3"].dropped["source_guard"] == 1, "the drop")


def send_forged(lab: Lab, wire: Wire) -> None:
    """From pod 3, with pod 1's IP address."""
    ends = int(lab["pod2"].mac), int(lab["pod3"].mac)
    wire.send(udp(*ends, str(lab["pod1"].ipv4.ip), str(lab["pod2"].ipv4.ip)))


def test_a_renaming_that_fails_changes_nothing_and_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As when the interface has yet another name by the time that the kernel is told."""
    with fast("nft", ports_fail=True) as (lab, switch):
        know_each_other(lab, switch)
        with monkeypatch.context() as patch:
            failed = []

            def fail(hand: NftHand, index: int, name: str) -> None:
                failed.append(name)
                raise OSError(2, "No such file or directory")

            patch.setattr(NftHand, "rename", fail)
            with caplog.at_level(logging.WARNING, "fastbridge"):
                lab.run_host(["ip", "link", "set", "pod1", "name", "one"])
                eventually(lambda: len(failed) >= 2, "two failures")
                assert set(failed) == {"one"}
                lab["pod2"].port.set_down()  # other ports are followed meanwhile
                eventually(lambda: state(switch, "pod2") == "down", "pod2 down")
                lab["pod2"].port.set_up()
                eventually(lambda: state(switch, "pod2") == "up", "pod2 up")
            line = "the kernel does not know a port by its new name one yet"
            eventually(lambda: line in caplog.text, "a word of it")
            assert name_of(switch, 0) == "pod1"
        eventually(lambda: name_of(switch, 0) == "one", "the new name")
        know_each_other(lab, switch)
        assert lab["pod1"].ping("pod3", family=4, timeout=PATIENCE).received == 1


@HANDS
def test_a_port_that_is_renamed_again_and_again_is_found_at_last(hand: str) -> None:
    with fast(hand, ports_fail=True) as (lab, switch):
        know_each_other(lab, switch)
        names = ["pod1", *(f"n{number}" for number in range(20)), "pod1"]
        script = " && ".join(f"ip link set {a} name {b}" for a, b in pairwise(names))
        lab.run_host(["sh", "-c", script])
        assert lab["pod1"].ping("pod3", family=4, timeout=PATIENCE).received == 1
        eventually(lambda: name_of(switch, 0) == "pod1", "the last name")
        know_each_other(lab, switch)
