"""Topologies as tables: what a file or a dict can say, and the plan that follows.

What a table leaves out follows from the rest. The n-th interface of the lab has the MAC address 02:00:00:00:00:NN. Each
LAN has a network of each family, and its n-th interface has the n-th address there. A pod on a LAN with one router has
its default route by it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

from fastbridge.addresses import MacAddress
from fastbridge.arp_nd import link_local
from fastbridge.config_values import WrongError, read
from fastbridge.errors import ConfigError
from fastbridge.toml_text import Path as Key

from .plans import POD_END, SWITCH, InterfacePlan, PlanError, PodPlan, RoutePlan, lans, some

if TYPE_CHECKING:
    from .topology import Topology

_End: TypeAlias = tuple[str, str]  # a pod, and an interface of it
_Network: TypeAlias = Any  # of either family
_Address: TypeAlias = Any

NONE, LINK_LOCAL = "none", "link-local"
_POD_MACS = 0x02_00_00_00_00_00
_ADDRESS = {4: IPv4Address, 6: IPv6Address}
_INTERFACE = {4: IPv4Interface, 6: IPv6Interface}
_NETWORK = {4: IPv4Network, 6: IPv6Network}
_EVERYTHING: dict[int, _Network] = {4: IPv4Network("0.0.0.0/0"), 6: IPv6Network("::/0")}
_ONE_LAN = {4: "10.0.0.0/16", 6: "fd00::/64"}
_SEVERAL_LANS = {4: "10.0.0.0/8", 6: "fd00::/48"}  # each has a part, …
_PART_BITS = {4: 8, 6: 16}  # … whose prefix is so much longer
_MANY_LANS, _MANY_BITS = 255, 16
_LONGEST_PREFIX = {4: 30, 6: 64}


@dataclass(frozen=True, kw_only=True)
class InterfaceTable:
    """An interface of a pod. What it does not say follows from its switch."""

    switch: str
    mac: str | None = None
    ipv4: Annotated[str | None, 'its address, with or without its length, or "none"'] = None
    ipv6: Annotated[str | None, 'the same, or "link-local"'] = None


@dataclass(frozen=True, kw_only=True)
class PodTable:
    """A pod."""

    interfaces: Annotated[dict[str, str | InterfaceTable], "each with its switch"] = field(default_factory=dict)
    forward: Annotated[bool, "it is a router"] = False
    routes: Annotated[list[str] | None, 'static routes, such as "default via 10.1.0.1"'] = None


@dataclass(frozen=True, kw_only=True)
class SwitchTable:
    """A switch."""

    ipv4: Annotated[str | None, 'the network of its pods, or "none"'] = None
    ipv6: Annotated[str | None, 'the network of its pods, "link-local" or "none"'] = None
    trunks: Annotated[list[str], "the switches that it is joined to"] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class TopologyTable:
    """All that can be said of a topology."""

    mtu: int = 1500
    ipv4: Annotated[str | None, 'the network of the lab; each of several LANs has a part of it; or "none"'] = None
    ipv6: Annotated[str | None, 'the same, or "link-local"'] = None
    loops: Annotated[bool, "trunks may make loops, which the switches' loop detection has to end"] = False
    switch: dict[str, SwitchTable] = field(default_factory=dict)
    pod: dict[str, PodTable] = field(default_factory=dict)
    link: Annotated[dict[str, str], 'emulated links by port, interface ("r1.eth1"), pair, or "*": all pods'] = field(
        default_factory=dict
    )


def plan_of(table: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of the Topology that a table describes. Raises PlanError."""
    try:
        wish = read(TopologyTable, table)
    except WrongError as error:
        raise PlanError(error.path, str(error)) from None
    return _Planner(wish).plan()


def table_of(plan: Topology) -> dict[str, Any]:
    """The table of a plan. Nothing is left out."""
    trunks = {switch: [other for one, other in plan.trunks if one == switch] for switch in plan.switches}
    return {
        "mtu": plan.mtu,
        "loops": plan.loops,
        "switch": {switch: {"trunks": joined} for switch, joined in trunks.items()},
        "pod": {pod.name: _pod_table(pod) for pod in plan.pods},
        "link": dict(plan.link),
    }


def _pod_table(pod: PodPlan) -> dict[str, Any]:
    ends = {
        end.name: {
            "switch": end.switch,
            "mac": str(end.mac),
            "ipv4": str(end.ipv4 or NONE),
            "ipv6": str(end.ipv6 or NONE),
        }
        for end in pod.interfaces
    }
    return {"interfaces": ends, "forward": pod.forward, "routes": [str(route) for route in pod.routes]}


