"""Monitors: the events tell all that happens, in order, to whoever asks, however slowly it reads."""

from __future__ import annotations

import asyncio
import os
import select
import threading
from collections import Counter
from typing import Any

import pytest
from clock import Clock
from effort import examples
from exported import exported
from frames import GROUP, ethernet
from hypothesis import given, settings
from live import PATIENCE, eventually, heard_by_a_mark, stage, wires
from model import DEFAULT_FLAGS
from pair import pair, whole
from strategies import History, guarded_histories, histories

from fastbridge import ConfigError, Lab, Message, Neighbours, Policy, StormControl, Switch, Verdict
from fastbridge.addresses import MacAddress
from fastbridge.core.codes import CHANGE_KINDS
from fastbridge.core.fdb import FdbAccess
from fastbridge.core.mac_table import MacTable
from fastbridge.feed import EVENTS, Monitor
from fastbridge.waiting import wait_for

X, Y = 0x02_00_00_00_FF_01, 0x02_00_00_00_FF_02


def hello(mac: int) -> bytes:
    return ethernet(GROUP, mac)


def told(monitor: Monitor) -> list[dict[str, Any]]:
    """The events that wait, without their times."""
    events = monitor.read()
    assert events is not None
    assert all(event.pop("time") > 1e9 for event in events)
    return events


def readable(monitor: Monitor) -> bool:
    return wait_for(monitor.fileno(), select.POLLIN, 0)


@given(histories() | guarded_histories())
@settings(max_examples=examples(150))
def test_the_events_make_the_fdb(history: History) -> None:
    """Whoever applies each event has the entries that the FDB has, and counts what it counts."""
    both = pair(history, whole)
    entries: dict[tuple[int, str], str] = {}
    counts: Counter[str] = Counter()
    with both.core.monitor(CHANGE_KINDS) as monitor:
        for step in history.steps:
            both.live(step)
            both.core._monitoring.settle()
            for event in told(monitor):
                key, kind = (event["vlan"], event["mac"]), event["event"]
                counts[kind] += 1
                if kind in ("aged", "evicted", "forgotten"):
                    assert entries.pop(key) == event["ifname"]
                elif kind == "moved":
                    assert entries[key] == event["was"] != event["ifname"]
                    entries[key] = event["ifname"]
                else:
                    assert key not in entries or kind == "fixed"
                    entries[key] = event["ifname"]
            rows = exported(both.core._entries)
            names = [port.name for port in both.core.ports]
            assert entries == {(row["vlan"], str(MacAddress(int(row["mac"])))): names[row["port"]] for row in rows}
    counters = both.core.counters()
    assert {kind: counts[kind] for kind in ("learned", "moved", "aged", "evicted")} == {
        kind: getattr(counters, kind) for kind in ("learned", "moved", "aged", "evicted")
    }


def test_nothing_is_noted_while_nobody_wants_it() -> None:
    switch = Switch.in_memory(2)
    with switch.monitor(["link"]):
        switch.process(0, [hello(X)])
        assert switch._entries.take_changes() == ([], 0)
    with switch.monitor(["learned"]) as monitor:
        switch.process(0, [hello(Y)])
        assert told(monitor) == [{"event": "learned", "mac": str(MacAddress(Y)), "vlan": 0, "ifname": "0"}]
    switch.process(1, [hello(X), hello(Y)])
    assert switch._entries.take_changes() == ([], 0)


def test_more_changes_than_the_core_keeps() -> None:
    """The oldest are lost and counted."""
    table = MacTable(1 << 20, None)
    access = FdbAccess(table)
    access.note_changes(True)
    for n in range(10_000):
        table.learn(2 + (n << 8), 0, 1, 0)
    changes, lost = access.take_changes()
    assert len(changes) + lost == 10_000
    assert lost > 0
    assert [change[-1] for change in changes] == [2 + (n << 8) for n in range(lost, 10_000)]
    assert access.take_changes() == ([], 0)


