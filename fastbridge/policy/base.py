"""Policy, its shape.

A policy decides what happens to one ARP or ND frame. It does no I/O and keeps no time. The switch asks it on a thread
of its own, never on the frame's path. Policies combine with `|`: the first opinion wins.

    class NoGossip(Policy):
        wants = Wants(arp_group=Punt.TAKE)

        def decide(self, message: Message, neighbours: Neighbours) -> Verdict | None:
            return Drop("gossip") if message.kind is Kind.ARP_ANNOUNCEMENT else None

    Switch(ports, policy=NoGossip() | Suppress())
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, runtime_checkable

from fastbridge.arp_nd import Message

from .neighbours import Neighbours


@dataclass(frozen=True, slots=True)
class Forward:
    """Forward the frame as a plain bridge does: to the port of its destination, or to all."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Send this frame back to the ingress port. The request itself goes nowhere."""

    frame: bytes


@dataclass(frozen=True, slots=True)
class SendTo:
    """Send the unchanged frame to this port (index) alone."""

    port: int


@dataclass(frozen=True, slots=True)
class Drop:
    """Drop the frame and count it under this reason."""

    reason: str


Verdict = Forward | Answer | SendTo | Drop


class Punt(enum.IntEnum):
    """How the core treats a class of frames. A larger value is stronger."""

    NONE = 0  #: forwarded as a plain bridge does; Python never sees it
    COPY = 1  #: forwarded as a plain bridge does, and shown: decide() may watch, its verdict changes nothing
    TAKE = 2  #: handed over: its verdict alone says where it goes


class Wants(NamedTuple):
    """Which frames the core hands to a policy, by protocol and destination MAC address."""

    arp_group: Punt = Punt.NONE
    arp_unicast: Punt = Punt.NONE
    nd_group: Punt = Punt.NONE
    nd_unicast: Punt = Punt.NONE

    def strongest(self, other: Wants) -> Wants:
        """The stronger of both, for each class of frames."""
        return Wants(*map(max, self, other))


NOTHING = Wants()
#: Decide about frames that would be flooded, and learn from the others.
SNOOP = Wants(Punt.TAKE, Punt.COPY, Punt.TAKE, Punt.COPY)
EVERYTHING = Wants(Punt.TAKE, Punt.TAKE, Punt.TAKE, Punt.TAKE)

Fallback = Literal["flood", "drop"]


@runtime_checkable
class Policy(Protocol):
    """Decides what happens to ARP and ND frames. Derive from it and override decide()."""

    #: the frames that decide() must see; in a chain it may see more
    wants: Wants = SNOOP
    #: what happens to a frame when decide() raises, or when the queue has no room for it
    fallback: Fallback = "flood"
    #: asked before the others of a chain, wherever it stands: nothing may pass it by
    inspects: bool = False

    def decide(self, message: Message, neighbours: Neighbours) -> Verdict | None:
        """The verdict on one frame; None: no opinion, ask the next one. Called for every kind of message."""

    @property
    def parts(self) -> tuple[Policy, ...]:
        """The policies that it consists of, in the order in which they are asked."""
        return (self,)

    def __or__(self, other: Policy) -> Chain:
        return Chain(self, other)

    def __str__(self) -> str:
        return type(self).__name__.lower()


class Chain(Policy):
    """Policies that are asked in turn until one has an opinion. Without one, the frame goes as on a plain bridge.

    For each class of frames a chain wants what the strongest of its policies wants. It falls back to "drop" when one of
    them does.
    """

    def __init__(self, *policies: Policy) -> None:
        flat = [part for policy in policies for part in policy.parts]
        self._parts = tuple(sorted(flat, key=lambda part: not part.inspects))
        self.wants = NOTHING
        for part in self._parts:
            self.wants = self.wants.strongest(part.wants)
        self.fallback = "drop" if any(part.fallback == "drop" for part in self._parts) else "flood"
        self._deciders = [part.decide for part in self._parts]

    @property
    def parts(self) -> tuple[Policy, ...]:
        """The policies, in the order in which they are asked."""
        return self._parts

    def decide(self, message: Message, neighbours: Neighbours) -> Verdict | None:
        """The first opinion."""
        for decide in self._deciders:
            verdict = decide(message, neighbours)
            if verdict is not None:
                return verdict
        return None

    def __str__(self) -> str:
        return ",".join(map(str, self._parts))
