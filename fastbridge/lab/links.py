"""Links and addresses, over netlink.

The only importer of pyroute2, so this short list is all that the rest asks of a network. A `Links` is for one
namespace and one thread.

pyroute2 needs an asyncio event loop of its own. A thread in which a loop already runs (a notebook's, an asyncio
program's) takes no second one. There another thread does all netlink work.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import struct
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network, ip_address
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from fastbridge.addresses import MacAddress
from fastbridge.closes import Closes
from fastbridge.errors import LabError, PrivilegeError
from fastbridge.netlink import attribute

from .link_counters import has_interface, interface_index
from .namespaces import Namespace

_NODAD = 2  # IFA_F_NODAD
_IFLA_INET_CONF, _IPV4_DEVCONF_FORWARDING = 1, 1
_IFLA_INET6_ADDR_GEN_MODE, _IN6_ADDR_GEN_MODE_NONE = 8, 1
_STATES = {0x01: "incomplete", 0x02: "reachable", 0x04: "stale", 0x08: "delay", 0x10: "probe", 0x20: "failed"}
_STATES |= {0x40: "noarp", 0x80: "permanent"}


@dataclass(frozen=True, slots=True)
class Neighbour:
    """One entry of a pod's own neighbour table: an IP address, and the MAC address behind it if known."""

    ip: IPv4Address | IPv6Address
    mac: MacAddress | None
    state: str  #: "reachable", "stale", "failed", … as `ip neighbour` names them


class Links(Closes):
    """The links of one network namespace, by default the current one; a context manager."""

    def __init__(self, namespace: Namespace | None = None) -> None:
        # SOCK_DGRAM, because asyncio takes no raw socket. To netlink it makes no difference.
        open_socket = socket.socket if namespace is None else namespace.open_socket
        self._sock = open_socket(socket.AF_NETLINK, socket.SOCK_DGRAM, 0)
        try:
            self._ip: Any = _LoopAside(self._sock) if _loop_runs() else _Loop(self._sock)
        except BaseException:
            self._sock.close()
            raise

    def close(self) -> None:
        """Close the netlink socket."""
        self._ip.close()

    def add_pair(
        self, host_end: str, host_mac: MacAddress | None, far_end: str, far_mac: MacAddress | None, fd: int, mtu: int
    ) -> None:
        """Make a veth pair, both ends down: the host end here, the far end in the namespace `fd`. None: any MAC."""
        address, far_address = ({} if mac is None else {"address": str(mac)} for mac in (host_mac, far_mac))
        peer = {"ifname": far_end, "net_ns_fd": fd, "mtu": mtu, **far_address}
        with _naming(host_end):
            self._ip.link("add", ifname=host_end, kind="veth", mtu=mtu, peer=peer, **address)

    def set(self, name: str, **settings: Any) -> None:
        """Change settings of a link: state="up", arp=False, ifalias=…, master=index."""
        with _naming(name):
            self._ip.link("set", index=self.index(name), **settings)

    def stop_forwarding(self, name: str) -> None:
        """Route no IPv4 that arrives on a link. Needs no /proc/sys, which a container may not write."""
        value = struct.pack("=I", 0)
        self._set_protocol(name, socket.AF_INET, attribute(_IFLA_INET_CONF, attribute(_IPV4_DEVCONF_FORWARDING, value)))

    def stop_link_local(self, name: str) -> None:
        """Let a link that is down make itself no IPv6 address. Without an address the kernel sends nothing there."""
        self._set_protocol(
            name, socket.AF_INET6, attribute(_IFLA_INET6_ADDR_GEN_MODE, bytes([_IN6_ADDR_GEN_MODE_NONE]))
        )

    def _set_protocol(self, name: str, family: int, settings: bytes) -> None:
        with _naming(name):
            try:
                # pyroute2 does not know the attribute in messages of this family, and passes it on as it is.
                spec = attribute(family, settings)
                self._ip.link("set", index=self.index(name), family=socket.AF_PACKET, IFLA_AF_SPEC=spec)
            except NetlinkError as error:
                if error.code != errno.EAFNOSUPPORT:  # the link does not have this protocol
                    raise

    def add_altname(self, name: str, altname: str) -> None:
        """Give a link one more name."""
        with _naming(name):
            self._ip.link("property_add", index=self.index(name), altname=altname)

    def add_address(self, index: int, address: IPv4Interface | IPv6Interface, *, exist_ok: bool = False) -> None:
        """Give an interface an address. An IPv6 address is ready at once: it skips duplicate detection."""
        command = "replace" if exist_ok else "add"
        options = {"flags": _NODAD} if address.version == 6 else {}
        with _naming(str(address)):
            self._ip.addr(command, index=index, address=str(address.ip), prefixlen=address.network.prefixlen, **options)

    def add_route(
        self,
        destination: IPv4Network | IPv6Network,
        gateway: IPv4Address | IPv6Address,
        *,
        exist_ok: bool = False,
    ) -> None:
        """Add a route by a gateway that is reached without one."""
        family = socket.AF_INET if gateway.version == 4 else socket.AF_INET6
        with _naming(f"route to {destination} via {gateway}"):
            command = "replace" if exist_ok else "add"
            self._ip.route(command, family=family, dst=str(destination), gateway=str(gateway))

    def delete(self, name: str, *, missing_ok: bool = False) -> None:
        """Remove a link. A veth pair loses both ends."""
        try:
            with _naming(name):
                self._ip.link("del", index=self.index(name))
        except LabError:
            if not missing_ok or self.exists(name):
                raise

    def add_bridge(self, name: str, ports: list[str], **settings: Any) -> None:
        """Make a Linux bridge of these ports, up, without spanning tree. Settings: br_mcast_snooping=0, …"""
        with _naming(name):
            self._ip.link("add", ifname=name, kind="bridge", br_stp_state=0, br_forward_delay=0, **settings)
        bridge = self.index(name)
        for port in ports:
            self.set(port, master=bridge)
        self.stop_link_local(name)
        self.set(name, state="up", arp=False)

    def set_bridge_port(self, name: str, **settings: Any) -> None:
        """Change settings of a Linux bridge's port: learning=0, …"""
        with _naming(name):
            self._ip.brport("set", index=self.index(name), **settings)

    def exists(self, name: str) -> bool:
        """Whether there is a link of this name."""
        return has_interface(self._sock, name)

    def index(self, name: str) -> int:
        """The index of a link. Raises LabError."""
        return interface_index(self._sock, name)

    def alias(self, name: str) -> str | None:
        """The ifalias of a link; None when it has none, or does not exist."""
        try:
            value: str | None = self._get(name).get_attr("IFLA_IFALIAS")
        except LabError:
            if self.exists(name):
                raise
            return None  # or no longer: the kernel removes the links of a namespace a while after its end
        return value

    def flags(self, name: str) -> int:
        """The IFF_… flags of a link."""
        return int(self._get(name)["flags"])

    def ipv6_addresses(self) -> dict[int, list[IPv6Interface]]:
        """The IPv6 addresses that somebody gave each link, by its index. Without link-local and routers' ones."""
        found: dict[int, list[IPv6Interface]] = {}
        with _naming("addresses"):
            messages = list(self._ip.get_addr(family=socket.AF_INET6, scope=0))
        for message in messages:
            if message["flags"] & 0x80:  # IFA_F_PERMANENT
                own = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")  # the latter may be the peer's
                found.setdefault(message["index"], []).append(IPv6Interface(f"{own}/{message['prefixlen']}"))
        return found

    def _get(self, name: str) -> Any:
        with _naming(name):
            return self._ip.link("get", index=self.index(name))[0]

    def neighbours(self, index: int) -> list[Neighbour]:
        """The kernel's neighbour table of an interface, IPv4 and IPv6."""
        with _naming("neighbours"):
            found = list(self._ip.get_neighbours(ifindex=index))
        return [_neighbour(message) for message in found if message.get_attr("NDA_DST")]

    def has_room_for_neighbours(self, name: str, version: int) -> bool:
        """Whether the kernel would take one more IP neighbour. All namespaces of the machine share its table."""
        nobody = {4: "192.0.2.1", 6: "2001:db8::1"}[version]  # reserved for documentation (RFC 5737, RFC 3849)
        entry = {"ifindex": self.index(name), "dst": nobody, "lladdr": "02:00:00:00:00:01", "state": "stale"}
        try:
            self._ip.neigh("add", **entry)
        except OSError as error:  # pyroute2 raises it for this refusal alone
            if error.errno != errno.ENOBUFS:
                raise
            return False
        except NetlinkError:
            return True  # refused for another reason, such as a link without this protocol
        self._ip.neigh("del", **entry)
        return True


