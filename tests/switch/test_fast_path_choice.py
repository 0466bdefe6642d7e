"""Which fast path a switch gets: what two trial frames prove, else the core alone, and always a line that says why."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from command import say
from frames import GROUP, ethernet
from live import PATIENCE, eventually, wires

from fastbridge import Lab, PortError, Switch, Topology
from fastbridge.switch.fast_path import hands, inside
from fastbridge.switch.fast_path.nft import NftHand
from fastbridge.switch.ring_size import MOST, SLOW

pytestmark = pytest.mark.live


@pytest.fixture(autouse=True)
def nothing_tried(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(hands, "_tried", {})
    yield
    hands.settle()


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab(Topology.of(3, ipv6=None)) as lab:
        yield lab


def refuse(*kinds: str) -> Callable[..., NftHand]:
    """Hands as they are made, but these are refused as a sandbox refuses them."""
    made = hands.make

    def make(kind: str, *arguments: Any) -> NftHand:
        if kind in kinds:
            raise PermissionError(1, "Operation not permitted")
        return made(kind, *arguments)

    return make


def test_auto_takes_the_quickest_that_works(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = next((kind for kind in ("bpf", "nft") if not hands.missing(kind, lab.ports[0].open_socket)), "off")
    with Switch(lab.ports) as switch:
        assert switch.fast_path == expected
    if expected == "bpf":
        monkeypatch.setattr(hands, "_tried", {})
        monkeypatch.setattr(hands, "make", refuse("bpf"))
        with Switch(lab.ports) as switch:
            assert switch.fast_path == "nft"


def test_auto_does_without_and_says_why(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(hands, "make", refuse("bpf", "nft"))
    with caplog.at_level(logging.WARNING), Switch(lab.ports) as switch:
        assert switch.fast_path == "off"
        assert lab["pod1"].ping("pod2", family=4, timeout=PATIENCE).received == 1
        assert switch.counters().total.fast == 0
    (line,) = [record.getMessage() for record in caplog.records]
    assert line == (
        "no fast path, the core forwards all frames: Operation not permitted; nft takes CAP_NET_ADMIN, a kernel with "
        "nf_tables and its fwd expression (nft_fwd_netdev), and a sandbox that allows nfnetlink; fast path `off` does "
        "the same without this line"
    )


@pytest.mark.parametrize("kind", ["nft", "bpf"])
def test_what_is_asked_for_by_name_is_had_or_an_error(lab: Lab, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(hands, "make", refuse(kind))
    with pytest.raises(PortError, match=f"^no fast path by {kind}: Operation not permitted; {kind} takes .*`auto`"):
        Switch(lab.ports, fast_path=kind)


@pytest.mark.parametrize("private", [True, False])
@pytest.mark.parametrize("fault", ["forward", "hand over"])
def test_a_hand_that_moves_no_frames_is_found_out(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, private: bool, fault: str
) -> None:
    """Nothing of the trial is left among the ports, either."""
    links = set(links_of(lab))
    open_socket = lab.ports[0].open_socket
    if not private:
        monkeypatch.setattr(inside, "make", lambda: None)
    if hands.missing("nft", open_socket):
        pytest.skip("no nf_tables here")
    monkeypatch.setattr(hands, "_tried", {})
    if fault == "forward":  # else the first of its two frames must come
        monkeypatch.setattr("fastbridge.switch.fast_path.canary._SECONDS", 1.0)
    name, broken = ("promote", idle) if fault == "forward" else ("attach", attach_without_punts)
    monkeypatch.setattr(NftHand, name, broken)
    assert hands.missing("nft", open_socket).startswith(f"the kernel did not {fault} a frame")
    hands.settle()
    assert set(links_of(lab)) == links


def idle(hand: NftHand, pairs: object) -> None:
    """Promotes nothing."""


ATTACH = NftHand.attach


def attach_without_punts(hand: NftHand, ports: Any) -> None:
    """Hands all that is not promoted to nobody: no interface has this index."""
    ATTACH(hand, {index: links._replace(punt=1 << 30) for index, links in ports.items()})


def links_of(lab: Lab) -> list[str]:
    said = lab.run_host(["ip", "-o", "link"])
    return [line.split(": ")[1] for line in said.stdout.splitlines()]


@pytest.mark.parametrize("kind", ["auto", "nft", "bpf", "off"])
def test_a_run_says_by_what_it_forwards(kind: str) -> None:
    """In its own sandbox, too, which was closed when the first pair was promoted."""
    with Lab(Topology.of(2, ipv6=None)) as lab:
        command = [sys.executable, "-m", "fastbridge", "run", "--json", "--interval", "0.1", "--fast-path", kind]
        command += ["pod1", "pod2"]
        process = lab.popen_host(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            if kind == "bpf" and (os.geteuid() or in_user_namespace()):
                assert process.wait(PATIENCE) == 1
                said = process.stderr.read() if process.stderr else ""
                assert said.startswith("fastbridge: no fast path by bpf: ") and said.count("\n") == 1
                return
            hand = say(process)["fast_path"]
            assert hand == kind or (kind == "auto" and hand in ("bpf", "nft"))
            for _ in range(200):  # a promotion takes a while beside other work
                assert lab["pod1"].ping("pod2", family=4, count=5, interval=0.01, timeout=PATIENCE).received == 5
                total = say(process)["counters"]["total"]
                if kind == "off" or total["fast"]:
                    break
            process.terminate()
            process.communicate(timeout=PATIENCE)
            assert ((total["fast"] > 0), process.returncode) == (kind != "off", 0)
        finally:
            process.kill()
            process.communicate()


def in_user_namespace() -> bool:
    return Path("/proc/self/uid_map").read_text().split() != ["0", "0", "4294967295"]


def test_a_trial_is_made_once(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    hands.missing("nft", lab.ports[0].open_socket)
    monkeypatch.setattr(hands, "fly", lambda *_: pytest.fail("tried again"))
    with Switch(lab.ports, fast_path="nft") as switch:
        eventually(lambda: switch.fast_path == "nft")


@pytest.mark.parametrize("kind", ["nft", "off"])
def test_a_ring_holds_what_is_slow(lab: Lab, kind: str) -> None:
    """A burst of broadcasts as long as the kernel's own backlog passes, though the core does not read meanwhile."""
    if kind == "nft" and hands.missing("nft", lab.ports[0].open_socket):
        pytest.skip("no nf_tables here")
    switch = Switch(lab.ports, fast_path=kind)
    try:
        assert {member.slots for member in switch._members.values()} == {(SLOW if kind == "nft" else MOST,)}
        with wires(lab) as (one, *_):
            for number in range(1000):
                one.send(ethernet(GROUP, one.mac, payload=b"fastbridge %d" % number))
            switch.start()
            eventually(lambda: switch.counters().ports["pod1"].rx_frames >= 1000, "all of the burst")
        assert switch.counters().ports["pod1"].rx_missed == 0
    finally:
        switch.stop()


