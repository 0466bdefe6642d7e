"""One frame's way, step by step.

What the switch would do with a frame, and why: by the core's own decision (core/foresight.pyx) and, of ARP and ND, by
the policy's. Nothing changes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from fastbridge.addresses import MacAddress
from fastbridge.core.foresight import Foresight
from fastbridge.dissect import dissect, header
from fastbridge.errors import ConfigError
from fastbridge.links.places import Place, spoken
from fastbridge.notebook import table
from fastbridge.policy.base import Answer, Drop, Forward, SendTo, Verdict

if TYPE_CHECKING:
    from .base import SwitchBase

#: Why a frame is dropped, by the drop reason.
REASONS = {
    "runt": "it is shorter than an Ethernet header",
    "bad_tag": "its VLAN tag is cut off, or its VLAN id is 4095",
    "bad_source": "no station has its source address: it is a group's, or zero",
    "truncated": "it was longer than the receive buffer",
    "blocked": "the port is blocked: it is part of a loop",
    "locked": "the port is locked, and the FDB does not have the source here",
    "source_guard": "its source address, MAC or IP, is not bound to this port",
    "rate_limited": "the port has used up its limit of ARP or ND",
    "punt_full": "the policy's queue is full, and what it cannot look at is dropped",
    "punt_too_long": "it is longer than ARP and ND of a host, so the policy does not look at it",
    "link_local": "it is for a link-local group (01:80:c2:00:00:0x), which a bridge does not forward",
    "filtered": "its destination is behind the port that it came from",
    "isolated": "this port and the destination's are isolated from each other",
    "storm_broadcast": "the port has used up its limit of broadcast",
    "storm_multicast": "the port has used up its limit of multicast",
    "storm_unknown_unicast": "the port has used up its limit of unknown unicast",
    "link_loss": "the link from the pod loses it",
    "link_queue": "the queue of the link from the pod is full",
    "link_cut": "the link from the pod is cut",
}
_AT = {  # the step that drops a frame
    "link": ("link_loss", "link_queue", "link_cut"),
    "parse": ("runt", "bad_tag", "bad_source", "truncated"),
    "port": ("blocked", "locked"),
    "guard": ("source_guard",),
    "policy": ("rate_limited", "punt_full", "punt_too_long"),
    "look up": (
        *("link_local", "filtered", "isolated"),
        *("storm_broadcast", "storm_multicast", "storm_unknown_unicast"),
    ),
}
_DROPS_AT = {reason: stage for stage, reasons in _AT.items() for reason in reasons}
_FLOODS = {"broadcast": "broadcast", "multicast": "multicast", "unknown_unicast": "unknown unicast"}
_FLAG = {"broadcast": "broadcast_flood", "multicast": "multicast_flood", "unknown_unicast": "unicast_flood"}


class Step(NamedTuple):
    """One step of a frame's way."""

    stage: str  #: "link", "parse", "port", "guard", "learn", "policy", "look up", "copies"
    result: str  #: "pass", "drop", "consume", "flood" or "forward"
    text: str  #: why
    reason: str | None = None  #: the drop reason

    def as_dict(self) -> dict[str, Any]:
        """As plain JSON values; without a reason where there is none."""
        return {name: value for name, value in self._asdict().items() if value is not None}


class Explanation(NamedTuple):
    """What becomes of a frame, and why."""

    ingress: str
    frame: bytes
    sent: bool  #: whether it was really sent into the switch
    action: str  #: "forwarded", "flooded", "consumed" (the policy took it) or "dropped", as in a TraceEvent
    reason: str | None  #: why it is dropped, by the core or the policy
    learned: str | None  #: "new", "moved" or "refused"; None: its source changes nothing
    copies: Sequence[tuple[str, bytes]] | None  #: the frames that leave, by port; None: a policy decides that later
    steps: Sequence[Step]

    @property
    def egress(self) -> tuple[str, ...]:
        """The ports that frames leave by."""
        return tuple(port for port, _ in self.copies or ())

    def as_list(self) -> list[dict[str, Any]]:
        """The steps as plain JSON values; the last has what becomes of the frame."""
        *steps, last = (step.as_dict() for step in self.steps)
        fate = {"action": self.action, "learned": self.learned, "egress": list(self.egress), "sent": self.sent}
        return [*steps, {**last, **fate}]

    def _repr_html_(self) -> str:
        """A table of the steps, in a notebook."""
        return table(
            f"A frame from {self.ingress}", ("step", "result", "why"), [s[:3] for s in self.steps], len(self.steps)
        )

    def __str__(self) -> str:
        """As a tree."""
        return "\n".join([self.ingress, *branches([step.as_dict() for step in self.steps])])


