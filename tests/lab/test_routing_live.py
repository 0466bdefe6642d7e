"""Programs that routers and hosts run: FRR's OSPF finds ways, radvd and dnsmasq give addresses."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
from daemons import log_of, needs, running
from live import PATIENCE, eventually

from fastbridge import Lab, Switches, Topology

pytestmark = [pytest.mark.live, pytest.mark.slow]

FRR = "/usr/lib/frr"  # Debian's place


def ospf(number: int) -> str:
    interfaces = "".join(
        f"interface eth{n}\n ip ospf network point-to-point\n ip ospf hello-interval 1\n ip ospf dead-interval 3\n"
        for n in range(2)
    )
    return f"{interfaces}router ospf\n ospf router-id 10.99.0.{number}\n network 0.0.0.0/0 area 0\n"


def test_ospf_finds_the_way_and_another_when_a_link_is_cut(tmp_path: Path) -> None:
    zebra, ospfd = needs(f"{FRR}/zebra"), needs(f"{FRR}/ospfd")
    lans = {"r1": ("ab", "ca"), "r2": ("ab", "bc"), "r3": ("bc", "ca")}
    plan = Topology.from_dict(
        {
            "ipv6": "none",
            "switch": {"ab": {}, "bc": {}, "ca": {}},
            "pod": {
                name: {"interfaces": {"eth0": one, "eth1": other}, "forward": True}
                for name, (one, other) in lans.items()
            },
        }
    )
    with Lab(plan) as lab, Switches(lab.switches) as switches, contextlib.ExitStack() as stack:
        if lab["r1"].run(["setpriv", "--reuid", "frr", "--clear-groups", "true"], check=False).returncode:
            pytest.skip("FRR becomes the user frr, whom an ordinary user's namespace does not have")
        for number, router in enumerate(lab, 1):
            router.run(["ip", "addr", "add", f"10.99.0.{number}/32", "dev", "lo"])
            (tmp_path / f"{router.name}.conf").write_text(ospf(number))
            common = "--vty_socket /run/frr -z /run/frr/zserv --log stdout"
            script = (  # the daemons become another user, who may write here
                f"mkdir -m 777 /run/frr && cd /run/frr && cp {tmp_path}/{router.name}.conf ospfd.conf && touch none && "
                f"{zebra} -d -f /run/frr/none -i /run/frr/zebra.pid {common} && "
                f"exec {ospfd} -f /run/frr/ospfd.conf -i /run/frr/ospfd.pid {common}"
            )
            stack.enter_context(running(router, ["sh", "-c", script], tmp_path / f"{router.name}.log"))

        def way() -> str | None:
            """The gateway that the first router has to the third one's own address."""
            routes = json.loads(lab["r1"].run(["ip", "-j", "route", "show", "10.99.0.3"]).stdout)
            return routes[0].get("gateway") if routes else None

        direct, around = str(lab["r3"].interfaces["eth1"].ipv4.ip), str(lab["r2"].ipv4.ip)  # type: ignore[union-attr]
        eventually(lambda: way() == direct, f"the direct way: {log_of(tmp_path, lab['r1'])}")
        assert lab["r1"].ping("10.99.0.3", timeout=PATIENCE)
        switches["ca"].cut("r1-eth1")
        eventually(lambda: way() == around, "the way around")
        eventually(lambda: bool(lab["r1"].ping("10.99.0.3", timeout=0.5)), "an answer by it")
        switches["ca"].mend("r1-eth1")
        eventually(lambda: way() == direct, "the direct way again")


