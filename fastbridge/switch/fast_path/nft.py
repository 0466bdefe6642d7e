"""The nf_tables hand: for every user that may make a network namespace.

It is one table of the netdev family. A chain at the ingress hook of each port, before the host's stack, takes every
frame. So the host hears nothing of the ports. A frame is looked up once, by its first 14 bytes (destination, source,
EtherType) and its ingress port. Where a guard checks sources, the key includes the IP source address. A promoted frame
goes to its egress port. Every other frame goes to the ingress port's punt pair; the core listens on the other end. A
VLAN tag changes the EtherType, so tagged frames miss. ARP misses too, because it is never promoted.
"""

from __future__ import annotations

import errno
import os
import secrets
import socket
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from fastbridge.switch.nftables import (
    Batch,
    Nftables,
    compare,
    contained,
    forward,
    load_frame,
    load_value,
    look_up,
    set_bits,
    set_priority,
)

from .hand import EXTENSIONS, ICMPV6, IPV4, IPV6, ND, Look, Pair, RefusedError
from .headers import HEADER_BYTES, ICMPV6_TYPE, IPV4_SOURCE, IPV6_NEXT_HEADER, IPV6_SOURCE, header_of, ip_of, read_pair

OpenSocket = Callable[[int, int, int], socket.socket]

# A key: the frame's first 14 bytes, the port's index, and with a guard the IP source address, IPv4 first. The index
# fills the header's last register: another register and the step that loads it would cost 1 % of a small frame.
_PORT = struct.Struct("!H")
_KEY_BYTES, _KEY_BYTES_BY_IP = HEADER_BYTES + _PORT.size, HEADER_BYTES + _PORT.size + 16
# A value: the interface to send to, and the priority that the frame gets.
_INDEX, _VALUE = struct.Struct("=I"), struct.Struct("=II")
# Registers: of a key (header, address), of a comparison, and of a value.
_KEY, _IP, _COMPARED, _TO = 0, 4, 9, 12
_AT_ONCE = 512  # pairs in one transaction: the kernel takes all or none
_EARLY = -100  # before the shield's chain, which then has nothing to drop


_MAPS = "pairs", "pairs-by-ip"


class PortEnds(NamedTuple):
    """A port's interfaces: its own, and the end of its punt pair that receives the punted frames."""

    name: str
    ifindex: int
    punt: int
    #: The MAC address of the other end of the port's veth pair, when that is in another namespace.
    peer: int | None = None
    #: The priority that lets a frame pass the port's shield; 0: there is none.
    priority: int = 0


