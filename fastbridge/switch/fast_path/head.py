"""Promotion, by the core's decisions.

A cache of decisions, never the FDB. A pair is promoted when the core has just forwarded a frame of it between two known
stations; from then on the kernel forwards its frames, and the core sees them no more. Whatever could make the core
decide otherwise revokes the pair before it is reported: a move, a flush, a removed or static entry, a flag, a policy, a
lost link. What the kernel heard keeps the FDB's entries alive.

No order of events leaves a pair behind that the FDB no longer says: a change of the FDB comes first, and then revokes;
a promotion comes first, and then looks at the FDB again.
"""

from __future__ import annotations

import logging
import os
import select
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import numpy as np

from fastbridge.core.nominations import Nominations

from .hand import MOST_PAIRS, Hand, Pair, RefusedError

if TYPE_CHECKING:
    from fastbridge.core.dataplane import Dataplane
    from fastbridge.core.fdb import FdbAccess

_log = logging.getLogger(__name__)

# A pair that was silent for so long gives its room back; its next frame goes through the core, and brings it back.
IDLE_SECONDS = 30.0
# How often the hand is asked what it heard. The FDB's ageing is as exact as that, so with less than twice that nothing
# is promoted.
HEARD_SECONDS = 1.0
_IPV6 = 0x86DD  # among which ND is
# A kernel that refused is not asked again before.
_REFUSED_SECONDS = 1.0