def test_a_monitor_that_is_not_read_loses_the_oldest_and_says_so() -> None:
    switch = Switch.in_memory(2)
    with switch.monitor(["learned"], limit=4) as slow, switch.monitor(["learned"]) as other:
        switch.process(0, [hello(X + n) for n in range(10)])
        assert [event.get("count") or event["mac"] for event in told(slow)] == [
            6,
            *(str(MacAddress(X + n)) for n in range(6, 10)),
        ]
        assert len(told(other)) == 10
        switch.process(0, [hello(Y + 100)])
        assert [event["event"] for event in told(slow)] == ["learned"]


def test_what_the_core_loses_is_told_those_who_wanted_it() -> None:
    switch = Switch.in_memory(2, capacity=1 << 16)
    with switch.monitor(["learned"], limit=1 << 16) as monitor, switch.monitor(["link"]) as other:
        switch.process(0, [hello(2 + (n << 8)) for n in range(10_000)])
        lost, *events = told(monitor)
        assert (lost["event"], lost["count"] + len(events)) == ("lost", 10_000)
        assert other.read() == []


def test_the_descriptor_is_readable_while_events_wait() -> None:
    switch = Switch.in_memory(2)
    with switch.monitor(["learned", "port_added"]) as monitor:
        assert not readable(monitor)
        for _ in range(2):
            switch.fdb.flush()
            switch.process(0, [hello(X), hello(Y)])
            assert readable(monitor)
            assert len(told(monitor)) == 2
            assert not readable(monitor)
        assert monitor.read() == []
    assert monitor.fileno() == -1
    monitor.close()


def test_an_event_loop_waits_for_it() -> None:
    switch = Switch.in_memory(2)

    async def first() -> list[dict[str, Any]]:
        loop, found = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(monitor.fileno(), found.set)
        loop.call_soon(switch.process, 0, [hello(X)])
        await asyncio.wait_for(found.wait(), PATIENCE)
        loop.remove_reader(monitor.fileno())
        return told(monitor)

    with switch.monitor() as monitor:
        assert [event["event"] for event in asyncio.run(first())] == ["learned"]


def test_a_thread_waits_for_each_and_ends_with_it() -> None:
    switch = Switch.in_memory(2)
    monitor = switch.monitor(["learned"])
    heard: list[str] = []
    thread = threading.Thread(target=lambda: heard.extend(event["mac"] for event in monitor))
    thread.start()
    for n in range(3):
        switch.process(0, [hello(X + n)])
    eventually(lambda: len(heard) == 3)
    monitor.close()
    thread.join(PATIENCE)
    assert not thread.is_alive()


