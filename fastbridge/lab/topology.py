"""Topology and lab, the plan and the real thing.

A topology is data. A lab realises it: one network namespace for each pod, and a veth pair from each to the namespace of
the host ends. By default names and addresses follow from the pod's number N: `podN`, 02:00:00:00:00:NN, 10.0.0.N/16,
fd00::N/64. The host end has the name of its pod.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv4Network, IPv6Interface, IPv6Network
from pathlib import Path
from socket import AF_NETLINK, SOCK_RAW
from typing import Any

from fastbridge.addresses import MacAddress
from fastbridge.arp_nd import link_local
from fastbridge.closes import Closes
from fastbridge.errors import ConfigError, LabError, PrivilegeError
from fastbridge.links.link import Link
from fastbridge.links.places import Place, read_place
from fastbridge.named import NamedList, refuse_text
from fastbridge.notebook import Station, drawing, lines
from fastbridge.open_files import reserve_files

from .link_counters import await_up
from .links import Links
from .namespaces import Argv, Namespace, NamespaceHelper, os_reason
from .pods import POD_END, Pod, Port, run_text

Progress = Callable[[int, int], None]

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,14}")  # a name that an interface can have (IFNAMSIZ)
_RESERVED = {"lo", "all", "default", "fb-bridge"}
_POD_MACS, _HOST_MACS = 0x02_00_00_00_00_00, 0x06_00_00_00_00_00
_MTU_MIN, _MTU_MIN_IPV6, _MTU_MAX = 68, 1280, 65535
_FILES_A_POD = 4  #: its namespace, its counters, its port's counters and socket
_Quieten = Callable[[Links, str], None]
_BRIDGE = "fb-bridge"
_NETFILTER = ("bridge-nf-call-iptables", "bridge-nf-call-ip6tables", "bridge-nf-call-arptables")


@dataclass(frozen=True, slots=True)
class PodPlan:
    """The plan of one pod."""

    name: str
    mac: MacAddress
    ipv4: IPv4Interface | None = None
    ipv6: IPv6Interface | None = None


@dataclass(frozen=True, slots=True)
class Topology:
    """A plan, checked: pods and the MTU of their links."""

    pods: tuple[PodPlan, ...]
    mtu: int = 1500

    def __post_init__(self) -> None:
        if not self.pods:
            raise ConfigError("a lab needs at least one pod")
        for pod in self.pods:
            if not _NAME.fullmatch(pod.name) or pod.name in _RESERVED:
                raise ConfigError(
                    f"{pod.name!r} cannot be a pod's name: 1 to 15 of A-Z a-z 0-9 _ . -, and not a reserved word"
                )
            if pod.mac.is_group or not pod.mac:
                raise ConfigError(f"pod {pod.name}: {pod.mac} is not a unicast MAC address, which a pod needs")
        for field in ("name", "mac", "ipv4", "ipv6"):
            values = [str(value) for pod in self.pods if (value := getattr(pod, field)) is not None]
            if (
                twice := next((value for value in values if values.count(value) > 1), None)
                if _repeats(values)
                else None
            ):
                raise ConfigError(f"two pods have the {field} {twice}")
        least = _MTU_MIN_IPV6 if any(pod.ipv6 for pod in self.pods) else _MTU_MIN
        if not least <= self.mtu <= _MTU_MAX:
            raise ConfigError(f"MTU {self.mtu} is out of range: {least} to {_MTU_MAX}")

    @classmethod
    def of(
        cls,
        pods: int | Sequence[str],
        *,
        ipv4: str | None = "10.0.0.0/16",
        ipv6: str | None = "fd00::/64",
        mtu: int = 1500,
    ) -> Topology:
        """The usual plan for this many pods, or for pods of these names. None leaves an address family out."""
        refuse_text(pods, "pods")
        names = [f"pod{n}" for n in range(1, pods + 1)] if isinstance(pods, int) else list(pods)
        network4, network6 = _network(IPv4Network, ipv4, len(names)), _network(IPv6Network, ipv6, len(names))
        plans = [
            PodPlan(
                name,
                MacAddress(_POD_MACS + n),
                None if network4 is None else IPv4Interface((network4[n], network4.prefixlen)),
                None if network6 is None else IPv6Interface((network6[n], network6.prefixlen)),
            )
            for n, name in enumerate(names, 1)
        ]
        return cls(tuple(plans), mtu)


class Lab(Closes):
    """Pods that are really there, in private namespaces; a context manager.

    It is complete when the constructor returns. Only file descriptors of this process hold it, so nothing is left of it
    after `close`, nor after SIGKILL.

    link: the emulated link of each pod, or its words, for a switch that takes the lab's ports; the lab itself delays
    nothing. Or a dict of links by pod, by pair ("pod1", "pod2") or "pod1>pod2" (frames from the first to the second),
    and "*": all pods that have none of their own. One way, per direction; the RTT is the sum.
    """

    def __init__(
        self,
        pods: int | Sequence[str] | Topology = 2,
        *,
        mtu: int | None = None,
        link: Link | str | Mapping[Any, Link | str] | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.topology = _plan(pods, mtu)
        self._links = _links(link, [pod.name for pod in self.topology.pods])
        self._pods: dict[str, Pod] = {}
        reserve_files(len(self.topology.pods) * _FILES_A_POD)
        self._helper = NamespaceHelper()
        try:
            self.namespace = self._helper.create()
            self._quieten = _quieten(self.namespace, "all", "default")  # host ends stay silent
            self._realise(progress)
        except OSError as error:
            self.close()
            raise LabError(f"cannot make the lab: {os_reason(error)}") from error
        except BaseException:
            self.close()
            raise

    @property
    def pods(self) -> NamedList[Pod]:
        """The pods, in the order of the plan. `in` takes names too."""
        return NamedList(self._pods.values())

    @property
    def ports(self) -> NamedList[Port]:
        """The host ends, in the order of the plan. A `Switch` takes them as its ports. `in` takes names too."""
        return NamedList(pod.port for pod in self)

    def run_host(
        self, argv: Argv | str, *, timeout: float | None = None, check: bool = True, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run a program in the namespace of the host ends to its end, as `Pod.run` does in a pod."""
        return run_text(self.namespace, argv, timeout=timeout, check=check, **options)

    def popen_host(self, argv: Argv | str, **options: Any) -> subprocess.Popen[Any]:
        """Start a program in the namespace of the host ends. It is killed with the lab."""
        return self.namespace.popen(argv, **options)

    @contextlib.contextmanager
    def bridge(self, *, call_iptables: bool = False) -> Iterator[str]:
        """Join the host ends by a Linux bridge while the context lasts; gives the bridge's name.

        call_iptables: let bridged frames pass the netfilter hooks of IP (the settings bridge-nf-call-*, where this
        kernel has them). They cost the bridge some speed, so a fair comparison leaves them off.
        """
        for name in _NETFILTER:
            self.namespace.write_sysctl(f"net/bridge/{name}", int(call_iptables))
        with Links(self.namespace) as links:
            links.add_bridge(_BRIDGE, [port.name for port in self.ports])
        try:
            yield _BRIDGE
        finally:
            if self._helper.is_ours:  # a forked child that ends must leave it
                with Links(self.namespace) as links:
                    links.delete(_BRIDGE)

    @contextlib.contextmanager
    def direct(self) -> Iterator[None]:
        """Join two pods by one veth pair, without host ends and switch, while the context lasts.

        The pods keep their names and addresses. Their interfaces are new in the context, and new again after it. So
        offloads are back at their defaults, and sockets must be bound anew.
        """
        if len(self) != 2:
            raise ConfigError(f"a veth pair joins two pods, not {len(self)}")
        one, two = self.pods
        try:
            for port in self.ports:
                port.delete()
            with Links(one.namespace) as links:
                links.add_pair(POD_END, one.mac, POD_END, two.mac, two.namespace.fd, self.topology.mtu)
            for plan, pod in zip(self.topology.pods, self, strict=True):
                configure_pod(pod.namespace, plan)
                pod._close()
            for pod in self:
                await_active(pod.namespace, POD_END)
            yield
        finally:
            if self._helper.is_ours:
                self._reconnect()

    def close(self) -> None:
        """Kill the programs in the pods and remove everything. A second call does nothing."""
        self._helper.close()
        for pod in self:
            pod._close()
            pod.port._close()
            pod.namespace.close()
        if hasattr(self, "namespace"):
            self.namespace.close()

    def __getitem__(self, name: str) -> Pod:
        try:
            return self._pods[name]
        except KeyError:
            known = list(self._pods)
            names = ", ".join(known if len(known) <= 8 else [*known[:3], "…", known[-1]])
            raise LabError(f"there is no pod {name!r}; the pods are {names}") from None

    def __iter__(self) -> Iterator[Pod]:
        return iter(self._pods.values())

    def __contains__(self, item: object) -> bool:
        """Whether there is a pod of this name, or a Pod is one of the lab's."""
        if isinstance(item, str):
            return item in self._pods
        if not isinstance(item, Pod):
            raise TypeError(f"ask a lab for a pod by its name or as a Pod, not by {type(item).__name__}")
        return self._pods.get(item.name) is item

    def __repr__(self) -> str:
        return f"Lab({list(self._pods)})"

    def _repr_html_(self) -> str:
        """A drawing, in a notebook."""
        ports = f"{len(self)} port{'s' if len(self) > 1 else ''} of a switch"
        pairs = sum(isinstance(place, tuple) for place in self._links)
        more = f"{pairs:,} pair{'s' if pairs > 1 else ''} of pods with a link of their own" if pairs else ""
        return drawing(map(_station, self), len(self), ports) + lines([more])

    def __len__(self) -> int:
        return len(self._pods)

    def _realise(self, progress: Progress | None) -> None:
        total = len(self.topology.pods)
        links: dict[str, dict[Place, Link]] = {}  # a pair's is its second pod's
        for place, link in self._links.items():
            links.setdefault(place if isinstance(place, str) else place[1], {})[place] = link
        with Links(self.namespace) as netlink:
            for n, plan in enumerate(self.topology.pods, 1):
                host_mac = MacAddress(_HOST_MACS + n)
                namespace = self._helper.create()
                self._connect(netlink, plan, host_mac, namespace)
                port = Port(self.namespace, plan.name, host_mac)
                port.links = links.get(plan.name, {})
                self._pods[plan.name] = Pod(
                    plan.name, namespace, port, plan.mac, plan.ipv4, plan.ipv6, self.__getitem__
                )
                if progress is not None:
                    progress(n, total)

    def _reconnect(self) -> None:
        # Some pods may have no link: nobody knows how far direct() has come.
        for pod in self:
            with Links(pod.namespace) as links:
                if links.exists(POD_END):
                    links.delete(POD_END)  # the other end goes with it, wherever it is
        with Links(self.namespace) as links:
            for plan, pod in zip(self.topology.pods, self, strict=True):
                self._connect(links, plan, pod.port.mac, pod.namespace)
                pod._close()
                pod.port._close()

    def _connect(self, links: Links, plan: PodPlan, host_mac: MacAddress, namespace: Namespace) -> None:
        links.add_pair(plan.name, host_mac, POD_END, plan.mac, namespace.fd, self.topology.mtu)
        for quieten in self._quieten:
            quieten(links, plan.name)
        links.set(plan.name, state="up", arp=False)
        configure_pod(namespace, plan)
        await_active(namespace, POD_END)
        await_active(self.namespace, plan.name)


