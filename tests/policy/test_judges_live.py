"""Programs that move addresses about, as judges: keepalived, dnsmasq, a router. Under guard all goes on as without."""

from __future__ import annotations

import contextlib
import os
import signal
import struct
from pathlib import Path

import arp_nd_frames as make
import pytest
from daemons import log_of, needs, running
from effort import few
from live import PATIENCE, Wire, eventually, wires
from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from fastbridge import Lab, Switch
from fastbridge.lab.pods import Pod

pytestmark = pytest.mark.live

POLICIES = ["suppress", "guard", "guard,suppress"]
VIRTUAL = {4: "10.0.0.50", 6: "fd00::50"}


# VRRP.


def vrrp(family: int, priority: int, virtual_mac: bool) -> str:
    return f"""
global_defs {{
    vrrp_garp_master_delay 1
}}
vrrp_instance judge {{
    state BACKUP
    interface eth0
    virtual_router_id 51
    priority {priority}
    advert_int 1
    {"use_vmac" if virtual_mac else ""}
    {"vmac_xmit_base" if virtual_mac else ""}
    virtual_ipaddress {{
        {"fe80::50/64" if family == 6 else ""}
        {VIRTUAL[family]}/{16 if family == 4 else 64}
    }}
}}
"""


def has(pod: Pod, ip: str) -> bool:
    return f" {ip}/" in pod.run(["ip", "-o", "addr"]).stdout


@pytest.mark.slow
@pytest.mark.parametrize("virtual_mac", [False, True], ids=["own MAC", "virtual MAC"])
@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("policy", POLICIES)
def test_keepalived_fails_over(policy: str, family: int, virtual_mac: bool, tmp_path: Path) -> None:
    keepalived = needs("keepalived")
    ip = VIRTUAL[family]
    with Lab(3) as lab, Switch(lab.ports, policy=policy), contextlib.ExitStack() as stack:
        client, master, backup = lab
        if virtual_mac:
            made = master.run(["ip", "link", "add", "link", "eth0", "name", "probe", "type", "macvlan"], check=False)
            if made.returncode:
                pytest.skip(f"no macvlan on this machine ({made.stderr.strip()}), which a virtual MAC needs")
            master.run(["ip", "link", "del", "probe"])
        groups = {}
        for pod, priority in (master, 200), (backup, 100):
            (tmp_path / f"{pod.name}.conf").write_text(vrrp(family, priority, virtual_mac))
            argv = [
                keepalived,
                "-n",
                "-P",
                "-l",
                "-f",
                str(tmp_path / f"{pod.name}.conf"),
                "-p",
                "/run/k",
                "-r",
                "/run/v",
            ]
            groups[pod.name] = stack.enter_context(running(pod, argv, tmp_path / f"{pod.name}.log"))

        def served_by(pod: Pod, other: Pod) -> bool:
            return has(pod, ip) and not has(other, ip) and bool(client.ping(ip, timeout=0.5))

        eventually(lambda: served_by(master, backup), f"the master at work: {log_of(tmp_path, master)}")
        master.run(["ip", "link", "set", "eth0", "down"])  # as a machine that dies: no word
        eventually(lambda: has(backup, ip) and client.ping(ip, timeout=0.5), "the failover")
        master.run(["ip", "link", "set", "eth0", "up"])
        eventually(lambda: served_by(master, backup), "the master back at work")
        os.killpg(groups[master.name], signal.SIGTERM)
        eventually(lambda: served_by(backup, master), "what the master gave up")
        assert client.ping(ip, count=3, timeout=PATIENCE).received == 3


# DHCP: one address, two clients in turn.


def dhcp(wire: Wire, kind: str, *options: tuple[str, str]) -> bytes:
    mac = wire.mac.to_bytes(6, "big")
    boot = BOOTP(chaddr=mac, xid=wire.mac & 0xFFFF, flags=0x8000)
    head = Ether(src=mac.hex(":"), dst="ff:ff:ff:ff:ff:ff") / IP(src="0.0.0.0", dst="255.255.255.255")
    return bytes(head / UDP(sport=68, dport=67) / boot / DHCP(options=[("message-type", kind), *options, "end"]))


def dhcp_answer(wire: Wire, kind: int) -> Packet:
    """The server's next message of this kind to the wire."""
    while True:
        frame = Ether(wire.receive()[0])
        mine = DHCP in frame and frame[UDP].dport == 68 and frame[BOOTP].xid == wire.mac & 0xFFFF
        if mine and ("message-type", kind) in frame[DHCP].options:
            return frame


def lease(wire: Wire) -> str:
    """Ask for an address as a client does, and say that one has it."""
    wire.send(dhcp(wire, "discover"))
    offer = dhcp_answer(wire, 2)
    server = dict(o for o in offer[DHCP].options if isinstance(o, tuple) and len(o) == 2)["server_id"]
    wire.send(dhcp(wire, "request", ("requested_addr", offer[BOOTP].yiaddr), ("server_id", server)))
    ip = str(dhcp_answer(wire, 5)[BOOTP].yiaddr)
    wire.send(bytes(make.arp(1, wire.mac.to_bytes(6, "big").hex(":"), ip, ip)))
    return ip