class NftHand:
    """See `hand.Hand`."""

    name = "nft"

    def __init__(self, open_socket: OpenSocket, size: int) -> None:
        """open_socket: opens a socket in the ports' namespace; size: most pairs.

        Raises OSError where there is no nf_tables, or this process may not use it.
        """
        self._table = f"fastbridge-fast-{os.getpid()}-{secrets.token_hex(6)}"
        self._links: dict[int, PortEnds] = {}
        self._looks: dict[int, Look] = {}
        self._nftables = Nftables(open_socket)
        try:
            batch = Batch(self._table)
            batch.add_table()
            batch.add_map("pairs", 1, _KEY_BYTES, _VALUE.size, size)
            batch.add_map("pairs-by-ip", 2, _KEY_BYTES_BY_IP, _VALUE.size, size)
            batch.add_set("extensions", 3, [bytes([number]) for number in EXTENSIONS])
            self._nftables.apply(batch)
        except BaseException:
            self._nftables.close()
            raise

    def attach(self, ports: Mapping[int, PortEnds]) -> None:
        """Take frames that come in by these ports, by index, from now on. Raises OSError."""
        batch = Batch(self._table)
        for index, links in ports.items():
            self._add_chain(batch, index, links)
        self._nftables.apply(batch)
        self._links.update(ports)

    def detach(self, index: int) -> None:
        """Stop taking a port's frames, even where its interface is gone. Raises OSError."""
        self._looks.pop(index, None)
        if index not in self._links:
            return
        links = self._links.pop(index)
        batch = Batch(self._table)
        batch.delete_chain(_chain(links))
        try:
            self._nftables.apply(batch)
        except OSError as error:
            if error.errno != errno.ENOENT:  # before 6.16 a chain is gone with its interface
                raise

    def rename(self, index: int, name: str) -> None:
        """See Hand. Chains are bound to names."""
        links = self._links[index]._replace(name=name)
        batch = Batch(self._table)
        self._add_chain(batch, index, links)
        self._nftables.replace(batch, [_chain(links)])
        self._links[index] = links

    def look(self, ingress: int, what: Look) -> None:
        """See Hand. Raises OSError."""
        self._looks[ingress] = what
        if links := self._links.get(ingress):
            batch = Batch(self._table)
            batch.delete_rules(_chain(links))
            self._add_rules(batch, ingress, links, what)
            self._nftables.apply(batch)

    def promote(self, pairs: Mapping[Pair, int]) -> None:
        """See Hand."""
        every = list(pairs)
        for start in range(0, len(every), _AT_ONCE):
            batch = Batch(self._table)
            for name, some in _by_map(every[start : start + _AT_ONCE]).items():
                elements = [(_key(pair), _value(self._links[pairs[pair]])) for pair in some]
                batch.add_elements(name, elements, timed=True)
            try:
                self._nftables.apply(batch)
            except OSError as error:
                if error.errno == errno.ENOBUFS:  # its answer is lost, so it may have taken them
                    raise
                self.revoke(every[:start])
                raise RefusedError(str(error)) from None

    def revoke(self, pairs: Iterable[Pair]) -> None:
        """See Hand."""
        batch = Batch(self._table)
        for name, some in _by_map(pairs).items():
            batch.delete_elements(name, [_key(pair) for pair in some])
        if batch.messages:
            self._nftables.apply(batch)

    def idle(self) -> Mapping[Pair, float]:
        """See Hand."""
        found: dict[Pair, float] = {}
        for name in _MAPS:
            for key, idle in self._nftables.last_used(self._table, name):
                if idle is not None:
                    (ingress,) = _PORT.unpack_from(key, HEADER_BYTES)
                    found[read_pair(ingress, key[:HEADER_BYTES], key[HEADER_BYTES + _PORT.size :])] = idle / 1000
        return found

    def clear(self) -> None:
        """See Hand."""
        batch = Batch(self._table)
        for name in _MAPS:
            batch.delete_all_elements(name)
        self._nftables.apply(batch)

    def close(self) -> None:
        """See Hand."""
        self._nftables.close()

    def _add_chain(self, batch: Batch, index: int, links: PortEnds) -> None:
        batch.add_chain(_chain(links), "ingress", [links.name], policy="drop", priority=_EARLY)
        self._add_rules(batch, index, links, self._looks.get(index, Look.NOTHING))

    @staticmethod
    def _add_rules(batch: Batch, index: int, links: PortEnds, look: Look) -> None:
        chain = _chain(links)
        send = [*([set_priority(_TO + 1)] if links.priority else []), forward(_TO)]
        key = load_frame(0, HEADER_BYTES, _KEY), set_bits(_KEY + 3, bytes(2) + _PORT.pack(index))
        by_ip = look_up("pairs-by-ip", _KEY, _TO)
        to_core = load_value(_INDEX.pack(links.punt), _TO), forward(_TO)
        ipv6 = _is(IPV6)
        if look is Look.SOURCES:
            ip = load_frame(IPV4_SOURCE, 4, _IP), load_value(bytes(12), _IP + 1)
            batch.add_rule(chain, *_is(IPV4), *key, *ip, by_ip, *send)
        if look is not Look.NOTHING:
            next_header = load_frame(IPV6_NEXT_HEADER, 1, _COMPARED)
            batch.add_rule(chain, *ipv6, next_header, contained("extensions", _COMPARED), *to_core)
            kind = load_frame(ICMPV6_TYPE, 1, _COMPARED)
            among = [compare(_COMPARED, sign, bytes([end])) for sign, end in zip((">=", "<="), ND, strict=True)]
            icmp = next_header, compare(_COMPARED, "==", bytes([ICMPV6]))
            batch.add_rule(chain, *ipv6, *icmp, kind, *among, *to_core)
        if look is Look.SOURCES:
            batch.add_rule(chain, *ipv6, *key, load_frame(IPV6_SOURCE, 16, _IP), by_ip, *send)
        batch.add_rule(chain, *key, look_up("pairs", _KEY, _TO), *send)
        batch.add_rule(chain, *to_core)


def _key(pair: Pair) -> bytes:
    return header_of(pair) + _PORT.pack(pair.ingress) + ip_of(pair)


def _value(egress: PortEnds) -> bytes:
    return _VALUE.pack(egress.ifindex, egress.priority)


def _chain(links: PortEnds) -> str:
    return f"in-{links.ifindex}"


def _is(ethertype: int) -> Sequence[bytes]:
    """Go on only with this EtherType."""
    return load_frame(12, 2, _COMPARED), compare(_COMPARED, "==", ethertype.to_bytes(2, "big"))


def _by_map(pairs: Iterable[Pair]) -> Mapping[str, Sequence[Pair]]:
    """Pairs by their map."""
    found: dict[str, list[Pair]] = {}
    for pair in pairs:
        found.setdefault("pairs-by-ip" if pair.ip else "pairs", []).append(pair)
    return found
