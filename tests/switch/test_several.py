"""Several switches in one process: each has its own ports, and all of them start, or none."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from live import PATIENCE, eventually

from fastbridge import Client, ConfigError, Lab, PortError, Switch, Switches
from fastbridge.control.server import ControlServer
from fastbridge.switch.ring_size import ring_slots, shared_rings


@pytest.mark.live
@pytest.mark.both_paths
def test_each_forwards_between_its_own_ports() -> None:
    with Lab(5) as lab:
        one, two, other, another, alone = lab
        with Switches({"s1": lab.ports[:2], "s2": lab.ports[2:4], "s3": lab.ports[4:], "s4": []}) as switches:
            assert (list(switches), len(switches), "s2" in switches) == (["s1", "s2", "s3", "s4"], 4, True)
            for _ in range(3):  # on the fast path, too
                assert one.ping(two, timeout=PATIENCE) and another.ping(other, timeout=PATIENCE)
            assert {name: len(switch.ports) for name, switch in switches.items()} == {
                "s1": 2,
                "s2": 2,
                "s3": 1,
                "s4": 0,
            }
            assert all(switch.running for switch in switches.values())
            assert [switches["s1"].fdb.lookup(pod.mac) is None for pod in lab] == [False, False, True, True, True]
            assert [switches["s2"].fdb.lookup(pod.mac) is None for pod in lab] == [True, True, False, False, True]
            switches["s3"].remove_port("pod5")
            switches["s4"].add_port(alone.port)
            switches["s1"].stop()
            assert another.ping(other, timeout=PATIENCE)
        assert not any(switch.running for switch in switches.values())
        assert switches["s2"].counters().total.rx_frames > 0
        with Switch(lab.ports):  # they have let go of all ports
            assert one.ping(alone, timeout=PATIENCE)


@pytest.mark.live
def test_one_that_cannot_be_opened_leaves_none() -> None:
    with Lab(4) as lab:
        for wanted in ({"s1": lab.ports[:2], "s2": lab.ports[2:], "s3": ["nosuch"]}, {"s1": ["nosuch"], "s2": []}):
            with pytest.raises(PortError, match=r"^switch s[13]: there is no interface 'nosuch'"):
                Switches(wanted)
        with pytest.raises(PortError, match=r"^switch s\d: pod2 is a port of another switch, in this process"):
            Switches({"s1": [], "s2": lab.ports[:2], "s3": lab.ports[1:]})
        with Switches({"s1": lab.ports[:2], "s2": lab.ports[2:]}):
            assert lab["pod1"].ping("pod2", timeout=PATIENCE)


@pytest.mark.live
def test_one_that_cannot_start_leaves_none_running(monkeypatch: pytest.MonkeyPatch) -> None:
    begin = ControlServer.start

    def start(self: ControlServer) -> None:
        if self.path.stem == "s2":
            raise ConfigError("no room for a socket")
        begin(self)

    monkeypatch.setattr(ControlServer, "start", start)
    with Lab(3) as lab:
        switches = Switches({"s1": lab.ports[:1], "s2": lab.ports[1:2], "s3": lab.ports[2:]}, control=True)
        with pytest.raises(ConfigError, match=r"^switch s2: no room for a socket$"):
            switches.start()
        assert not any(switch.running for switch in switches.values())
        with pytest.raises(ConfigError, match="was stopped"):
            switches.start()


@pytest.mark.live
def test_all_are_stopped_though_one_cannot_be(monkeypatch: pytest.MonkeyPatch) -> None:
    switches = Switches({f"s{n}": [] for n in range(40)})  # more than are stopped at a time
    switches.start()
    end = Switch.stop

    def stop(self: Switch) -> None:
        if self is switches["s0"]:
            raise PortError("no")
        time.sleep(0.05)  # the error comes while others have not begun
        end(self)

    with monkeypatch.context() as patched:
        patched.setattr(Switch, "stop", stop)
        with pytest.raises(PortError, match=r"^no$"):
            switches.stop()
    assert [name for name, switch in switches.items() if switch.running] == ["s0"]
    switches.stop()
    assert not switches["s0"].running


@pytest.mark.live
def test_each_can_be_asked_by_its_name() -> None:
    with Lab(3) as lab, Switches({"left": lab.ports[:2], "right": lab.ports[2:]}, control=True):
        for name, ports in (("left", ["pod1", "pod2"]), ("right", ["pod3"])):
            with Client(name, timeout=PATIENCE) as client:
                assert [row["ifname"] for row in client.call("port.list")] == ports
                assert client.call("status")[0]["name"] == name
        with pytest.raises(ConfigError, match=r"^switch right: a switch named right runs already"):
            Switches({"new": [], "right": []}, control=True)


@pytest.mark.live
def test_what_befalls_one_leaves_the_others_alone() -> None:
    with Lab(4) as lab, Switches({"s1": lab.ports[:2], "s2": lab.ports[2:]}, fast_path="off") as switches:
        lab["pod1"].port.delete()
        eventually(lambda: switches["s1"].ports[0].state == "gone", "the end of pod1's port")
        switches["s1"].set_link("pod2", "cut=true")
        assert [port.state for port in switches["s2"].ports] == ["up", "up"] and not switches["s2"].links
        assert lab["pod3"].ping("pod4", timeout=PATIENCE)


@pytest.mark.parametrize(
    ("ports", "options", "said"),
    [
        ({"s1": "veth1"}, {}, "the ports of switch s1 must be a list of names"),
        ({"s1": ["veth1"], "s2": ["veth2", "veth1"]}, {}, "veth1 is named by two switches, s1 and s2"),
        (["veth1"], {}, 'such as {"s1": ["veth1", "veth2"]}'),
        ({"s1": []}, {"control": "blue"}, "control=True gives each"),
        ({"s1": [], "a/b": []}, {"control": True}, "switch a/b: 'a/b' cannot be a switch's name"),
        ({"s1": [], "s2": []}, {"ageing": -1}, "switch s1: ageing must be"),
    ],
)
def test_what_is_wrong_is_said(ports: Any, options: Any, said: str) -> None:
    threads = set(threading.enumerate())
    with pytest.raises(ConfigError) as error:
        Switches(ports, **options)
    assert said in str(error.value)
    assert set(threading.enumerate()) == threads


def test_switches_made_together_share_the_memory_for_rings() -> None:
    with shared_rings(1_000):
        assert ring_slots(2) == ring_slots(1_000)
        assert ring_slots(1_500) < ring_slots(1_000)
    assert ring_slots(2) > ring_slots(1_000)
