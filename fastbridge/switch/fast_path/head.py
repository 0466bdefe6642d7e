"""Promotion, by the core's decisions.

The kernel holds a cache of decisions, never the FDB. A pair is promoted when the core has just forwarded a frame of it
between two known stations. From then on the kernel forwards its frames, and the core does not see them. Any change that
could alter the core's decision revokes the pair before it is reported: a move, a flush, a removed or static entry, a
flag, a policy. A lost link is the core's to see, and its pairs go a moment later. Frames that the kernel heard keep the
FDB's entries alive.

No pair outlives its FDB entries, whatever the order of events. The FDB changes first, and then its pairs are revoked. A
pair is promoted first, and then the FDB is read again. The same holds for the ports' links, flags and bindings.
"""

from __future__ import annotations

import logging
import os
import select
import threading
import time
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from fastbridge.addresses import MacAddress
from fastbridge.core.nominations import Nominations
from fastbridge.journal import Event, Journal
from fastbridge.policy.base import Policy
from fastbridge.policy.builtin import Guard, RateLimit
from fastbridge.threads import start_thread

from .hand import IPV4, IPV6, MOST_PAIRS, Hand, Look, NoInterfaceError, Pair, RefusedError

if TYPE_CHECKING:
    from fastbridge.core.dataplane import Dataplane
    from fastbridge.core.fdb import FdbAccess

_log = logging.getLogger(__name__)

# A pair that was silent for so long is revoked to free its room. Its next frame goes through the core and promotes it
# again.
IDLE_SECONDS = 30.0
# How often the hand is asked for the pairs' last use. The FDB's ageing is only as exact as that. With an ageing of less
# than twice that, nothing is promoted.
HEARD_SECONDS = 1.0
# The pause after the kernel refused.
_REFUSED_SECONDS = 1.0