def branches(steps: Sequence[Mapping[str, Any]]) -> list[str]:
    """The lines of a tree below the port's name."""
    marks = ["├─"] * (len(steps) - 1) + ["└─"]
    return [f"{mark} {s['stage']:<8} {s['result']:<8} {s['text']}" for mark, s in zip(marks, steps, strict=True)]


def explain(switch: SwitchBase, foresight: Foresight, ingress: int, frame: bytes, now: int) -> Explanation:
    """What would become of a frame that a port received at `now` (ns). Raises ConfigError."""
    facts = _ask(foresight.foresee, ingress, frame, now)
    verdict = switch._policing.foresee(ingress, frame) if facts["punted"] and facts["action"] == "consumed" else None
    return _Way(switch, ingress, frame, facts, verdict).explanation(False)


def send(switch: SwitchBase, foresight: Foresight, ingress: int, frame: bytes, now: int | None) -> Explanation:
    """Send a frame into the switch as if a port had received it; now: as Foresight.inject(). Raises ConfigError."""
    return _Way(switch, ingress, frame, _ask(foresight.inject, ingress, frame, now), None).explanation(True)


def _ask(ask: Any, *about: Any) -> Mapping[str, Any]:
    try:
        facts: Mapping[str, Any] = ask(*about)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    except IndexError:
        raise ConfigError("the port was removed meanwhile") from None
    return facts


