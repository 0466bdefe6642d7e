"""Plans of several switches: as TOML and as a dict; what follows by itself; what is refused, with the line."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from fastbridge import ConfigError, InterfacePlan, Link, MacAddress, PodPlan, RoutePlan, Topology
from fastbridge.lab.plans import lans

ROUTED = """
mtu = 1400

[switch.lan1]
[switch.lan2]
ipv4 = "10.9.0.0/24"

[pod.h1]
interfaces = { eth0 = "lan1" }

[pod.r1]
interfaces = { eth0 = "lan1", eth1 = "lan2" }
forward = true

[pod.h2]
interfaces.wan = { switch = "lan2", ipv4 = "10.9.0.77", mac = "02:00:00:00:aa:01", ipv6 = "none" }
routes = ["default via 10.9.0.1", "192.0.2.0/24 via 10.9.0.2"]

[link]
"*" = "delay=1ms"
"r1.eth1" = "delay=20ms"
"r1-eth1>h2" = "delay=5ms"
"""
ROUTED_AS_DICT: dict[str, Any] = {
    "mtu": 1400,
    "switch": {"lan1": {}, "lan2": {"ipv4": "10.9.0.0/24"}},
    "pod": {
        "h1": {"interfaces": {"eth0": "lan1"}},
        "r1": {"interfaces": {"eth0": "lan1", "eth1": "lan2"}, "forward": True},
        "h2": {
            "interfaces": {"wan": {"switch": "lan2", "ipv4": "10.9.0.77", "mac": "02:00:00:00:aa:01", "ipv6": "none"}},
            "routes": ["default via 10.9.0.1", "192.0.2.0/24 via 10.9.0.2"],
        },
    },
    "link": {"*": "delay=1ms", "r1.eth1": "delay=20ms", "r1-eth1>h2": "delay=5ms"},
}


def pod(plan: Topology, name: str) -> PodPlan:
    return next(pod for pod in plan.pods if pod.name == name)


def addresses(pod: PodPlan) -> list[tuple[str, str, str]]:
    return [(end.name, str(end.ipv4), str(end.ipv6)) for end in pod.interfaces]


def test_a_file_and_a_dict_say_the_same(tmp_path: Path) -> None:
    (tmp_path / "lab.toml").write_text(ROUTED)
    plan = Topology.read(tmp_path / "lab.toml")
    assert plan == Topology.parse(ROUTED) == Topology.from_dict(ROUTED_AS_DICT)
    assert plan.mtu == 1400 and plan.switches == ("lan1", "lan2") and plan.trunks == ()
    assert plan.ports == {"h1": "lan1", "r1": "lan1", "r1-eth1": "lan2", "h2": "lan2"}


def test_what_a_file_leaves_out_follows() -> None:
    plan = Topology.parse(ROUTED)
    assert addresses(pod(plan, "h1")) == [("eth0", "10.1.0.1/16", "fd00:0:0:1::1/64")]
    assert addresses(pod(plan, "r1")) == [
        ("eth0", "10.1.0.2/16", "fd00:0:0:1::2/64"),
        ("eth1", "10.9.0.1/24", "fd00:0:0:2::1/64"),
    ]
    assert [str(route) for route in pod(plan, "h1").routes] == ["default via 10.1.0.2", "default via fd00:0:0:1::2"]
    assert pod(plan, "r1").forward and not pod(plan, "r1").routes
    assert [str(end.mac) for each in plan.pods for end in each.interfaces] == [
        "02:00:00:00:00:01",
        "02:00:00:00:00:02",
        "02:00:00:00:00:03",
        "02:00:00:00:aa:01",
    ]


def test_what_a_file_says_holds() -> None:
    far = pod(Topology.parse(ROUTED), "h2")
    assert addresses(far) == [("wan", "10.9.0.77/24", "None")]
    assert far.routes == (RoutePlan.parse("default via 10.9.0.1"), RoutePlan.parse(" 192.0.2.0/24  via 10.9.0.2"))


def test_a_plan_comes_back_from_what_it_is_stored_as() -> None:
    for plan in (Topology.parse(ROUTED), Topology.of(3, ipv6=None), Topology.ring(4, 2), Topology.routed_star(3, 2)):
        stored = json.loads(json.dumps(plan.to_dict()))
        assert Topology.from_dict(stored) == plan


def test_one_switch_is_as_ever() -> None:
    plan = Topology.of(3)
    assert plan == Topology.star(3) == Topology.from_dict({"pod": {"pod1": {}, "pod2": {}, "pod3": {}}})
    assert plan.switches == ("s1",) and not any(pod.routes for pod in plan.pods)
    assert Topology((PodPlan("a", MacAddress(2)),)).ports == {"a": "s1"}


def test_link_local_addresses_alone_leave_room_for_a_router_s_word() -> None:
    table = {"ipv4": "none", "ipv6": "link-local", "pod": {"a": {}, "r": {"forward": True}}}
    plan = Topology.from_dict(table)
    assert addresses(plan.pods[0]) == [("eth0", "None", "fe80::ff:fe00:1/64")]
    assert plan.pods[0].routes == () and plan.hosts == ""


def test_names_of_all_pods_at_all_their_addresses() -> None:
    assert Topology.routed_star(2, 1, ipv6=None).hosts == (
        "10.1.0.1\trouter\n10.2.0.1\trouter\n10.1.0.2\tpod1\n10.2.0.2\tpod2\n"
    )


def test_links_by_port_interface_trunk_and_pair() -> None:
    plan = Topology.parse(ROUTED)
    links = {str(place): str(link) for place, link in plan.links_at(plan.link).items()}
    assert links == {
        "h1": "delay=1ms",
        "r1": "delay=1ms",
        "r1-eth1": "delay=20ms",
        "h2": "delay=1ms",
        "('r1-eth1', 'h2')": "delay=5ms",
    }
    line = Topology.linear(2)
    assert list(line.links_at({"s1-s2": Link(delay="3ms")})) == ["s1-s2"]
    assert list(line.links_at({"*": "lan"})) == ["pod1", "pod2"]  # what is between switches has no pod


def test_a_router_is_the_way_out_only_where_it_is_the_one() -> None:
    def plan(routers: int) -> Topology:
        pods = {f"r{n}": {"interfaces": {"eth0": "lan", "eth1": "wan"}, "forward": True} for n in range(routers)}
        pods["host"] = {"interfaces": {"eth0": "lan"}}
        return Topology.from_dict({"switch": {"lan": {}, "wan": {}}, "pod": pods})

    assert [len(pod(plan(routers), "host").routes) for routers in range(4)] == [0, 2, 0, 0]


def test_generators() -> None:
    line = Topology.linear(3, 2)
    assert line.trunks == (("s1", "s2"), ("s2", "s3"))
    assert [pod.switch for pod in line.pods] == ["s1", "s1", "s2", "s2", "s3", "s3"]
    assert str(line.pods[5].ipv4) == "10.0.0.6/16"
    tree = Topology.tree(3, 2)
    assert tree.trunks == (("s1", "s2"), ("s1", "s5"), ("s2", "s3"), ("s2", "s4"), ("s5", "s6"), ("s5", "s7"))
    assert [pod.switch for pod in tree.pods] == ["s3", "s3", "s4", "s4", "s6", "s6", "s7", "s7"]
    ring = Topology.ring(3)
    assert ring.loops and ring.trunks == (("s1", "s2"), ("s2", "s3"), ("s3", "s1")) and len(ring.pods) == 3
    assert len(Topology.mesh(4).trunks) == 6 and not Topology.mesh(2).loops
    star = Topology.routed_star(3, 2, mtu=9000)
    assert star.mtu == 9000 and len(star.switches) == 3 and len(star.pods) == 7
    assert addresses(star.pods[0])[2] == ("eth2", "10.3.0.1/16", "fd00:0:0:3::1/64")
    assert str(star.pods[6].routes[0]) == "default via 10.3.0.1"


def test_many_switches_are_planned() -> None:
    """As many as Mininet's tree,2,8 has, all in one LAN; and more LANs than a byte counts."""
    assert len(Topology.tree(8, 2).switches) == 255
    assert Topology.tree(1500, 1).trunks[-1] == ("s1499", "s1500")
    many = Topology.routed_star(300, 1)
    assert str(many.pods[0].interfaces[299].ipv4) == "10.1.44.1/24"
    assert len({pod.ipv4.network for pod in many.pods[1:] if pod.ipv4}) == 300


