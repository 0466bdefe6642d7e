"""Doubts, settled.

A binding begins with the first claim of a free address. It is doubted when somebody else claims the address, when its
MAC appears on another port, and when a policy has answered for the owner. Then the switch asks the owner alone, several
times. One answer keeps the binding. Without an answer the binding ends, and the frame that raised the doubt goes its
way: a claim reaches all and becomes the next binding, a question is flooded and finds the new owner.

An owner that answers loses nothing, whatever others claim. While frames of its port are lost at the switch, questions
or answers may be among them, so the owner is asked again. Static entries are never doubted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING

from fastbridge.addresses import MacAddress
from fastbridge.arp_nd import Message, vlan_text

from .neighbour_entry import Neighbour
from .neighbours import Neighbours

if TYPE_CHECKING:
    from fastbridge.core.dataplane import Dataplane
    from fastbridge.core.fdb import FdbAccess

# Six questions take 1.5 s or more. That outlasts a scheduling gap and a lost frame or two, and nobody misses an address
# for so short a time.
_QUESTIONS = 6
ASK_SECONDS = 0.25  #: a question waits so long for its answer
# After an answer an owner is asked about the same thing at most once in this time, so that nobody can keep it busy.
# A claim is worth this many rounds: an owner that gives way, such as VRRP's, does so a moment after the claim.
_REST_SECONDS = 1.0
_ROUNDS = 4
# Doubts that one port may have raised at a time, resting ones included. It limits the cost of its claims.
_OPEN_PER_PORT = 16
# Of a MAC with many addresses this many are asked: a station that is there answers for each.
_SUSPECTS = 8
# Frames that wait for the end of a doubt: the first of each port. Whoever sent another one sends it again.
_WAITING = 16


@dataclass(slots=True, eq=False)
class _Doubt:
    subject: tuple[int, bytes]  # VLAN and IP, or VLAN and MAC
    suspects: Sequence[Neighbour]  # those that are asked
    of_mac: bool
    by: int  # the port whose frame raised it
    rounds: int  # how many answers are still wanted
    waiting: list[Message]  # messages that go their way when the binding has ended
    of_question: bool  # a question raised it, and nobody has claimed since
    heard: Sequence[int] = ()  # Neighbour.heard of each suspect when the round began
    seen: tuple[int, int, bool] | None = None  # the FDB's entry of the MAC at that time
    lost: int = 0  # frames of the owner's port lost by that time
    asked: int = 0
    last: float = 0.0
    resting: bool = False  # answered just now


class Doubts:
    """The doubts of one switch. Only the policy thread uses it.

    answers: whether the switch hears a neighbour's answers. It asks no others.
    """

    def __init__(
        self,
        dataplane: Dataplane,
        entries: FdbAccess,
        neighbours: Neighbours,
        clock: Callable[[], float],
        *,
        answers: Callable[[Neighbour], bool],
    ) -> None:
        self._entries = entries
        self._dataplane, self._neighbours, self._clock = dataplane, neighbours, clock
        self._answers = answers
        self._doubts: dict[tuple[int, bytes], _Doubt] = {}
        self._open: Counter[int] = Counter()  # by the port that raised them

    def __bool__(self) -> bool:
        return bool(self._doubts)

    def claimed(self, claim: Message) -> None:
        """Somebody claims an address that is bound to somebody else."""
        mac = claim.sender_mac or claim.eth_source
        holder = self._neighbours.holder(claim.vlan, mac)
        if holder is not None and holder.port != claim.ingress:
            entries = self._neighbours.of_station(claim.vlan, mac, holder.port)
            self._raise((claim.vlan & 0xFFF, mac), entries, claim, of_mac=True, rounds=_ROUNDS)
        elif claim.sender_ip is not None:
            bound = self._neighbours.lookup(claim.vlan, claim.sender_ip)
            if bound is not None:
                self._raise((claim.vlan, claim.sender_ip), [bound], claim, of_mac=False, rounds=_ROUNDS)

    def answered_for(self, question: Message) -> None:
        """A policy kept a question from the other pods, as the table has the answer. Doubt that answer."""
        if question.target_ip is not None:
            owner = self._neighbours.lookup(question.vlan, question.target_ip)
            if owner is not None:
                self._raise((question.vlan, question.target_ip), [owner], question, of_mac=False)

    def _raise(
        self, subject: tuple[int, bytes], entries: Sequence[Neighbour], by: Message, *, of_mac: bool, rounds: int = 1
    ) -> None:
        known = self._doubts.get(subject)
        if known is not None:
            if len(known.waiting) < _WAITING and by.ingress not in [message.ingress for message in known.waiting]:
                known.waiting.append(by)
            if known.of_question and rounds > 1:  # answers to the question say nothing about the claim
                known.of_question, known.rounds, known.asked, known.resting = False, rounds, 0, False
                self._look(known)
            return
        suspects = sorted(filter(self._answers, entries), key=lambda n: -n.seen)[:_SUSPECTS]
        if not suspects or any(n.static for n in entries) or self._open[by.ingress] >= _OPEN_PER_PORT:
            return
        self._open[by.ingress] += 1
        doubt = self._doubts[subject] = _Doubt(subject, suspects, of_mac, by.ingress, rounds, [by], rounds == 1)
        self._look(doubt)

    def follow(self, own_mac: bytes) -> tuple[list[tuple[bytes, int, int]], list[tuple[str, list[Message]]]]:
        """What to do now: questions, and bindings that have ended.

        Questions are as packet_out() takes them. A binding has a text for people, "" if it ended by itself, and the
        messages that waited for its end.
        """
        now = self._clock()
        questions: list[tuple[bytes, int, int]] = []
        ended: list[tuple[str, list[Message]]] = []
        for doubt in list(self._doubts.values()):
            there = self._still_there(doubt)
            if not there:
                self._forget(doubt)
                ended.append(("", doubt.waiting))
                continue
            if doubt.resting and now - doubt.last >= _REST_SECONDS:
                doubt.resting, doubt.rounds = False, doubt.rounds - 1
                if not doubt.rounds:
                    self._forget(doubt)
                    continue
                doubt.asked = 0
                self._look(doubt)
            if doubt.resting:
                continue
            if self._answered(doubt, there):
                doubt.resting, doubt.last = True, now
            elif doubt.asked == 0 or now - doubt.last >= ASK_SECONDS:
                if doubt.asked < _QUESTIONS or self._may_be_lost(doubt):
                    doubt.asked, doubt.last = doubt.asked + 1, now
                    questions += [(n.question(own_mac), -1, n.port) for n in doubt.suspects]
                else:
                    ended.append(self._end(doubt))
        return questions, ended

    def _look(self, doubt: _Doubt) -> None:
        """Note the present state, to see what changes."""
        doubt.suspects = self._still_there(doubt)
        doubt.heard = [n.heard for n in doubt.suspects]
        doubt.seen = self._find(doubt.subject) if doubt.of_mac else None
        doubt.lost = self._dataplane.losses(doubt.suspects[0].port)

    def _forget(self, doubt: _Doubt) -> None:
        del self._doubts[doubt.subject]
        self._open[doubt.by] -= 1
        if not self._open[doubt.by]:
            del self._open[doubt.by]

    def _still_there(self, doubt: _Doubt) -> list[Neighbour]:
        """The doubted entries that the table still has. None when all have ended or moved."""
        found = [self._neighbours.lookup(n.vlan, n.ip) for n in doubt.suspects]
        return [
            now
            for now, before in zip(found, doubt.suspects, strict=True)
            if now is not None and now.port == before.port and (now.mac == before.mac or not doubt.of_mac)
        ]

    def _answered(self, doubt: _Doubt, there: Sequence[Neighbour]) -> bool:
        heard = dict(zip(map(id, doubt.suspects), doubt.heard, strict=True))
        if any(n.heard != heard.get(id(n)) for n in there):  # no `heard`: a new entry, as its owner has another MAC
            return True
        if not doubt.of_mac:
            return False
        # Any frame of the MAC from its port is an answer too: guard lets no other port have the MAC.
        found = self._find(doubt.subject)
        return found is not None and found != doubt.seen and found[0] == doubt.suspects[0].port

    def _may_be_lost(self, doubt: _Doubt) -> bool:
        """Whether questions or answers may have been lost at the switch since the doubt began. Then it begins anew."""
        lost = self._dataplane.losses(doubt.suspects[0].port)
        if lost == doubt.lost:
            return False
        doubt.lost, doubt.asked = lost, 0
        return True

    def _end(self, doubt: _Doubt) -> tuple[str, list[Message]]:
        vlan, what = doubt.subject
        owner = doubt.suspects[0]
        self._forget(doubt)
        entries: Sequence[Neighbour] = doubt.suspects
        if doubt.of_mac:
            entries = self._neighbours.of_station(vlan, what, owner.port)
            found = self._find(doubt.subject)
            if found is not None and found[0] == owner.port and not found[2]:
                self._entries.remove(int.from_bytes(what, "big"), vlan & 0xFFF)
        self._neighbours.end(entries)
        name = str(MacAddress(what)) if doubt.of_mac else f"{ip_address(what)} at {MacAddress(owner.mac)}"
        port = self._neighbours.name_of(owner.port)
        return f"{name}{vlan_text(vlan)} is gone from {port}: it left {doubt.asked} questions unanswered", doubt.waiting

    def _find(self, station: tuple[int, bytes]) -> tuple[int, int, bool] | None:
        return self._entries.find(int.from_bytes(station[1], "big"), station[0] & 0xFFF)
