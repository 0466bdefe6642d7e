"""State kept over a restart: what a switch takes back, and which files it leaves alone."""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from live import eventually

from fastbridge import ConfigError, Lab, Link, StormControl, Switch, Topology
from fastbridge.switch.config import Config, FdbEntryConfig, PortConfig
from fastbridge.switch.config_apply import Configured, of_switch
from fastbridge.switch.fdb import Fdb
from fastbridge.switch.state import StateFile, _parse, _StrangeError

pytestmark = pytest.mark.live

STATION, OTHER = "02:00:00:00:00:01", "02:00:00:00:00:02"


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab(Topology.of(3, ipv6=None)) as lab:
        with made(lab):  # from now on each port has the socket by which it asks its pod
            pass
        yield lab


@contextmanager
def made(lab: Lab, said: Config | None = None, **options: Any) -> Iterator[Switch]:
    """A switch that does not forward, so that nothing is learned but what a test says."""
    switch = Switch(lab.ports, **{"fast_path": "off", "policy": "guard", **options})
    try:
        if said is not None:
            Configured(switch, said)
        yield switch
    finally:
        switch.stop()


@pytest.fixture
def file(tmp_path: Path) -> StateFile:
    return StateFile(tmp_path / "state.json")


def edit(file: StateFile, **changes: Any) -> None:
    file.path.write_text(json.dumps(json.loads(file.path.read_text()) | changes))


def test_static_entries_are_found_without_a_walk(lab: Lab, file: StateFile, monkeypatch: pytest.MonkeyPatch) -> None:
    """Among a million learned ones an object for each would hold up all that changes ports for seconds."""
    monkeypatch.setattr(Fdb, "__iter__", None)
    with made(lab) as switch:
        switch.fdb.learn_many(np.arange(0x020000010000, 0x020000010100), "pod1")
        switch.fdb.add(STATION, "pod2", 5)
        switch.fdb.add(OTHER, "pod3")
        file.save(switch)
        kept = json.loads(file.path.read_text())
        said = [FdbEntryConfig(mac=OTHER, ifname="pod3"), FdbEntryConfig(mac=STATION, ifname="pod2", vlan=5)]
        assert [FdbEntryConfig(**entry) for entry in kept["fdb"]] == said == of_switch(switch).fdb
        assert len(kept["stations"]["mac"]) == 256


def test_what_was_learned_and_done_by_hand_is_taken_back(lab: Lab, file: StateFile) -> None:
    with made(lab) as switch:
        switch.fdb.learn_many([0x020000000011, 0x020000000012], [0, 1], [0, 7], [10.0, 250.0])
        switch.fdb.add(STATION, "pod2", 5)
        switch.add_neighbour("10.9.9.9", OTHER, "pod3")
        switch.set_flags("pod1", isolated=True, learning=False)
        switch.set_policy("suppress", "pod2")
        switch.set_policy("guard,suppress")
        switch.set_storm_control(StormControl(7, None, 9), "pod3")
        file.save(switch)
        assert file.path.stat().st_mode & 0o777 == 0o600 and [p.name for p in file.path.parent.iterdir()] == [
            "state.json"
        ]
    with made(lab, policy="flood") as switch:
        assert file.take_back(switch).startswith("2 stations and 0 neighbours taken back")
        found = {(str(e.mac), e.port, e.vlan): e.age for e in switch.fdb}
        assert found.keys() == {
            ("02:00:00:00:00:11", "pod1", 0),
            ("02:00:00:00:00:12", "pod2", 7),
            (STATION, "pod2", 5),
        }
        assert 10 <= found["02:00:00:00:00:11", "pod1", 0] < 100, "its age goes on"
        assert 249 <= found["02:00:00:00:00:12", "pod2", 7] < 300
        assert found[STATION, "pod2", 5] is None
        assert [(str(n.ip), str(n.mac), n.port, n.static) for n in switch.neighbours] == [
            ("10.9.9.9", OTHER, "pod3", True)
        ]
        assert switch.flags("pod1").isolated and not switch.flags("pod1").learning
        assert str(switch.policy()) == "guard,suppress" and str(switch.policy("pod2")) == "suppress"
        assert switch.storm_control("pod3") == StormControl(7, None, 9)