def test_lans_are_switches_that_trunks_join() -> None:
    assert lans("abcde", [("d", "b"), ("a", "d")]) == [("a", "b", "d"), ("c",), ("e",)]


@pytest.mark.parametrize(
    ("generate", "text"),
    [
        (lambda: Topology.linear(0), "a line: switches must be 1 or more, not 0"),
        (lambda: Topology.ring(2), "a ring: switches must be 3 or more, not 2"),
        (lambda: Topology.tree(0), "a tree: depth must be 1 or more, not 0"),
        (lambda: Topology.tree(10_000, 2), "a tree: 10000 levels of 2 have more than 1,000,000 pods; make it smaller"),
        (lambda: Topology.mesh(10**7), "a mesh: switches must be 1,000,000 or less, not 10,000,000"),
        (lambda: Topology.star("3"), "a star: pods must be a whole number, not '3'"),  # type: ignore[arg-type]
        (lambda: Topology.of(None), "pods must be a number of pods, or a list of names, not None"),  # type: ignore[arg-type]
        (lambda: Topology.of(["a", 1]), "pod has the key 1; a key is text"),  # type: ignore[list-item]
        (lambda: Topology.from_dict({"pod": {1: {}}}), "pod has the key 1; a key is text"),
        (lambda: Topology.from_dict({1: {}}), "the file has the key 1; a key is text"),
        (lambda: Topology.star(300, ipv4="10.0.0.0/24"), "10.0.0.0/24 has no room for 300 pods"),
        (lambda: Topology.routed_star(3, ipv4="10.0.0.0/28"), "10.0.0.0/28 has no room for 3 LANs"),
    ],
)
def test_generators_want_sense(generate: Any, text: str) -> None:
    with pytest.raises(ConfigError) as refused:
        generate()
    assert str(refused.value).startswith(text)


