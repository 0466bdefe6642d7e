"""The nf_tables hand: for everyone who may make a network namespace.

One table of the netdev family. Its chain stands at the ingress hook of each port, before the host's stack, and takes
every frame, so that the host hears nothing of the ports. A frame is looked up once, by where it came in and its first
14 bytes: destination, source, EtherType. What is promoted goes to its port, all else to the port's punt pair, whose
other end the core listens on. A tag makes the EtherType another one, so tagged frames miss, as ARP does, which is never
promoted.
"""

from __future__ import annotations

import os
import secrets
import socket
import struct
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from fastbridge.switch.nftables import Batch, Nftables, forward, load_header, load_ingress, look_up, set_mark

from .hand import Pair, RefusedError

OpenSocket = Callable[[int, int, int], socket.socket]

_HEADER_BYTES, _KEY_BYTES = 14, 20
_INDEX = struct.Struct("=I")
_TO = 8  # the register of where a frame goes; others are overwritten by what comes between
_PRIORITY = -100  # before the shield's chain, which then has nothing to drop


class PortLinks(NamedTuple):
    """A port's interfaces: its own, and the end of its punt pair that frames are handed to."""

    name: str
    ifindex: int
    punt: int
    #: The MAC address of the other end of the port's veth pair, when that is in another namespace.
    peer: int | None = None
    #: What frames must bear to pass the shield of the port they leave by; 0: there is none.
    mark: int = 0


class NftHand:
    """See `hand.Hand`."""

    name = "nft"

    def __init__(self, open_socket: OpenSocket, size: int) -> None:
        """open_socket: opens a socket in the ports' namespace; size: most pairs. Raises OSError: there is no nf_tables
        here, or not for us.
        """
        self._table = f"fastbridge-fast-{os.getpid()}-{secrets.token_hex(2)}"
        self._links: dict[int, PortLinks] = {}
        self._by_link: dict[int, int] = {}
        self._nftables = Nftables(open_socket)
        try:
            batch = Batch(self._table)
            batch.add_table()
            batch.add_map("pairs", 1, _KEY_BYTES, size)
            batch.add_map("punts", 2, _INDEX.size, 1 << 16)
            self._nftables.apply(batch)
        except BaseException:
            self._nftables.close()
            raise

    def attach(self, ports: Mapping[int, PortLinks]) -> None:
        """Take frames that come in by these ports, by index, from now on. Raises OSError."""
        batch = Batch(self._table)
        batch.add_elements("punts", [(_INDEX.pack(p.ifindex), _INDEX.pack(p.punt)) for p in ports.values()])
        for links in ports.values():
            self._add_chain(batch, links)
        self._nftables.apply(batch)
        self._links.update(ports)
        self._by_link.update({links.ifindex: index for index, links in ports.items()})

    def detach(self, index: int) -> None:
        """Let a port's frames go where they went before; also of one whose interface is gone. Raises OSError."""
        links = self._links.pop(index)
        self._by_link.pop(links.ifindex)
        batch = Batch(self._table)
        batch.delete_elements("punts", [_INDEX.pack(links.ifindex)])
        self._nftables.apply(batch)
        batch = Batch(self._table)
        batch.delete_chain(f"in-{links.ifindex}")
        try:
            self._nftables.apply(batch)
        except OSError as error:
            if error.errno != 2:  # ENOENT: before 6.16 a chain is gone with its interface
                raise

    def rename(self, index: int, name: str) -> None:
        """A port's interface has another name: chains are bound to names. Raises OSError."""
        links = self._links[index]
        self.detach(index)
        self.attach({index: links._replace(name=name)})

    def promote(self, pairs: Mapping[Pair, int]) -> None:
        """See Hand."""
        batch = Batch(self._table)
        elements = [(self._key(pair), _INDEX.pack(self._links[egress].ifindex)) for pair, egress in pairs.items()]
        batch.add_elements("pairs", elements, timed=True)
        try:
            self._nftables.apply(batch)
        except OSError as error:
            raise RefusedError(str(error)) from None

    def revoke(self, pairs: Iterable[Pair]) -> None:
        """See Hand."""
        batch = Batch(self._table)
        batch.delete_elements("pairs", [self._key(pair) for pair in pairs])
        self._nftables.apply(batch)

    def idle(self) -> Mapping[Pair, float]:
        """See Hand."""
        found: dict[Pair, float] = {}
        for key, idle in self._nftables.last_used(self._table, "pairs"):
            ingress = self._by_link.get(_INDEX.unpack_from(key)[0])
            if idle is not None and ingress is not None:
                destination, source = int.from_bytes(key[4:10], "big"), int.from_bytes(key[10:16], "big")
                found[Pair(ingress, destination, source, int.from_bytes(key[16:18], "big"))] = idle / 1000
        return found

    def clear(self) -> None:
        """See Hand."""
        batch = Batch(self._table)
        batch.delete_all_elements("pairs")
        self._nftables.apply(batch)

    def close(self) -> None:
        """See Hand."""
        self._nftables.close()

    def _add_chain(self, batch: Batch, links: PortLinks) -> None:
        chain = f"in-{links.ifindex}"
        batch.add_chain(chain, "ingress", [links.name], policy="drop", priority=_PRIORITY)
        pass_shield = [set_mark(links.mark)] if links.mark else []
        where = load_ingress(0), load_header(_HEADER_BYTES, 1)
        batch.add_rule(chain, *where, look_up("pairs", 0, _TO), *pass_shield, forward(_TO))
        batch.add_rule(chain, load_ingress(0), look_up("punts", 0, _TO), forward(_TO))

    def _key(self, pair: Pair) -> bytes:
        addresses = pair.destination.to_bytes(6, "big") + pair.source.to_bytes(6, "big")
        return _INDEX.pack(self._links[pair.ingress].ifindex) + addresses + struct.pack("!H2x", pair.ethertype)