def test_links_with_their_seeds_cuts_and_the_partition(lab: Lab, file: StateFile) -> None:
    said = Config(ports=["pod1", "pod2", "pod3"], link={"*": "loss=1%", "pod1>pod2": "delay=5ms"})
    with made(lab, said) as switch:
        switch.set_link("pod2", "loss=5%")
        switch.set_link(("pod3", "pod1"), "jitter=1ms,delay=2ms")
        switch.cut("pod3", direction="from_pod")
        switch.partition([["pod1"], ["pod2", "pod3"]])
        before = {place: (state.link, state.cut, state.group) for place, state in switch.links.items()}
        file.save(switch)
    state = json.loads(file.path.read_text())
    assert state["links"].keys() == {"pod2", "pod3>pod1"} and state["seeds"].keys() == {"pod1", "pod3"}
    with made(lab, said) as switch:
        file.take_back(switch)
        after = {place: (state.link, state.cut, state.group) for place, state in switch.links.items()}
        said_again = switch.own_links["pod2"]
        assert before.keys() == after.keys() and {p for p in before if before[p] != after[p]} == {"pod2"}
        assert str(said_again).startswith("loss=1%,"), "what the file says comes first"
    with made(lab, Config(ports=said.ports, link={"pod1": "loss=2%"})) as switch:
        file.take_back(switch)
        assert {place: str(link).partition(",seed")[0] for place, link in switch.own_links.items()} == {
            "pod1": "loss=2%", "pod2": "loss=5%", ("pod3", "pod1"): "delay=2ms,jitter=1ms",
        }, "a link went with its line in the file"  # fmt: skip


def test_a_link_whose_trace_is_gone_is_named_and_the_rest_is_taken_back(lab: Lab, file: StateFile) -> None:
    trace = file.path.with_name("trace")
    trace.write_text("t,rate\n0,10mbit\n")
    with made(lab) as switch:
        switch.set_links({"pod1": f"trace={trace}", "pod2": "delay=5ms"})
        switch.cut("pod3")
        file.save(switch)
    trace.unlink()
    with made(lab) as switch:
        assert f"all links but pod1 (trace: {trace} cannot be read" in file.take_back(switch)
        assert switch.own_links == {"pod2": Link.parse("delay=5ms")} and switch.links["pod3"].cut
        file.save(switch)


def test_learned_neighbours_and_their_bindings(file: StateFile) -> None:
    """A claim of the address from elsewhere is spoofed from the first frame on."""
    with Lab(3) as lab:
        with Switch(lab.ports, fast_path="off", policy="guard") as switch:
            lab["pod1"].ping("pod2")
            eventually(lambda: len([n for n in switch.neighbours if not n.static]) >= 2, "two neighbours")
            before = {(n.vlan, n.ip, n.mac, n.port, n.source) for n in switch.neighbours}
            details = {n.ip: (n.router, n.override, n.tags) for n in switch.neighbours.live()}
            file.save(switch)
        with made(lab) as switch:
            assert f"{len(before)} neighbours" in file.take_back(switch)
            assert {(n.vlan, n.ip, n.mac, n.port, n.source) for n in switch.neighbours} == before
            assert {n.ip: (n.router, n.override, n.tags) for n in switch.neighbours.live()} == details
            switch.start()
            pod = lab["pod3"]
            with pod.socket(17, 3, 0) as spoofing:  # AF_PACKET, SOCK_RAW
                spoofing.bind((pod.interface, 0))
                frame = bytes.fromhex("ffffffffffff") + bytes(pod.mac.to_bytes(6, "big")) + bytes.fromhex("0800")
                ip = bytearray(20)
                ip[0], ip[12:16], ip[16:20] = 0x45, lab["pod1"].ipv4.ip.packed, lab["pod2"].ipv4.ip.packed
                spoofing.send(frame + bytes(ip) + bytes(26))
            eventually(lambda: switch.counters().ports["pod3"].dropped["source_guard"] >= 1, "a frame that is dropped")


