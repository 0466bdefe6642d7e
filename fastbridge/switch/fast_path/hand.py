"""A hand: what carries the head's decisions out in the kernel."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple, Protocol

#: Pairs promoted at most: two pods have four (two ways, IPv4 and IPv6), so 1,000 pods may all talk to 16 others.
MOST_PAIRS = 65536


class Pair(NamedTuple):
    """Frames from one station to another, of one EtherType, as they come in by one port. What is promoted."""

    ingress: int  #: the port's index
    destination: int  #: MAC addresses as numbers
    source: int
    ethertype: int


class RefusedError(Exception):
    """The kernel took none of it; the text says why."""


class Hand(Protocol):
    """Keeps what is promoted in the kernel. The head calls it under its lock, one call at a time."""

    #: What users see: "nft", "bpf".
    name: str

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
