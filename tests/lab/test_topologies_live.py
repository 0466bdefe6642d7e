"""Labs of several switches: routers forward, trunks join, links do what they say, names lead to pods."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from frames import GROUP, ethernet, tag
from live import PATIENCE, eventually, wires

from fastbridge import ConfigError, Lab, Pod, Switch, Switches, Topology

pytestmark = pytest.mark.live


def all_reach_all(lab: Lab) -> bool:
    return all(
        one.ping(other, timeout=PATIENCE, family=family)
        for one in lab
        for other in lab
        for family in (4, 6)
        if one != other
    )


def test_a_router_joins_two_lans() -> None:
    with Lab(Topology.routed_star(2, 1)) as lab, Switches(lab.switches) as switches:
        router, one, two = lab
        assert [port.name for port in lab.ports] == ["router", "router-eth1", "pod1", "pod2"]
        assert {name: [port.name for port in ports] for name, ports in lab.switches.items()} == {
            "s1": ["router", "pod1"],
            "s2": ["router-eth1", "pod2"],
        }
        assert all_reach_all(lab)
        assert switches["s1"].fdb.lookup(two.mac) is None  # it stays in its LAN
        assert list(router.interfaces) == ["eth0", "eth1"] and router.interfaces["eth0"] is router
        away = router.interfaces["eth1"]
        assert str(away.ipv4) == "10.2.0.1/16" and away.port.name == "router-eth1"
        entry = switches["s2"].fdb.lookup(away.mac)
        assert entry and entry.port == "router-eth1"
        assert (
            one.run(["cat", "/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/ipv6/conf/all/forwarding"]).stdout
            == "0\n0\n"
        )


def test_an_interface_that_was_down_has_its_routes_again() -> None:
    with Lab(Topology.routed_star(2, 1)) as lab, Switches(lab.switches):
        router, one, two = lab
        for end in (one, router.interfaces["eth1"]):
            end.set_down()
            assert not one.ping(two, timeout=0.05)
            end.set_up()
            for family in (4, 6):
                eventually(lambda f=family: bool(one.ping(two, family=f, timeout=0.5)), "the way back")  # type: ignore[misc]


def test_programs_find_pods_by_their_names(tmp_path: Path) -> None:
    before = Path("/etc/hosts").read_bytes()
    with Lab(Topology.routed_star(2, 1, ipv6=None)) as lab, Switches(lab.switches):
        text = lab["pod1"].run(["cat", "/etc/hosts"]).stdout
        assert text.startswith(lab.topology.hosts) and text.encode().endswith(before)
        assert lab["pod1"].run(["getent", "ahostsv4", "pod2"]).stdout.startswith("10.2.0.2 ")
        assert Path("/etc/hosts").read_bytes() == before
    assert Path("/etc/hosts").read_bytes() == before


def test_trunks_join_switches() -> None:
    with Lab(Topology.linear(3, 2)) as lab, Switches(lab.switches) as switches:
        assert [port.name for port in lab.switches["s2"]] == ["pod3", "pod4", "s2-s1", "s2-s3"]
        assert lab["pod1"].ping("pod6", timeout=PATIENCE) and lab["pod6"].ping("pod3", timeout=PATIENCE, family=6)
        entry = switches["s1"].fdb.lookup(lab["pod6"].mac)
        assert entry and entry.port == "s1-s2"
        switches["s2"].cut("s2-s3")
        assert not lab["pod1"].ping("pod6", timeout=0.05) and lab["pod1"].ping("pod4", timeout=PATIENCE)
        switches["s2"].mend("s2-s3")
        eventually(lambda: bool(lab["pod1"].ping("pod6", timeout=0.5)), "the way by the mended trunk")


def test_tags_and_large_segments_pass_trunks_and_routers() -> None:
    """A tagged frame by two trunks, to the byte; a megabyte of TCP by a trunk and a router, checksums pending."""
    with Lab(Topology.linear(3, 1, ipv6=None)) as lab, Switches(lab.switches), wires(lab) as ends:
        frame = ethernet(GROUP, ends[0].mac, tag(7))
        ends[0].send(frame)
        while ends[2].receive()[0] != frame:
            pass
    plan = Topology.from_dict(
        {
            "switch": {"lan": {"trunks": ["far"]}, "far": {}, "wan": {}},
            "pod": {
                "a": {"interfaces": {"eth0": "lan"}},
                "r": {"interfaces": {"eth0": "far", "eth1": "wan"}, "forward": True},
                "b": {"interfaces": {"eth0": "wan"}},
            },
        }
    )
    sent = bytes(range(256)) * 4096
    with Lab(plan) as lab, Switches(lab.switches):
        for address in lab["b"].ipv4, lab["b"].ipv6:
            assert address and carried(sent, lab["a"], lab["b"], str(address.ip)) == sent


def carried(data: bytes, one: Pod, other: Pod, address: str) -> bytes:
    """What comes out of a TCP connection to a pod's address."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with other.socket(family, socket.SOCK_STREAM) as hearer, one.socket(family, socket.SOCK_STREAM) as mouth:
        hearer.bind((address, 5000))
        hearer.listen()
        for sock in (hearer, mouth):
            sock.settimeout(PATIENCE)
        mouth.connect((address, 5000))
        near, _ = hearer.accept()

        def send() -> None:
            mouth.sendall(data)
            mouth.shutdown(socket.SHUT_WR)

        with near, ThreadPoolExecutor(1) as pool:
            sending = pool.submit(send)
            near.settimeout(PATIENCE)
            heard = b"".join(iter(lambda: near.recv(1 << 16), b""))
            sending.result()
    return heard