def test_what_the_configuration_says_is_not_kept(lab: Lab, file: StateFile) -> None:
    said = Config(
        ports=["pod1", "pod2", "pod3"],
        policy="guard",
        port={"pod1": PortConfig(isolated=True)},
        fdb=[FdbEntryConfig(mac=STATION, ifname="pod1")],
    )
    with made(lab, said) as switch:
        switch.set_flags("pod2", locked=True)
        switch.set_flags("pod1", hairpin=True)
        file.save(switch)
    state = json.loads(file.path.read_text())
    assert (state["fdb"], state["policy"]) == ([], None)
    assert [port["flags"] for port in state["ports"]] == [{"hairpin": True}, {"locked": True}, {}]
    changed = Config(ports=said.ports, policy="guard", port={"pod2": PortConfig(locked=False)})
    with made(lab, changed) as switch:
        file.take_back(switch)
        assert not list(switch.fdb), "the entry went with its line in the file"
        assert not switch.flags("pod1").isolated and switch.flags("pod1").hairpin
        assert not switch.flags("pod2").locked, "what the file says now comes first"


def test_only_what_is_young_enough(lab: Lab, file: StateFile) -> None:
    with made(lab) as switch:
        switch.fdb.learn_many([0x11 | 2 << 40, 0x12 | 2 << 40], [0, 1], age=[0.0, 250.0])
        switch.set_flags("pod1", isolated=True)
        file.save(switch)
    saved = json.loads(file.path.read_text())
    for changes, stations, word in (
        ({"time": saved["time"] - 100}, 1, "taken back"),
        ({"time": saved["time"] - 301}, 0, "more than ageing"),
        ({"time": saved["time"] + 1000}, 0, "before the machine started"),
        ({"boot": "another"}, 0, "before the machine started"),
    ):
        edit(file, **saved | changes)
        with made(lab) as switch:
            assert word in file.take_back(switch)
            assert len(switch.fdb) == stations and switch.flags("pod1").isolated == bool(stations)
            file.save(switch)  # it is ours, however old
    edit(file, **saved | {"time": saved["time"] - 3000})
    with made(lab, ageing=None) as switch:
        assert "2 stations" in file.take_back(switch), "ageing never"


@pytest.mark.parametrize("key", ["ifname", "ifindex", "mac", "netns"])
def test_only_the_same_interfaces(key: str, lab: Lab, file: StateFile) -> None:
    with made(lab) as switch:
        switch.fdb.learn_many([0x11 | 2 << 40, 0x12 | 2 << 40], [0, 1])
        switch.fdb.add(STATION, "pod1")
        switch.set_flags("pod1", isolated=True)
        file.save(switch)
    ports = json.loads(file.path.read_text())["ports"]
    ports[0][key] = 77 if isinstance(ports[0][key], int) else "02:00:00:00:00:77"
    edit(file, ports=ports)
    with made(lab) as switch:
        file.take_back(switch)
        assert [e.port for e in switch.fdb] == ["pod2"] and not switch.flags("pod1").isolated


def test_a_port_made_again_is_another(file: StateFile) -> None:
    with Lab(2) as lab, made(lab) as switch:
        switch.fdb.learn_many([0x11 | 2 << 40], [0])
        file.save(switch)
    with Lab(2) as lab, made(lab) as switch:
        assert file.take_back(switch).startswith("0 stations")


# -- files that are left alone ---------------------------------------------------------------------


def linked(path: Path) -> str:
    (target := path.with_name("target")).write_text("precious")
    path.symlink_to(target)
    return "is a link"