def test_keepalived_keeps_a_way_out_when_a_router_loses_its_carrier(tmp_path: Path) -> None:
    keepalived = needs("keepalived")
    plan = Topology.from_dict(
        {
            "ipv6": "none",
            "switch": {"lan": {}, "wan": {}},
            "pod": {
                "r1": {"interfaces": {"eth0": "lan", "eth1": "wan"}, "forward": True},
                "r2": {"interfaces": {"eth0": "lan", "eth1": "wan"}, "forward": True},
                "host": {"interfaces": {"eth0": "lan"}, "routes": ["default via 10.1.0.50"]},
                "far": {"interfaces": {"eth0": "wan"}, "routes": ["default via 10.2.0.50"]},
            },
        }
    )
    with Lab(plan) as lab, Switches(lab.switches) as switches, contextlib.ExitStack() as stack:
        host, far = lab["host"], lab["far"]
        for router, priority in (lab["r1"], 200), (lab["r2"], 100):
            text = "vrrp_sync_group both {\n group {\n lan\n wan\n }\n}\n"  # both addresses move together
            for name, interface, address in ("lan", "eth0", "10.1.0.50/16"), ("wan", "eth1", "10.2.0.50/16"):
                text += (
                    f"vrrp_instance {name} {{\n state BACKUP\n interface {interface}\n virtual_router_id 51\n"
                    f" priority {priority}\n advert_int 0.2\n virtual_ipaddress {{\n {address}\n }}\n}}\n"
                )
            (tmp_path / f"{router.name}.conf").write_text(text)
            argv = [
                keepalived,
                "-n",
                "-P",
                "-l",
                "-f",
                f"{tmp_path}/{router.name}.conf",
                "-p",
                "/run/k",
                "-r",
                "/run/v",
            ]
            stack.enter_context(running(router, argv, tmp_path / f"{router.name}.log"))

        def has_both(name: str) -> bool:
            shown = lab[name].run(["ip", "-o", "addr"]).stdout
            return "10.1.0.50/" in shown and "10.2.0.50/" in shown

        eventually(lambda: has_both("r1") and not has_both("r2"), f"the master: {log_of(tmp_path, lab['r1'])}")
        eventually(lambda: bool(host.ping(far, timeout=0.5)), "the way out by it")
        switches["lan"].set_carrier("r1", False)
        eventually(lambda: has_both("r2") and not has_both("r1"), f"the backup: {log_of(tmp_path, lab['r2'])}")
        eventually(lambda: bool(host.ping(far, timeout=0.5)), "the way out by it")
        switches["lan"].set_carrier("r1", True)
        eventually(lambda: has_both("r1") and not has_both("r2"), "the master again")


def test_radvd_gives_addresses_and_a_way_out(tmp_path: Path) -> None:
    radvd = needs("radvd")
    plan = Topology.from_dict(
        {
            "switch": {"lan": {}, "wan": {}},
            "ipv4": "none",
            "pod": {
                "router": {"interfaces": {"eth0": "lan", "eth1": "wan"}, "forward": True},
                "host": {"interfaces": {"eth0": {"switch": "lan", "ipv6": "link-local"}}},
                "far": {"interfaces": {"eth0": "wan"}},
            },
        }
    )
    (tmp_path / "conf").write_text(
        "interface eth0 { AdvSendAdvert on; MinRtrAdvInterval 3; MaxRtrAdvInterval 4; prefix fd00:0:0:1::/64 {}; };"
    )
    with Lab(plan) as lab, Switches(lab.switches):
        argv = [radvd, "-n", "-C", str(tmp_path / "conf"), "-p", "/run/radvd.pid", "-m", "stderr"]
        with running(lab["router"], argv, tmp_path / "router.log"):
            host = lab["host"]

            def has_address() -> bool:
                return "fd00::1:" in host.run(["ip", "-6", "-o", "addr"]).stdout

            eventually(has_address, f"an address: {log_of(tmp_path, lab['router'])}")
            eventually(lambda: bool(host.ping("far", timeout=0.5)), "an answer by the router")


def test_dnsmasq_leases_an_address(tmp_path: Path) -> None:
    dnsmasq, udhcpc = needs("dnsmasq"), needs("udhcpc")
    plan = Topology.from_dict(
        {
            "ipv6": "none",
            "pod": {"server": {}, "client": {"interfaces": {"eth0": {"switch": "s1", "ipv4": "none"}}}},
        }
    )
    script = tmp_path / "script"
    script.write_text('#!/bin/sh\n[ "$1" != bound ] || ip addr add "$ip/$mask" dev "$interface"\n')
    script.chmod(0o755)
    with Lab(plan) as lab, Switches(lab.switches):
        client = lab["client"]
        argv = [dnsmasq, "-d", "-p", "0", "-C", "/dev/null", "-i", "eth0", "-u", "root", "-g", "root", "--no-ping"]
        argv += ["--dhcp-range=10.0.0.100,10.0.0.100,1h", f"--dhcp-leasefile={tmp_path}/leases", "--dhcp-authoritative"]
        with running(lab["server"], argv, tmp_path / "server.log"):
            eventually(lambda: "DHCP, IP range" in log_of(tmp_path, lab["server"]), "dnsmasq")
            client.run([udhcpc, "-f", "-q", "-n", "-i", "eth0", "-s", str(script)], timeout=PATIENCE)
            assert " 10.0.0.100/" in client.run(["ip", "-o", "addr"]).stdout
            assert client.ping("server", timeout=PATIENCE)
