"""Plans, checked: names, switches and trunks, addresses, routes. Each raises PlanError."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address, IPv4Interface, IPv6Interface
from typing import TYPE_CHECKING

from fastbridge.toml_text import Path as Key

from .plans import PlanError, PodPlan, some, trunk_ends

if TYPE_CHECKING:
    from .topology import Topology

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_NAME_MAX = 15  #: characters in the name of an interface (IFNAMSIZ)
_RESERVED = {"lo", "all", "default", "fb-bridge"}
_BROADCAST = IPv4Address("255.255.255.255")
_MTU_MIN, _MTU_MIN_IPV6, _MTU_MAX = 68, 1280, 65535


def check(plan: Topology) -> None:
    """Raise PlanError for the first thing that is wrong."""
    if not plan.pods:
        raise PlanError(("pod",), "a lab needs at least one pod")
    refuse_twice(("pod",), [pod.name for pod in plan.pods], "two pods have the name {}")
    refuse_twice(("switch",), plan.switches, "two switches have the name {}")
    for switch in plan.switches:
        _check_name(("switch", switch), switch, "a switch's name")
    for pod in plan.pods:
        _check_pod(pod, plan.switches)
    _check_trunks(plan)
    _check_ports(plan)
    for kind in ("mac", "ipv4", "ipv6"):
        _check_addresses(plan, kind)
    ipv6 = any(interface.ipv6 for pod in plan.pods for interface in pod.interfaces)
    least = _MTU_MIN_IPV6 if ipv6 else _MTU_MIN
    if not least <= plan.mtu <= _MTU_MAX:
        raise PlanError(("mtu",), f"MTU {plan.mtu} is out of range: {least} to {_MTU_MAX}")


def _check_pod(pod: PodPlan, switches: Sequence[str]) -> None:
    _check_name(("pod", pod.name), pod.name, "a pod's name")
    names = []
    for interface in pod.interfaces:
        at = "pod", pod.name, "interfaces", interface.name
        _check_name(at, interface.name, f"an interface's name, in pod {pod.name}")
        if interface.mac.is_group or not interface.mac:
            text = f"pod {pod.name}: {interface.mac} is not a unicast MAC address, which a pod needs"
            raise PlanError((*at, "mac"), text)
        for family, address in (("ipv4", interface.ipv4), ("ipv6", interface.ipv6)):
            if address is not None and (reason := _unfit(address)):
                raise PlanError((*at, family), f"pod {pod.name}: {address} cannot be a pod's address: {reason}")
        if interface.switch not in switches:
            raise PlanError(at, f"pod {pod.name}: there is no switch {interface.switch!r}; there are: {some(switches)}")
        names.append(interface.name)
    refuse_twice(("pod", pod.name, "interfaces"), names, f"pod {pod.name} has two interfaces {{}}")
    for place, route in enumerate(pod.routes):
        if not any(interface.reaches(route.gateway) for interface in pod.interfaces):
            own = [address.network for end in pod.interfaces for address in (end.ipv4, end.ipv6) if address is not None]
            text = f"pod {pod.name}: the gateway {route.gateway} is in none of its networks: {some(own)}"
            raise PlanError(("pod", pod.name, "routes", place), text)
    destinations = [str(route.destination) for route in pod.routes]
    refuse_twice(("pod", pod.name, "routes"), destinations, f"pod {pod.name} has two routes to {{}}")


def _unfit(address: IPv4Interface | IPv6Interface) -> str:
    """Why no interface can have this address; "": one can."""
    ip, network = address.ip, address.network
    if isinstance(address, IPv6Interface) and address.scope_id is not None:  # which its ip has not
        return "leave out the interface after %"
    if ip.is_unspecified or ip.is_loopback or ip.is_multicast or ip == _BROADCAST:
        return "it is not a unicast address of a network"
    if network.num_addresses > 2 and ip == network.network_address:
        return "it is that of the network itself"
    if network.num_addresses > 2 and ip.version == 4 and ip == network.broadcast_address:
        return "it is the broadcast address of its network"
    return ""


def _check_trunks(plan: Topology) -> None:
    known: dict[str, set[str]] = {switch: set() for switch in plan.switches}  # the switches that are joined already
    for one, other in plan.trunks:
        at = "switch", one, "trunks"
        for switch in (one, other):
            if switch not in known:
                raise PlanError(at, f"there is no switch {switch!r}; there are: {some(plan.switches)}")
        if one == other:
            raise PlanError(at, f"a trunk joins two switches, not {one} and itself")
        if other in known[one]:
            raise PlanError(at, f"{one} and {other} are joined twice; name a trunk at one of its ends")
        known[one].add(other)
        known[other].add(one)
    if not plan.loops and (loop := _loop(plan.trunks)):
        text = f"{some(loop)} are in a loop, where broadcasts circle; leave out a trunk, or say loops = true"
        raise PlanError(("switch", loop[-1], "trunks"), text)


def _loop(trunks: Sequence[tuple[str, str]]) -> list[str]:
    """The switches of a loop in their order; its last trunk is one of the last switch. []: there is none."""
    neighbours: dict[str, list[str]] = {}
    home: dict[str, set[str]] = {}
    for one, other in trunks:
        ours, theirs = home.setdefault(one, {one}), home.setdefault(other, {other})
        if ours is theirs:
            return _way(other, one, neighbours)
        ours |= theirs
        home |= dict.fromkeys(theirs, ours)
        neighbours.setdefault(one, []).append(other)
        neighbours.setdefault(other, []).append(one)
    return []


def _way(start: str, end: str, neighbours: dict[str, list[str]]) -> list[str]:
    """The switches from one to another, which are joined."""
    came_from = {start: start}
    waiting = [start]
    for switch in waiting:
        fresh = [far for far in neighbours[switch] if far not in came_from]
        came_from |= dict.fromkeys(fresh, switch)
        waiting += fresh
    way = [end]
    while way[-1] != start:
        way.append(came_from[way[-1]])
    return way[::-1]


def _check_ports(plan: Topology) -> None:
    """What becomes an interface in the namespace of the host ends has a name that it can have, and alone."""
    known = set()
    for port, at in _ports(plan):
        if len(port) > _NAME_MAX:
            raise PlanError(at, f"{port} is too long for an interface ({_NAME_MAX} characters): use shorter names")
        if port in known:
            raise PlanError(at, f"two ports have the name {port}: rename a pod or a switch")
        known.add(port)


def _ports(plan: Topology) -> Iterator[tuple[str, Key]]:
    """The names of all ports, each with the key that it comes from."""
    for pod in plan.pods:
        for port, interface in pod.ports.items():
            yield port, ("pod", pod.name, "interfaces", interface.name)
    for trunk in plan.trunks:
        for port in trunk_ends(trunk):
            yield port, ("switch", trunk[0], "trunks")


def _check_addresses(plan: Topology, kind: str) -> None:
    """No two interfaces have the same one."""
    owners: dict[object, str] = {}
    for pod in plan.pods:
        for interface in pod.interfaces:
            value = getattr(interface, kind)
            if value is None:
                continue
            address = value if kind == "mac" else value.ip
            if address in owners:
                who = "two pods have" if owners[address] != pod.name else f"pod {pod.name} has twice"
                raise PlanError(("pod", pod.name, "interfaces", interface.name, kind), f"{who} the {kind} {value}")
            owners[address] = pod.name


def _check_name(at: Key, name: str, what: str) -> None:
    if not _NAME.fullmatch(name) or len(name) > _NAME_MAX or name in _RESERVED:
        text = f"{name!r} cannot be {what}: 1 to {_NAME_MAX} of A-Z a-z 0-9 _ . -, and not a reserved word"
        raise PlanError(at, text)


def refuse_twice(at: Key, names: Sequence[str], text: str) -> None:
    """Raise PlanError with this text about the first name that comes twice."""
    seen = set()
    for name in names:
        if name in seen:
            raise PlanError((*at, name), text.format(name))
        seen.add(name)