class FastPath:
    """Promotes and revokes pairs of a switch's stations by a hand."""

    def __init__(self, dataplane: Dataplane, entries: FdbAccess, hand: Hand, now_ms: Callable[[], int]) -> None:
        self._entries, self.hand, self._now_ms = entries, hand, now_ms
        self._nominations = Nominations(dataplane)
        self._pairs: dict[Pair, int] = {}
        self._of_station: defaultdict[int, set[Pair]] = defaultdict(set)
        self._of_port: defaultdict[int, set[Pair]] = defaultdict(set)
        self._slow: dict[int, bool] = {}  # ports whose frames are the core's: True all, False those of IPv6
        self._holds = 0  # who wants nothing promoted, such as traces
        self._refused_until = 0.0
        self._lock = threading.RLock()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self.promoted = self.revoked = self.refused = self.lost = 0
        self._nominations.switch_on(True)

    @staticmethod
    def suits(ageing: float | None, damping: float) -> bool:
        """Whether a switch with this ageing and this damping of moves (seconds) may have one: the FDB hears of the
        kernel's frames only so often.
        """
        return damping == 0 and (ageing is None or ageing >= 2 * HEARD_SECONDS)

    def start(self) -> None:
        """Promote from now on, on a thread of its own."""
        self._thread = threading.Thread(target=self._work, name="fastbridge-fast-path", daemon=True)
        self._thread.start()

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
            self.hand.clear()

    def __len__(self) -> int:
        return len(self._pairs)

    @property
    def pairs(self) -> dict[Pair, int]:
        """What is promoted, and to which port."""
        with self._lock:
            return dict(self._pairs)

    def read(self) -> None:
        """Act on what the core has named since the last time."""
        candidates, self.lost = self._nominations.read()
        with self._lock:
            wanted: dict[Pair, int] = {}
            moved: set[int] = set()
            for has_moved, ingress, egress, ethertype, source, destination in candidates:
                if has_moved:
                    moved.add(source)
                    wanted = {p: e for p, e in wanted.items() if source not in (p.source, p.destination)}
                else:
                    wanted[Pair(ingress, destination, source, ethertype)] = egress
            for station in moved:
                self.revoke_station(station)
            self._promote(wanted)

    def refresh(self) -> None:
        """Tell the FDB whom the kernel heard, and revoke what was silent for long or what the FDB no longer has. Comes
        before the FDB's own sweep.
        """
        with self._lock:
            heard = self.hand.idle()
            stations: dict[tuple[int, int], float] = {}
            for pair, idle in heard.items():
                at = pair.source, pair.ingress
                stations[at] = min(idle, stations.get(at, idle))
            if stations:
                keys = np.array([mac for mac, _ in stations], np.uint64)
                ports = np.array([port for _, port in stations], np.uint16)
                idle_ms = np.array([round(1000 * idle) for idle in stations.values()], np.uint32)
                self._entries.refresh_many(keys, ports, idle_ms, self._now_ms())
            self._revoke([pair for pair, idle in heard.items() if idle > IDLE_SECONDS])
            self.check()

    def check(self) -> None:
        """Revoke what the FDB does not say, any more."""
        with self._lock:
            self._revoke(self._stale(self._pairs))

    def revoke_station(self, mac: int) -> None:
        """Of a station nothing that is promoted holds."""
        with self._lock:
            self._revoke(list(self._of_station.get(mac, ())))

    def revoke_port(self, index: int) -> None:
        """To or from a port nothing that is promoted holds."""
        with self._lock:
            self._revoke(list(self._of_port.get(index, ())))

    def revoke_all(self) -> None:
        """Nothing that is promoted holds."""
        with self._lock:
            self._revoke(list(self._pairs))

    def set_slow(self, index: int, *, all_frames: bool, ipv6: bool = False) -> None:
        """Say that all of a port's frames are the core's business, or those of IPv6, or none."""
        with self._lock:
            self._slow.pop(index, None)
            if all_frames or ipv6:
                self._slow[index] = all_frames
            self.revoke_port(index)

    def hold(self) -> None:
        """Let every frame come to the core until release(), as for a trace."""
        with self._lock:
            self._holds += 1
            self.revoke_all()

    def release(self) -> None:
        """End one hold()."""
        with self._lock:
            self._holds -= 1

    def _promote(self, wanted: dict[Pair, int]) -> None:
        now = time.monotonic()
        if self._holds or now < self._refused_until:
            return
        fresh = {
            pair: egress
            for pair, egress in wanted.items()
            if self._pairs.get(pair) != egress and self._may(pair, pair.ingress) and self._may(pair, egress)
        }
        self._revoke([pair for pair in fresh if pair in self._pairs])  # it led elsewhere
        while fresh and len(self._pairs) + len(fresh) > MOST_PAIRS:
            fresh.popitem()
            self.refused += 1
        if not fresh:
            return
        try:
            self.hand.promote(fresh)
        except RefusedError as error:
            self.refused += len(fresh)
            self._refused_until = now + _REFUSED_SECONDS
            _log.warning("the kernel's fast path is full, %d pairs stay with the core: %s", len(fresh), error)
            return
        for pair, egress in fresh.items():
            self._pairs[pair] = egress
            for station in (pair.source, pair.destination):
                self._of_station[station].add(pair)
            for port in (pair.ingress, egress):
                self._of_port[port].add(pair)
        self.promoted += len(fresh)
        self._revoke(self._stale(fresh))

    def _may(self, pair: Pair, port: int) -> bool:
        """Whether a port lets a pair's frames pass without the core."""
        slow = self._slow.get(port)
        return slow is None or (not slow and pair.ethertype != _IPV6)

    def _stale(self, pairs: Iterable[Pair]) -> list[Pair]:
        """Those whose stations the FDB has not where they were."""
        known = list(pairs)
        if not known:
            return []
        macs = np.array([mac for pair in known for mac in (pair.source, pair.destination)], np.uint64)
        ports = self._entries.lookup_many(macs, self._now_ms()).reshape(-1, 2).tolist()
        return [
            pair
            for pair, (source, destination) in zip(known, ports, strict=True)
            if source != pair.ingress or destination != self._pairs.get(pair)
        ]

    def _revoke(self, pairs: Iterable[Pair]) -> None:
        gone = [pair for pair in pairs if pair in self._pairs]
        if gone:
            self.hand.revoke(gone)
            self._forget(gone)
            self.revoked += len(gone)

    def _forget(self, pairs: Iterable[Pair]) -> None:
        for pair in pairs:
            egress = self._pairs.pop(pair)
            for index, things in (
                (self._of_station, (pair.source, pair.destination)),
                (self._of_port, (pair.ingress, egress)),
            ):
                for thing in things:
                    index[thing].discard(pair)
                    if not index[thing]:
                        index.pop(thing)

    def _work(self) -> None:
        named = select.poll()
        named.register(self._nominations.fd, select.POLLIN)
        refreshed = time.monotonic()
        while not self._stopping.is_set():
            if named.poll(1000 * HEARD_SECONDS):
                os.eventfd_read(self._nominations.fd)
            try:
                self.read()
                if time.monotonic() - refreshed >= HEARD_SECONDS:
                    refreshed = time.monotonic()
                    self.refresh()
            except Exception:  # nothing may end this thread: a pair that is not revoked would outlive its rule
                _log.exception("the fast path failed; going on with the core alone")
                self._fail()

    def _fail(self) -> None:
        """Let the kernel forward nothing any more: what it was told is not known."""
        with self._lock:
            self._holds += 1
            self._forget(list(self._pairs))
            self.hand.clear()


def _discard(index: defaultdict[int, set[Pair]], thing: int, pair: Pair) -> None:
    index[thing].discard(pair)
    if not index[thing]:
        del index[thing]