def release(wire: Wire, ip: str, server: Pod) -> None:
    assert server.ipv4
    boot = BOOTP(chaddr=wire.mac.to_bytes(6, "big"), xid=wire.mac & 0xFFFF, ciaddr=ip)
    options = DHCP(options=[("message-type", "release"), ("server_id", str(server.ipv4.ip)), "end"])
    head = Ether(src=wire.mac.to_bytes(6, "big").hex(":"), dst=str(server.mac)) / IP(src=ip, dst=str(server.ipv4.ip))
    wire.send(bytes(head / UDP(sport=68, dport=67) / boot / options))


def answer_who_asks(wire: Wire, ip: str, until: bytes) -> bool:
    """Play the station that has an address, until it gets `until`; False: nothing more comes."""
    mac = wire.mac.to_bytes(6, "big").hex(":")
    wire.socket.settimeout(0.3)
    try:
        while True:
            frame = Ether(wire.receive()[0])
            if until in bytes(frame):
                return True
            if frame.type == 0x0806 and frame.payload.op == 1 and frame.payload.pdst == ip:
                wire.send(bytes(make.arp(2, mac, ip, frame.payload.psrc, to=frame.payload.hwsrc)))
    except TimeoutError:
        return False
    finally:
        wire.socket.settimeout(PATIENCE)


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["flood", *POLICIES])
def test_dnsmasq_gives_one_address_to_two_clients_in_turn(policy: str, tmp_path: Path) -> None:
    """The first leaves with a release and no other word; the second is reached at the address it had."""
    dnsmasq = needs("dnsmasq")
    with Lab(3) as lab, Switch(lab.ports, policy=policy) as switch, wires(lab) as (_, one, two):
        server = lab["pod1"]
        argv = [dnsmasq, "-d", "-p", "0", "-C", "/dev/null", "-i", "eth0", "-u", "root", "-g", "root"]
        argv += ["--dhcp-range=10.0.0.100,10.0.0.100,1h", "--no-ping", f"--dhcp-leasefile={tmp_path}/leases"]
        argv += ["--dhcp-authoritative"]
        with running(server, argv, tmp_path / "log"):
            eventually(lambda: "DHCP, IP range" in (tmp_path / "log").read_text(), "dnsmasq")
            ip = lease(one)
            assert ip == "10.0.0.100"

            def reaches(wire: Wire) -> bool:
                server.run(["ip", "neigh", "flush", "dev", "eth0"])
                numbers = struct.pack("!d", os.times().elapsed)
                with server.socket(2, 2) as mouth:  # AF_INET, SOCK_DGRAM
                    mouth.sendto(b"to who leases it" + numbers, (ip, 9))
                return answer_who_asks(wire, ip, numbers)

            eventually(lambda: reaches(one), "the first client")
            release(one, ip, server)
            eventually(lambda: "DHCPRELEASE" in (tmp_path / "log").read_text(), "the release")
            assert lease(two) == ip
            eventually(lambda: reaches(two), "the second client")
            if policy != "flood":
                eventually(
                    lambda: [(n.port, int(n.mac)) for n in switch.neighbours if str(n.ip) == ip] == [("pod3", two.mac)],
                    "the new binding",
                )


# A router between two subnets.


@pytest.mark.parametrize("policy", few(1, POLICIES))
def test_a_router_pod_joins_two_subnets(policy: str) -> None:
    with Lab(3) as lab, Switch(lab.ports, policy=policy) as switch:
        one, two, router = lab
        if "guard" in policy:
            switch.set_policy(policy.replace("guard", "guard=router"), "pod3")
        for pod in lab:
            pod.run(["ip", "addr", "flush", "dev", "eth0", "scope", "global"])
        for pod, ip in (one, "10.1.0.1/24"), (two, "10.2.0.1/24"), (router, "10.1.0.254/24"), (router, "10.2.0.254/24"):
            pod.run(["ip", "addr", "add", ip, "dev", "eth0"])
        for pod, ip in (one, "fd01::1/64"), (two, "fd02::1/64"), (router, "fd01::fe/64"), (router, "fd02::fe/64"):
            pod.run(["ip", "addr", "add", ip, "dev", "eth0", "nodad"])
        settings = "net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.ipv4.conf.all.send_redirects=0"
        router.run(["sysctl", "-qw", *settings.split(), "net.ipv4.conf.eth0.send_redirects=0"])
        for pod, subnet in (one, 1), (two, 2):
            pod.run(["ip", "route", "add", "default", "via", f"10.{subnet}.0.254"])
            pod.run(["ip", "route", "add", "default", "via", f"fd0{subnet}::fe"])
        for sender, ip in (one, "10.2.0.1"), (two, "10.1.0.1"), (one, "fd02::1"), (two, "fd01::1"):
            eventually(lambda s=sender, i=ip: bool(s.ping(i, timeout=1)), f"{ip} by the router")  # type: ignore[misc]
            assert sender.ping(ip, count=5, timeout=PATIENCE).received == 5
        assert switch.counters().total.dropped["source_guard"] == 0


