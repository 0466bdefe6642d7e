"""Pods and ports, the two ends of veth pairs.

A pod is a network namespace with one interface or more, its pod ends. The host end of each is a port. All host ends are
in one namespace, where switches can join them.
"""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, IPv6Interface, ip_address
from socket import AF_NETLINK, SOCK_RAW, socket
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from fastbridge.addresses import MacAddress
from fastbridge.arp_nd import link_local
from fastbridge.errors import ConfigError, LabError
from fastbridge.forks import in_child
from fastbridge.link_watch import LinkCounters
from fastbridge.links.link import Link
from fastbridge.links.places import Place
from fastbridge.tso import has_tso

from . import ping as icmp
from .calls import call
from .link_counters import interface_index, read_counters
from .links import Links, Neighbour
from .listening import wait_listening
from .namespaces import Argv, Namespace
from .ping import PingResult
from .plans import POD_END as POD_END
from .plans import SWITCH, InterfacePlan, PodPlan, RoutePlan, needs_scope

if TYPE_CHECKING:
    from typing_extensions import TypeVarTuple, Unpack

    _Arguments = TypeVarTuple("_Arguments")
_Result = TypeVar("_Result")


class _End:
    """One end of a veth pair: an interface in a namespace."""

    def __init__(self, namespace: Namespace, interface: str, mac: MacAddress) -> None:
        self.namespace = namespace
        self.interface = interface
        self.mac = mac
        self._lock = threading.Lock()
        self._stats: tuple[socket, int] | None = None
        in_child(self, _End._let_go)

    def set_up(self) -> None:
        """Set the interface up."""
        with Links(self.namespace) as links:
            links.set(self.interface, state="up")

    def set_down(self) -> None:
        """Set the interface down. The other end loses its carrier."""
        with Links(self.namespace) as links:
            links.set(self.interface, state="down")

    def counters(self) -> LinkCounters:
        """The kernel's counters of this interface. Cheap: some microseconds."""
        with self._lock:
            return read_counters(*self._ask())

    def _ask(self) -> tuple[socket, int]:
        """A socket to ask for its state, which stays open, and its index. The caller has the lock."""
        if self._stats is None:
            sock = self.namespace.open_socket(AF_NETLINK, SOCK_RAW, 0)
            try:
                self._stats = sock, interface_index(sock, self.interface)
            except LabError:
                sock.close()
                raise
        return self._stats

    def _let_go(self) -> None:
        self._lock = threading.Lock()
        self._close()

    def _close(self) -> None:
        with self._lock:
            if self._stats is not None:
                self._stats[0].close()
                self._stats = None


class Port(_End):
    """A host end. `Switch` takes it as a port."""

    #: The (MAC address, IP address) pairs of its pod, with the IPv6 link-local one.
    owners: Sequence[tuple[MacAddress, IPv4Address | IPv6Address]] = ()

    #: The emulated links that it brings to a switch: its own, and those of pairs that lead to it.
    links: Mapping[Place, Link] = MappingProxyType({})

    #: The name of the switch that it is a port of.
    switch: str = SWITCH

    _pod_end: PodEnd | None = None

    @property
    def name(self) -> str:
        """The interface name of the host end: POD, POD-INTERFACE after the first one, or SWITCH-SWITCH for a trunk."""
        return self.interface

    def pod_takes_merged(self) -> bool:
        """Whether a switch may send its pod several frames merged into one: see `PodEnd.takes_merged`."""
        return self._pod_end is None or self._pod_end.takes_merged()

    def open_socket(self, family: int, type: int, proto: int = 0) -> socket:  # noqa: A002 - as in socket
        """A socket in the namespace of the host ends."""
        return self.namespace.open_socket(family, type, proto)

    def delete(self) -> None:
        """Remove the veth pair. The pod loses its interface, a switch its port."""
        with Links(self.namespace) as links:
            links.delete(self.interface)

    def __repr__(self) -> str:
        return f"Port({self.name!r}, {self.mac})"