TWO = """[switch.a]
[switch.b]
"""


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "lab:1: a lab needs at least one pod"),
        ("[pod.h]\nforwards = true", "lab:2: there is no key pod.h.forwards; there are: interfaces, forward, routes"),
        ("[pod.h]\nforward = 1", "lab:2: pod.h.forward is true or false, not 1"),
        ("[pod.h]\nforward = ", "lab:2: this is not TOML"),
        ('[switch.a]\n[pod.h]\ninterfaces = {eth0 = "c"}', "lab:3: there is no switch 'c'; there are: a"),
        ('[pod.h]\ninterfaces = {eth0 = "c"}', "lab:2: there is no switch 'c'; there are: s1; name it: [switch.c]"),
        (TWO + "[pod.h]", 'lab:3: pod h is on no switch; add interfaces = { eth0 = "a" }'),
        ("[pod.a-very-long-name-of-a-pod]", "lab:1: 'a-very-long-name-of-a-pod' cannot be a pod's name: 1 to 15 of"),
        (
            TWO + '[pod.twelve-chars]\ninterfaces = {eth0 = "a", eth1 = "b"}',
            "lab:4: twelve-chars-eth1 is too long for an interface (15 characters)",
        ),
        (
            TWO + '[pod.r-x]\ninterfaces = {eth0 = "a"}\n[pod.r]\ninterfaces = {eth0 = "a", x = "b"}',
            "lab:6: two ports have the name r-x",
        ),
        (
            "[pod.a]\n[pod.b.interfaces.eth0]\nswitch = 's1'\nmac = '02:00:00:00:00:99'\n"
            "[pod.c.interfaces.eth0]\nswitch = 's1'\nmac = '02:00:00:00:00:99'",
            "lab:7: two pods have the mac 02:00:00:00:00:99",
        ),
        (
            "[pod.a.interfaces.eth0]\nswitch = 's1'\nipv4 = '10.0.0.9'\n"
            "[pod.b.interfaces.eth0]\nswitch = 's1'\nipv4 = '10.0.0.9/24'",
            "lab:6: two pods have the ipv4 10.0.0.9/24",
        ),
        (
            "[pod.a.interfaces.eth0]\nswitch = 's1'\nipv4 = '10.7.0.9'",
            "lab:3: pod a: 10.7.0.9 needs a length, such as 10.7.0.9/24: it is not in the network of its switch, 10.0",
        ),
        ("[pod.a.interfaces.eth0]\nswitch = 's1'\nipv6 = '10.0.0.9'", "lab:3: pod a: '10.0.0.9' is not an IPv6"),
        ("[pod.a.interfaces.eth0]\nswitch = 's1'\nmac = 'x'", "lab:3: pod a: 'x' is not a MAC address"),
        ("[switch.a]\nipv4 = '10.0.0.1/8'\n[pod.h]", "lab:2: '10.0.0.1/8' is not an IP network"),
        ("[switch.a]\ntrunks = ['b']\n[pod.h]", "lab:2: there is no switch 'b'; there are: a"),
        ("[switch.a]\ntrunks = ['a']\n[pod.h]", "lab:2: a trunk joins two switches, not a and itself"),
        (
            '[switch.a]\ntrunks = ["b"]\n[switch.b]\ntrunks = ["a"]\n[pod.h]\ninterfaces.eth0 = "a"',
            "lab:4: b and a are joined twice; name a trunk at one of its ends",
        ),
        (
            '[switch.a]\ntrunks = ["b"]\n[switch.b]\ntrunks = ["c"]\n[switch.c]\ntrunks = [\n"a"]\n'
            '[pod.h]\ninterfaces.eth0 = "a"',
            "lab:6: a, b, c are in a loop, where broadcasts circle; leave out a trunk, or say loops = true",
        ),
        (
            '[switch.a]\nipv4 = "10.1.0.0/24"\ntrunks = ["b"]\n[switch.b]\nipv4 = "10.2.0.0/24"\n'
            '[pod.h]\ninterfaces.eth0 = "a"',
            "lab:5: switch b is in one LAN with others, which has 10.1.0.0/24 already",
        ),
        ("[pod.h]\nroutes = [\n'default via 10.0.0.2',\n'10.0.0.2']", "lab:4: pod h: a route is"),
        (
            "[pod.h]\nroutes = ['default via 10.1.0.1']",
            "lab:2: pod h: the gateway 10.1.0.1 is in none of its networks: 10.0.0.0/16, fd00::/64",
        ),
        ("[pod.h]\nroutes = ['10.0.0.0/8 via fd00::1']", "lab:2: pod h: route '10.0.0.0/8 via fd00::1': an IPv4"),
        ("[pod.h]\nroutes = ['10.0.0.1/8 via 10.0.0.2']", "lab:2: pod h: route '10.0.0.1/8 via 10.0.0.2': 10.0"),
        (
            "[pod.h]\nroutes = ['default via 10.0.0.2', 'default via 10.0.0.3']",
            "lab:2: pod h has two routes to 0.0.0.0/0",
        ),
        ("mtu = 1000\n[pod.h]", "lab:1: MTU 1000 is out of range: 1280 to 65535"),
        ("[pod.h]\n[link]\nh = 'dealy=5ms'", "lab:3: a link has no dealy"),
        ("[pod.h]\n[link]\nk = 'lan'", "lab:3: a link names 'k', which is no port of the lab; its ports are h"),
        (
            TWO + "[pod.h]\ninterfaces.eth0 = 'a'\n[pod.k]\ninterfaces.eth0 = 'b'\n[link]\n'h>k' = 'lan'",
            "lab:8: h is a port of a, and k of b; a pair is of two ports of one switch",
        ),
    ],
)
def test_what_is_wrong_is_one_line_that_names_the_line(text: str, line: str) -> None:
    with pytest.raises(ConfigError) as refused:
        Topology.parse(text, "lab")
    assert str(refused.value).startswith(line) and "\n" not in str(refused.value)


