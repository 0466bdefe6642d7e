"""Ports as they come: interfaces of the sandbox's namespace that match join a switch, and leave it when they go."""

from __future__ import annotations

import gc
import os
import re
import shutil
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from accounts import check_fates
from host import Host, ip
from live import eventually
from meanwhile import meanwhile

from fastbridge import ConfigError, Lab, PortError, StormControl, Switch
from fastbridge.lab.namespaces import NamespaceHelper
from fastbridge.policy.builtin import parse_policy
from fastbridge.switch.matching import Matching
from fastbridge.switch.port_flags import PortSettings

pytestmark = pytest.mark.live


@pytest.fixture
def host() -> Iterator[Host]:
    with NamespaceHelper() as helper, closing(Host(helper)) as made:
        yield made


def states(switch: Switch) -> dict[str, str]:
    return {port.name: port.state for port in switch.ports}


def becomes(switch: Switch, **wanted: str) -> None:
    eventually(lambda: states(switch) == wanted, f"the ports {wanted}")


def test_interfaces_join_when_they_appear_and_leave_when_they_go(host: Host) -> None:
    host.links.delete("p1")
    host.links.set("p2", state="down")
    with Switch([], match=["p[0-9]"], shield=True) as switch:
        becomes(switch, p3="up")
        host.links.set("p2", state="up")
        becomes(switch, p2="up", p3="up")
        assert host.ping(2, 3)
        host.connect(1)
        becomes(switch, p1="up", p2="up", p3="up")
        assert host.ping(1, 2) and host.ping(1, 3)
        received = switch.counters().ports["p1"].rx_frames + switch.counters().ports["p1"].fast
        host.links.delete("p1")
        becomes(switch, p2="up", p3="up")
        counters = switch.counters()
        check_fates(counters)
        assert list(counters.ports) == ["p2", "p3"] or list(counters.ports) == ["p3", "p2"]
        assert counters.total.rx_frames + counters.total.fast >= received + 2  # what has gone counts in the total
        host.links.delete("p2")
        host.links.delete("p3")
        becomes(switch)
        host.connect(1)
        host.connect(3)
        assert host.ping(1, 3)


