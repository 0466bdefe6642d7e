"""Plans: pods, interfaces and routes as data.

A pod has interfaces, each on a switch. A trunk is a link between two switches. Switches that trunks join are one LAN:
what one of its pods broadcasts, all of them hear.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
    ip_address,
    ip_network,
)

from fastbridge.addresses import MacAddress
from fastbridge.errors import ConfigError
from fastbridge.toml_text import Path as Key

POD_END = "eth0"  #: the first interface of a pod that names none
SWITCH = "s1"  #: the switch of a lab that names none

_ROUTE = re.compile(r"\s*(\S+)\s+via\s+(\S+)\s*")
_EVERYTHING = {4: "0.0.0.0/0", 6: "::/0"}


class PlanError(ConfigError):
    """What is wrong with a plan, and the key of a topology's file that it is about."""

    def __init__(self, path: Key, text: str) -> None:
        super().__init__(text)
        self.path = path


@dataclass(frozen=True, slots=True)
class RoutePlan:
    """A static route: where to, and by which gateway."""

    destination: IPv4Network | IPv6Network
    gateway: IPv4Address | IPv6Address

    @classmethod
    def parse(cls, text: str) -> RoutePlan:
        """A route in iproute2's words: "default via 10.1.0.1", "10.3.0.0/24 via 10.2.0.2". Raises ConfigError."""
        words = _ROUTE.fullmatch(text)
        if words is None:
            raise ConfigError(f'a route is "default via GATEWAY" or "NETWORK via GATEWAY", not {text!r}')
        try:
            gateway = ip_address(words[2])
            destination = ip_network(_EVERYTHING[gateway.version] if words[1] == "default" else words[1])
        except ValueError as error:
            raise ConfigError(f"route {text!r}: {error}") from None
        if destination.version != gateway.version:
            raise ConfigError(
                f"route {text!r}: an IPv{destination.version} network has an IPv{gateway.version} gateway"
            )
        return cls(destination, gateway)

    def __str__(self) -> str:
        return f"{self.destination if self.destination.prefixlen else 'default'} via {self.gateway}"


@dataclass(frozen=True, slots=True)
class InterfacePlan:
    """The plan of one interface of a pod."""

    name: str  #: in the pod
    switch: str
    mac: MacAddress
    ipv4: IPv4Interface | None = None
    #: None: it has no IPv6. Its link-local address: that alone, so that a router may advertise others
    ipv6: IPv6Interface | None = None

    def reaches(self, gateway: IPv4Address | IPv6Address) -> bool:
        """Whether a global address is in its network."""
        own = self.ipv4 if gateway.version == 4 else self.ipv6
        return own is not None and gateway in own.network and not needs_scope(gateway)


@dataclass(frozen=True, slots=True)
class PodPlan:
    """The plan of one pod: its first interface, and what else it has."""

    name: str
    mac: MacAddress
    ipv4: IPv4Interface | None = None
    ipv6: IPv6Interface | None = None
    switch: str = SWITCH
    interface: str = POD_END
    more: tuple[InterfacePlan, ...] = ()  #: the interfaces after the first
    forward: bool = False  #: it is a router
    routes: tuple[RoutePlan, ...] = ()

    @classmethod
    def of(
        cls, name: str, interfaces: Sequence[InterfacePlan], forward: bool = False, routes: Sequence[RoutePlan] = ()
    ) -> PodPlan:
        """The plan of a pod with these interfaces, one or more."""
        first, *more = interfaces
        ends = first.mac, first.ipv4, first.ipv6, first.switch, first.name, tuple(more)
        return cls(name, *ends, forward, tuple(routes))

    @property
    def interfaces(self) -> tuple[InterfacePlan, ...]:
        """All its interfaces."""
        return InterfacePlan(self.interface, self.switch, self.mac, self.ipv4, self.ipv6), *self.more

    @property
    def ports(self) -> dict[str, InterfacePlan]:
        """Its interfaces by the names of their ports: POD for the first one, POD-INTERFACE for the others."""
        first, *more = self.interfaces
        return {self.name: first} | {f"{self.name}-{interface.name}": interface for interface in more}


def needs_scope(ip: IPv4Address | IPv6Address) -> bool:
    """Whether an address means nothing without an interface, as those of IPv6 that are link-local do."""
    return ip.version == 6 and ip.is_link_local


def trunk_ends(trunk: tuple[str, str]) -> dict[str, str]:
    """The two ports of a trunk, each with its switch: s1-s2 is the port of s1 that leads to s2."""
    one, other = trunk
    return {f"{one}-{other}": one, f"{other}-{one}": other}


def lans(switches: Sequence[str], trunks: Iterable[tuple[str, str]]) -> list[tuple[str, ...]]:
    """The switches, together where trunks join them; in their order."""
    home = {switch: {switch} for switch in switches}
    for one, other in trunks:
        if home[one] is not home[other]:
            home[one] |= home[other]
            home |= dict.fromkeys(home[other], home[one])
    found = dict.fromkeys(map(frozenset, home.values()))
    return [tuple(switch for switch in switches if switch in lan) for lan in found]


def some(names: Iterable[object]) -> str:
    """Names for an error: not all of very many."""
    known = [str(name) for name in names]
    return ", ".join(known if len(known) <= 8 else [*known[:3], "…", known[-1]]) or "none"
