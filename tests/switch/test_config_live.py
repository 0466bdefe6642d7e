"""A configuration applied to a running switch: what differs changes, and nothing else notices."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from frames import ethernet
from live import Wire, eventually, stage, state, wires

from fastbridge import ConfigError, Lab, Link, PortError, StormControl, Switch
from fastbridge.switch.config import (
    Config,
    ConfigFile,
    FdbEntryConfig,
    NeighbourConfig,
    PortConfig,
    StormLimits,
    check,
    load,
    write,
)
from fastbridge.switch.config_apply import Configured, of_switch

pytestmark = pytest.mark.live

PORTS = ["pod1", "pod2", "pod3"]
BASE = Config(ports=PORTS, fast_path="off", loop_detection=False)
RICH = replace(
    BASE,
    policy="guard,suppress",
    storm_control=1000.0,
    port={
        "pod1": PortConfig(isolated=True, policy="flood", storm_control=StormLimits(broadcast=5.0)),
        "pod3": PortConfig(coalesce=False, locked=True),
    },
    fdb=[FdbEntryConfig(mac="02:00:00:00:00:01", ifname="pod1", vlan=7)],
    neigh=[NeighbourConfig(dst="fd00::9", lladdr="02:00:00:00:00:09", dev="pod2")],
)


class File:
    """A configuration that a test changes, and that the switch of a lab reads."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def __call__(self) -> Config:
        check(self.config)
        return self.config


@contextmanager
def configured(config: Config) -> Iterator[tuple[Lab, Switch, File]]:
    with Lab(4) as lab, Switch(lab.ports[:3], fast_path="off", loop_detection=False) as switch:
        file = File(config)
        # A lab's ports lie in a namespace of their own, where names do not reach: the port itself stands for its name.
        places = {port.name: port for port in lab.ports}
        add = switch.add_port
        switch.add_port = lambda port: add(places.get(port, port))  # type: ignore[method-assign,arg-type]
        Configured(switch, config, file)
        yield lab, switch, file


def test_a_switch_is_as_its_file_says_and_dumps_it() -> None:
    with configured(RICH) as (_, switch, _):
        assert switch.flags("pod1").isolated and switch.flags("pod3").locked and not switch.flags("pod3").coalesce
        assert str(switch.policy("pod1")) == "flood" and str(switch.policy("pod2")) == "guard,suppress"
        assert switch.storm_control("pod1") == StormControl(5.0, None, None)
        assert switch.storm_control("pod2") == StormControl(1000, 1000, 1000)
        assert [(str(e.mac), e.port, e.vlan) for e in switch.fdb if e.static] == [("02:00:00:00:00:01", "pod1", 7)]
        assert [(str(n.ip), n.port) for n in switch.neighbours if n.static] == [("fd00::9", "pod2")]
        dumped = ConfigFile.parse(switch.dump_config(), "dump")
        check(dumped.config, dumped)
        assert settings(dumped.config) == settings(RICH)
        assert switch.reload_config() == [], "read again as it was, it changes nothing"


def settings(config: Config) -> Config:
    """With the limits of each port written out, however the file has shortened them."""
    limits = {port: config.storm_of(port) for port in config.ports}
    own = {port: replace(config.port.get(port, PortConfig()), storm_control=None) for port in config.ports}
    return replace(config, storm_control=None, port=own, match=[str(limits)])


def test_what_is_dumped_makes_the_same_switch() -> None:
    with configured(RICH) as (_, switch, _):
        text = switch.dump_config()
    with configured(ConfigFile.parse(text, "dump").config) as (_, again, _):
        assert again.dump_config() == text


def test_the_link_of_all_ports_is_dumped_with_those_of_each() -> None:
    """So a port that comes to the switch made of it has that link, as here."""
    with configured(replace(BASE, link={"*": "delay=10ms", "pod2": "loss=1%"})) as (_, switch, _):
        switch.set_link("pod3", None)
        text = switch.dump_config()
    with configured(ConfigFile.parse(text, "dump").config) as (_, again, file):
        assert again.dump_config() == text
        assert again.own_links == switch.own_links | {"pod3": Link()}
        file.config = replace(file.config, ports=[*PORTS, "pod4"])
        again.reload_config()
        assert again.own_links["pod4"] == Link.parse("delay=10ms")


