"""Neighbours, one by one.

An entry of the neighbour table, as policies see it (Neighbour) and as people see it (NeighbourEntry), and its changes
(Change, Conflict).
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple

from fastbridge.addresses import MacAddress
from fastbridge.arp_nd import arp_request_to, gratuitous_arp, neighbour_solicitation_to, unsolicited_na, vlan_text


class Change(enum.Enum):
    """What a message did to the table."""

    NEW = "new"
    REFRESHED = "refreshed"
    MOVED = "moved"  #: the same MAC on another port
    CONFLICT = "conflict"  #: another MAC, or a static entry contradicts


@dataclass(slots=True, eq=False)
class Neighbour:
    """An entry as policies see it. Addresses are as on the wire, the port is an index."""

    vlan: int  #: as Message.vlan
    ip: bytes
    mac: bytes
    port: int
    seen: float  #: when its owner was last heard, by the table's clock
    source: str  #: "static", "plan", or the kind of message it was learned from
    static: bool = False
    router: bool | None = False  #: R flag of its owner's advertisements; None: unknown, as it has sent none
    override: bool = True  #: O flag
    tags: bytes = b""  #: VLAN tags of its owner's frames
    asked: float = -math.inf  #: when due_for_refresh() last named it
    disputed: float = -math.inf  #: when a conflict about it was last reported
    heard: int = 0  #: how often its owner said again that it is there

    def question(self, own_mac: bytes) -> bytes:
        """The frame that asks its owner alone whether it is still there. The answer goes to `own_mac`."""
        ask = arp_request_to if len(self.ip) == 4 else neighbour_solicitation_to
        return ask(self.mac, self.ip, own_mac, self.tags)

    def announcement(self) -> bytes:
        """The frame that tells all where it is."""
        if len(self.ip) == 4:
            return gratuitous_arp(self.mac, self.ip, self.tags)
        return unsolicited_na(self.mac, self.ip, router=bool(self.router), tags=self.tags)


class NeighbourEntry(NamedTuple):
    """An entry for people."""

    ip: IPv4Address | IPv6Address
    mac: MacAddress
    port: str
    age: float | None  #: seconds since its owner was heard; None for a static entry
    source: str
    static: bool
    vlan: int  #: VID, 0 untagged; of two tags the inner VID is in the next 12 bits

    def __str__(self) -> str:
        age = self.source if self.age is None else f"{self.source}, {self.age:.1f} s"
        return f"{self.ip}{vlan_text(self.vlan)} → {self.mac} on {self.port} ({age})"


class Claim(NamedTuple):
    """One side of a conflict."""

    mac: MacAddress
    port: str

    def __str__(self) -> str:
        return f"{self.mac} on {self.port}"


class Conflict(NamedTuple):
    """One IP, two claims."""

    time: float  #: by the table's clock
    vlan: int
    ip: IPv4Address | IPv6Address
    known: Claim
    claimed: Claim

    def __str__(self) -> str:
        return f"{self.ip}{vlan_text(self.vlan)} is {self.known}, and {self.claimed} claims it"
