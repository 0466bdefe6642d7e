"""The verbs of a switch: plain JSON as the schema says, the methods' own words, and nothing changed by what fails."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from operator import attrgetter
from pathlib import Path
from typing import Any

import arp_nd_frames as make
import click
import jsonschema
import pytest
from asked import Asked
from clock import Clock
from frames import GROUP, ethernet, tag
from live import PATIENCE, eventually

from fastbridge import Client, ConfigError, FastbridgeError, Lab, MemorySwitch, Switch
from fastbridge.cli import group
from fastbridge.control.directory import make_directory, running, socket_path
from fastbridge.control.verbs import Verbs

CONTROL = Path(__file__).parents[2] / "docs/control.md"
ONE, TWO = "02:00:00:00:00:01", "02:00:00:00:00:02"


@pytest.fixture
def ask(clock: Clock) -> Asked:
    return Asked(MemorySwitch(["a", "b", "c"], clock=clock))


def test_ports(ask: Asked) -> None:
    usual = ["learning", "broadcast_flood", "multicast_flood", "unicast_flood"]
    a = {"ifname": "a", "port": 0, "state": "up", "flags": usual, "policy": "flood", "stations": 0, "storm_control": {}}
    assert ask("port.list") == [a, a | {"ifname": "b", "port": 1}, a | {"ifname": "c", "port": 2}]
    ask.switch.process("a", [ethernet(GROUP, 0x020000000001)])
    assert ask("port.list", port="a") == [a | {"stations": 1}]
    changed = ask("port.set", port="b", flags={"isolated": True, "learning": False}, storm_control={"broadcast": 9})
    assert changed == ask("port.list", port="b")
    assert changed[0]["flags"] == [*usual[1:], "isolated"] and changed[0]["storm_control"] == {"broadcast": 9}
    assert ask.switch.flags("b").isolated and ask.switch.storm_control("b").broadcast == 9
    assert ask("port.set", port="b", storm_control={"multicast": 5})[0]["storm_control"] == {
        "broadcast": 9, "multicast": 5,
    }  # fmt: skip
    assert ask("port.set", port="b", storm_control={"broadcast": None})[0]["storm_control"] == {"multicast": 5}
    assert ask("port.remove", port="a") == [a | {"stations": 1}]
    assert [port["ifname"] for port in ask("port.list")] == ["b", "c"] and ask("fdb.show") == []
    assert ask("port.add", port="a") == [a]


def test_limits_that_are_set_hold(ask: Asked) -> None:
    ask("port.set", port="a", storm_control={"broadcast": 4})
    frame = ethernet(GROUP, 0x020000000001)
    assert len(ask.switch.process("a", [frame] * 10)) == 2  # one may come at once, and goes to two ports
    assert ask("stats", port="a")[0]["dropped"]["storm_broadcast"] == 9


def test_fdb(ask: Asked, clock: Clock) -> None:
    ask.switch.process("a", [ethernet(GROUP, 0x020000000001), ethernet(GROUP, 0x020000000002, tag(7))])
    clock.now += 5
    first = {"mac": ONE, "ifname": "a", "flags": [], "state": "", "age": 5}
    second = {"mac": TWO, "ifname": "a", "vlan": 7, "flags": [], "state": "", "age": 5}
    assert ask("fdb.show") == [first, second]
    assert ask("fdb.show", mac=ONE) == ask("fdb.show", vlan=0) == [first]
    assert ask("fdb.show", port="a", vlan=7) == ask("fdb.show", mac="0200.0000.0002") == [second]
    assert ask("fdb.show", port="b") == ask("fdb.show", mac="02:00:00:00:00:09") == []
    static = {"mac": ONE, "ifname": "b", "flags": [], "state": "static"}
    assert ask("fdb.add", mac=ONE, port="b") == [static] == ask("fdb.show", mac=ONE)
    ask.switch.process("a", [ethernet(GROUP, 0x020000000001)])
    assert ask("fdb.show", port="b") == [static]
    assert ask("fdb.flush", port="b") == [{"flushed": 0}] and ask("fdb.flush") == [{"flushed": 1}]
    assert ask("fdb.delete", mac=ONE) == [static] and ask("fdb.show") == []


def test_neighbours_and_policies(ask: Asked) -> None:
    assert ask("policy.set", policy="suppress") == ask("policy.show")
    assert [row["policy"] for row in ask("policy.show")] == ["suppress"] * 4
    ask.switch.process("a", [bytes(make.arp(1, ONE, "10.0.0.1", "10.0.0.9"))])
    (learned,) = ask("neigh.show")
    assert learned == {
        "dst": "10.0.0.1", "dev": "a", "lladdr": ONE, "state": ["REACHABLE"], "source": "arp request", "age": 0,
    }  # fmt: skip
    static = {"dst": "fd00::2", "dev": "b", "lladdr": TWO, "state": ["PERMANENT"], "source": "static"}
    assert ask("neigh.add", ip="fd00::2", mac=TWO, port="b") == [static]
    assert ask("neigh.show", port="b") == ask("neigh.show", ip="fd00:0::2") == [static]
    assert ask("policy.set", policy="guard", port="c") == [{"ifname": "c", "policy": "guard", "own": True}]
    assert ask("policy.set", policy="flood")[0] == {"ifname": None, "policy": "flood", "own": False}
    assert ask("policy.set", policy=None, port="c") == [{"ifname": "c", "policy": "flood", "own": False}]
    ask("policy.set", policy="guard", port="c")
    assert [row["policy"] for row in ask("policy.show")] == ["flood", "flood", "flood", "guard"]
    assert ask("neigh.delete", ip="10.0.0.1") == [learned] and ask("neigh.delete", ip="fd00::2") == [static]
    assert ask("neigh.show") == []


def test_guard_binds_to_a_neighbour_at_once_and_lets_go_of_it(ask: Asked) -> None:
    ask("policy.set", policy="guard")
    ask("neigh.add", ip="10.0.0.1", mac=ONE, port="a")
    frame = ethernet(GROUP, 0x020000000001)
    assert ask.switch.process("b", [frame]) == []
    assert ask("stats", port="b")[0]["dropped"]["source_guard"] == 1
    ask("neigh.delete", ip="10.0.0.1")
    assert len(ask.switch.process("b", [frame])) == 2


def test_stats_and_rates(ask: Asked, clock: Clock) -> None:
    frame = ethernet(GROUP, 0x020000000001)
    before, earlier = ask("stats"), ask.switch.counters()
    ask.switch.process("a", [frame] * 10)
    clock.now += 2
    *ports, shared = ask("stats")
    assert [row["ifname"] for row in ports] == ["a", "b", "c"] and shared["ifname"] is None
    assert ports[0]["flooded"] == shared["flooded"] == 10 and shared["learned"] == 1
    assert ports[0]["time"] - before[0]["time"] == 2
    assert ask("stats", port="a") == ports[:1]
    rates = ask.switch.counters().rates(earlier)
    assert [row["flooded"] for row in rates] == [5, 0, 0, 5] and [row["tx_frames"] for row in rates] == [0, 5, 5, 10]
    assert rates[0]["seconds"] == 2 and rates[0]["dropped"]["runt"] == 0 and rates[-1]["learned"] == 0.5


def test_rates_of_ports_that_come_and_go(ask: Asked, clock: Clock) -> None:
    frame = ethernet(GROUP, 0x020000000001)
    ask.switch.process("a", [frame] * 10)
    earlier = ask.switch.counters()
    ask("port.remove", port="a")
    ask("port.add", port="a")
    ask("port.add", port="d")
    ask.switch.process("a", [frame] * 4)
    clock.now += 1
    rates = {row["ifname"]: row for row in ask.switch.counters().rates(earlier)}
    assert {name: row["flooded"] for name, row in rates.items()} == {"a": 4, "b": 0, "c": 0, "d": 0, None: 4}
    with pytest.raises(ConfigError, match="two snapshots of one switch, the later one first"):
        earlier.rates(ask.switch.counters())


def test_status(ask: Asked, clock: Clock) -> None:
    ask.switch.process("a", [ethernet(GROUP, 0x020000000001), b"runt"])
    ask("neigh.add", ip="10.0.0.1", mac=ONE, port="a")
    clock.now += 7
    (status,) = ask("status")
    assert status["pid"] == os.getpid() and status["uptime"] == 7 and status["running"]
    assert status["ports"] == {"up": 3, "down": 0, "blocked": 0, "gone": 0}
    assert status["fdb"] == {"entries": 1, "capacity": 65536, "ageing": 300}
    assert status["neighbours"] == {"entries": 1, "capacity": 65536, "ageing": 60}
    assert status["lost"] == {"runt": 1} and status["links"] == {"links": 0, "in_flight": 0, "bytes": 0}
    ask("link.set", places=["b"], link="delay=20ms")
    ask.switch.process("a", [ethernet(GROUP, 0x020000000001)])
    (status,) = ask("status")
    assert status["links"] == {"links": 1, "in_flight": 1, "bytes": ask.switch.link_memory[0]}


WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("port.list", {"port": "z"}, "the switch has no port 'z'; it has: a, b, c"),
    ("port.list", {"port": 7}, "port.list: port must be a string or null, not 7"),
    ("port.add", {"port": "a"}, "a is a port of this switch already"),
    ("port.add", {}, "port.add needs the parameter port: a string"),
    ("port.remove", {"port": "z"}, "the switch has no port 'z'"),
    ("port.set", {"port": "z", "flags": {"isolated": True}}, "the switch has no port 'z'"),
    ("port.set", {"port": "a", "flags": {"isolated": True, "iso": True}}, "no port flag is named iso; there are: lear"),
    ("port.set", {"port": "a", "flags": {"isolated": "on"}}, "port.set: flags must be"),
    ("port.set", {"port": "a", "flags": {"isolated": True}, "storm_control": {"x": 1}}, "has no kind 'x'; there are: "),
    ("port.set", {"port": "a", "flags": {"isolated": True}, "storm_control": {"broadcast": -1}}, "more than 0 frames"),
    ("port.set", {"port": "a", "flags": {"nope": True}, "storm_control": {"broadcast": 1}}, "no port flag is named"),
    ("fdb.show", {"mac": "x"}, "'x' is not a MAC address; write it as 02:00:00:00:00:01"),
    ("fdb.show", {"port": "z"}, "the switch has no port 'z'"),
    ("fdb.add", {"mac": "01:00:5e:00:00:01", "port": "a"}, "is not a unicast MAC address"),
    ("fdb.add", {"mac": ONE, "port": "z"}, "the switch has no port 'z'"),
    ("fdb.add", {"mac": ONE, "port": "a", "vlan": 4095}, "VLAN id 4095 is outside 0 … 4094"),
    ("fdb.add", {"mac": ONE, "port": "a", "vlan": -1}, "VLAN id -1 is outside 0 … 4094"),
    ("fdb.delete", {"mac": TWO}, f"the FDB has no entry of {TWO} without a VLAN; `fdb show` lists all"),
    ("fdb.delete", {"mac": ONE, "vlan": 9}, f"the FDB has no entry of {ONE} in VLAN 9"),
    ("fdb.delete", {"mac": ONE, "vlan": 4096}, "VLAN id 4096 is outside 0 … 4094"),
    ("fdb.flush", {"port": "z"}, "the switch has no port 'z'"),
    ("neigh.show", {"ip": "10.0.0"}, "'10.0.0' is not an IP address; write it as 10.0.0.1 or fd00::1"),
    ("neigh.show", {"port": "z"}, "the switch has no port 'z'"),
    ("neigh.add", {"ip": "224.0.0.1", "mac": ONE, "port": "a"}, "224.0.0.1 "),
    ("neigh.add", {"ip": "10.0.0.1", "mac": "ff:ff:ff:ff:ff:ff", "port": "a"}, "is not a unicast MAC address"),
    ("neigh.add", {"ip": "10.0.0.1", "mac": ONE, "port": "z"}, "the switch has no port 'z'"),
    ("neigh.delete", {"ip": "10.0.0.9"}, "there is no neighbour 10.0.0.9 without a VLAN; `neigh show` lists all"),
    ("policy.show", {"port": "z"}, "the switch has no port 'z'"),
    ("policy.set", {"policy": "strict"}, "'strict' is not a policy; write one or more of flood, suppress"),
    ("policy.set", {"policy": "guard", "port": "z"}, "the switch has no port 'z'"),
    ("policy.set", {"policy": None}, "name the port"),
    ("stats", {"port": "z"}, "the switch has no port 'z'"),
    ("status", {"port": "a"}, 'status has no parameter "port"'),
]


@pytest.mark.parametrize(("verb", "params", "says"), WRONG)
def test_what_is_wrong_gets_one_line_and_changes_nothing(
    verb: str, params: dict[str, Any], says: str, ask: Asked
) -> None:
    ask("fdb.add", mac=ONE, port="a")
    ask("neigh.add", ip="10.0.0.1", mac=ONE, port="a")
    before = ask.everything()
    with pytest.raises(FastbridgeError) as refused:
        ask.verbs.call(verb, params)
    text = str(refused.value)
    assert says in text and "\n" not in text and refused.value.exit_status == 2
    assert ask.everything() == before


def test_ports_that_vanish_between_list_and_set(ask: Asked) -> None:
    """Someone else takes a port out and puts it back all the time: each verb is done, or says that it is not there."""
    stopping = threading.Event()

    def come_and_go() -> None:
        while not stopping.is_set():
            ask.switch.remove_port("b")
            ask.switch.add_port("b")

    other = threading.Thread(target=come_and_go)
    other.start()
    done = refused = 0
    requests: list[tuple[str, dict[str, Any]]] = [
        ("port.list", {}), ("policy.show", {}), ("stats", {}), ("fdb.show", {}), ("neigh.show", {}),
        ("port.set", {"port": "b", "flags": {"isolated": True}, "storm_control": {"broadcast": 7}}),
        ("fdb.add", {"mac": ONE, "port": "b"}), ("neigh.add", {"ip": "10.0.0.1", "mac": ONE, "port": "b"}),
        ("policy.set", {"policy": "guard", "port": "b"}),
    ]  # fmt: skip
    try:
        for _ in range(100):
            for verb, params in requests:
                try:
                    ask.verbs.call(verb, params)
                    done += 1
                except FastbridgeError as error:
                    assert params and ("no port 'b'" in str(error) or "was removed meanwhile" in str(error))
                    refused += 1
    finally:
        stopping.set()
        other.join()
    assert done >= 500
    ask.switch.remove_port("b")
    assert ask("neigh.show") == ask("fdb.show") == [] and ask.switch.own_policies == {}


def test_every_verb_is_described(ask: Asked) -> None:
    schema = ask("schema")
    for verb, said in schema["verbs"].items():
        jsonschema.Draft202012Validator.check_schema(said["params"])
        assert said["description"].endswith("."), verb
        assert said["result"], verb
    keys = schema["verbs"]["fdb.show"]["result"]["items"]["properties"]
    assert keys.keys() == {"mac", "ifname", "vlan", "flags", "state", "age"}
    assert isinstance(ask.verbs, Verbs) and set(schema["verbs"]) == set(ask.verbs)


@pytest.mark.skipif(not CONTROL.exists(), reason="the tests were copied without docs/")
def test_the_table_of_verbs_is_complete_and_true(ask: Asked) -> None:
    rows = re.findall(r"^\| `([\w.]+)` \| `([\w ]+)` \| (.*) \|$", CONTROL.read_text(encoding="utf-8"), re.M)
    assert {verb for verb, _, _ in rows} == set(ask.verbs)
    for _, command, methods in rows:
        assert find_command(command) is not None, command
        for path in re.findall(r"`switch\.([\w.]+)", methods):
            assert hasattr(Switch, path) or attrgetter(path)(ask.switch) is not None


def find_command(words: str) -> Any:
    """A command by its words, as `fastbridge --help` would find it."""
    context = click.Context(group)
    found: Any = group
    for word in words.split():
        _, found, _ = found.resolve_command(context, [word])
    return found


# Live: the socket of a switch.


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab(2) as lab:
        yield lab


@pytest.mark.live
def test_a_switch_answers_from_start_to_stop(lab: Lab) -> None:
    with Switch(lab.ports, control="one", cpu=None) as switch:
        assert running() == ["one"] and switch.name == "one"
        assert lab["pod1"].ping("pod2", timeout=PATIENCE)
        with Client("one", timeout=PATIENCE) as client:
            shown = {(row["mac"], row["ifname"]) for row in client.call("fdb.show")}
            assert shown == {(str(entry.mac), entry.port) for entry in switch.fdb}
            status = client.call("status")[0]
            assert (status["name"], status["running"], status["fast_path"]) == ("one", True, switch.fast_path)
            assert status["ports"]["up"] == 2 and status["workers"] == 1
            for value in (float("nan"), object()):
                with pytest.raises(ConfigError, match=r"port.set: these parameters cannot be written as JSON"):
                    client.call("port.set", port="pod1", storm_control={"broadcast": value})
            port = client.call("port.remove", port="pod2")
            assert port[0]["ifname"] == "pod2" and "pod2" not in switch.ports
            path = socket_path("one")
            switch.stop()
            with pytest.raises(FastbridgeError, match="ended"):
                client.call("status")
        assert running() == [] and not path.exists()
        assert not switch.status().running


@pytest.mark.live
def test_two_switches_of_one_name(lab: Lab) -> None:
    with Switch(lab.ports[:1], control="one"):
        with pytest.raises(ConfigError, match="a switch named one runs already; give this one another name"):
            Switch(lab.ports[1:], control="one")
        two = Switch(lab.ports[1:], control="two")  # its port was let go
        two.start()
        assert running() == ["one", "two"]
        two.stop()
        assert running() == ["one"]
    late = Switch(lab.ports[:1], control="late")
    with Switch(lab.ports[1:], control="late"):
        with pytest.raises(ConfigError, match="late"):
            late.start()
        assert running() == ["late"]
        with pytest.raises(ConfigError, match="was stopped"):
            late.start()
    assert running() == []


@pytest.mark.live
def test_names_of_switches_without_one(lab: Lab) -> None:
    with Switch(lab.ports[:1], control=True) as one, Switch(lab.ports[1:], control=True) as two:
        assert one.name != two.name and {one.name, two.name} == set(running())
        assert {one.name.split("-")[1], two.name.split("-")[1]} == {str(os.getpid())}


@pytest.mark.live
def test_a_directory_that_is_open_to_others(lab: Lab) -> None:
    make_directory()
    place = socket_path("one").parent
    before = place.stat().st_mode & 0o7777
    place.chmod(0o777)
    try:
        for control in ("one", True):
            with pytest.raises(ConfigError, match=rf"no control sockets in {place}: it is open to others"):
                Switch(lab.ports, control=control)
    finally:
        place.chmod(before)
    with Switch(lab.ports, control="one"):  # nothing was kept of the ports
        assert running() == ["one"]


@pytest.mark.live
def test_another_process_of_this_number(lab: Lab) -> None:
    with Switch(lab.ports[:1], control=f"run-{os.getpid()}"), Switch(lab.ports[1:], control=True) as two:
        assert two.name.startswith(f"run-{os.getpid()}-")


@pytest.mark.parametrize("name", ["", "../x", "a/b", "-x", "x" * 65, "a b", "é"])
def test_a_name_that_cannot_be_one(name: str) -> None:
    with pytest.raises(ConfigError, match="cannot be a switch's name") as refused:
        Switch([], control=name)
    assert "\n" not in str(refused.value)


@pytest.mark.live
def test_a_forked_child_leaves_the_socket_to_its_parent() -> None:
    script = """
