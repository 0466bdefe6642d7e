"""Topology and lab, the plan and the real thing.

A topology is data. A lab realises it: one network namespace for each pod, and a veth pair from each of its interfaces
to the namespace of the host ends. By default names and addresses follow from the pod's number N: `podN`,
02:00:00:00:00:NN, 10.0.0.N/16, fd00::N/64. The host end has the name of its pod. A trunk is a veth pair there.
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from fastbridge.addresses import MacAddress
from fastbridge.closes import Closes
from fastbridge.errors import ConfigError, LabError
from fastbridge.links.files import read_text
from fastbridge.links.link import Link
from fastbridge.links.places import Place, read_place
from fastbridge.named import NamedList, refuse_text
from fastbridge.open_files import reserve_files
from fastbridge.toml_text import Document

from . import generators
from .drawn import draw
from .links import Links
from .namespaces import Argv, Namespace, NamespaceHelper, os_reason
from .plan_checks import check, refuse_twice
from .plans import PlanError, PodPlan, needs_scope, some, trunk_ends
from .pods import Pod, Port, run_text
from .stack import add_routes, await_active, configure_pod, quieten
from .tables import NONE, plan_of, table_of
from .uplink import HOST, Uplink, refuse_taken

if TYPE_CHECKING:
    from typing_extensions import Unpack

Progress = Callable[[int, int], None]

_HOST_MACS = 0x06_00_00_00_00_00
_FILES_A_POD, _FILES_A_PORT = 1, 3  #: its namespace; the counters of both ends, its socket
_BRIDGE = "fb-bridge"
_NETFILTER = ("bridge-nf-call-iptables", "bridge-nf-call-ip6tables", "bridge-nf-call-arptables")


@dataclass(frozen=True, slots=True)
class Topology:
    """A plan, checked: pods, and the switches that join them.

    switches: their names; (): those that the pods are on, in the order of the pods.
    trunks: pairs of switches that are joined.
    link: emulated links in words, by port, interface ("r1.eth1"), pair of ports ("pod1>pod2"), or "*": of all pods.
    loops: trunks may make loops. The loop detection of the switches has to end them.

    Raises ConfigError.
    """

    pods: tuple[PodPlan, ...]
    mtu: int = 1500
    switches: tuple[str, ...] = ()
    trunks: tuple[tuple[str, str], ...] = ()
    link: Mapping[str, str] = field(default_factory=dict, hash=False)
    loops: bool = False

    def __post_init__(self) -> None:
        if not self.switches:
            named = dict.fromkeys(interface.switch for pod in self.pods for interface in pod.interfaces)
            object.__setattr__(self, "switches", tuple(named))
        check(self)
        self.links_at(self.link)

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
        if isinstance(pods, int):
            pods = [f"pod{n}" for n in range(1, pods + 1)]
        try:
            names = list(pods)
        except TypeError:
            raise ConfigError(f"pods must be a number of pods, or a list of names, not {pods!r}") from None
        refuse_twice(("pod",), names, "two pods have the name {}")
        return cls._generated({"pod": {name: {} for name in names}}, ipv4=ipv4, ipv6=ipv6, mtu=mtu)

    @classmethod
    def star(cls, pods: int = 2, **options: Unpack[_Options]) -> Topology:
        """Pods around one switch. options: ipv4, ipv6 and mtu, as for `of`."""
        return cls._generated(generators.star(pods), **options)

    @classmethod
    def linear(cls, switches: int = 2, pods: int = 1, **options: Unpack[_Options]) -> Topology:
        """Switches in a line, each with so many pods. options: ipv4, ipv6 and mtu, as for `of`."""
        return cls._generated(generators.linear(switches, pods), **options)

    @classmethod
    def tree(cls, depth: int = 2, fanout: int = 2, **options: Unpack[_Options]) -> Topology:
        """Switches in a tree of so many levels, each with `fanout` below it: switches, or pods at the lowest level."""
        return cls._generated(generators.tree(depth, fanout), **options)

    @classmethod
    def ring(cls, switches: int = 3, pods: int = 1, **options: Unpack[_Options]) -> Topology:
        """Switches in a loop, each with so many pods. Their loop detection has to end the loop."""
        return cls._generated(generators.ring(switches, pods), **options)

    @classmethod
    def mesh(cls, switches: int = 3, pods: int = 1, **options: Unpack[_Options]) -> Topology:
        """Switches, each joined to each other one, with so many pods. Their loop detection has to end the loops."""
        return cls._generated(generators.mesh(switches, pods), **options)

    @classmethod
    def routed_star(cls, lans: int = 2, pods: int = 1, **options: Unpack[_Options]) -> Topology:
        """A router between so many LANs, each a switch with so many pods. options: as for `of`.

        Each LAN has a part of the networks ipv4, 10.0.0.0/8, and ipv6, fd00::/48.
        """
        return cls._generated(generators.routed_star(lans, pods), **options)

    @classmethod
    def _generated(cls, table: Mapping[str, Any], **options: Unpack[_Options]) -> Topology:
        return cls.from_dict({**table, **{word: NONE if value is None else value for word, value in options.items()}})

    @classmethod
    def read(cls, path: str | Path) -> Topology:
        """The topology in a file, in TOML. Raises ConfigError, with the line."""
        return cls.parse(read_text("topology", str(path)), str(path))

    @classmethod
    def parse(cls, text: str, source: str = "the topology") -> Topology:
        """A topology from TOML. source: what errors call it. Raises ConfigError, with the line."""
        document = Document(text, source)
        try:
            return cls.from_dict(document.table)
        except PlanError as error:
            raise ConfigError(f"{document.where(error.path)}: {error}") from None

    @classmethod
    def from_dict(cls, table: Mapping[str, Any]) -> Topology:
        """A topology from what a file in TOML says, as a dict: "pod", "switch", "link", … Raises ConfigError."""
        return cls(**plan_of(table))

    def to_dict(self) -> dict[str, Any]:
        """The dict from which `from_dict` makes this topology. It leaves nothing out, and is fit for JSON."""
        return table_of(self)

    @property
    def ports(self) -> dict[str, str]:
        """The ports, each with its switch: those of the pods, then the two of each trunk."""
        found = {port: interface.switch for pod in self.pods for port, interface in pod.ports.items()}
        for trunk in self.trunks:
            found |= trunk_ends(trunk)
        return found

    @property
    def hosts(self) -> str:
        """The addresses and names of the pods, as lines of /etc/hosts."""
        lines = [
            f"{address.ip}\t{pod.name}\n"
            for pod in self.pods
            for interface in pod.interfaces
            for address in (interface.ipv4, interface.ipv6)
            if address is not None and not needs_scope(address.ip)
        ]
        return "".join(lines)

    def links_at(self, links: Mapping[Any, Link | str]) -> dict[Place, Link]:
        """Links by the ports and pairs of ports that their places mean. Raises ConfigError."""
        ports = self.ports
        words = {f"{pod.name}.{interface.name}": port for pod in self.pods for port, interface in pod.ports.items()} | {
            port: port for port in ports
        }
        every: dict[Place, Link] = {}
        found: dict[Place, Link] = {}
        for place, wish in links.items():
            try:
                link = Link.parse(wish) if isinstance(wish, str) else wish
                if place == "*":
                    every = dict.fromkeys((port for pod in self.pods for port in pod.ports), link)
                else:
                    found[_place(place, words, ports)] = link
            except ConfigError as error:
                raise PlanError(("link", place), str(error)) from None
        return every | found


class _Options(TypedDict, total=False):
    """What each generator takes."""

    ipv4: str | None
    ipv6: str | None
    mtu: int


class Lab(Closes):
    """Pods that are really there, in private namespaces; a context manager.

    It is complete when the constructor returns. Only file descriptors of this process hold it, so nothing is left of it
    after `close`, nor after SIGKILL.

    link: the emulated link of each pod, or its words, for a switch that takes the lab's ports; the lab itself delays
    nothing. Or a dict of links by pod, by interface "r1.eth1", by trunk "s1-s2", by pair ("pod1", "pod2") or
    "pod1>pod2" (frames from the first to the second), and "*": all pods that have none of their own. One way, per
    direction; the RTT is the sum. They take the place of those of the topology.
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
        wishes = link if isinstance(link, Mapping) else {} if link is None else {"*": link}
        self._links_to: dict[str, dict[Place, Link]] = {}  # by port: a pair's is that of its second port
        for place, each in self.topology.links_at({**self.topology.link, **wishes}).items():
            self._links_to.setdefault(place if isinstance(place, str) else place[1], {})[place] = each
        self._pods: dict[str, Pod] = {}
        self._ports: dict[str, Port] = {}
        reserve_files(len(self.topology.pods) * _FILES_A_POD + len(self.topology.ports) * _FILES_A_PORT)
        self._helper = NamespaceHelper(hosts=self.topology.hosts)
        try:
            self.namespace = self._helper.create()
            self._quieten = quieten(self.namespace, ["all", "default"])  # host ends stay silent
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
        """The host ends, in the order of the plan; then those of trunks. `in` takes names too.

        A `Switch` takes them as its ports, where the lab has one switch; else see `switches`.
        """
        return NamedList(self._ports.values())

    @property
    def switches(self) -> dict[str, NamedList[Port]]:
        """The ports of each switch, by its name. `Switches` takes them."""
        found: dict[str, NamedList[Port]] = {switch: NamedList() for switch in self.topology.switches}
        for port in self._ports.values():
            found[port.switch].append(port)
        return found

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

        Raises ConfigError: the lab has several switches.
        """
        if len(self.topology.switches) > 1:
            raise ConfigError(f"one bridge stands for one switch, and this lab has {some(self.topology.switches)}")
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
        if len(self._ports) != 2:
            raise ConfigError(f"a veth pair joins two pods of one interface each, not {', '.join(self._ports)}")
        one, two = self.pods
        try:
            for port in self.ports:
                port.delete()
            with Links(one.namespace) as links:
                links.add_pair(one.interface, one.mac, two.interface, two.mac, two.namespace.fd, self.topology.mtu)
            for plan, pod in zip(self.topology.pods, self, strict=True):
                configure_pod(pod.namespace, plan)
                pod._close()
            for pod in self:
                await_active(pod.namespace, pod.interface)
            yield
        finally:
            if self._helper.is_ours:
                self._reconnect()

    @contextlib.contextmanager
    def uplink(self, *pods: str | Pod) -> Iterator[IPv4Address]:
        """Give these pods, by default all, a way out while the context lasts; gives this host's address there.

        Each gets an interface `uplink` and a default route over it, by pasta or slirp4netns, which opens the pod's
        connections from the namespace of this process. At the address are the servers on 127.0.0.1 of this host. Name
        servers are the host's. IPv4 only; one process a pod.

        Raises LabError when neither program is installed, or none works, and ConfigError where any pod of the lab has
        an address of the uplink's network.
        """
        chosen = [self[pod] if isinstance(pod, str) else pod for pod in pods] or list(self)
        refuse_taken(list(self))  # a pod with an uplink sends to all others
        with contextlib.ExitStack() as uplinks:
            for pod in chosen:
                uplinks.enter_context(Uplink(pod))
            yield HOST

    def close(self) -> None:
        """Kill the programs in the pods and remove everything. A second call does nothing."""
        self._helper.close()
        for port in self._ports.values():
            port._close()
        for pod in self:
            for end in pod.interfaces.values():
                end._close()
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
        """Its switches and pods as a drawing, in a notebook."""
        return draw(self.switches)

    def __len__(self) -> int:
        return len(self._pods)

    def _realise(self, progress: Progress | None) -> None:
        plan = self.topology
        with Links(self.namespace) as links:
            for n, pod in enumerate(plan.pods, 1):
                namespace = self._helper.create()
                ports = [self._new_port(name, interface.switch) for name, interface in pod.ports.items()]
                self._connect(links, pod, ports, namespace)
                self._pods[pod.name] = Pod(pod, namespace, ports, self.__getitem__)
                if progress is not None:
                    progress(n, len(plan.pods))
            for trunk in plan.trunks:
                self._join(links, *(self._new_port(*end) for end in trunk_ends(trunk).items()))

    def _new_port(self, name: str, switch: str) -> Port:
        port = Port(self.namespace, name, MacAddress(_HOST_MACS + len(self._ports) + 1))
        port.switch = switch
        port.links = self._links_to.get(name, {})
        self._ports[name] = port
        return port

    def _reconnect(self) -> None:
        # Some pods may have no link: nobody knows how far direct() has come.
        for pod in self:
            with Links(pod.namespace) as links:
                if links.exists(pod.interface):
                    links.delete(pod.interface)  # the other end goes with it, wherever it is
        with Links(self.namespace) as links:
            for plan, pod in zip(self.topology.pods, self, strict=True):
                self._connect(links, plan, [pod.port], pod.namespace)
                pod._close()
                pod.port._close()

    def _connect(self, links: Links, plan: PodPlan, ports: Sequence[Port], namespace: Namespace) -> None:
        """Make a pod's veth pairs and its network stack."""
        for port, end in zip(ports, plan.interfaces, strict=True):
            links.add_pair(port.name, port.mac, end.name, end.mac, namespace.fd, self.topology.mtu)
            self._set_up(links, port)
        configure_pod(namespace, plan)
        await_active(namespace, *(end.name for end in plan.interfaces))
        await_active(self.namespace, *(port.name for port in ports))
        if plan.routes:
            add_routes(namespace, plan.routes)

    def _join(self, links: Links, one: Port, other: Port) -> None:
        """Make a trunk."""
        links.add_pair(one.name, one.mac, other.name, other.mac, self.namespace.fd, self.topology.mtu)
        for port in (one, other):
            self._set_up(links, port)
        await_active(self.namespace, one.name, other.name)

    def _set_up(self, links: Links, port: Port) -> None:
        """Set a host end up, and keep the host's stack off it."""
        for instead in self._quieten:
            instead(links, port.name)
        links.set(port.name, state="up", arp=False)


