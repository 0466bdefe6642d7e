"""Policies, ready-made.

Flood, Suppress, Direct, Guard and RateLimit, and their names on the command line.
"""

from __future__ import annotations

from fastbridge.arp_nd import OPTIONS, Kind, Message, arp_reply, neighbour_advertisement
from fastbridge.errors import ConfigError

from .base import EVERYTHING, NOTHING, SNOOP, Answer, Chain, Drop, Fallback, Policy, SendTo, Verdict
from .neighbour_entry import Neighbour
from .neighbours import Neighbours

_ARP_REQUEST, _NS, _MALFORMED = Kind.ARP_REQUEST, Kind.NS, Kind.MALFORMED  # quicker to look up than enum members


class Flood(Policy):
    """Act as a plain bridge. Python sees nothing."""

    wants = NOTHING

    def decide(self, message: Message, neighbours: Neighbours) -> Verdict | None:
        """No opinion."""
        return None


class Suppress(Policy):
    """Answer questions for known neighbours on their behalf; flood questions for unknown ones.

    This is EVPN's proxy ARP/ND (RFC 9161). The answer comes from the owner's MAC address and repeats the flags that the
    owner last advertised. In two cases the owner alone is asked: while its flags are unknown (a wrong R flag would cost
    a router its role, RFC 4861 §7.2.5), and for solicitations with options that only the owner can answer. Probes,
    duplicate address detection and announcements go their usual way.
    """

    wants = SNOOP

    def decide(self, message: Message, neighbours: Neighbours) -> Verdict | None:
        """An answer, or the owner's port."""
        owner = _owner_elsewhere(message, neighbours)
        if owner is None:
            return None
        if message.kind is _ARP_REQUEST:
            return Answer(arp_reply(message, owner.mac))
        if owner.router is None or message.flags & OPTIONS:
            return SendTo(owner.port)
        return Answer(neighbour_advertisement(message, owner.mac, router=owner.router, override=owner.override))


class Direct(Policy):
    """Send a question for a known neighbour to its port alone. The owner answers."""

    wants = SNOOP

    def decide(self, message: Message, neighbours: Neighbours) -> Verdict | None:
        """The owner's port."""
        owner = _owner_elsewhere(message, neighbours)
        return None if owner is None else SendTo(owner.port)


class Guard(Policy):
    """Drop what contradicts the neighbour table: dynamic ARP and ND inspection.

    The first to claim an IP has it, and with it the MAC on its port. It loses both when it answers none of the switch's
    questions (see doubts.py), is silent for the table's ageing time, or loses its port. Static entries never end.

    strict: nobody may claim an IP that is not in the table.
    routes: the port's pod is a router, whose IP packets come from anywhere. Its MAC, ARP and ND are guarded as usual.

    Drop reasons:

    - "malformed"
    - "l2_mismatch": the message names another MAC than the source of its own frame
    - "spoofed": the IP or the MAC is bound to another port. Static entries and strict guards bind the IP to its MAC too
    - "unbound": strict, and the IP is not in the table

    Probes and duplicate address detection claim no IP and pass.
    """

    wants = EVERYTHING
    fallback: Fallback = "drop"
    inspects = True

    def __init__(self, strict: bool = False, routes: bool = False) -> None:
        if strict and routes:
            raise ConfigError(
                "strict and routes contradict each other: a router sends from addresses that no table has; choose one"
            )
        self.strict, self.routes = strict, routes

    def decide(self, message: Message, neighbours: Neighbours) -> Verdict | None:
        """A drop, or no opinion."""
        if message.kind is _MALFORMED:
            return Drop("malformed")
        mac = message.eth_source
        if message.sender_mac is not None and message.sender_mac != mac:
            return Drop("l2_mismatch")
        holder = neighbours.holder(message.vlan, mac)
        if holder is not None and holder.port != message.ingress:
            return Drop("spoofed")
        if message.sender_ip is None:
            return None
        bound = neighbours.lookup(message.vlan, message.sender_ip)
        if bound is None:
            return Drop("unbound") if self.strict else None
        if bound.port != message.ingress or (bound.mac != mac and (self.strict or bound.static)):
            return Drop("spoofed")
        return None

    def __str__(self) -> str:
        return "guard=strict" if self.strict else "guard=router" if self.routes else "guard"


class RateLimit(Policy):
    """Pass at most `rate` ARP and `rate` ND frames a second from each port, and `burst` at once. Drop the rest.

    The core counts them before it asks any policy, wherever this stands in a chain.
    """

    wants = NOTHING

    def __init__(self, rate: float, burst: int | None = None) -> None:
        if not 0.001 <= rate <= 1e9:
            raise ConfigError(f"a rate limit must be 0.001 … 1e9 frames a second, not {rate}")
        if burst is not None and not 1 <= burst <= 1 << 30:
            raise ConfigError(f"a rate limit's burst must be 1 … {1 << 30} frames, not {burst}")
        self.rate = float(rate)
        self.burst = burst or max(1, round(rate))  # a second's frames may come at once

    def decide(self, message: Message, neighbours: Neighbours) -> Verdict | None:
        """No opinion."""
        return None

    def __str__(self) -> str:
        return f"ratelimit={self.rate:g}:{self.burst}"


#: Policies whose decide() changes nothing: they may be asked what they would decide.
PURE: tuple[type[Policy], ...] = (Flood, Suppress, Direct, Guard, RateLimit)


def parse_policy(text: str) -> Policy:
    """The policy that text such as "guard,ratelimit=50,suppress" names, asked in the order written (Guard first).

    Names: flood, suppress, direct, guard, guard=strict, guard=router, ratelimit=RATE, ratelimit=RATE:BURST. Raises
    ConfigError.
    """
    policies = [_parse_one(word.strip().lower()) for word in text.split(",")]
    kinds = [type(policy) for policy in policies]
    for kind in kinds:
        if kinds.count(kind) > 1:
            raise ConfigError(f"policy {kind.__name__.lower()} is named twice in {text!r}; name it once")
    return policies[0] if len(policies) == 1 else Chain(*policies)


def _parse_one(word: str) -> Policy:
    name, _, value = word.partition("=")
    simple: dict[str, type[Flood | Suppress | Direct]] = {"flood": Flood, "suppress": Suppress, "direct": Direct}
    if name in simple and not value:
        return simple[name]()
    if name == "guard" and value in ("", "strict", "router"):
        return Guard(strict=value == "strict", routes=value == "router")
    if name == "ratelimit":
        rate, _, burst = value.partition(":")
        try:
            return RateLimit(float(rate), int(burst) if burst else None)
        except ValueError as error:
            if isinstance(error, ConfigError):
                raise
    raise ConfigError(
        f"{word!r} is not a policy; write one or more of flood, suppress, direct, guard, guard=strict, guard=router, "
        "ratelimit=RATE, ratelimit=RATE:BURST (frames a second), separated by commas"
    )


def _owner_elsewhere(message: Message, neighbours: Neighbours) -> Neighbour | None:
    """The live neighbour that a broadcast or multicast question asks for, when it is behind another port."""
    kind = message.kind
    if (kind is not _ARP_REQUEST and kind is not _NS) or message.target_ip is None or not message.to_group:
        return None
    owner = neighbours.lookup(message.vlan, message.target_ip)
    return owner if owner is not None and owner.port != message.ingress else None