class _Loop:
    """An IPRoute with an event loop of its own. It is asyncio's, because others (uvloop) may not know netlink."""

    def __init__(self, sock: socket.socket) -> None:
        self._loop = asyncio.SelectorEventLoop()
        try:
            self._ip: Any = IPRoute(use_socket=sock, use_event_loop=self._loop)
        except BaseException:
            self._loop.close()
            raise

    def __getattr__(self, method: str) -> Any:
        return getattr(self._ip, method)

    def close(self) -> None:
        """End both."""
        self._ip.close()
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())  # this round closes the transport
        self._loop.close()


class _LoopAside:
    """The same in a thread of its own. Gives lists where an IPRoute gives generators."""

    def __init__(self, sock: socket.socket) -> None:
        self._thread = ThreadPoolExecutor(1, "fastbridge-netlink")
        try:
            self._ip = self._thread.submit(_Loop, sock).result()
        except BaseException:
            self._thread.shutdown()
            raise

    def __getattr__(self, method: str) -> Callable[..., list[Any]]:
        def ask(*arguments: Any, **options: Any) -> list[Any]:
            return list(getattr(self._ip, method)(*arguments, **options))

        return lambda *arguments, **options: self._thread.submit(ask, *arguments, **options).result()

    def close(self) -> None:
        """End it, and its thread."""
        try:
            self._thread.submit(self._ip.close).result()
        finally:
            self._thread.shutdown()


def _loop_runs() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _neighbour(message: Any) -> Neighbour:
    mac = message.get_attr("NDA_LLADDR")
    state = _STATES.get(message["state"], "none")
    return Neighbour(ip_address(message.get_attr("NDA_DST")), MacAddress(mac) if mac else None, state)


@contextlib.contextmanager
def _naming(thing: str) -> Iterator[None]:
    """Turn a refusal of the kernel into one line that names the thing."""
    try:
        yield
    except NetlinkError as error:
        text = f"{thing}: {os.strerror(error.code)}"
        if error.code in (1, 13):
            raise PrivilegeError(f"{text}; run as root (CAP_NET_ADMIN)") from error
        raise LabError(text) from error
    except OSError as error:
        raise LabError(f"{thing}: {os.strerror(error.errno or 0)}") from error