class _Way:
    """Puts the facts in words."""

    def __init__(
        self, switch: SwitchBase, ingress: int, frame: bytes, facts: Mapping[str, Any], verdict: Verdict | None
    ) -> None:
        self._switch, self._ingress, self._frame, self._facts, self._verdict = switch, ingress, frame, facts, verdict
        self._name = switch._name_of
        self._taken = facts["action"] == "consumed" and facts["punted"]
        self._fate: Mapping[str, Any] = facts["plain"] if isinstance(verdict, Forward) else facts

    def explanation(self, sent: bool) -> Explanation:
        facts = self._facts
        steps: list[Step] = []
        link = None if sent else self._link()  # what is sent in here comes behind it
        if link is not None:
            steps.append(link)
            if link.result == "drop":
                return Explanation(
                    self._name(self._ingress), self._frame, sent, "dropped", link.reason, None, [], steps
                )
        for stage in (self._parse, self._port, self._guard, self._learn, self._policy, self._look_up):
            step = stage()
            if step is not None:
                steps.append(step)
                if step.result in ("drop", "consume"):
                    break
        every = self._copies()
        copies = None if every is None else [(port, copy) for port, copy in every if not self._over(port)[1]]
        steps.append(self._listed(every, copies))
        reason = self._verdict.reason if isinstance(self._verdict, Drop) else self._fate["reason"]
        learned = facts["learned"] if facts["learned"] in ("new", "moved", "refused") else None
        named = None if copies is None else [(self._name(port), copy) for port, copy in copies]
        return Explanation(self._name(self._ingress), self._frame, sent, facts["action"], reason, learned, named, steps)

    def _link(self) -> Step | None:
        """The link from the pod, before everything else."""
        name, wishes = self._name(self._ingress), self._switch._wires.wishes
        stages = wishes.of_port(name, "from_pod")
        if stages is None:
            return None
        if stages.cut:
            return Step("link", "drop", REASONS["link_cut"], "link_cut")
        return Step("link", "pass", f"{name}'s link takes it first: {wishes.links[name]}; then, unless it is lost:")

    def _over(self, egress: int) -> tuple[str, bool]:
        """The link that a copy goes over, in words, "": none; and whether it drops all."""
        wishes, names = self._switch._wires.wishes, (self._name(self._ingress), self._name(egress))
        place: Place = names
        stages = wishes.of_pair(*names)
        if stages is None:
            place = names[1]
            stages = wishes.of_port(place, "to_pod")
        if stages is None:
            return "", False
        if stages.cut:
            apart = wishes.group_of(names[0]) != wishes.group_of(names[1])
            return "in another part of the partition" if apart else "its link is cut", True
        return f"over the link {spoken(place)}: {wishes.links[place]}", False

    def _dropped(self, stage: str) -> Step | None:
        reason = self._fate["reason"]
        return Step(stage, "drop", REASONS[reason], reason) if reason and _DROPS_AT[reason] == stage else None

    def _parse(self) -> Step:
        dropped = self._dropped("parse")
        if dropped:
            return dropped
        ends, about = header(self._frame), dissect(self._frame)
        text = f"{about.protocol} {about.text}, {ends.source} > {ends.destination}, {len(self._frame)} bytes"
        return Step("parse", "pass", f"{text}{_in(self._facts['vlan'])}")

    def _port(self) -> Step:
        if self._facts["kind"] == "loop_probe":
            return Step("port", "consume", "it is a probe of this switch for loops")
        flags = ", ".join(sorted(self._switch.flags(self._ingress).names))
        return self._dropped("port") or Step("port", "pass", f"{self._name(self._ingress)} lets it in (flags: {flags})")

    def _guard(self) -> Step | None:
        if not self._facts["guarded"]:
            return None
        inspected = self._facts["punt"] == "take"
        text = "ARP and ND are left to the policy" if inspected else "its source addresses may send from here"
        return self._dropped("guard") or Step("guard", "pass", text)

    def _learn(self) -> Step:
        facts, here = self._facts, self._name(self._ingress)
        mac, heard = MacAddress(facts["source"]), facts["heard"]
        if facts["learned"] == "new":
            text = f"{mac} is new: it is behind {here} from now on"
            if facts["evicted"]:
                vlan, evicted = facts["evicted"]
                text += f", in place of {MacAddress(evicted)}{_in(vlan)}, since the FDB is full"
        elif facts["learned"] == "moved":
            text = f"{mac} was behind {self._name(facts['was'])}: it moves to {here}"
        elif facts["learned"] == "damped":
            text = f"{mac} was heard behind {self._name(facts['was'])} a moment ago, and stays there (move_damping)"
        elif facts["learned"] == "refused":
            text = f"{mac} is new, but the FDB is full, above all of {here}'s: not learned"
        elif heard == self._ingress:
            text = f"{mac} is known behind {here}"
        elif heard is not None:
            why = "it is static, or bound there" if facts["learning"] else f"learning is off on {here}"
            text = f"{mac} stays behind {self._name(heard)}: {why}"
        else:
            why = "it is bound to another port" if facts["learning"] else f"learning is off on {here}"
            text = f"{mac} is not learned: {why}"
        if facts["for_switch"] and facts["kind"] == "ordinary":
            return Step("learn", "consume", f"{text}; the frame is for the switch itself")
        return Step("learn", "pass", text)

    def _policy(self) -> Step | None:
        facts, verdict = self._facts, self._verdict
        if facts["kind"] == "ordinary":
            return None
        dropped = self._dropped("policy")
        if dropped:
            return dropped
        policy = str(self._switch._policing.policy(self._ingress))
        if self._taken:
            return self._judged(policy, verdict)
        if facts["action"] == "consumed":
            return Step("policy", "consume", "the frame is for the switch itself")
        if facts["punt"] == "take":
            return Step("policy", "pass", f"{policy} has no room for it, so it goes as on a plain bridge")
        shown = "sees a copy, and it goes on" if facts["punted"] else "does not look at it"
        return Step("policy", "pass", f"{policy} {shown}")

    def _judged(self, policy: str, verdict: Verdict | None) -> Step:
        if isinstance(verdict, Drop) and verdict.reason == "heard":
            return Step("policy", "consume", "it answers a question of the switch")
        if isinstance(verdict, Drop):
            return Step("policy", "drop", f"{policy} drops it: {verdict.reason}", verdict.reason)
        if isinstance(verdict, Answer):
            return Step("policy", "consume", f"{policy} answers it: {dissect(verdict.frame).text}")
        if isinstance(verdict, SendTo):
            return Step("policy", "consume", f"{policy} sends it to {self._name(verdict.port)} alone")
        if isinstance(verdict, Forward):
            return Step("policy", "pass", f"{policy} lets it pass")
        return Step("policy", "consume", f"{policy} has it, and decides")

    def _look_up(self) -> Step:
        fate, known = self._fate, self._facts["known"]
        mac, vlan = MacAddress(self._facts["destination"]), _in(self._facts["vlan"])
        dropped = self._dropped("look up")
        if dropped:
            return dropped
        if fate["action"] == "flooded":
            what = _FLOODS[fate["flood"]]
            if fate["flood"] != "unknown_unicast":
                return Step("look up", "flood", f"{mac} is {what}")
            lost = "not known" if known is None else f"behind {self._name(known)}, whose link is lost"
            return Step("look up", "flood", f"{mac} is {lost}{vlan}: {what}")
        to = self._name(fate["egress"][0])
        by = "; the kernel forwards this pair itself" if self._promoted(fate["egress"][0]) else ""
        return Step("look up", "forward", f"{mac} is behind {to}{vlan}{by}")

    def _promoted(self, egress: int) -> bool:
        source, destination = self._facts["source"], self._facts["destination"]
        return self._facts["vlan"] == 0 and self._switch._is_promoted(self._ingress, egress, source, destination)

    def _copies(self) -> list[tuple[int, bytes]] | None:
        """The frames that leave, by port; None: the policy decides that later."""
        verdict = self._verdict
        if not self._taken or isinstance(verdict, Forward):
            return [(port, self._frame) for port in self._fate["egress"]]
        if isinstance(verdict, Answer):
            return [(self._ingress, verdict.frame)] if self._facts["is_open"] else []
        if isinstance(verdict, SendTo):
            return [(verdict.port, self._frame)] if verdict.port in self._facts["open"] else []
        return None if verdict is None else []

    def _listed(self, every: list[tuple[int, bytes]] | None, copies: list[tuple[int, bytes]] | None) -> Step:
        if every is None or copies is None:
            return Step("copies", "pass", "as the policy decides")
        cut = [(self._name(port), why) for port, _ in every for why, drops in [self._over(port)] if drops]
        names = ", ".join(f"{self._name(port)}{_aside(self._over(port)[0])}" for port, _ in copies)
        if not names:
            text = ", ".join(f"{name}{_aside(why)}" for name, why in cut)
            return Step(
                "copies", "drop", f"none; not: {text}" if cut else "none", "link_cut" if cut else self._fate["reason"]
            )
        if self._fate["action"] != "flooded":
            answer = " (the policy's answer)" if isinstance(self._verdict, Answer) else ""
            return Step("copies", "forward", f"{names}{answer}")
        left = [*cut, *self._left_out({port for port, _ in every})]
        without = [f"{name}{_aside(why)}" for name, why in left]
        return Step("copies", "flood", names + (f"; not: {', '.join(without)}" if without else ""))

    def _left_out(self, taken: set[int]) -> list[tuple[str, str]]:
        """The ports that a flooded frame does not leave by, and why."""
        flag, here = _FLAG[self._fate["flood"]], self._switch.flags(self._ingress)
        left = []
        for port in self._switch.ports:
            if port.index in taken:
                continue
            flags = self._switch.flags(port)
            if port.index == self._ingress:
                why = "it came from there"
            elif port.state != "up":
                why = port.state
            elif flag not in flags.names:
                why = f"{flag} is off"
            else:
                why = "isolated" if here.isolated and flags.isolated else "changed meanwhile"
            left.append((port.name, why))
        return left


def _aside(text: str) -> str:
    return f" ({text})" if text else ""


def _in(vlan: int) -> str:
    return f" in VLAN {vlan}" if vlan else ""
