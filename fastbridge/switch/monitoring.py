"""What a monitor sees, found out.

Changes of the FDB, and frames that limits and guards drop, are found out for those who monitor the switch, and only
while somebody wants them. The other events come from where they happen, by the journal.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from fastbridge.addresses import MacAddress
from fastbridge.core.codes import CHANGE_KINDS, DROP_REASONS
from fastbridge.feed import Feed

if TYPE_CHECKING:
    from fastbridge.core.dataplane import Dataplane
    from fastbridge.core.fdb import FdbAccess

_SETTLE_SECONDS = 0.02  # between two looks at the FDB's changes
_COUNT_SECONDS = 1.0  # between two looks at the counters

_CHANGES = frozenset(CHANGE_KINDS)
#: The drop reasons that are events, by the event.
_VIOLATIONS = {
    "guard": ("source_guard", "locked"),
    "storm": (*(reason for reason in DROP_REASONS if reason.startswith("storm_")), "rate_limited"),
}


class Monitoring:
    """Tells a switch's feed what nobody else finds out."""

    def __init__(
        self,
        dataplane: Dataplane,
        entries: FdbAccess,
        feed: Feed,
        name_of: Callable[[int], str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._dataplane, self._entries, self._feed = dataplane, entries, feed
        self._name_of, self._clock = name_of, clock
        self._lock = threading.Lock()
        self._noting = False
        self._dropped: Mapping[int, Mapping[str, int]] | None = None  # by port and reason, when last looked at
        self._settled = self._counted = 0.0
        feed.on_change = self._suit

    def follow(self) -> float | None:
        """Tell what is due; returns the seconds until the next call, None: when there are events, or in a second."""
        if not self._noting and self._dropped is None:
            return None
        now = self._clock()
        if now - self._counted >= _COUNT_SECONDS:
            self._counted = now
            self.count()
        if now - self._settled < _SETTLE_SECONDS:
            return _SETTLE_SECONDS - (now - self._settled)
        self._settled = now
        self.settle()
        return None

    def settle(self) -> None:
        """Tell the changes of the FDB."""
        if not self._noting:
            return
        with self._lock:  # a port keeps its name until what came before is told
            changes, lost = self._entries.take_changes()
            for kind, ns, was, port, vlan, mac in changes:
                moved = {"was": self._name_of(was)} if kind == "moved" else {}
                name = self._name_of(port)
                self._feed.tell(kind, time=ns / 1e9, mac=str(MacAddress(mac)), vlan=vlan, ifname=name, **moved)
            if lost:
                self._feed.tell_lost(_CHANGES, lost)

    def count(self) -> None:
        """Tell which ports' frames limits and guards have dropped since the last call."""
        with self._lock:
            if self._dropped is None:
                return
            before, now = self._dropped, self._drops()
            self._dropped = now
        for port, drops in now.items():
            for event, reasons in _VIOLATIONS.items():
                for reason in reasons:
                    more = drops[reason] - before.get(port, {}).get(reason, 0)
                    if more > 0:
                        self._feed.tell(event, ifname=self._name_of(port), reason=reason, frames=more)

    def _drops(self) -> Mapping[int, Mapping[str, int]]:
        return {port: tally["dropped"] for port, tally in self._dataplane.snapshot()[0].items()}

    def _suit(self) -> None:
        """Find out what is wanted, and nothing else."""
        with self._lock:
            wanted = self._feed.wanted
            noting, counting = bool(wanted & _CHANGES), bool(wanted & _VIOLATIONS.keys())
            if noting != self._noting:
                self._entries.note_changes(noting)
                self._noting = noting
            if counting != (self._dropped is not None):
                self._dropped = self._drops() if counting else None