def _station(pod: Pod) -> Station:
    """How a pod is drawn."""
    link = pod.port.links.get(pod.name)
    addresses = [str(address) for address in (pod.ipv4, pod.ipv6) if address is not None]
    words = [word for word in str(link).split(",") if not word.startswith("seed=")] if link else []
    return Station(
        pod.name, addresses, words, ", ".join([pod.name, str(pod.mac), *addresses, *([f"link {link}"] if link else [])])
    )


def _links(wish: Link | str | Mapping[Any, Link | str] | None, pods: Sequence[str]) -> dict[Place, Link]:
    """The links by pod and pair. Raises ConfigError."""
    wishes = wish if isinstance(wish, Mapping) else {} if wish is None else {"*": wish}
    made = {place: Link.parse(link) if isinstance(link, str) else link for place, link in wishes.items()}
    links: dict[Place, Link] = dict.fromkeys(pods, made.pop("*")) if "*" in made else {}
    links |= {read_place(place, pods) if isinstance(place, str) else place: link for place, link in made.items()}
    for place in links:
        for pod in (place,) if isinstance(place, str) else place:
            if pod not in pods:
                raise ConfigError(f"a link names {pod!r}, which is no pod of the lab; its pods are {', '.join(pods)}")
    return links


def configure_pod(namespace: Namespace, plan: PodPlan) -> None:
    """Make a namespace with its pod end an end host: addresses, loopback and pod end up, no forwarding.

    It gets its link-local address here. One that the kernel makes would be in duplicate detection, and unusable, for a
    second or two.
    """
    quieten = _quieten(namespace, "all", POD_END) if plan.ipv6 is None else _quieten(namespace)
    if plan.ipv6 is not None:
        for name in ("lo", POD_END):
            namespace.write_sysctl(f"net/ipv6/conf/{name}/disable_ipv6", 0)  # a kernel can be booted with 1 as default
    with Links(namespace) as links:
        for instead in quieten:
            instead(links, POD_END)
        index = links.index(POD_END)
        links.set("lo", state="up")
        for address in (plan.ipv4, plan.ipv6):
            if address is not None:
                links.add_address(index, address)
        own = IPv6Interface((link_local(plan.mac.packed), 64))
        if plan.ipv6 is not None and plan.ipv6.ip != own.ip:
            links.add_address(index, own)
        links.set(POD_END, state="up")


