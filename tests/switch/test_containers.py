"""What looks like a container is one: `in`, iteration and length agree, and what could never be in it is refused."""

from __future__ import annotations

from dataclasses import fields
from ipaddress import ip_address
from typing import Any

import pytest
from arp_nd_frames import arp
from frames import GROUP, ethernet, tag

import fastbridge
from fastbridge import ConfigError, Counters, Lab, MacAddress, MemorySwitch, PortCounters, Switch, Topology
from fastbridge.switch.options import LiveOptions, LiveOptionWords, Options, OptionWords

A, B = MacAddress("02:00:00:00:00:01"), MacAddress("02:00:00:00:00:02")


def who_has(ip: str) -> bytes:
    return bytes(arp(1, str(A), "10.0.0.1", ip))


def switch_with_a() -> MemorySwitch:
    switch = Switch.in_memory(["left", "right"])
    switch.process("left", [ethernet(GROUP, A)])
    return switch


@pytest.mark.parametrize("form", [str(A), str(A).upper(), "02-00-00-00-00-01", int(A), A, A.packed])
def test_a_mac_address_is_in_the_fdb_in_every_form(form: object) -> None:
    switch = switch_with_a()
    assert form in switch.fdb
    assert form not in Switch.in_memory().fdb


def test_entries_are_in_the_fdb_they_come_from() -> None:
    switch = switch_with_a()
    (entry,) = switch.fdb
    assert entry in switch.fdb and len(switch.fdb) == 1
    switch.process("right", [ethernet(GROUP, A)])
    assert entry not in switch.fdb and A in switch.fdb


def test_a_mac_address_is_in_the_fdb_in_any_vlan() -> None:
    switch = Switch.in_memory(2)
    switch.process(0, [ethernet(GROUP, A, tag(5))])
    assert A in switch.fdb and switch.fdb.lookup(A) is None


def test_an_expired_entry_is_not_in_the_fdb() -> None:
    now = [0.0]
    switch = Switch.in_memory(2, ageing=10.0, clock=lambda: now[0])
    switch.process(0, [ethernet(GROUP, A), ethernet(GROUP, B, tag(5))])
    now[0] = 10.0
    assert A not in switch.fdb and B not in switch.fdb and not list(switch.fdb)


def test_what_no_fdb_has_is_refused() -> None:
    fdb = switch_with_a().fdb
    with pytest.raises(ConfigError, match="not a MAC address"):
        _ = "left" in fdb
    for wrong in (None, 1.5, ("left", 1), True):
        with pytest.raises(TypeError, match="an FDB has MAC addresses"):
            _ = wrong in fdb


def test_an_ip_address_is_in_the_neighbour_table() -> None:
    switch = Switch.in_memory(2, policy="suppress")
    switch.process(0, [who_has("10.0.0.9")])
    (entry,) = switch.neighbours
    assert len(switch.neighbours) == 1
    assert "10.0.0.1" in switch.neighbours and ip_address("10.0.0.1") in switch.neighbours
    assert entry in switch.neighbours
    assert "10.0.0.9" not in switch.neighbours
    with pytest.raises(ConfigError, match="not an IP address"):
        _ = str(A) in switch.neighbours
    with pytest.raises(TypeError, match="a neighbour table has IP addresses"):
        _ = A in switch.neighbours


def test_ports_are_asked_for_by_name_or_as_they_are() -> None:
    switch = switch_with_a()
    left, right = switch.ports
    assert "left" in switch.ports and "middle" not in switch.ports and left in switch.ports
    switch.set_flags(left, isolated=True)
    assert switch.flags("left").isolated and switch.flags(0).isolated and not switch.flags(right).isolated
    assert switch.fdb.flush(right) == 0 and switch.fdb.flush(left) == 1
    for wrong in ("middle", 7, None, 1.5):
        with pytest.raises(ConfigError, match=r"the switch has no port .*; it has: left, right"):
            switch.flags(wrong)  # type: ignore[arg-type]


def test_moves_are_asked_for_in_every_form() -> None:
    switch = switch_with_a()
    switch.process("right", [ethernet(GROUP, A)])
    switch._stations._read = -1.0
    switch._stations.follow()
    moves = switch.moves
    for form in (str(A), A.packed, A, int(A)):
        assert form in moves and moves[form] == 1 and moves.get(form) == 1  # type: ignore[index, call-overload]
    assert str(B) not in moves and moves.get(str(B), 0) == 0  # type: ignore[call-overload]
    with pytest.raises(KeyError):
        moves[str(B)]  # type: ignore[index]
    with pytest.raises(ConfigError):
        _ = "left" in moves


