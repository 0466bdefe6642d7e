"""Punt pairs beside those of other switches, where all ends are in the ports' namespace."""

from __future__ import annotations

import json
import socket
from contextlib import closing

import pytest

from fastbridge import Lab
from fastbridge.netlink import NETLINK_ROUTE, Netlink
from fastbridge.switch.fast_path.punts import Punts, is_punt_end

pytestmark = pytest.mark.live


def punts(lab: Lab) -> Punts:
    """Another switch's."""
    return Punts(Netlink(lab.ports[0].open_socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_ROUTE)))


def ends(lab: Lab) -> set[str]:
    names = {link["ifname"] for link in json.loads(lab.run_host(["ip", "-j", "link"]).stdout)}
    return {name for name in names if name.startswith("fb")}


def test_a_take_over_of_ports_of_two_switches_leaves_their_pairs() -> None:
    with Lab(1) as lab, closing(punts(lab)) as one, closing(punts(lab)) as two, closing(punts(lab)) as after:
        one.make([("a", 1001)])
        two.make([("b", 1002)], beside=True)
        two.make([("b", 1002)], beside=True)  # what a process left behind that was killed in between
        assert ends(lab) == {"fbo1001", "fbi1001", "fbo1002", "fbi1002", "fbp1002", "fbj1002"}
        before = ends(lab)
        made = after.make([("a", 1001), ("b", 1002)], beside=True)
        assert [(punt.name, punt.inner) for punt in made] == [("fbp1001", "fbj1001"), ("fbq1002", "fbk1002")]
        assert ends(lab) == before | {"fbp1001", "fbj1001", "fbq1002", "fbk1002"}
        assert all(map(is_punt_end, ends(lab)))
        one.remove_all()
        after.remove_old()
        assert ends(lab) == {"fbp1001", "fbj1001", "fbq1002", "fbk1002"}


def test_what_a_killed_process_left_of_a_port_goes_whatever_its_letters() -> None:
    with Lab(1) as lab, closing(punts(lab)) as killed, closing(punts(lab)) as after:
        for _ in range(3):
            killed.make([("a", 1001)], beside=True)
        killed.make([("b", 1002)])
        after.make([("a", 1001)])
        assert ends(lab) == {"fbo1001", "fbi1001", "fbo1002", "fbi1002"}


def test_other_names_are_no_punt_ends() -> None:
    assert not any(map(is_punt_end, ("fb1", "fba1", "fbtap1", "fbo", "xfbo1", "fbo1x")))
