"""Policies, carried out.

The thread between the data plane and the policies. It takes punted frames in batches, asks each port's policy, and
carries the verdicts out ("packet out").

A policy that is slow, raises or hangs costs only its own answers. The core's queue is bounded; a frame that finds no
room takes the policy's fallback. A policy that does not return within a second is passed by until it does. When a
policy ends the thread, another thread follows.
"""

from __future__ import annotations

import logging
import os
import secrets
import select
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from fastbridge.addresses import MacAddress
from fastbridge.arp_nd import Kind, Message, link_local, neighbour_advertisement, read
from fastbridge.core.packet_out import PacketOut
from fastbridge.core.punting import Punting
from fastbridge.core.source_guard import SourceGuard
from fastbridge.errors import ConfigError
from fastbridge.journal import Event, Journal
from fastbridge.threads import start_thread

from .base import Answer, Drop, Forward, Policy, SendTo, Verdict, Wants
from .bindings import Bindings
from .builtin import PURE, Flood, Guard, RateLimit
from .doubts import Doubts
from .neighbour_entry import Neighbour
from .neighbours import Neighbours
from .waits import WaitCounter, Waits

if TYPE_CHECKING:
    from fastbridge.core.dataplane import Dataplane
    from fastbridge.core.fdb import FdbAccess

_log = logging.getLogger(__name__)

# Frames decided before their answers are sent. More would let the first answer wait too long (128 decisions take
# 0.5 ms), fewer would cost more per frame.
_AT_ONCE = 128
_TICK_SECONDS = 1.0  # between two rounds that ask neighbours again and remove expired ones
_BIND_SECONDS = 0.1  # the guards' new bindings reach the core within this time
_HANG_SECONDS = 1.0  # then a policy that does not return is passed by; stop() waits twice as long
_TURN_SECONDS = 0.1  # that a policy has to go on after its process was stopped

_SHORTEST_FRAME = 14  # an Ethernet header

_Order = tuple[bytes, int, int]  # frame, ingress, egress: see PacketOut.send


class _NoVerdictError(Exception):
    """A policy has returned something that cannot be carried out."""


