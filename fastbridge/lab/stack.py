"""A pod's network stack: addresses, forwarding, routes.

And the settings that keep the host's stack silent in the namespace of the host ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from ipaddress import IPv6Interface
from socket import AF_NETLINK, SOCK_RAW

from fastbridge.arp_nd import link_local
from fastbridge.errors import PrivilegeError

from .link_counters import await_up
from .links import Links
from .namespaces import Namespace
from .plans import InterfacePlan, PodPlan, RoutePlan

Quieten = Callable[[Links, str], None]


def configure_pod(namespace: Namespace, plan: PodPlan) -> None:
    """Make a namespace with its pod ends a host, or a router: addresses, forwarding, loopback and pod ends up.

    It gets its link-local addresses here. One that the kernel makes would be in duplicate detection, and unusable, for
    a second or two.
    """
    without_ipv6 = [end.name for end in plan.interfaces if end.ipv6 is None]
    if len(without_ipv6) == len(plan.interfaces):
        without_ipv6.insert(0, "all")
    else:
        for name in ("lo", *(end.name for end in plan.interfaces if end.ipv6 is not None)):
            namespace.write_sysctl(f"net/ipv6/conf/{name}/disable_ipv6", 0)  # a kernel can be booted with 1 as default
    by_link = quieten(namespace, without_ipv6, forward=plan.forward)
    if plan.forward:
        try:
            _let_forward(namespace, plan)
        except PrivilegeError as error:
            raise PrivilegeError(f"pod {plan.name} cannot be a router: {error}") from error
    with Links(namespace) as links:
        links.set("lo", state="up")
        for end in plan.interfaces:
            for instead in by_link:
                instead(links, end.name)
            _configure_end(links, end)


def _let_forward(namespace: Namespace, plan: PodPlan) -> None:
    """Route both families, also what came by another interface than the answer will take."""
    namespace.write_sysctl("net/ipv4/ip_forward", 1)
    for name in ("all", *(end.name for end in plan.interfaces)):
        namespace.write_sysctl(f"net/ipv4/conf/{name}/rp_filter", 0)
    if any(end.ipv6 is not None for end in plan.interfaces):
        namespace.write_sysctl("net/ipv6/conf/all/forwarding", 1)


def _configure_end(links: Links, end: InterfacePlan) -> None:
    index = links.index(end.name)
    for address in (end.ipv4, end.ipv6):
        if address is not None:
            links.add_address(index, address)
    own = IPv6Interface((link_local(end.mac.packed), 64))
    if end.ipv6 is not None and end.ipv6.ip != own.ip:
        links.add_address(index, own)
    links.set(end.name, state="up")


def add_routes(namespace: Namespace, routes: Iterable[RoutePlan]) -> None:
    """Add static routes. The interfaces that lead to their gateways must be active."""
    with Links(namespace) as links:
        for route in routes:
            links.add_route(route.destination, route.gateway)


def await_active(namespace: Namespace, *interfaces: str) -> None:
    """Return when interfaces that are up at both ends can send and are heard."""
    with namespace.open_socket(AF_NETLINK, SOCK_RAW, 0) as sock:
        for interface in interfaces:
            await_up(sock, interface)


def quieten(namespace: Namespace, without_ipv6: Iterable[str], *, forward: bool = False) -> list[Quieten]:
    """Switch off forwarding of IPv4, and IPv6 on these interfaces (all: the present ones; default: the coming ones).

    A container may refuse to write some settings. Returns what must be done to each link instead.
    """
    settings = [(f"net/ipv6/conf/{name}/disable_ipv6", 1, Links.stop_link_local) for name in without_ipv6]
    if not forward:  # a new namespace inherits it from the first one
        settings.insert(0, ("net/ipv4/ip_forward", 0, Links.stop_forwarding))
    by_link: list[Quieten] = []
    for name, value, instead in settings:
        try:
            namespace.write_sysctl(name, value)
        except PrivilegeError:
            by_link.append(instead)
    return by_link
