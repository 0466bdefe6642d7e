"""Labs where /proc/sys is for reading alone, as in a container: nothing right is written, the rest goes by netlink."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from live import PATIENCE

from fastbridge import MacAddress
from fastbridge.lab.links import Links
from fastbridge.lab.namespaces import NamespaceHelper

pytestmark = pytest.mark.live

READ_ONLY = 'mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro,nosuid,nodev,noexec /proc/sys && exec "$@"'


def in_a_container(program: str) -> Any:
    """What the program prints, as JSON."""
    command = ["unshare", "-m", "sh", "-c", READ_ONLY, "sh", sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=4 * PATIENCE)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


LAB = """
import json
from fastbridge import Lab, PrivilegeError, Switch, Topology
from fastbridge.lab.links import Links
found = {}
for ipv6 in ("fd00::/64", None):
    with Lab(Topology.of(2, ipv6=ipv6)) as lab, Switch(lab.ports):
        one, two = lab
        try:
            lab.namespace.write_sysctl("net/ipv4/conf/pod1/forwarding", 1)
        except PrivilegeError as error:
            refused = str(error)
        found[str(ipv6)] = {
            "pings": [bool(one.ping(two, timeout=60, family=family)) for family in ((4, 6) if ipv6 else (4,))],
            "addresses": lab.run_host(["cat", "/proc/net/if_inet6"]).stdout,
            "of the pod end": [line for line in one.run(["cat", "/proc/net/if_inet6"]).stdout.splitlines()
                               if "eth0" in line],
            "setting": lab.run_host(["cat", "/proc/sys/net/ipv6/conf/pod1/disable_ipv6"]).stdout,
            "refused": refused,
        }
        with Links(lab.namespace) as links:
            links.add_bridge("a-bridge", [])
        of_links = [f"/proc/sys/net/ipv6/conf/{name}/addr_gen_mode" for name in ("pod1", "pod2", "a-bridge")]
        found[str(ipv6)]["modes"] = lab.run_host(["cat", *of_links]).stdout.split()
print(json.dumps(found))
"""


def test_a_lab_is_made_and_silent_all_the_same() -> None:
    for ipv6, found in in_a_container(LAB).items():
        assert found["setting"] == "0\n", "it could be written: this test shows nothing"
        assert all(found["pings"])
        assert found["addresses"] == "" and found["modes"] == ["1", "1", "1"]  # no link-local address, now or later
        assert bool(found["of the pod end"]) is (ipv6 != "None")
        assert "Read-only file system" in found["refused"] and "--security-opt unmask=/proc/sys" in found["refused"]


ROUTED = """
import json
from fastbridge import Lab, PrivilegeError, Topology
try:
    Lab(Topology.routed_star(2, 1))
except PrivilegeError as error:
    print(json.dumps(str(error)))
"""


def test_a_router_is_refused_in_one_line() -> None:
    line = in_a_container(ROUTED)
    assert line.startswith("pod router cannot be a router: cannot write /proc/sys/net/ipv4/ip_forward: Read-only file")
    assert "--security-opt unmask=/proc/sys" in line and "\n" not in line


STORED = """
import json, pathlib, subprocess
from fastbridge.lab import persistent
from fastbridge.lab.topology import Topology
lab = persistent.up("fb", Topology.of(2))
settings = [pathlib.Path(f"/proc/sys/net/ipv4/conf/{port}/forwarding").read_text() for port in lab.ports]
addresses = [line.split()[-1] for line in pathlib.Path("/proc/net/if_inet6").read_text().splitlines()]
inside = subprocess.run(lab.command("pod1", ["cat", "/proc/net/if_inet6"]), capture_output=True, text=True).stdout
persistent.down("fb")
print(json.dumps({"settings": settings, "addresses": sorted({*addresses} & {*lab.ports}), "inside": inside}))
"""


def test_a_stored_lab_routes_nothing_and_is_silent_all_the_same() -> None:
    default = Path("/proc/sys/net/ipv4/conf/default/forwarding")
    before = default.read_text()
    default.write_text("1")  # what the host ends begin with, as on a machine that routes
    try:
        found = in_a_container(STORED)
    finally:
        default.write_text(before)
    assert found["settings"] == ["0\n", "0\n"]
    assert found["addresses"] == []
    assert "fd000000000000000000000000000001" in found["inside"]


def test_links_are_made_quiet_by_netlink() -> None:
    with NamespaceHelper() as helper, Links() as links:
        elsewhere = helper.create()
        links.add_pair("quiet", None, "eth0", MacAddress(0x020000000001), elsewhere.fd, 1500)
        try:
            forwarding = Path("/proc/sys/net/ipv4/conf/quiet/forwarding")
            forwarding.write_text("1")
            links.stop_forwarding("quiet")
            links.stop_link_local("quiet")
            assert forwarding.read_text() == "0\n"
            assert Path("/proc/sys/net/ipv6/conf/quiet/addr_gen_mode").read_text() == "1\n"
            links.set("quiet", mtu=1000)  # too small for IPv6
            links.stop_link_local("quiet")
        finally:
            links.delete("quiet")
            elsewhere.close()