class PodEnd(_End):
    """An interface of a pod, with its addresses and its port."""

    def __init__(self, namespace: Namespace, plan: InterfacePlan, routes: Sequence[RoutePlan], port: Port) -> None:
        super().__init__(namespace, plan.name, plan.mac)
        self.port = port
        self.ipv4 = plan.ipv4
        self.ipv6 = plan.ipv6
        self._routes = [route for route in routes if plan.reaches(route.gateway)]
        self._lost: list[IPv6Interface] = []
        own = [] if plan.ipv6 is None else [IPv6Address(link_local(self.mac.packed))]
        ips = [address.ip for address in (plan.ipv4, plan.ipv6) if address is not None]
        port._pod_end = self
        port.owners = [(self.mac, ip) for ip in dict.fromkeys([*ips, *own])]

    def set_up(self) -> None:
        """Set the interface up, with the IPv6 addresses that it had before `set_down`, and its static routes.

        They can be used at once.
        """
        with Links(self.namespace) as links:
            index = links.index(self.interface)
            own = [] if self.ipv6 is None else [IPv6Interface((link_local(self.mac.packed), 64))]
            for address in (*self._lost, *own):
                links.add_address(index, address, exist_ok=True)
            links.set(self.interface, state="up")
            for route in self._routes:
                links.add_route(route.destination, route.gateway, exist_ok=True)
        self._lost = []

    def set_down(self) -> None:
        """Set the interface down. The other end loses its carrier, and the kernel removes IPv6 addresses and routes."""
        with Links(self.namespace) as links:
            self._lost += links.ipv6_addresses().get(links.index(self.interface), [])
            links.set(self.interface, state="down")

    def takes_merged(self) -> bool:
        """Whether the interface takes several frames merged into one. It does while its TSO is on.

        Cheap: some microseconds. True where nobody can tell: the interface is gone, or the lab is closed.
        """
        with self._lock:
            try:
                return has_tso(self._ask()[0], self.interface)
            except (OSError, LabError):
                return True

    def __repr__(self) -> str:
        return f"PodEnd({self.interface!r}, {self.mac}, {self.ipv4}, {self.ipv6})"