@pytest.mark.parametrize(
    "wrong", [{"events": ["learned", "lernt"]}, {"events": "learned"}, {"limit": 0}, {"limit": 1 << 21}]
)
def test_a_wrong_request(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Switch.in_memory(2).monitor(**wrong)


def test_storms_and_guards_are_counted_a_second() -> None:
    clock = Clock()
    switch = Switch.in_memory(3, clock=clock)
    switch.set_storm_control(StormControl(broadcast=2), "0")
    switch.set_flags("1", **{name: name in {*DEFAULT_FLAGS, "locked"} for name in (*DEFAULT_FLAGS, "locked")})
    switch.process("0", [hello(X)] * 9)
    with switch.monitor(["storm", "guard"]) as monitor:
        switch.tick()
        assert told(monitor) == []  # that was before
        switch.process("0", [hello(X)] * 5)
        switch.process("1", [hello(Y)] * 3)
        switch.tick()
        assert told(monitor) == [
            {"event": "storm", "ifname": "0", "reason": "storm_broadcast", "frames": 5},
            {"event": "guard", "ifname": "1", "reason": "locked", "frames": 3},
        ]
        switch.tick()
        assert told(monitor) == []


class Fails(Policy):
    def decide(self, message: Message, neighbours: Neighbours) -> Verdict | None:
        raise RuntimeError("no idea")


def arp(mac: int, sender: str, target: str) -> bytes:
    ips = b"".join(
        mac + bytes(map(int, ip.split("."))) for mac, ip in ((mac.to_bytes(6, "big"), sender), (bytes(6), target))
    )
    return ethernet(GROUP, mac, ethertype=0x0806, payload=b"\x00\x01\x08\x00\x06\x04\x00\x01" + ips)


def test_what_policies_drop_and_where_they_fail() -> None:
    switch = Switch.in_memory(3, policy="guard")
    switch.set_policy(Fails(), "2")
    with switch.monitor(["guard", "policy_error", "conflict"]) as monitor:
        switch.process("0", [arp(X, "10.0.0.1", "10.0.0.1")])
        assert told(monitor) == []
        switch.process("1", [arp(Y, "10.0.0.1", "10.0.0.1")] * 2)
        spoofed, conflict, again = told(monitor)
        assert (
            conflict.items()
            >= {
                "event": "conflict",
                "dst": "10.0.0.1",
                "known": {"lladdr": str(MacAddress(X)), "ifname": "0"},
                "claimed": {"lladdr": str(MacAddress(Y)), "ifname": "1"},
            }.items()
        )
        about = {"mac": str(MacAddress(Y)), "vlan": 0, "ifname": "1", "reason": "spoofed", "frames": 1}
        assert spoofed == again
        assert spoofed.items() >= about.items()
        switch.process("2", [arp(Y + 1, "10.0.0.3", "10.0.0.1")])
        (error,) = told(monitor)
        assert (error["event"], error["ifname"], error["policy"]) == ("policy_error", "2", "fails")
        assert "RuntimeError" in error["text"]


@pytest.mark.live
def test_a_running_switch_tells_what_happens() -> None:
    with (
        Lab(pods=3) as lab,
        Switch(lab.ports, loop_detection=False) as switch,
        wires(lab) as (one, two, _),
        switch.monitor() as monitor,
    ):
        events: list[dict[str, Any]] = []

        def heard(**wanted: Any) -> None:
            def found() -> bool:
                events.extend(told(monitor))
                return any(event.items() >= wanted.items() for event in events)

            eventually(found, f"{wanted} among {events}")

        mac = str(MacAddress(X))
        one.send(hello(X))
        heard(event="learned", mac=mac, ifname="pod1")
        two.send(hello(X))
        heard(event="moved", mac=mac, ifname="pod2", was="pod1")

        def flaps() -> bool:  # by five moves in a second, which take as long as they take
            for wire, other in ((one, two), (two, one)):
                wire.send(hello(X))
                heard_by_a_mark(wire, other)
            events.extend(told(monitor))
            return any(event["event"] == "flapping" and event["mac"] == mac for event in events)

        eventually(flaps, "flapping")
        if switch.fast_path != "off":
            ends = {"mac": str(lab["pod1"].mac), "to": str(lab["pod3"].mac), "ifname": "pod1", "egress": "pod3"}
            assert lab["pod1"].ping("pod3", family=4, count=3, interval=0.1, timeout=PATIENCE)
            heard(event="promoted", **ends)
            switch.fdb.flush("pod3")
            heard(event="revoked", **ends)
        lab["pod1"].run(["ip", "link", "set", lab["pod1"].interface, "down"])
        heard(event="link", ifname="pod1", link="down")
        heard(event="forgotten", ifname="pod1")
        lab["pod1"].run(["ip", "link", "set", lab["pod1"].interface, "up"])
        heard(event="link", ifname="pod1", link="up")
        switch.remove_port("pod2")
        heard(event="port_removed", ifname="pod2")
        assert all(event["event"] in EVENTS and not event.get("ifname", "").startswith("#") for event in events)


@pytest.mark.live
def test_it_ends_with_the_switch() -> None:
    with stage(2) as (_, switch):
        monitor = switch.monitor()
        waiting = threading.Thread(target=list, args=(monitor,))
        waiting.start()
    waiting.join(PATIENCE)
    assert not waiting.is_alive()
    assert readable(monitor)
    assert monitor.read() is None
    monitor.close()


@pytest.mark.live
def test_a_forked_child_has_no_monitor() -> None:
    with stage(2) as (lab, switch), wires(lab) as (one, _), switch.monitor(["learned"]) as monitor:
        child = os.fork()
        if child == 0:
            refused = False
            try:
                switch.monitor()
            except ConfigError:
                refused = True
            os._exit(0 if refused and list(monitor) == [] and monitor.fileno() == -1 else 1)
        assert os.waitpid(child, 0)[1] == 0
        one.send(hello(X))
        assert next(iter(monitor))["event"] == "learned"