def await_active(namespace: Namespace, interface: str) -> None:
    """Return when an interface that is up at both ends can send and is heard."""
    with namespace.open_socket(AF_NETLINK, SOCK_RAW, 0) as sock:
        await_up(sock, interface)


def kernel_has_ipv6() -> bool:
    """False on a kernel that was built or booted without IPv6."""
    return Path("/proc/sys/net/ipv6").exists()


def _quieten(namespace: Namespace, *without_ipv6: str) -> list[_Quieten]:
    """Switch off forwarding of IPv4, and IPv6 on these interfaces (all: the present ones; default: the coming ones).

    A container may refuse to write some settings. Returns what must be done to each link instead.
    """
    settings = [("net/ipv4/ip_forward", 0, Links.stop_forwarding)]  # a new namespace inherits it from the first one
    settings += [(f"net/ipv6/conf/{name}/disable_ipv6", 1, Links.stop_link_local) for name in without_ipv6]
    by_link: list[_Quieten] = []
    for name, value, instead in settings:
        try:
            namespace.write_sysctl(name, value)
        except PrivilegeError:
            by_link.append(instead)
    return by_link


def _plan(pods: int | Sequence[str] | Topology, mtu: int | None) -> Topology:
    if isinstance(pods, Topology):
        if mtu is not None and mtu != pods.mtu:
            raise ConfigError(f"MTU {mtu} contradicts the topology's {pods.mtu}")
        return pods
    ipv6 = "fd00::/64" if kernel_has_ipv6() else None
    return Topology.of(pods, ipv6=ipv6, mtu=1500 if mtu is None else mtu)


def _network(kind: Any, text: str | None, count: int) -> Any:
    if text is None:
        return None
    try:
        network = kind(text)
    except ValueError as error:
        raise ConfigError(f"{text!r} is not an IP network: {error}") from error
    if count + 2 > network.num_addresses:  # nobody gets the first and the last address
        raise ConfigError(f"{network} has no room for {count} pods")
    return network


def _repeats(values: list[str]) -> bool:
    return len(set(values)) < len(values)
