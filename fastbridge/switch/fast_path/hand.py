"""A hand: it carries out the head's decisions in the kernel."""

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
    """Frames from one station to another, of one EtherType, that come in by one port. The unit of promotion."""

    ingress: int  #: the port's index
    destination: int  #: MAC addresses as numbers
    source: int
    ethertype: int
    #: The IP source address, 16 bytes, IPv4 as ff00::…; b"": any. A guard lets each address pass by itself.
    ip: bytes = b""


class Look(enum.Enum):
    """The checks of a port's frames besides their first 14 bytes. Its promoted pairs are looked up accordingly."""

    NOTHING = enum.auto()
    ND = enum.auto()  #: neighbour discovery goes to the core
    SOURCES = enum.auto()  #: likewise; and IP is promoted by its source address


class RefusedError(Exception):
    """The kernel took none of the pairs; the text says why."""


class NoInterfaceError(RefusedError):
    """It took none because an interface has just gone: the port will follow."""


class Hand(Protocol):
    """Keeps the promoted pairs in the kernel. The head calls it under its lock; ports come and go beside that."""

    #: What users see: "nft", "bpf".
    name: str

    def look(self, ingress: int, what: Look) -> None:
        """Change how a port's frames are looked at, by default NOTHING. None of its pairs is promoted at that time."""

    def rename(self, index: int, name: str) -> None:
        """A port's interface has another name; its pairs stay. Raises OSError, and then all is as before."""

    def promote(self, pairs: Mapping[Pair, int]) -> None:
        """Forward the pairs' frames to these ports from now on, all or none. Raises RefusedError."""

    def revoke(self, pairs: Iterable[Pair]) -> None:
        """Stop forwarding the pairs; returns when the kernel has confirmed it."""

    def idle(self) -> Mapping[Pair, float]:
        """How many seconds ago each pair was last used; pairs never used are left out."""

    def clear(self) -> None:
        """Revoke every pair."""

    def close(self) -> None:
        """Remove everything from the kernel."""