def test_what_is_no_longer_named_goes_back_and_what_a_hand_did_stays() -> None:
    with configured(RICH) as (_, switch, file):
        switch.set_flags("pod2", hairpin=True)
        switch.fdb.add("02:00:00:00:00:77", "pod2")
        switch.set_storm_control(StormControl(3), "pod3")
        file.config = BASE
        changes = switch.reload_config()
        assert "policy flood" in changes and "pod1: isolated off" in changes
        assert switch.flags("pod2").hairpin, "no file ever named it"
        assert [str(e.mac) for e in switch.fdb if e.static] == ["02:00:00:00:00:77"]
        assert not [n for n in switch.neighbours if n.static]
        assert of_switch(switch) == replace(
            BASE,
            port={"pod2": PortConfig(hairpin=True)},
            fdb=[FdbEntryConfig(mac="02:00:00:00:00:77", ifname="pod2")],
        )
        assert switch.own_policies == {}


def test_what_is_named_is_set_again() -> None:
    with configured(RICH) as (_, switch, _):
        switch.set_flags("pod1", isolated=False)
        switch.fdb.remove("02:00:00:00:00:01", 7)
        switch.remove_neighbour("fd00::9")
        switch.remove_port("pod3")
        assert switch.reload_config() == [
            "port pod3 added",
            "pod1: isolated on",
            "pod1: 02:00:00:00:00:01 added",
            "pod2: fd00::9 added",
        ]
        assert settings(of_switch(switch)) == settings(RICH)


BAD = [
    (replace(RICH, ports=["pod1", "none0"]), PortError, "none0"),
    (replace(RICH, ports=["pod1", "pod2", "pod4", "none0"]), PortError, "none0"),
    (replace(RICH, capacity=7, policy="flood"), ConfigError, "capacity cannot change"),
    (replace(RICH, policy="gaurd", ports=["pod1", "pod2"], fdb=[]), ConfigError, "gaurd"),
]


@pytest.mark.parametrize(("config", "kind", "words"), BAD)
def test_a_bad_file_changes_nothing(config: Config, kind: type[Exception], words: str) -> None:
    with configured(RICH) as (_, switch, file):
        before, indices = switch.dump_config(), [port.index for port in switch.ports]
        file.config = replace(config, port={k: v for k, v in config.port.items() if k in config.ports})
        file.config = replace(file.config, neigh=[], fdb=[])
        with pytest.raises(kind, match=words):
            switch.reload_config()
        assert switch.dump_config() == before and [port.index for port in switch.ports] == indices
        file.config = RICH
        assert switch.reload_config() == []


def test_what_fails_half_way_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    with configured(BASE) as (_, switch, file):
        before = switch.dump_config()
        monkeypatch.setattr(switch, "add_neighbour", full)
        file.config = replace(RICH, ports=PORTS[:2], port={}, neigh=RICH.neigh)
        with pytest.raises(ConfigError, match="table is full"):
            switch.reload_config()
        assert switch.dump_config() == before
        monkeypatch.undo()
        assert "policy guard,suppress" in switch.reload_config()


def full(*arguments: object) -> None:
    raise ConfigError("the neighbour table is full")


def test_a_port_whose_interface_is_gone_stops_no_reload() -> None:
    with configured(BASE) as (lab, switch, file):
        lab["pod3"].port.delete()
        eventually(lambda: state(switch, "pod3") == "gone", "the end of the interface")
        file.config = replace(BASE, policy="suppress")
        assert switch.reload_config() == ["policy suppress"]