def test_links_of_a_topology_delay_where_they_are() -> None:
    plan = Topology.from_dict(
        {
            "switch": {"lan": {"trunks": ["far"]}, "far": {}, "wan": {}},
            "pod": {
                "a": {"interfaces": {"eth0": "lan"}},
                "b": {"interfaces": {"eth0": "far"}},
                "r": {"interfaces": {"eth0": "lan", "eth1": "wan"}, "forward": True},
                "c": {"interfaces": {"eth0": "wan"}},
            },
            "link": {"lan-far": "delay=10ms", "r.eth1": "delay=15ms"},
        }
    )
    with Lab(plan, link={"r.eth1": "delay=25ms"}) as lab, Switches(lab.switches) as switches:
        assert {str(p): str(state.link) for s in switches.values() for p, state in s.links.items()} == {
            "lan-far": "delay=10ms",
            "r-eth1": "delay=25ms",
        }
        for target, least in ("b", 0.02), ("r", 0.0), ("c", 0.05):
            (rtt,) = lab["a"].ping(target, timeout=PATIENCE).rtts
            assert rtt >= least


def test_one_switch_does_not_join_what_several_keep_apart() -> None:
    with Lab(Topology.routed_star(2, 1, ipv6=None)) as lab:
        with pytest.raises(ConfigError, match=r"ports of 2 switches, s1 … s2, .* Switch\(lab.switches\['s1'\]\)"):
            Switch(lab.ports)
        with pytest.raises(ConfigError, match="one bridge stands for one switch"), lab.bridge():
            pass
        with pytest.raises(ConfigError, match="two pods, not 3"), lab.direct():
            pass


@pytest.mark.slow
def test_switches_in_a_ring_end_the_loop() -> None:
    """Broadcasts circle until the probes of a switch come back; then one port is blocked, and all pods are reached."""
    with Lab(Topology.ring(3, 1, ipv6=None)) as lab, Switches(lab.switches):
        for one in lab:
            for other in lab:
                eventually(lambda o=one, t=other: bool(o.ping(t, timeout=0.5)), f"{one} to {other}")  # type: ignore[misc]