class Pod(PodEnd):
    """A network namespace with one interface, `eth0`, or more. It stands for its first interface, too."""

    def __init__(self, plan: PodPlan, namespace: Namespace, ports: Sequence[Port], find: Callable[[str], Pod]) -> None:
        first, *more = plan.interfaces
        super().__init__(namespace, first, plan.routes, ports[0])
        self.name = plan.name
        #: All its interfaces by their names, in the order of the plan.
        self.interfaces: Mapping[str, PodEnd] = {first.name: self} | {
            end.name: PodEnd(namespace, end, plan.routes, port) for end, port in zip(more, ports[1:], strict=True)
        }
        self._find = find

    def popen(self, argv: Argv | str, **options: Any) -> subprocess.Popen[Any]:
        """Start a program in the pod, with the options of `subprocess.Popen`. It is killed with the lab."""
        return self.namespace.popen(argv, **options)

    def run(
        self, argv: Argv | str, *, timeout: float | None = None, check: bool = True, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run a program in the pod to its end. Captures its output as text unless the options say otherwise.

        timeout: seconds after which it is killed. Raises subprocess.CalledProcessError, whose text ends with what the
        program said on stderr, for one that fails (unless `check` is False), and subprocess.TimeoutExpired.
        """
        return run_text(self.namespace, argv, timeout=timeout, check=check, **options)

    def call(
        self,
        function: Callable[[Unpack[_Arguments]], _Result],
        *arguments: Unpack[_Arguments],
        timeout: float | None = None,
    ) -> _Result:
        """Call a function in the pod: returns what it returns, raises what it raises, with the traceback as the cause.

        It runs in a new Python process, with this one's module search path, working directory and environment; what it
        prints appears here. Arguments and result go by pickle. The extra `call` (cloudpickle) also takes functions of
        the main program, lambdas and closures. For keyword arguments there is `functools.partial`.

        timeout: seconds after which the process is killed. Raises ConfigError for what cannot go there, and LabError
        for a process that takes too long, ends without a result, or returns what cannot be pickled.
        """
        result: _Result = call(self.namespace, self.name, function, arguments, timeout)
        return result

    def wait_listening(self, port: int, *, udp: bool = False, timeout: float = 10.0) -> None:
        """Return when something in the pod listens on this TCP (or UDP) port, on any address. It connects to nothing.

        timeout: seconds. Raises LabError after it, with what does listen, and ConfigError for what is no port.
        """
        wait_listening(self.namespace, self.name, port, "udp" if udp else "tcp", timeout)

    def socket(self, family: int, type: int, proto: int = 0) -> socket:  # noqa: A002 - as in socket
        """A socket inside the pod, for use in this process."""
        return self.namespace.open_socket(family, type, proto)

    def ping(
        self,
        target: str | Pod | IPv4Address | IPv6Address,
        *,
        count: int = 1,
        interval: float = 0.1,
        timeout: float = 1.0,
        family: Literal[4, 6] | None = None,
        size: int = icmp.SIZE,
    ) -> PingResult:
        """Ping a pod, by itself or its name, or an IP address.

        count: requests, one every `interval` seconds. timeout: seconds that each answer may take. family: which of the
        pod's addresses; IPv4 by default. size: bytes of payload, 0 to 65,507, without the headers of ICMP and IP. A
        request larger than the MTU goes in fragments.
        """
        if not 0 <= size <= icmp.LARGEST:
            raise ConfigError(f"ping wants a size of 0 to {icmp.LARGEST:,} bytes, not {size:,}")
        if count < 1 or interval < 0 or timeout <= 0:
            raise ConfigError("ping wants count ≥ 1, interval ≥ 0 and timeout > 0")
        address = self._address(target, family)
        with self.socket(*icmp.open_type(address.version)) as sock:
            result = icmp.ping(sock, address, count=count, interval=interval, timeout=timeout, size=size)
        return result if result else replace(result, error=self._why_unanswered(address.version) or result.error)

    def _why_unanswered(self, version: int) -> str | None:
        """A reason that the kernel does not tell: with a full neighbour table it drops frames and answers no ARP."""
        with Links(self.namespace) as links:
            if not links.exists(self.interface) or links.has_room_for_neighbours(self.interface, version):
                return None
        return (
            f"the neighbour table of this machine is full: raise the sysctl net.ipv{version}.neigh.default.gc_thresh3"
        )

    def neighbours(self) -> list[Neighbour]:
        """The neighbour table of the pod's own kernel: the MAC addresses behind IP addresses."""
        with Links(self.namespace) as links:
            return [found for interface in self.interfaces for found in links.neighbours(links.index(interface))]

    def _address(
        self, target: str | Pod | IPv4Address | IPv6Address, family: Literal[4, 6] | None
    ) -> IPv4Address | IPv6Address:
        if isinstance(target, str):
            target = _parse_ip(target) or self._find(target)
        if not isinstance(target, Pod):
            if family is not None and target.version != family:
                raise ConfigError(f"{target} is not an IPv{family} address")
            return target
        addresses = [address for end in target.interfaces.values() for address in (end.ipv4, end.ipv6) if address]
        ips = [each.ip for each in addresses if family in (None, each.version) and not needs_scope(each.ip)]
        if not ips:
            raise ConfigError(f"pod {target.name} has no {'IP' if family is None else f'IPv{family}'} address")
        return min(ips, key=lambda ip: ip.version)

    def __repr__(self) -> str:
        return f"Pod({self.name!r}, {self.mac}, {self.ipv4}, {self.ipv6})"


def _parse_ip(text: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(text)
    except ValueError:
        return None


def run_text(namespace: Namespace, argv: Argv | str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a program in a namespace. By default captures its output as text."""
    if "stdout" not in options and "stderr" not in options:
        options.setdefault("capture_output", True)
    return namespace.run(argv, **{"text": True, "check": True} | options)