def test_a_port_that_comes_has_its_settings_before_it_forwards() -> None:
    with configured(RICH) as (_, switch, _):
        switch.remove_port("pod3")
        seen: list[Any] = []
        greet = switch.on_port
        switch.on_port = lambda port: seen.append((greet(port), state(switch, port)))
        switch.add_port("pod3")
        assert seen[0][1] == "blocked" and switch.flags("pod3").locked


def test_untouched_ports_lose_nothing() -> None:
    """Frames between two ports, while a file takes a third one out and in, and changes it."""
    others = replace(BASE, ports=PORTS[:2])
    with configured(BASE) as (lab, switch, file), wires(lab) as (one, two, *_):
        two.send(ethernet(0xFFFFFFFFFFFF, two.mac, payload=b"here"))
        eventually(lambda: switch.fdb.lookup(two.mac), "its station")
        changed = threading.Event()
        sent = lost = 0

        def costly() -> int:
            """What a busy machine did not send in time."""
            return switch.counters().ports["pod2"].tx_dropped["costly"]

        def send() -> None:
            nonlocal sent, lost
            while not changed.is_set():
                if sent - heard.count - lost < 64:  # more than that may not fit into the hearer's buffer
                    one.send(ethernet(two.mac, one.mac, payload=b"fastbridge %d" % sent))
                    sent += 1
                else:
                    changed.wait(0.001)
                    lost = costly()

        heard = Counted(two)
        sender = threading.Thread(target=send)
        sender.start()
        for rounds in range(1000):
            if rounds >= 5 and sent > 64:
                break
            for file.config in (others, BASE, replace(BASE, port={"pod3": PortConfig(isolated=True)}), BASE):
                assert switch.reload_config()
        changed.set()
        sender.join()
        eventually(lambda: heard.count + costly() >= sent, f"all {sent} frames")
        heard.close()
        assert heard.count <= sent
        assert sent > 64
        assert switch.counters().ports["pod1"].rx_missed == 0


class Counted:
    """Reads a wire all the time, and counts the test's own frames."""

    def __init__(self, wire: Wire) -> None:
        self.count = 0
        self._wire = wire
        self._ends = threading.Event()
        wire.socket.settimeout(0.05)
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        while not self._ends.is_set():
            try:
                frame, _ = self._wire.receive()
            except TimeoutError:
                continue
            self.count += b"fastbridge" in frame

    def close(self) -> None:
        self._ends.set()
        self._thread.join()


@pytest.fixture
def pair() -> Iterator[None]:
    """fca and fcb, joined, in the sandbox's namespace."""
    for command in ("add fca type veth peer name fcb", "set fca up", "set fcb up"):
        subprocess.run(["ip", "link", *command.split()], check=True)
    yield
    subprocess.run(["ip", "link", "delete", "fca"], check=True)


def test_a_switch_from_a_file(pair: None, tmp_path: Path) -> None:
    (path := tmp_path / "two.toml").write_text('ports = ["fca", "fcb"]\nfast_path = "off"\nloop_detection = false\n')
    with Switch.from_file(path) as switch:
        path.write_text(path.read_text() + 'policy = "suppress"\n')
        assert switch.reload_config() == ["policy suppress"]
        assert load(path) == of_switch(switch)
    path.write_text(path.read_text() + '[[fdb]]\nmac = "02:00:00:00:00:01"\nifname = "fcz"\n')
    with pytest.raises(ConfigError, match=r"two.toml:7: there is no port 'fcz'"):
        Switch.from_file(path)


def test_a_switch_without_a_file_says_so() -> None:
    with stage(2, fast_path="off") as (_, switch), pytest.raises(ConfigError, match="run -c FILE"):
        switch.reload_config()


def test_a_policy_of_a_program_cannot_be_dumped() -> None:
    from fastbridge import Policy

    class Own(Policy):
        pass

    with stage(2, fast_path="off") as (_, switch):
        switch.set_policy(Own())
        with pytest.raises(ConfigError, match="policy own"):
            switch.dump_config()
        switch.set_policy("flood")
        assert write(of_switch(switch)) == switch.dump_config()