def foreign(path: Path) -> str:
    path.write_text("precious")
    return "is not the state of a switch"


def cut_off(path: Path) -> str:
    path.write_bytes(path.read_bytes()[:-20])
    return "is damaged"


def writable(path: Path) -> str:
    path.chmod(0o666)
    return "can be written by others"


def pipe(path: Path) -> str:
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    return "is no ordinary file"


def later(path: Path) -> str:
    path.write_text(path.read_text().replace('"version": 1', '"version": 2'))
    return "is of version 2"


def folder(path: Path) -> str:
    path.unlink(missing_ok=True)
    path.mkdir()
    return "is no ordinary file"


def unequal(path: Path) -> str:
    path.write_text(re.sub(r'"vlan": \[[^]]*\]', '"vlan": [1, 2, 3]', path.read_text(), count=1))
    return "columns of unequal length"


def nowhere(path: Path) -> str:
    path.write_text(re.sub(r'"port": \[[^]]*\]', '"port": [9]', path.read_text(), count=1))
    return "behind no port"


@pytest.mark.parametrize("spoil", [linked, foreign, cut_off, writable, pipe, later, folder, unequal, nowhere])
def test_a_strange_file_is_named_and_left_alone(spoil: Callable[[Path], str], lab: Lab, file: StateFile) -> None:
    with made(lab) as switch:
        switch.fdb.learn_many([0x11 | 2 << 40], [0])
        if spoil is not linked:
            file.save(switch)
        word = spoil(file.path)
        was = file.path.lstat()
        with pytest.raises(ConfigError, match=word) as caught:
            file.take_back(switch)
        assert str(file.path) in str(caught.value) and "left alone" in str(caught.value)
        with pytest.raises(ConfigError, match="left alone"):
            file.save(switch)
        now = file.path.lstat()
        assert (was.st_ino, was.st_mtime_ns, was.st_size) == (now.st_ino, now.st_mtime_ns, now.st_size)


def test_another_users_file(lab: Lab, file: StateFile, monkeypatch: pytest.MonkeyPatch) -> None:
    with made(lab) as switch:
        file.save(switch)
        monkeypatch.setattr(os, "geteuid", lambda: 12345)
        with pytest.raises(ConfigError, match=r"belongs to user \d+"):
            file.take_back(switch)


def test_where_it_cannot_be_written(lab: Lab, tmp_path: Path) -> None:
    with made(lab) as switch, pytest.raises(ConfigError, match=r"cannot write .*No such file.*--state"):
        StateFile(tmp_path / "none" / "state.json").save(switch)


def test_none_is_there_yet(lab: Lab, file: StateFile) -> None:
    with made(lab) as switch:
        assert "not there yet" in file.take_back(switch)
        with pytest.raises(ConfigError, match="--state FILE"):
            switch.save_state()
        switch.state = file
        switch.save_state()
        assert file.path.exists()


BEGINNING = b'{"fastbridge": "state", "version": 1, '


@given(
    st.one_of(
        st.binary(),
        st.text().map(str.encode),
        st.recursive(st.none() | st.integers() | st.text(), st.lists).map(
            lambda value: f'"boot": {json.dumps(value)}}}'.encode()
        ),
    )
)
@settings(max_examples=50)
def test_random_bytes_are_strange(data: bytes) -> None:
    for text in (data, BEGINNING + data):
        with pytest.raises(_StrangeError):
            _parse(text)


def test_much_is_saved_while_frames_pass(lab: Lab, file: StateFile) -> None:
    with Switch(lab.ports, fast_path="off") as switch:
        switch.fdb.learn_many(range(2 << 40, (2 << 40) + 60_000), "pod1")
        saving = [threading.Thread(target=file.save, args=(switch,)) for _ in range(3)]
        for thread in saving:
            thread.start()
        for thread in saving:
            thread.join()
    with made(lab) as switch:
        assert file.take_back(switch).startswith("60,00"), "whole, whoever wrote last"