def test_a_trace_is_no_container() -> None:
    switch = switch_with_a()
    with switch.trace() as trace:
        switch.process("left", [ethernet(GROUP, A)])
        with pytest.raises(TypeError):
            _ = "left" in trace  # type: ignore[operator]
        assert len(list(trace)) == 1


@pytest.mark.parametrize(
    "make",
    [
        lambda: Lab("3"),
        lambda: Topology.of("3"),
        lambda: Switch("veth0"),
        lambda: Switch.in_memory("ab"),
        lambda: Switch(b"veth0"),  # type: ignore[arg-type]
    ],
)
def test_a_text_is_no_list_of_names(make: object) -> None:
    with pytest.raises(ConfigError, match="must be a list of names, not the text"):
        make()  # type: ignore[operator]


@pytest.mark.parametrize(
    ("ports", "says"),
    [
        (2, "ports must be a list, of interface names or of a lab's ports, not 2"),
        ({"s1": ["veth1"]}, "a Switch has one list of ports; Switches takes those of several, by name"),
        ([1], "1 is no port; a port is an interface's name, or one of a lab's ports: lab.ports"),
    ],
)
def test_what_is_no_list_of_ports(ports: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Switch(ports)


@pytest.mark.live
def test_pods_are_in_their_lab() -> None:
    with Lab(2) as lab, Lab(1) as other:
        pod = lab["pod1"]
        assert "pod1" in lab and pod in lab and "pod3" not in lab
        assert other["pod1"] not in lab and pod not in other
        assert "pod1" in lab.pods and pod in lab.pods and "pod3" not in lab.pods
        assert "pod1" in lab.ports and pod.port in lab.ports and "pod3" not in lab.ports
        with pytest.raises(TypeError, match="ask a lab for a pod by its name"):
            _ = pod.port in lab
        assert repr(lab) == "Lab(['pod1', 'pod2'])"
        switch = Switch(lab.ports)
        try:
            assert repr(switch) == "<Switch of 2 ports: pod1, pod2>"
            for port in (pod.port, pod, switch.ports[0], "pod1", 0):
                assert switch.set_flags(port, isolated=True).isolated
                assert not switch.set_flags(port, isolated=False).isolated
            switch.remove_port(pod.port)
            assert "pod1" not in switch.ports
        finally:
            switch.stop()


def test_counters_are_read_by_people() -> None:
    one = PortCounters(rx_frames=1234567, forwarded=1, dropped={"runt": 2, "filtered": 0}, rx_missed=4)
    two = PortCounters(tx_frames=3, tx_dropped={"full": 5})
    text = str(Counters({"a": one, "pod2": two}, one + two, learned=2, policy={"answered": 7}))
    assert text.splitlines() == [
        "port    received  forwarded  flooded  dropped  sent  not sent",
        "a      1,234,567          1        0        2     0         0",
        "pod2           0          0        0        0     3         5",
        "total  1,234,567          1        0        2     3         5",
        "MAC addresses learned 2, moved 0, aged 0; dropped: runt 2; not sent: full 5; "
        "missed by the kernel, ring full: 4; policy: answered 7",
    ]
    assert str(two) == "received 0, forwarded 0, flooded 0, dropped 0, sent 3, not sent 5; not sent: full 5"


def test_trace_events_are_read_by_people() -> None:
    switch = Switch.in_memory(["left", "right"])
    with switch.trace() as trace:
        switch.process("left", [who_has("10.0.0.2"), ethernet(A, B), b"\0" * 5])
        said = [str(event) for event in trace.read()]
    assert said == [
        f"left → ARP request: who has 10.0.0.2? tell 10.0.0.1, {A} > ff:ff:ff:ff:ff:ff, 42 bytes: "
        "flooded to right; source learned",
        said[1],
        "left → 5 bytes: dropped (runt)",
    ]
    assert said[1].endswith("dropped (filtered); source learned")


def test_the_version_is_there() -> None:
    assert fastbridge.__version__.split(".")[0].isdigit() and "__version__" in dir(fastbridge)
    assert repr(switch_with_a()) == "<MemorySwitch of 2 ports: left, right>"
    assert repr(switch_with_a().fdb) == "<Fdb of 1 entries>"


def test_the_options_are_the_same_for_type_checkers() -> None:
    for options, words in ((Options, OptionWords), (LiveOptions, LiveOptionWords)):
        assert [field.name for field in fields(options)] == list(words.__annotations__)
    with pytest.raises(TypeError, match="agieng"):
        MemorySwitch(2, agieng=10.0)  # type: ignore[call-arg]


def test_in_memory_is_another_name() -> None:
    assert Switch.in_memory is MemorySwitch