SANDBOXED = """
import sys
from fastbridge.privileges import CAP_NET_ADMIN, CAP_NET_RAW, give_up, refuse_calls
kept = [CAP_NET_RAW, CAP_NET_ADMIN] if "admin" in sys.argv else [CAP_NET_RAW]
give_up(keep=kept)
assert refuse_calls()
from fastbridge import FastbridgeError, Switch
try:
    with Switch(["pod1", "pod2"], fast_path=sys.argv[1]) as switch:
        print(switch.fast_path, flush=True)
        sys.stdin.read()
except FastbridgeError as error:
    print(error)
"""


@pytest.mark.parametrize("rights", ["admin", "raw"])
def test_where_a_sandbox_refuses_what_it_takes(lab: Lab, rights: str) -> None:
    """Without bpf(2) and namespaces; and without the right to nf_tables, too."""
    links = links_of(lab)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    command = [sys.executable, "-c", SANDBOXED, "auto", rights]
    with lab.popen_host(command, text=True, **pipes) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == ("nft\n" if rights == "admin" else "off\n")
        assert lab["pod1"].ping("pod2", family=4, count=3, interval=0.05, timeout=PATIENCE).received == 3
        _, logged = process.communicate(timeout=PATIENCE)
    assert logged.count("no fast path, the core forwards all frames: nf_tables: Operation not permitted") == (
        rights == "raw"
    )
    assert links_of(lab) == links
    kind = "bpf" if rights == "admin" else "nft"
    done = lab.run_host([sys.executable, "-c", SANDBOXED, kind, rights])
    assert done.stdout.startswith(f"no fast path by {kind}: ") and done.stdout.count("\n") == 1
    assert "Operation not permitted" in done.stdout and done.stderr == ""