def test_changes_are_heard_of_while_no_port_is_added_or_removed(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both change what is known of the interfaces, from threads of their own."""
    held: list[bool] = []
    hear = Matching.hear

    def seen(matching: Matching) -> bool:
        held.append(switch._changing._is_owned())  # type: ignore[attr-defined]
        return hear(matching)

    with Switch(["p1", "p2"], match=["p3"]) as switch:
        monkeypatch.setattr(Matching, "hear", seen)
        becomes(switch, p1="up", p2="up", p3="up")
        host.links.delete("p3")
        becomes(switch, p1="up", p2="up")
    assert held and all(held)


def test_renames_into_and_out_of_a_pattern(host: Host) -> None:
    def rename(old: str, new: str) -> None:
        host.links.set(old, state="down")
        ip(f"link set {old} name {new}")
        host.links.set(new, state="up")

    with Switch(["p1"], match=["p[0-9]", "q*"]) as switch:
        rename("p3", "other")
        becomes(switch, p1="up", p2="up")
        rename("other", "q3")
        becomes(switch, p1="up", p2="up", q3="up")
        assert host.ping(3, 2)
        rename("q3", "p3")  # from one pattern to the other
        becomes(switch, p1="up", p2="up", p3="up")
        assert host.ping(3, 2)
        rename("p1", "other")  # a port that was named is an interface, whatever that is called
        becomes(switch, p1="up", p2="up", p3="up")
        assert host.ping(1, 3)


@pytest.mark.parametrize("shield", [False, True])
def test_what_never_joins_and_what_joins_once_it_is_free(
    host: Host, caplog: pytest.LogCaptureFixture, shield: bool
) -> None:
    host.links.add_bridge("br0", ["p1"])
    with Switch(["p2"]) as another, Switch([], match=["*"], shield=shield) as switch:
        becomes(switch, p3="up", br0="up")  # a bridge is an interface like others
        host.links.set("br0", state="down")
        host.links.set("lo", state="down")
        host.links.set("lo", state="up")
        becomes(switch, p3="up", br0="down")
        time.sleep(1.5)  # they are tried again
        assert not [name for name in states(switch) if name.startswith("fb")]  # the switches' own

        def said() -> list[str]:
            return sorted(line for line in caplog.messages if " is no port: " in line)

        eventually(lambda: len(said()) >= 3, "a word of each")
        assert said() == [
            "lo is no port: it is not an Ethernet interface",
            "p1 is no port: it belongs to another interface (ip link set p1 nomaster takes it out)",
            "p2 is no port: p2 is a port of another switch, in this process; stop that one first",
        ]
        ip("link set p1 nomaster")
        becomes(switch, p1="up", p3="up", br0="down")
        another.stop()
        becomes(switch, p1="up", p2="up", p3="up", br0="down")
        assert host.ping(1, 2) and host.ping(2, 3)
        host.links.set("p1", master=host.links.index("br0"))
        becomes(switch, p2="up", p3="up", br0="down")
        host.links.delete("br0")
        becomes(switch, p1="up", p2="up", p3="up")


def test_a_port_that_a_mirror_copies_to_is_one_again_and_coalesces(host: Host) -> None:
    with Switch(["p1", "p2", "p3"], match=()) as switch:
        switch.mirror(["p1"], "p3")
        host.links.delete("p3")
        eventually(lambda: states(switch)["p3"] == "gone")
        assert not switch.flags("p3").coalesce
        host.connect(3)
        becomes(switch, p1="up", p2="up", p3="up")
        assert switch.mirrors == ()
        assert switch.flags("p3").coalesce


def test_a_named_port_is_one_again_as_it_was(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    with Switch(["p1", "p2", "p3"], match=()) as switch:
        switch.set_flags("p1", isolated=True, hairpin=True)
        switch.set_flags("p2", isolated=True)
        switch.set_policy("guard=router", "p1")
        switch.set_storm_control(StormControl(broadcast=1000), "p1")
        flags = switch.flags("p1")
        host.links.delete("p1")
        eventually(lambda: states(switch)["p1"] == "gone")  # and is waited for
        host.connect(1)
        becomes(switch, p1="up", p2="up", p3="up")
        assert host.ping(1, 3)
        assert switch.flags("p1") == flags
        assert str(switch.policy("p1")) == "guard=router"
        assert str(switch.policy("p2")) == "flood"
        host.links.set("p1", state="down")
        ip("link set p1 name other")
        host.links.delete("p3")
        ip("link add p1 type veth peer name p3")  # a stranger of p1's name, which is taken; and a new p3
        ip("link set p1 up")
        ip("link set p3 up")
        becomes(switch, p1="down", p2="up", p3="up")
        eventually(lambda: "p1 is no port: port p1 is the interface other" in caplog.text)
        host.links.delete("other")
        becomes(switch, p1="up", p2="up", p3="up")  # the stranger is none any more
        assert switch.flags("p1") == flags


def test_a_port_taken_out_does_not_come_back_by_itself(host: Host) -> None:
    with Switch(["p1"], match=["p2", "p3"]) as switch:
        becomes(switch, p1="up", p2="up", p3="up")
        switch.remove_port("p1")
        switch.remove_port("p2")
        ip("link set p1 alias changed")
        ip("link set p2 alias changed")
        host.links.delete("p3")
        becomes(switch)
        host.connect(3)
        becomes(switch, p3="up")  # later than the changes above
        switch.add_port("p1")
        switch.add_port("p2")
        assert host.ping(1, 2)
        switch.remove_port("p2")
        host.links.delete("p2")
        host.connect(2)
        becomes(switch, p1="up", p2="up", p3="up")  # this is another one


def test_settings_for_ports_to_come(host: Host) -> None:
    host.links.delete("p1")
    settings = {
        "p1": PortSettings(parse_policy("guard"), {"locked": True}, StormControl(broadcast=5)),
        "p3": PortSettings(flags={"isolated": True}),
    }
    with Switch(["p2"], match=["p*"], settings=settings, policy="suppress") as switch:
        becomes(switch, p2="up", p3="up")
        assert switch.flags("p3").isolated and not switch.flags("p2").isolated
        for _ in range(2):
            host.connect(1)
            becomes(switch, p1="up", p2="up", p3="up")
            assert (str(switch.policy("p1")), str(switch.policy("p3"))) == ("guard", "suppress")
            assert switch.flags("p1").locked
            host.links.delete("p1")
            becomes(switch, p2="up", p3="up")


def test_a_lab_and_interfaces_that_match(host: Host) -> None:
    with Lab(1) as lab, Switch(lab.ports, match=["p1"]) as switch:
        becomes(switch, pod1="up", p1="up")
        host.links.delete("p1")
        becomes(switch, pod1="up")
        host.connect(1)
        becomes(switch, pod1="up", p1="up")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"match": "veth*"}, r"write \['veth\*'\]"),
        ({"match": [""]}, "empty pattern"),
        ({"match": ["*"], "trusted": True}, "trusted=True"),
    ],
)
def test_wrong_patterns(options: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Switch([], **options)


def test_a_named_interface_must_be_there_at_start(host: Host) -> None:
    with pytest.raises(PortError, match="there is no interface 'absent'"):
        Switch(["p1", "absent"], match=["p*"])


# -- made again and again -------------------------------------------------------------------------


def kind_of(descriptor: str) -> str:
    with suppress(FileNotFoundError):
        return re.sub(r"[0-9]+", "N", str(Path("/proc/self/fd", descriptor).readlink()))
    return "the list's own"


def kernel_objects() -> dict[str, Any]:
    """What a switch has in the kernel and in its process."""
    found: dict[str, Any] = {
        "descriptors": Counter(map(kind_of, os.listdir("/proc/self/fd"))),  # noqa: PTH208 - one ends meanwhile
        "threads": {thread.name for thread in threading.enumerate()} - {"fastbridge-log"},  # which begins with a line
        "links": len(socket.if_nameindex()),
    }
    if shutil.which("nft"):
        listed = subprocess.run(["nft", "list", "chains"], capture_output=True, text=True, check=True).stdout
        found["chains"] = listed.count("chain ")
    return found


def leaked(before: dict[str, Any]) -> dict[str, Any]:
    """What there is more of. A port's program is attached when its first pair is promoted: one for each of three."""
    now = kernel_objects()
    more = {name: now[name] for name in now.keys() - {"descriptors"} if now[name] != before[name]}
    descriptors = now["descriptors"] - before["descriptors"]
    if now["descriptors"]["anon_inode:bpf_link"] <= 3:
        del descriptors["anon_inode:bpf_link"]
    return more | ({"descriptors": descriptors} if descriptors else {})


@pytest.mark.both_paths
@pytest.mark.parametrize("times", [20, pytest.param(60, marks=pytest.mark.slow)])
def test_a_port_made_again_and_again_beside_a_tcp_stream(host: Host, times: int) -> None:
    """It is back each time, the stream goes on, every frame has its fate, and nothing leaks."""
    with Switch(["p1", "p2", "p3"], match=(), shield=True) as switch:
        assert host.ping(1, 2) and host.ping(3, 1)
        gc.collect()
        before = kernel_objects()
        listener = host.pods[1].open_socket(socket.AF_INET, socket.SOCK_STREAM, 0)
        sender = host.pods[0].open_socket(socket.AF_INET, socket.SOCK_STREAM, 0)
        with listener, sender:
            listener.bind(("10.9.0.2", 5001))
            listener.listen()
            sender.connect(("10.9.0.2", 5001))
            receiver, _ = listener.accept()
            sent, came = 0, 0

            def stream() -> None:
                nonlocal sent, came
                sender.sendall(b"x" * 1000)
                sent += 1000
                came += len(receiver.recv(1 << 16))

            waits = []
            with receiver, meanwhile(stream, pause=0.001):
                for _ in range(times):
                    host.links.delete("p3")
                    host.connect(3)
                    began, mark = time.monotonic(), came
                    eventually(lambda: is_back(switch, "p3"), "the port again")
                    waits.append(time.monotonic() - began)
                    eventually(lambda mark=mark: came > mark, "more of the stream")  # type: ignore[misc]
            assert host.ping(3, 1) and host.ping(3, 2)
        print(f"back after {1000 * max(waits):.0f} ms at most, {1000 * sum(waits) / times:.0f} ms on average")
        gc.collect()
        eventually(lambda: not leaked(before), f"the end of what was made for ports that are gone: {leaked(before)}")
        counters = switch.counters()
        check_fates(counters)
        for name in "p1", "p2":
            port = counters.ports[name]
            assert port.rx_frames + port.fast > times and port.rx_missed == 0 and sum(port.dropped.values()) == 0


def is_back(switch: Switch, name: str) -> bool:
    """Whether the port is the present interface of its name, and forwards."""
    index = next((port.index for port in switch.ports if port.name == name and port.state == "up"), None)
    member = switch._members.get(-1 if index is None else index)
    return bool(member and member.link and member.link.link.index == socket.if_nametoindex(name))