class FastPath:
    """Promotes and revokes pairs of a switch's stations by a hand."""

    def __init__(
        self,
        dataplane: Dataplane,
        entries: FdbAccess,
        hand: Hand,
        now_ms: Callable[[], int],
        journal: Journal,
        name_of: Callable[[int], str] = str,
    ) -> None:
        self._name_of = name_of
        self._entries, self.hand, self._now_ms, self._journal = entries, hand, now_ms, journal
        self._nominations = Nominations(dataplane)
        self._pairs: dict[Pair, int] = {}
        self._of_station: defaultdict[int, set[Pair]] = defaultdict(set)
        self._of_port: defaultdict[int, set[Pair]] = defaultdict(set)
        self._of_ip: defaultdict[bytes, set[Pair]] = defaultdict(set)
        self._of_ingress: Counter[int] = Counter()
        self.promoted_from: set[int] = set()  #: attached ports that the hand was asked to promote from
        self._looks: dict[int, Look] = {}
        self._mtus: dict[int, int] = {}  # of the hand's ports
        self._holds = 0  # users that want nothing promoted, such as traces
        self._refused_until = 0.0
        self._since: dict[Pair, float] = {}  # when each pair was promoted
        self._uncleared = False  # the kernel may still forward revoked pairs
        self.failed = False  #: for good: the kernel's state is not known, and nothing is promoted any more
        self._lock = threading.RLock()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self.promoted = self.revoked = self.refused = self.lost = 0
        self._nominations.switch_on(True)

    @staticmethod
    def suits(ageing: float | None, damping: float) -> bool:
        """Whether a switch with this ageing and this damping of moves (seconds) may have a fast path.

        The FDB learns only now and then of the kernel's frames.
        """
        return damping == 0 and (ageing is None or ageing >= 2 * HEARD_SECONDS)

    def start(self) -> None:
        """Promote from now on, on a thread of its own."""
        self._thread = start_thread("fastbridge-fast-path", self._work)

    def stop(self) -> None:
        """Revoke all, and end."""
        self._stopping.set()
        os.eventfd_write(self._nominations.fd, 1)
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        with self._lock:
            self._nominations.switch_on(False)
            self._holds += 1
            self._forget(list(self._pairs))
            self._clear()  # if the kernel refuses: closing the hand removes everything

    def leave_to_parent(self) -> None:
        """In a forked child: a trace, say, may still let go of it, and its thread may have held the lock."""
        self._lock = threading.RLock()

    def __len__(self) -> int:
        return len(self._pairs)

    @property
    def pairs(self) -> dict[Pair, int]:
        """The promoted pairs, each with its egress port."""
        with self._lock:
            return dict(self._pairs)

    def read(self) -> None:
        """Act on the pairs that the core has named since the last call."""
        with self._lock:
            candidates, self.lost = self._nominations.read()
            wanted: dict[Pair, int] = {}
            moved: set[int] = set()
            for has_moved, ingress, egress, ethertype, source, destination, ip in candidates:
                if has_moved:
                    moved.add(source)
                    wanted = {p: e for p, e in wanted.items() if source not in (p.source, p.destination)}
                else:
                    wanted[Pair(ingress, destination, source, ethertype, ip)] = egress
            for station in moved:
                self.revoke_station(station)
            self._promote(wanted)

    def hear(self) -> None:
        """Tell the FDB which stations the kernel heard, and revoke pairs that were silent for long."""
        with self._lock:
            heard = self.hand.idle()
            stations: dict[tuple[int, int], float] = {}
            for pair, idle in heard.items():
                at = pair.source, pair.ingress
                stations[at] = min(idle, stations.get(at, idle))
            if stations:
                keys = array("Q", [mac for mac, _ in stations])
                ports = array("H", [port for _, port in stations])
                idle_ms = array("I", [round(1000 * idle) for idle in stations.values()])
                self._entries.refresh_many(keys, ports, idle_ms, self._now_ms())
            now = time.monotonic()
            idle_for = {pair: heard.get(pair, now - since) for pair, since in self._since.items()}
            self._revoke([pair for pair, idle in idle_for.items() if idle > IDLE_SECONDS])

    def check(self) -> None:
        """Revoke the pairs that the FDB no longer confirms or the ports no longer let pass."""
        with self._lock:
            self._revoke(self._stale(self._pairs))

    def revoke_station(self, mac: int) -> None:
        """Revoke all pairs of a station."""
        with self._lock:
            self._revoke(list(self._of_station.get(mac, ())))

    def revoke_port(self, index: int) -> None:
        """Revoke all pairs to or from a port."""
        with self._lock:
            self._revoke(list(self._of_port.get(index, ())))

    def set_policy(self, index: int, policy: Policy) -> None:
        """Look at a port's frames as its policy needs it, and revoke the pairs promoted before."""
        guards = [part for part in policy.parts if isinstance(part, Guard)]
        limits = any(isinstance(part, RateLimit) for part in policy.parts)
        if guards and not any(guard.routes for guard in guards):
            look = Look.SOURCES
        elif policy.wants.nd_unicast or limits:
            look = Look.ND
        else:
            look = Look.NOTHING
        with self._lock:
            self.revoke_port(index)
            if look is not self._looks.get(index, Look.NOTHING):
                self._looks[index] = look
                with self._or_nothing():
                    self.hand.look(index, look)

    def set_port(self, index: int, mtu: int) -> None:
        """A port of the hand, and its MTU. Frames from a port with a larger MTU are not promoted to it."""
        if self._mtus.get(index) != mtu:
            with self._lock:
                self._mtus[index] = mtu
                self.revoke_port(index)

    def rename(self, index: int, name: str) -> None:
        """A port's interface has another name. Raises OSError."""
        with self._lock:
            self.hand.rename(index, name)

    def remove_port(self, index: int) -> None:
        """Forget all about a port."""
        with self._lock:
            self.revoke_port(index)
            self._mtus.pop(index, None)
            self._looks.pop(index, None)

    def follow_bindings(self, rows: Iterable[tuple[int, int, int, bytes]]) -> None:
        """Revoke the pairs that a guard no longer lets pass.

        rows: the changed bindings (port, VLAN, MAC, IP); the binding of a MAC alone has an IP of zeros.
        """
        with self._lock:
            concerned: set[Pair] = set()
            for _, vlan, mac, ip in rows:
                if vlan == 0:  # tagged frames are the core's
                    concerned |= self._of_ip.get(ip, set()) if any(ip) else self._of_station.get(mac, set())
            self._revoke(self._stale({pair: self._pairs[pair] for pair in concerned & self._pairs.keys()}))

    @contextmanager
    def held(self) -> Iterator[None]:
        """A context in which every frame comes to the core, as for a trace."""
        with self._lock:
            self._holds += 1
            self._revoke(list(self._pairs))
        try:
            yield
        finally:
            with self._lock:
                self._holds -= 1

    def _promote(self, wanted: dict[Pair, int]) -> None:
        now = time.monotonic()
        if self._holds or now < self._refused_until:
            return
        fresh = {
            pair: egress
            for pair, egress in wanted.items()
            if self._pairs.get(pair) != egress and self._may(pair, egress)
        }
        self._revoke([pair for pair in fresh if pair in self._pairs])  # it led elsewhere
        for pair in self._stale(fresh):  # named before something changed
            del fresh[pair]
        fresh = self._with_room(fresh)
        if not fresh or self._holds:
            return
        self.promoted_from |= {pair.ingress for pair in fresh}
        try:
            self.hand.promote(fresh)
        except NoInterfaceError:
            return
        except RefusedError as error:
            self.refused += len(fresh)
            self._refused_until = now + _REFUSED_SECONDS
            text = f"the kernel's fast path is full, pairs stay with the core: {error}"
            event = Event("fast_path", {"state": "full"})
            self._journal.warn(_log, "full fast paths", text, thing=str(error), event=event)
            return
        for pair, egress in fresh.items():
            self._pairs[pair], self._since[pair] = egress, now
            self._of_ingress[pair.ingress] += 1
            for index, thing in self._indexed(pair, egress):
                index[thing].add(pair)
        self.promoted += len(fresh)
        self._tell("promoted", fresh)
        self._revoke(self._stale(fresh))

    def _may(self, pair: Pair, egress: int) -> bool:
        """Whether a pair's frames may pass without the core, by the present state of its ports."""
        sent, taken = self._mtus.get(pair.ingress), self._mtus.get(egress)
        by_ip = self._looks.get(pair.ingress) is Look.SOURCES and pair.ethertype in (IPV4, IPV6)
        return sent is not None and taken is not None and sent <= taken and by_ip == bool(pair.ip)

    def _with_room(self, fresh: dict[Pair, int]) -> dict[Pair, int]:
        """The pairs that there is room for.

        A port may have as many as are free. So a port that makes up stations leaves half of the room to the others.
        """
        taken: dict[Pair, int] = {}
        share = Counter(self._of_ingress)
        for pair, egress in fresh.items():
            if share[pair.ingress] < MOST_PAIRS - len(self._pairs) - len(taken):
                taken[pair] = egress
                share[pair.ingress] += 1
        self.refused += len(fresh) - len(taken)
        return taken

    def _stale(self, pairs: Mapping[Pair, int]) -> list[Pair]:
        """The pairs whose stations have moved or left the FDB, or whose ports no longer let them pass.

        pairs: with the ports they lead to. What lets them pass: the ports' links, flags and guard.
        """
        if not pairs:
            return []
        macs = array("Q", [mac for pair in pairs for mac in (pair.source, pair.destination)])
        ports = self._entries.lookup_many(macs, self._now_ms()).tolist()
        return [
            pair
            for (pair, egress), source, destination in zip(pairs.items(), ports[::2], ports[1::2], strict=True)
            if source != pair.ingress
            or destination != egress
            or not self._nominations.allows(pair.ingress, egress, pair.source, pair.ip)
        ]

    def _revoke(self, pairs: Iterable[Pair]) -> None:
        gone = {pair: self._pairs[pair] for pair in pairs if pair in self._pairs}
        if not gone:
            return
        with self._or_nothing():
            self.hand.revoke(list(gone))
            self._forget(gone)
            self._tell("revoked", gone)
        self.revoked += len(gone)

    def _tell(self, event: str, pairs: Mapping[Pair, int]) -> None:
        feed = self._journal.feed
        if event in feed.wanted:
            for pair, egress in pairs.items():
                ends = {"mac": str(MacAddress(pair.source)), "to": str(MacAddress(pair.destination))}
                feed.tell(event, **ends, ifname=self._name_of(pair.ingress), egress=self._name_of(egress))

    def _forget(self, pairs: Iterable[Pair]) -> None:
        for pair in pairs:
            egress = self._pairs.pop(pair)
            del self._since[pair]
            self._of_ingress[pair.ingress] -= 1
            for index, thing in self._indexed(pair, egress):
                index[thing].discard(pair)
                if not index[thing]:
                    index.pop(thing)

    def _indexed(self, pair: Pair, egress: int) -> list[tuple[defaultdict[Any, set[Pair]], Any]]:
        """The keys of a pair in the index of reasons to revoke it."""
        stations = [(self._of_station, pair.source), (self._of_station, pair.destination)]
        return [*stations, (self._of_port, pair.ingress), (self._of_port, egress), (self._of_ip, pair.ip)]

    def _work(self) -> None:
        named = select.poll()
        named.register(self._nominations.fd, select.POLLIN)
        refreshed = time.monotonic()
        while not self._stopping.is_set():
            if named.poll(1000 * HEARD_SECONDS):
                os.eventfd_read(self._nominations.fd)
            if self._uncleared:
                self._clear()
            try:
                self.read()
                if time.monotonic() - refreshed >= HEARD_SECONDS:
                    refreshed = time.monotonic()
                    self.hear()
                    self.check()
            except Exception:  # nothing may end this thread: a pair that is not revoked would outlive its rule
                self._give_up()

    @contextmanager
    def _or_nothing(self) -> Iterator[None]:
        """Revoke in the kernel, or a pair would outlive its rule. If the kernel refuses, it shall forward nothing."""
        try:
            yield
        except OSError:
            self._give_up()

    def _give_up(self) -> None:
        """Let the kernel forward nothing any more: its state is not known."""
        text = "the fast path failed; going on with the core alone"
        event = Event("fast_path", {"state": "failed"})
        self._journal.warn(_log, "failures of the fast path", text, thing=text, level=logging.ERROR, event=event)
        with self._lock:
            self.failed = True
            self._holds += 1
            self._forget(list(self._pairs))
            self._clear()

    def _clear(self) -> None:
        """Revoke every pair; if the kernel refuses, try again every second."""
        with self._lock:
            try:
                self.hand.clear()
            except OSError:
                text = "the kernel goes on forwarding what it was told; asking it again every second"
                self._journal.warn(_log, "failures of the fast path", text, thing=text, level=logging.ERROR)
                self._uncleared = True
            else:
                self._uncleared = False
