"""Policies, carried out.

The thread between the data plane and the policies: it takes punted frames in batches, asks each port's policy, and
orders what the verdicts say ("packet out"). A policy that is slow, raises or hangs delays its own answers only: the
core's queue is bounded, and what finds no room there takes the policy's fallback.
"""

from __future__ import annotations

import logging
import os
import secrets
import select
import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from .arp_nd import Kind, Message, link_local, neighbour_advertisement, read
from .errors import ConfigError
from .neighbour_entry import Change
from .neighbours import Neighbours
from .policies import Flood, Guard, RateLimit
from .policy import Answer, Drop, Forward, Policy, SendTo

if TYPE_CHECKING:
    from .core.dataplane import Dataplane

_log = logging.getLogger(__name__)

# Frames decided before their answers are sent: enough that a send order costs little a frame, few enough that the
# first answer does not wait for the last (some 0.5 ms at 4 µs a decision).
_AT_ONCE = 128
_TICK_SECONDS = 1.0  # how often neighbours are asked again and expired ones swept away
_COMPLAIN_SECONDS = 10.0  # a policy that fails is logged so often, however often it fails
_BIND_SECONDS = 0.1  # a guard's new bindings reach the core within this time
_HANG_SECONDS = 2.0  # how long stop() waits for a policy