def _place(place: Place, words: Mapping[str, str], ports: Mapping[str, str]) -> Place:
    """A place by the names of ports, each of which several words can mean. Raises ConfigError."""
    place = read_place(place, words) if isinstance(place, str) else place
    for word in (place,) if isinstance(place, str) else place:
        if word not in words:
            raise ConfigError(f"a link names {word!r}, which is no port of the lab; its ports are {some(ports)}")
    if isinstance(place, str):
        return words[place]
    one, other = (words[word] for word in place)
    if ports[one] != ports[other]:
        text = f"{one} is a port of {ports[one]}, and {other} of {ports[other]}; a pair is of two ports of one switch"
        raise ConfigError(text)
    return one, other


def kernel_has_ipv6() -> bool:
    """False on a kernel that was built or booted without IPv6."""
    return Path("/proc/sys/net/ipv6").exists()


def _plan(pods: int | Sequence[str] | Topology, mtu: int | None) -> Topology:
    if isinstance(pods, Topology):
        if mtu is not None and mtu != pods.mtu:
            raise ConfigError(f"MTU {mtu} contradicts the topology's {pods.mtu}")
        return pods
    ipv6 = "fd00::/64" if kernel_has_ipv6() else None
    return Topology.of(pods, ipv6=ipv6, mtu=1500 if mtu is None else mtu)