# Routers that speak OSPF and BFD.


def bird_settings(number: int) -> str:
    """A router with one network behind it, 10.N.0.1 and fdNN::1; what it sends by a learned route is from there."""
    ospf = """
protocol ospf v{version} ospf{family} {{
    ipv{family} {{ import all; export none; }};
    area 0 {{
        interface "eth0" {{ type broadcast; hello 1; dead 8; wait 2; bfd on; }};
        stubnet {behind}/{bits};
    }};
}}
protocol kernel kernel{family} {{
    ipv{family} {{
        import none;
        export filter {{ if proto = "ospf{family}" then {{ krt_prefsrc = {behind}; accept; }} reject; }};
    }};
}}
"""
    return (
        f"""
router id 10.0.0.{number};
log stderr all;
debug protocols {{ states, events }};
protocol device {{ }}
protocol bfd {{
    debug {{ states, events }};
    interface "eth0" {{ min rx interval 100 ms; min tx interval 100 ms; multiplier 30; }};
}}
"""
        + ospf.format(version=2, family=4, bits=32, behind=f"10.{number}.0.1")
        + ospf.format(version=3, family=6, bits=128, behind=f"fd0{number}::1")
    )


@pytest.mark.slow
@pytest.mark.parametrize("policy", POLICIES)
def test_bird_routers_stay_adjacent(policy: str, tmp_path: Path) -> None:
    """Full and BFD up for longer than either would wait for a router that is silent; the learned routes carry all.

    One router has a client, a pod of another subnet, so that packets come from its port that are not its own.
    """
    bird, birdc = needs("bird"), needs("birdc")
    with Lab(3) as lab, Switch(lab.ports, policy=policy) as switch, contextlib.ExitStack() as stack:
        one, two, client = lab
        routers = one, two
        if "guard" in policy:
            for pod in routers:
                switch.set_policy(policy.replace("guard", "guard=router"), pod.port.name)
        client.run(["ip", "addr", "flush", "dev", "eth0", "scope", "global"])
        for pod, host in (client, "1"), (one, "fe"):
            pod.run(["ip", "addr", "add", f"10.3.0.{int(host, 16)}/24", "dev", "eth0"])
            pod.run(["ip", "addr", "add", f"fd03::{host}/64", "dev", "eth0", "nodad"])
        settings = "net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.ipv4.conf.all.send_redirects=0"
        one.run(["sysctl", "-qw", *settings.split(), "net.ipv4.conf.eth0.send_redirects=0"])
        for gateway in "10.3.0.254", "fd03::fe":
            client.run(["ip", "route", "add", "default", "via", gateway])
        for number, pod in enumerate(routers, 1):
            pod.run(["ip", "addr", "add", f"10.{number}.0.1/32", "dev", "lo"])
            pod.run(["ip", "addr", "add", f"fd0{number}::1/128", "dev", "lo"])
            (tmp_path / f"{pod.name}.conf").write_text(bird_settings(number))
            argv = [bird, "-f", "-c", f"{tmp_path}/{pod.name}.conf", "-s", f"{tmp_path}/{pod.name}.ctl"]
            stack.enter_context(running(pod, [*argv, "-P", "/run/pid"], tmp_path / f"{pod.name}.log"))

        def shown(pod: Pod, *what: str) -> str:
            return pod.run([birdc, "-r", "-s", f"{tmp_path}/{pod.name}.ctl", "show", *what], check=False).stdout

        def adjacent(pod: Pod) -> bool:
            """With the other one, by both families."""
            neighbours = [shown(pod, "ospf", "neighbors", name) for name in ("ospf4", "ospf6")]
            return all("Full/" in text for text in neighbours) and shown(pod, "bfd", "sessions").count(" Up ") == 2

        ways = [(one, "10.2.0.1"), (two, "10.1.0.1"), (client, "10.2.0.1")]
        ways += [(one, "fd02::1"), (two, "fd01::1"), (client, "fd02::1")]
        for pod in routers:
            eventually(lambda p=pod: adjacent(p), f"the adjacency: {log_of(tmp_path, pod)}")  # type: ignore[misc]
        for pod, ip in ways:
            eventually(lambda p=pod, i=ip: bool(p.ping(i, timeout=1)), f"the learned route to {ip}")  # type: ignore[misc]
        for _ in range(3):
            for pod, ip in ways:
                pod.run(["ip", "neigh", "flush", "dev", "eth0"])
                assert pod.ping(ip, count=10, timeout=PATIENCE).received == 10
        for pod in routers:
            assert adjacent(pod)
            log = (tmp_path / f"{pod.name}.log").read_text()
            assert "to Full" in log and "from Full" not in log and "from Up" not in log
        assert switch.counters().total.dropped["source_guard"] == 0