class _Planner:
    """Fills in what a table leaves out."""

    def __init__(self, table: TopologyTable) -> None:
        self._table = table
        self._switches = table.switch or {SWITCH: SwitchTable()}
        self._trunks = [(one, other) for one, switch in self._switches.items() for other in switch.trunks]
        for one, other in self._trunks:
            self._check_switch(("switch", one, "trunks"), other)
        self._ends: dict[_End, InterfaceTable] = {}
        for pod, wish in table.pod.items():
            for name, end in self._interfaces(pod, wish).items():
                self._ends[pod, name] = end if isinstance(end, InterfaceTable) else InterfaceTable(switch=end)
                self._check_switch(_key(pod, name), self._ends[pod, name].switch)
        self._lans = lans(list(self._switches), self._trunks)
        self._lan_of = {switch: place for place, lan in enumerate(self._lans) for switch in lan}

    def _check_switch(self, at: Key, name: str) -> None:
        if name not in self._switches:
            text = f"there is no switch {name!r}; there are: {some(self._switches)}"
            raise PlanError(at, text if self._table.switch else f"{text}; name it: [switch.{name}]")

    def _interfaces(self, pod: str, wish: PodTable) -> Mapping[str, str | InterfaceTable]:
        first, *others = self._switches
        if not wish.interfaces and others:
            raise PlanError(("pod", pod), f'pod {pod} is on no switch; add interfaces = {{ {POD_END} = "{first}" }}')
        return wish.interfaces or {POD_END: first}

    def plan(self) -> dict[str, Any]:
        """The fields of the Topology."""
        macs = self._macs()
        ipv4, ipv6 = self._addresses(4, macs), self._addresses(6, macs)
        interfaces: dict[str, list[InterfacePlan]] = {pod: [] for pod in self._table.pod}
        for at, end in self._ends.items():
            interfaces[at[0]].append(InterfacePlan(at[1], end.switch, macs[at], ipv4[at], ipv6[at]))
        pods = [PodPlan.of(name, interfaces[name], wish.forward) for name, wish in self._table.pod.items()]
        return {
            "pods": tuple(self._with_routes(pods)),
            "mtu": self._table.mtu,
            "switches": tuple(self._switches),
            "trunks": tuple(self._trunks),
            "link": self._table.link,
            "loops": self._table.loops,
        }

    def _macs(self) -> dict[_End, MacAddress]:
        given = {at: _mac(at, end.mac) for at, end in self._ends.items() if end.mac is not None}
        taken = set(given.values())
        free = (mac for n in itertools.count(1) if (mac := MacAddress(_POD_MACS + n)) not in taken)
        return {at: given[at] if at in given else next(free) for at in self._ends}

    def _addresses(self, version: int, macs: Mapping[_End, MacAddress]) -> dict[_End, Any]:
        """The address of each interface; None: it has none of this family."""
        networks = self._networks(version)
        found: dict[_End, Any] = {}
        waiting: dict[int, list[_End]] = {}
        for at, end in self._ends.items():
            lan = self._lan_of[end.switch]
            text = end.ipv4 if version == 4 else end.ipv6
            if text is None and not isinstance(networks[lan], str):
                waiting.setdefault(lan, []).append(at)
            else:
                found[at] = _address(version, at, text or networks[lan], networks[lan], macs[at])
        taken = {address.ip for address in found.values() if address is not None}
        for lan, ends in waiting.items():
            network: _Network = networks[lan]
            free = _free(network, taken)
            for at in ends:
                address = next(free, None)
                if address is None:
                    raise PlanError(_key(*at), f"{network} has no room for {len(ends)} pods")
                found[at] = _INTERFACE[version]((address, network.prefixlen))
        return found

    def _networks(self, version: int) -> list[_Network | str]:
        """What each LAN has: its network, or what its pods have instead."""
        family = f"ipv{version}"
        given: dict[int, _Network | str] = {}
        for name, switch in self._switches.items():
            at, text = ("switch", name, family), switch.ipv4 if version == 4 else switch.ipv6
            if text is None:
                continue
            lan, network = self._lan_of[name], _network(version, at, text)
            if given.setdefault(lan, network) != network:
                raise PlanError(at, f"switch {name} is in one LAN with others, which has {given[lan]} already")
        several = len(self._lans) > 1
        wish = self._table.ipv4 if version == 4 else self._table.ipv6
        whole = _network(version, (family,), wish or (_SEVERAL_LANS if several else _ONE_LAN)[version])
        if isinstance(whole, str) or not several:
            return [given.get(lan, whole) for lan in range(len(self._lans))]
        parts = _parts(whole, len(self._lans), [network for network in given.values() if not isinstance(network, str)])
        found = [given[lan] if lan in given else next(parts, None) for lan in range(len(self._lans))]
        if None in found:
            raise PlanError(
                (family,), f"{whole} has no room for {len(self._lans)} LANs; give a switch its own {family}"
            )
        return found

    def _with_routes(self, pods: Iterable[PodPlan]) -> Iterator[PodPlan]:
        """The pods with their routes: those that are given, or the default ones."""
        routers: dict[int, dict[str, PodPlan]] = {lan: {} for lan in range(len(self._lans))}
        pods = list(pods)
        for pod in pods:
            for end in pod.interfaces if pod.forward else ():
                routers[self._lan_of[end.switch]][pod.name] = pod
        for pod in pods:
            given = self._table.pod[pod.name].routes
            if given is not None:
                yield replace(pod, routes=tuple(_route(pod.name, place, text) for place, text in enumerate(given)))
            elif pod.forward:
                yield pod
            else:
                gateways = (self._gateway(version, pod, routers) for version in (4, 6))
                yield replace(pod, routes=tuple(RoutePlan(_EVERYTHING[ip.version], ip) for ip in gateways if ip))

    def _gateway(self, version: int, pod: PodPlan, routers: Mapping[int, Mapping[str, PodPlan]]) -> _Address | None:
        """The address of the one router of a pod's LAN; None: there is none, or there are several."""
        for end in pod.interfaces:
            lan = self._lan_of[end.switch]
            if len(routers[lan]) != 1:
                continue
            (router,) = routers[lan].values()
            for far in router.interfaces:
                address = far.ipv4 if version == 4 else far.ipv6
                if self._lan_of[far.switch] == lan and address is not None and end.reaches(address.ip):
                    return address.ip
        return None