PAGE = Path(__file__).parents[2] / "docs/topologies.md"


@pytest.mark.skipif(not PAGE.exists(), reason="the tests were copied without docs/")
def test_the_page_says_the_same_in_python_and_in_toml() -> None:
    python, toml = (
        re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.M | re.S)[0]
        for language in ("python", "toml")
    )
    made: dict[str, Any] = {}
    exec(python.split("with Lab")[0], made)
    assert Topology.parse(toml) == made["plan"]
    with pytest.raises(ConfigError) as refused:
        Topology.parse(toml.replace('"lan1"', '"lan3"', 1), "lab.toml")
    assert f"`{refused.value}`" in PAGE.read_text(encoding="utf-8").replace("\n", " ")


@pytest.mark.parametrize(
    ("family", "address", "reason"),
    [
        ("ipv4", "224.0.0.1/24", "it is not a unicast address of a network"),
        ("ipv4", "0.0.0.0/24", "it is not a unicast address of a network"),
        ("ipv4", "127.0.0.1/8", "it is not a unicast address of a network"),
        ("ipv4", "255.255.255.255/32", "it is not a unicast address of a network"),
        ("ipv4", "10.0.0.0", "it is that of the network itself"),
        ("ipv4", "10.0.255.255", "it is the broadcast address of its network"),
        ("ipv6", "fd00::/64", "it is that of the network itself"),
        ("ipv6", "ff02::1/64", "it is not a unicast address of a network"),
        ("ipv6", "fe80::1%eth0/64", "leave out the interface after %"),
    ],
)
def test_an_address_is_one_that_an_interface_can_have(family: str, address: str, reason: str) -> None:
    with pytest.raises(ConfigError) as refused:
        Topology.parse(f"[pod.a.interfaces.eth0]\nswitch = 's1'\n{family} = '{address}'", "lab")
    assert str(refused.value).startswith(f"lab:3: pod a: {address.partition('/')[0]}")
    assert str(refused.value).endswith(reason)


@pytest.mark.parametrize("address", ["10.0.0.0/31", "10.0.0.9/32", "10.0.0.255", "169.254.0.1/16"])
def test_an_address_may_be_any_unicast_one(address: str) -> None:
    table = {"pod": {"a": {"interfaces": {"eth0": {"switch": "s1", "ipv4": address}}}}}
    assert str(Topology.from_dict(table).pods[0].ipv4).startswith(address)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"topology: .*/lab.toml cannot be read: No such file"):
        Topology.read(tmp_path / "lab.toml")


def test_a_plan_by_hand_is_checked_too() -> None:
    mac = MacAddress(0x020000000001)
    with pytest.raises(ConfigError, match="pod a has two interfaces eth0"):
        Topology((PodPlan("a", mac, more=(InterfacePlan("eth0", "s1", MacAddress(mac + 1)),)),))
    with pytest.raises(ConfigError, match="there is no switch 'b'; there are: s1"):
        Topology((PodPlan("a", mac),), trunks=(("s1", "b"),))
    with pytest.raises(ConfigError, match="pod a has twice the mac"):
        Topology((PodPlan("a", mac, more=(InterfacePlan("eth1", "s2", mac),)),))