class Policing:
    """The policies of a switch's ports, their neighbour table and their thread."""

    def __init__(
        self,
        dataplane: Dataplane,
        entries: FdbAccess,
        neighbours: Neighbours,
        journal: Journal,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._punting, self._out, self._guard = Punting(dataplane), PacketOut(dataplane), SourceGuard(dataplane)
        self._journal = journal
        self.neighbours = neighbours
        self._default: Policy = Flood()
        #: The policies of ports that have one of their own.
        self.own: dict[int, Policy] = {}
        self._deciders: dict[int, Policy] = {}  # every port's policy
        self._dropping: dict[int, bool] = {}  # whether its fallback is to drop
        self._guarded: set[int] = set()  # the ports that have a guard
        self._counts: Counter[str] = Counter()
        self._waits = WaitCounter()
        self.bindings = Bindings(self._guard, neighbours)
        self._doubts = Doubts(dataplane, entries, neighbours, clock, answers=self._hears)
        self._warned: set[int] = set()  # ports whose first drops by source guard were logged
        self._busy_since: float | None = None  # since when the thread has been deciding
        self._suspected = (0.0, 0.0)  # a decision that takes too long: since when, and when that was first seen
        self._passed_by = False
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        # The source of questions to neighbours: this switch's own locally administered address (IEEE 802-2014 §8.2.2).
        self._mac = bytes([0x02, *secrets.token_bytes(5)])
        self._ip = link_local(self._mac)
        self._punting.set_own_mac(int.from_bytes(self._mac, "big"))

    @property
    def counts(self) -> Mapping[str, int]:
        """What happened to the frames that the policies took: answered, forwarded (as by a plain bridge), sent_to (one
        port), heard (answers to the switch's own questions), dropped:REASON.

        And further numbers: released (sent after a binding had ended; dropped or answered before), failed (decisions
        that raised), missed (no room in the queue), too_long (too long for ARP or ND of a host), undelivered (answers
        that could not be sent).
        """
        missed, too_long = self._punting.lost
        return {**self._counts, "missed": missed, "too_long": too_long, "undelivered": self._out.dropped}

    @property
    def waits(self) -> Waits:
        """How long the frames that the policies took have waited."""
        return self._waits.waits

    def policy(self, port: int | None = None) -> Policy:
        """The policy of a port; None: of the ports without their own."""
        return self._default if port is None else self.own.get(port, self._default)

    def set_policy(self, policy: Policy | None, port: int | None, ports: Iterable[int]) -> None:
        """Change the policy of one port; None: of those without their own. `ports`: all ports of the switch.

        policy: None takes the port its own policy.
        """
        if policy is None and port is not None:
            self.own.pop(port, None)
            self.add_port(port)
            return
        if not isinstance(policy, Policy) or isinstance(policy, type):
            raise ConfigError(f"{policy!r} is not a policy; derive it from fastbridge.Policy and give it decide()")
        if len(policy.wants) != len(Wants()):
            raise ConfigError(f"policy {policy} has wants={policy.wants!r}; it must be fastbridge.Wants(…)")
        if port is None:
            self._default = policy
        else:
            self.own[port] = policy
        for index in ports if port is None else [port]:
            self.add_port(index)

    def add_port(self, port: int) -> None:
        """Tell the core which frames a port's policy wants, and its rate limit and source guard."""
        policy = self.policy(port)
        self._dropping[port] = policy.fallback == "drop"
        self._deciders[port] = policy
        limits = [part for part in policy.parts if isinstance(part, RateLimit)]
        guards = [part for part in policy.parts if isinstance(part, Guard)]
        self._punting.set_policy(
            port,
            {kind: int(punt) for kind, punt in Wants(*policy.wants)._asdict().items()},
            rate=min((limit.rate for limit in limits), default=0.0),
            burst=min((limit.burst for limit in limits), default=0),
            guarded=bool(guards),
            strict=any(guard.strict for guard in guards),
            routes=any(guard.routes for guard in guards),
            drop_when_full=self._dropping[port],
        )
        (self._guarded.add if guards else self._guarded.discard)(port)
        self.bind()

    def remove_port(self, port: int) -> None:
        """Forget a port that is gone, its policy and all its neighbours."""
        self.own.pop(port, None)
        self._deciders.pop(port, None)
        self._guarded.discard(port)
        self._warned.discard(port)
        self._dropping.pop(port, None)
        self.neighbours.flush([port], static=True)
        self.bind()

    def handle(self) -> list[tuple[int, bytes]]:
        """Decide the punted frames. Returns the copies that leave a switch in memory."""
        punts = self._punting.read()
        copies: list[tuple[int, bytes]] = []
        for start in range(0, len(punts), _AT_ONCE):
            orders: list[_Order] = []
            now_decided = punts[start : start + _AT_ONCE]
            for ingress, taken, frame, _ in now_decided:
                self._decide(read(ingress, frame), taken, orders)
            if orders:
                copies += self._out.send(orders)
            self._note_waits(now_decided)
        self.bind()
        return copies

    def bind(self) -> None:
        """Tell the core the changes of the neighbour table, for the guards."""
        self.bindings.follow()

    def announce(self, port: int | None = None) -> int:
        """Flood gratuitous ARP and unsolicited NAs for the neighbours, of one port or all; returns how many."""
        orders = [(n.announcement(), n.port, -1) for n in self.neighbours.live() if port in (None, n.port)]
        self._out.send(orders)
        return len(orders)

    def tick(self) -> list[tuple[int, bytes]]:
        """Ask neighbours that expire soon, and forget expired ones. Returns the questions of a switch in memory."""
        asked = [n for n in self.neighbours.due_for_refresh() if any(self.policy(n.port).wants)]
        self.neighbours.sweep()
        self.bind()
        self._tell_guarded()
        return self._out.send([(n.question(self._mac), -1, n.port) for n in asked])

    def settle(self) -> list[tuple[int, bytes]]:
        """Ask the owners of doubted bindings, end those without an answer. Returns the copies of a switch in memory."""
        orders, ended = self._doubts.follow(self._mac)
        for text, waiting in ended:
            if text:
                self._complain("bindings that ended", text)
            for message in waiting:
                self._release(message, orders)
        self.bind()
        return self._out.send(orders) if orders else []

    def start(self) -> None:
        """Decide in the background from now on."""
        # Once it runs: watch() takes a thread that is not alive for one that has ended.
        self._thread = start_thread("fastbridge-policy", self._work)

    def stop(self) -> None:
        """End the thread. One that a policy holds is left behind."""
        self._stopping.set()
        os.eventfd_write(self._punting.fd, 1)
        if self._thread is not None:
            self._thread.join(2 * _HANG_SECONDS)
            if self._thread.is_alive():
                text = f"a policy has not returned for {2 * _HANG_SECONDS:g} s; its thread is left behind"
                self._complain("policies that hang", text, error=True)
            self._thread = None

    def watch(self) -> None:
        """Pass by a policy that does not return, so that its fallback is used. Start a new thread when it has ended.

        Another thread must call it.
        """
        if self._thread is not None and not self._thread.is_alive() and not self._stopping.is_set():
            self._follow_up()
        since, now = self._busy_since, time.monotonic()
        if since is None or self._passed_by or now - since < _HANG_SECONDS:
            return
        if self._suspected[0] != since:  # the whole process may have been stopped: the policy gets its turn first
            self._suspected = since, now
        if now - self._suspected[1] < _TURN_SECONDS:
            return
        self._passed_by = True
        self._punting.set_stalled(True)
        text = f"a policy has not returned for {_HANG_SECONDS:g} s: its fallback is used until it does"
        self._complain("policies that hang", text, error=True, event=Event("policy_error", {}))
        orders: list[_Order] = []
        punts = self._punting.read()  # nobody else reads: the policy holds the thread
        for ingress, taken, frame, _ in punts:
            if taken and self._dropping.get(ingress):
                self._counts["dropped:hung"] += 1
            elif taken:
                self._counts["forwarded"] += 1
                orders.append((frame, ingress, -1))
        self._out.send(orders)
        self._note_waits(punts)

    def _note_waits(self, decided: Iterable[tuple[int, bool, bytes, int]]) -> None:
        self._waits.note((since for _, taken, _, since in decided if taken and since), time.monotonic_ns())

    def _follow_up(self) -> None:
        """Start a new thread in place of one that has ended. Until it runs, fallbacks are used."""
        self._passed_by, self._busy_since = True, None
        self._punting.set_stalled(True)
        text = "the policies' thread has ended; another takes over"
        self._complain("policy threads that ended", text, error=True, event=Event("policy_error", {}))
        self.start()

    def _work(self) -> None:
        punted = select.poll()
        punted.register(self._punting.fd, select.POLLIN)
        ticked = time.monotonic()
        while not self._stopping.is_set():
            try:
                if punted.poll(
                    0
                    if self._passed_by
                    else 1000 * (_BIND_SECONDS if self._guards() or self._doubts else _TICK_SECONDS)
                ):
                    os.eventfd_read(self._punting.fd)
                self._busy_since = time.monotonic()
                self.handle()
                self.settle()
                if time.monotonic() - ticked >= _TICK_SECONDS:
                    ticked = time.monotonic()
                    self.tick()
            except BaseException:  # nothing may end this thread: without it the switch is deaf to ARP
                text = "carrying out policies failed"
                self._complain("failures of policies", text, error=True, event=Event("policy_error", {}))
                self._stopping.wait(_BIND_SECONDS)
            finally:
                self._busy_since = None
                if self._passed_by:
                    self._passed_by = False
                    self._punting.set_stalled(False)

    def _guards(self) -> bool:
        return bool(self._guarded)

    def _decide(self, message: Message, taken: bool, orders: list[_Order]) -> None:
        """Ask the policy, order its verdict, and learn from the message if it is not dropped."""
        policy = self._deciders.get(message.ingress)
        if policy is None:  # its port was removed meanwhile
            self._counts["dropped:port_removed"] += taken
            return
        if self._asks_switch(message):
            self._counts["answered"] += taken
            orders.append((neighbour_advertisement(message, self._mac, router=False), -1, message.ingress))
            return
        try:
            verdict = self._judge(policy.decide(message, self.neighbours))
        except BaseException as error:
            if not isinstance(error, Exception) and threading.current_thread() is not self._thread:
                raise  # Ctrl-C is for the caller of process()
            verdict = self._fail(policy, message, error)
        if isinstance(verdict, Drop):
            self._drop(message, verdict.reason, taken)
            return
        if message.eth_destination == self._mac:
            self._counts["heard"] += taken
        elif taken:
            self._order(message, verdict, orders)
        self.neighbours.observe(message)

    def foresee(self, ingress: int, frame: bytes) -> Verdict | None:
        """What would be decided about a frame that the core hands over; nothing changes.

        None: it is not known, because a policy of its own code may change when it is asked.
        """
        policy, message = self._deciders.get(ingress), read(ingress, frame)
        if policy is None:
            return Drop("port_removed")
        if self._asks_switch(message):
            return Answer(neighbour_advertisement(message, self._mac, router=False))
        if any(type(part) not in PURE for part in policy.parts):
            return None
        verdict = policy.decide(message, self.neighbours)
        if message.eth_destination == self._mac and not isinstance(verdict, Drop):
            return Drop("heard")  # an answer to the switch's own question
        return verdict or Forward()

    def _asks_switch(self, message: Message) -> bool:
        """Whether it asks for the switch's own address."""
        return message.target_ip == self._ip and message.kind is Kind.NS

    def _judge(self, verdict: object) -> Drop | Answer | SendTo | None:
        """A verdict that can be carried out; None: forward. Raises _NoVerdictError."""
        if verdict is None or isinstance(verdict, Forward):
            return None
        if isinstance(verdict, Drop) and isinstance(verdict.reason, str):
            return verdict
        if isinstance(verdict, SendTo) and verdict.port in self._deciders:
            return verdict
        # A subclass of bytes may lie about its length.
        if not isinstance(verdict, Answer) or type(verdict.frame) is not bytes:
            raise _NoVerdictError(f"{verdict!r:.200} is not a verdict")
        if not _SHORTEST_FRAME <= len(verdict.frame) <= self._out.longest_frame:
            most = self._out.longest_frame
            raise _NoVerdictError(f"an answer has {_SHORTEST_FRAME} to {most:,} bytes, not {len(verdict.frame):,}")
        return verdict

    def _order(self, message: Message, verdict: Answer | SendTo | None, orders: list[_Order]) -> None:
        if isinstance(verdict, Answer):
            self._counts["answered"] += 1
            self._doubts.answered_for(message)
            orders.append((verdict.frame, -1, message.ingress))
        elif isinstance(verdict, SendTo):
            self._counts["sent_to"] += 1
            self._doubts.answered_for(message)
            orders.append((message.frame, message.ingress, verdict.port))
        else:
            self._counts["forwarded"] += 1
            orders.append((message.frame, message.ingress, -1))

    def _fail(self, policy: Policy, message: Message, error: BaseException) -> Drop | None:
        """Log that a policy failed; returns its fallback."""
        self._counts["failed"] += 1
        try:
            name = str(policy)
        except BaseException:  # its name may fail too
            name = type(policy).__name__
        event = Event("policy_error", {"ifname": self.neighbours.name_of(message.ingress), "policy": name})
        if isinstance(error, _NoVerdictError):
            self._complain("failures of policies", f"policy {name} on {message}: {error}", name, event=event)
        else:
            text = f"policy {name} raised {type(error).__name__} on {message}"
            self._complain("failures of policies", text, name, error=True, event=event)
        return Drop("failed") if self._dropping.get(message.ingress) else None

    def _drop(self, message: Message, reason: str, taken: bool) -> None:
        if taken:
            self._counts[f"dropped:{reason}"] += 1
        self._tell_dropped(message, reason)
        if reason == "spoofed":
            self._doubts.claimed(message)
            if not self.neighbours.contest(message):  # contest() reports it with both sides
                self._complain(
                    "frames that a policy drops",
                    f"spoofed: {message} dropped: its MAC is another port's",
                    f"mac {message.ingress}",
                )
        elif reason != "failed":
            self._complain("frames that a policy drops", f"{reason}: {message} dropped", f"{reason} {message.ingress}")

    def _tell_dropped(self, message: Message, reason: str) -> None:
        """For monitors: every one, while the log is moderate."""
        if "guard" in self._journal.feed.wanted:
            self._journal.feed.tell(
                "guard",
                mac=str(MacAddress(message.eth_source)),
                vlan=message.vlan,
                ifname=self.neighbours.name_of(message.ingress),
                reason=reason,
                frames=1,
                text=f"{reason}: {message}",
            )

    def _release(self, message: Message, orders: list[_Order]) -> None:
        """Send a message that waited for the end of a binding, and learn from it."""
        policy = self._deciders.get(message.ingress)
        if policy is None or message.eth_destination == self._mac:
            return
        verdict: object
        try:
            verdict = policy.decide(message, self.neighbours)
        except BaseException as error:  # it may not end the thread
            verdict = self._fail(policy, message, error)
        if isinstance(verdict, Drop):  # somebody else has the address by now
            self._drop(message, verdict.reason, False)
            return
        self._counts["released"] += 1
        orders.append((message.frame, message.ingress, -1))
        self.neighbours.observe(message)

    def _hears(self, neighbour: Neighbour) -> bool:
        """Whether the policy of a neighbour's port sees its answers to the switch."""
        wants = self.policy(neighbour.port).wants
        return bool(wants.arp_unicast if len(neighbour.ip) == 4 else wants.nd_unicast)

    def _tell_guarded(self) -> None:
        """Log once for each port that source guard has dropped frames from it, and what to do."""
        if not self._guards():
            return
        for port, count in self._guard.drops().items():
            if port in self._warned:
                continue
            self._warned.add(port)
            self._complain(
                "ports with frames that source guard drops",
                f"source guard dropped {count} frames of port {self.neighbours.name_of(port)}: their source addresses "
                "are bound to another port, or under guard=strict to nobody; if a router is behind the port, give it "
                "the policy guard=router",
                str(port),
            )

    def _complain(
        self, kind: str, text: str, thing: str = "", *, error: bool = False, event: Event | None = None
    ) -> None:
        """Log, at most once in 10 s for the same thing."""
        level = logging.ERROR if error else logging.WARNING
        self._journal.warn(_log, kind, text, thing=thing or text, level=level, event=event)