class Policing:
    """The policies of a switch's ports, their neighbour table and their thread."""

    def __init__(self, dataplane: Dataplane, neighbours: Neighbours) -> None:
        self._dataplane = dataplane
        self.neighbours = neighbours
        self._default: Policy = Flood()
        self._own: dict[int, Policy] = {}  # ports with a policy of their own
        self._deciders: dict[int, Policy] = {}  # every port's policy, quick to look up
        self._counts: Counter[str] = Counter()
        self._missed = 0
        self._complained = -_COMPLAIN_SECONDS
        self._bound = False  # whether the core has the guards' bindings as they are
        self._tried = -_BIND_SECONDS
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        # What neighbours are asked from: a locally administered address (IEEE 802-2014 §8.2.2) of this switch's own.
        self._mac = bytes([0x02, *secrets.token_bytes(5)])
        self._ip = link_local(self._mac)
        dataplane.set_own_mac(int.from_bytes(self._mac, "big"))

    @property
    def counts(self) -> Mapping[str, int]:
        """What became of the frames the policies were handed: answered, forwarded (as by a plain bridge), sent_to (one
        port), failed (the policy raised), dropped:REASON; and missed (no room in the queue), undelivered.
        """
        return {**self._counts, "missed": self._missed, "undelivered": self._dataplane.orders_dropped}

    def policy(self, port: int | None = None) -> Policy:
        """The policy of a port, or of the ports without one of their own."""
        return self._default if port is None else self._own.get(port, self._default)

    def set_policy(self, policy: Policy, port: int | None, ports: Iterable[int]) -> None:
        """Change the policy of one port, or of those without one of their own; `ports`: all the switch has."""
        if not callable(getattr(policy, "decide", None)) or not hasattr(policy, "wants"):
            raise ConfigError(f"{policy!r} is no policy; derive it from fastbridge.Policy and give it decide()")
        if port is None:
            self._default = policy
        else:
            self._own[port] = policy
        for index in ports if port is None else [port]:
            self.add_port(index)

    def add_port(self, port: int) -> None:
        """Tell the core what a port's policy wants; the cheap part, rate limits and source guard, is the core's."""
        policy = self.policy(port)
        self._deciders[port] = policy
        limits = [(part.rate, part.burst) for part in policy.parts if isinstance(part, RateLimit)]
        rate, burst = min(limits, default=(0.0, 0))
        guarded = any(isinstance(part, Guard) for part in policy.parts)
        self._dataplane.set_policy(port, [int(punt) for punt in policy.wants], rate, burst, guarded)
        self._dataplane.set_fallback(any(p.fallback == "drop" for p in self._deciders.values()))
        self._bound = False
        self._bind()

    def remove_port(self, port: int) -> None:
        """A port is gone: its policy and all its neighbours go with it."""
        self._own.pop(port, None)
        self._deciders.pop(port, None)
        self.neighbours.flush(port, static=True)

    def refresh_bindings(self) -> None:
        """The neighbour table was changed by hand: guards are to know at once."""
        self._bound, self._tried = False, -_BIND_SECONDS
        self._bind()

    def handle(self, punts: Sequence[tuple[int, bool, bytes]]) -> list[tuple[int, bytes]]:
        """Decide punted frames, (ingress, taken, frame); returns the copies sent, (egress port, frame)."""
        copies: list[tuple[int, bytes]] = []
        for start in range(0, len(punts), _AT_ONCE):
            orders: list[tuple[bytes, int]] = []
            for ingress, taken, frame in punts[start : start + _AT_ONCE]:
                self._decide(read(ingress, frame), taken, orders)
            if orders:
                copies += self._dataplane.packet_out(orders)
        self._bind()
        return copies

    def announce(self, port: int | None = None) -> int:
        """Flood gratuitous ARP and unsolicited NAs for the neighbours (of one port); returns how many."""
        orders = [(n.announcement(), -1 - n.port) for n in self.neighbours.live() if port in (None, n.port)]
        self._dataplane.packet_out(orders)
        return len(orders)

    def tick(self) -> None:
        """Ask the neighbours about to expire, and forget those that have."""
        asked = self.neighbours.due_for_refresh()
        self._dataplane.packet_out([(n.question(self._mac), n.port) for n in asked if self._asks(n.port)])
        if self.neighbours.sweep():
            self._bound = False

    def start(self) -> None:
        """Decide in the background from now on."""
        self._thread = threading.Thread(target=self._work, name="fastbridge-policy", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread; one that a policy keeps is left behind."""
        self._stopping.set()
        os.eventfd_write(self._dataplane.punt_fd, 1)
        if self._thread is not None:
            self._thread.join(_HANG_SECONDS)
            if self._thread.is_alive():
                _log.error("a policy has not returned for %g s; its thread is left behind", _HANG_SECONDS)
            self._thread = None

    def _work(self) -> None:
        ticked = time.monotonic()
        while not self._stopping.is_set():
            if select.select([self._dataplane.punt_fd], [], [], _TICK_SECONDS)[0]:
                os.eventfd_read(self._dataplane.punt_fd)
            punts, self._missed = self._dataplane.read_punts()
            self.handle(punts)
            if time.monotonic() - ticked >= _TICK_SECONDS:
                ticked = time.monotonic()
                self.tick()

    def _decide(self, message: Message, taken: bool, orders: list[tuple[bytes, int]]) -> None:
        """Ask the policy, order what it says, and learn from what is not dropped, in this order."""
        policy = self._deciders.get(message.ingress, self._default)
        if message.target_ip == self._ip and message.kind is Kind.NS:
            orders.append((neighbour_advertisement(message, self._mac, router=False), message.ingress))
            return
        try:
            verdict = policy.decide(message, self.neighbours)
        except Exception:
            self._complain(policy, message)
            verdict = Drop("failed") if policy.fallback == "drop" else None
        if isinstance(verdict, Drop):
            self._dropped(message, verdict.reason, taken)
            return
        if taken and message.eth_destination != self._mac:
            self._order(message, verdict, orders)
        if self.neighbours.observe(message) not in (None, Change.REFRESHED):
            self._bound = False

    def _order(self, message: Message, verdict: object, orders: list[tuple[bytes, int]]) -> None:
        if isinstance(verdict, Answer):
            self._counts["answered"] += 1
            orders.append((verdict.frame, message.ingress))
        elif isinstance(verdict, SendTo):
            self._counts["sent_to"] += 1
            orders.append((message.frame, verdict.port))
        else:
            if verdict is not None and not isinstance(verdict, Forward):
                self._complain(self.policy(message.ingress), message, f"{verdict!r} is no verdict")
            self._counts["forwarded"] += 1
            orders.append((message.frame, -1 - message.ingress))

    def _dropped(self, message: Message, reason: str, taken: bool) -> None:
        if taken:
            self._counts[f"dropped:{reason}"] += 1
        if reason == "spoofed":
            self.neighbours.contest(message)

    def _complain(self, policy: Policy, message: Message, what: str | None = None) -> None:
        """Log that a policy failed, with what it was asked; an exception being handled with its traceback."""
        self._counts["failed"] += 1
        if time.monotonic() - self._complained >= _COMPLAIN_SECONDS:
            self._complained = time.monotonic()
            _log.error("policy %s failed on %s: %s", policy, message, what or "see below", exc_info=what is None)

    def _asks(self, port: int) -> bool:
        """Whether a port's policy lives on fresh neighbours; nobody else is bothered with questions."""
        return any(self.policy(port).wants)

    def _bind(self) -> None:
        """Give the core the guards' bindings when they have changed."""
        guards = [p for policy in self._deciders.values() for p in policy.parts if isinstance(p, Guard)]
        if not guards or self._bound or time.monotonic() - self._tried < _BIND_SECONDS:
            return
        self._tried, self._bound = time.monotonic(), True
        self._dataplane.set_bindings(
            [(n.port, n.vlan & 0xFFF, int.from_bytes(n.mac, "big"), _ip16(n.ip)) for n in self.neighbours.live()],
            any(guard.strict for guard in guards),
        )


def _ip16(ip: bytes) -> bytes:
    """An IP address in 16 bytes, IPv4 mapped into IPv6 (RFC 4291 §2.5.5.2)."""
    return ip if len(ip) == 16 else bytes(10) + b"\xff\xff" + ip