import os, sys
from fastbridge import ConfigError, Lab, Switch
from fastbridge.control.client import Client
with Lab(2) as lab, Switch(lab.ports, control="forking") as switch, Client("forking", timeout=60) as client:
    if not (pid := os.fork()):
        try:
            switch.status()
        except ConfigError as error:
            switch.stop()
            os._exit(0 if "forked child" in str(error) else 3)
        os._exit(4)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    with Client("forking", timeout=60) as other:
        assert other.call("status")[0]["pid"] == client.call("status")[0]["pid"] == os.getpid()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=180)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.live
def test_the_socket_of_a_killed_switch_is_in_nobody_s_way(lab: Lab) -> None:
    script = """
import os
from fastbridge import Lab, Switch
with Lab(2) as lab, Switch(lab.ports, control="killed"):
    os.kill(os.getpid(), 9)
"""
    assert subprocess.run([sys.executable, "-c", script], timeout=180, check=False).returncode == -9
    path = socket_path("killed")
    assert path.exists() and running() == []
    with Switch(lab.ports, control="killed"), Client(timeout=PATIENCE) as client:
        assert client.call("status")[0]["name"] == "killed"
    assert not path.exists()


@pytest.mark.live
def test_a_switch_that_is_not_stopped_takes_its_socket_with_it() -> None:
    script = """
import os
from fastbridge import Lab, Switch
switch = Switch(Lab(2).ports, control="forgotten")
switch.start()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=180)
    assert (done.returncode, done.stderr) == (0, "")
    assert not Path(socket_path("forgotten")).exists()


@pytest.mark.live
def test_capabilities_are_those_of_the_process(lab: Lab) -> None:
    with Switch(lab.ports, control="one"), Client("one", timeout=PATIENCE) as client:
        held = client.call("status")[0]["capabilities"]
    number = int(next(line for line in Path("/proc/self/status").read_text().splitlines() if "CapEff" in line)[8:], 16)
    decoded = subprocess.run(["capsh", f"--decode={number:x}"], capture_output=True, text=True, check=True).stdout
    assert held == decoded.strip().partition("=")[2].split(",")
    eventually(lambda: running() == [], "the end of the socket")