def _key(pod: str, interface: str) -> Key:
    return "pod", pod, "interfaces", interface


def _mac(at: _End, text: str) -> MacAddress:
    try:
        return MacAddress(text)
    except ConfigError as error:
        raise PlanError((*_key(*at), "mac"), f"pod {at[0]}: {error}") from None


def _address(version: int, at: _End, text: str, network: _Network | str, mac: MacAddress) -> _Address | None:
    """The address that a text names; None: none."""
    if text == NONE:
        return None
    if text == LINK_LOCAL and version == 6:
        return IPv6Interface((link_local(mac.packed), 64))
    key = *_key(*at), f"ipv{version}"
    try:
        if "/" in text:
            return _INTERFACE[version](text)
        address = _ADDRESS[version](text)
    except ValueError as error:
        raise PlanError(key, f"pod {at[0]}: {text!r} is not an IPv{version} address: {error}") from None
    if isinstance(network, str) or address not in network:
        where = (
            "it has no network" if isinstance(network, str) else f"it is not in the network of its switch, {network}"
        )
        raise PlanError(
            key, f"pod {at[0]}: {text} needs a length, such as {text}/{24 if version == 4 else 64}: {where}"
        )
    return _INTERFACE[version]((address, network.prefixlen))


def _free(network: _Network, taken: set[_Address]) -> Iterator[_Address]:
    """The addresses that nobody has; not the first and the last one, which nobody gets."""
    return (address for n in range(1, network.num_addresses - 1) if (address := network[n]) not in taken)


def _network(version: int, at: Key, text: str) -> _Network | str:
    """The network that a text names, or the word for what there is instead."""
    if text == NONE or (text == LINK_LOCAL and version == 6):
        return text
    try:
        return _NETWORK[version](text)
    except ValueError as error:
        raise PlanError(at, f"{text!r} is not an IP network: {error}") from None


def _parts(whole: _Network, lans: int, given: Iterable[_Network]) -> Iterator[_Network]:
    """Parts of a network for LANs, none of which overlaps a network that is given. The first part is left out."""
    prefix = whole.prefixlen + (_MANY_BITS if lans > _MANY_LANS else _PART_BITS[whole.version])
    if prefix > _LONGEST_PREFIX[whole.version]:
        return iter(())
    parts = itertools.islice(whole.subnets(new_prefix=prefix), 1, None)
    return (part for part in parts if not any(part.overlaps(other) for other in given))


def _route(pod: str, place: int, text: str) -> RoutePlan:
    try:
        return RoutePlan.parse(text)
    except ConfigError as error:
        raise PlanError(("pod", pod, "routes", place), f"pod {pod}: {error}") from None
