"""A hand: what carries the head's decisions out in the kernel."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from typing import NamedTuple, Protocol

#: Pairs promoted at most: two pods have four (two ways, IPv4 and IPv6), so 1,000 pods may all talk to 16 others.
MOST_PAIRS = 65536
IPV4, IPV6 = 0x0800, 0x86DD
#: IPv6 next headers behind which ND may be, as the core reads it (ethernet.pxd's is_nd); ICMPv6, and its types that are
#: neighbour discovery (RFC 4861 §4).
EXTENSIONS, ICMPV6, ND = (0, 43, 44, 60), 58, (133, 137)


class Pair(NamedTuple):
    """Frames from one station to another, of one EtherType, as they come in by one port. What is promoted."""

    ingress: int  #: the port's index
    destination: int  #: MAC addresses as numbers
    source: int
    ethertype: int
    #: The IP source address, 16 bytes, IPv4 as ff00::…; b"": whatever it is. Where a guard lets each pass by itself.
    ip: bytes = b""


class Look(enum.Enum):
    """What decides about a port's frames besides their first 14 bytes. What is promoted of it is looked up by that."""

    NOTHING = enum.auto()
    ND = enum.auto()  #: neighbour discovery goes to the core
    SOURCES = enum.auto()  #: likewise; and IP is promoted by its source address


class RefusedError(Exception):
    """The kernel took none of it; the text says why."""


class Hand(Protocol):
    """Keeps what is promoted in the kernel. The head calls it under its lock, one call at a time."""

    #: What users see: "nft", "bpf".
    name: str

    def look(self, ingress: int, what: Look) -> None:
        """Look at a port's frames so from now on; nothing of it is promoted. By default at NOTHING."""

    def promote(self, pairs: Mapping[Pair, int]) -> None:
        """Forward the pairs' frames to these ports from now on, all or none. Raises RefusedError."""

    def revoke(self, pairs: Iterable[Pair]) -> None:
        """Forward them no more; returns when the kernel has taken that."""

    def idle(self) -> Mapping[Pair, float]:
        """How many seconds ago each pair was last used; those never used are left out."""

    def clear(self) -> None:
        """Revoke all that was ever promoted."""

    def close(self) -> None:
        """Take all of it out of the kernel."""
