"""Events, handed out.

What happens in a switch goes to those who monitor it, as plain dicts. Nobody waits for a monitor. One that is not read
loses its oldest events and counts them.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from .closes import Closes
from .errors import ConfigError
from .forks import in_child

#: Every event and what it says. Each has `event` and `time` (seconds since 1970) besides.
EVENTS = {
    "learned": "a new FDB entry: mac, vlan, ifname",
    "moved": "a station was heard on another port: mac, vlan, ifname, was",
    "aged": "nothing was heard from a station: mac, vlan, ifname",
    "evicted": "an FDB entry made room for another port's: mac, vlan, ifname",
    "forgotten": "an FDB entry was removed or flushed, or its port or link is lost: mac, vlan, ifname",
    "fixed": "a static FDB entry: mac, vlan, ifname",
    "flapping": "a station keeps moving: mac, vlan, ifname, was, moves",
    "link": "a port's link is up, down, gone or blocked: ifname, link",
    "port_added": "a port was added: ifname",
    "port_removed": "a port was removed: ifname",
    "guard": "source guard, a locked port or a policy dropped frames: ifname, reason, frames; of ARP and ND mac, vlan",
    "storm": "a limit of a port dropped frames: ifname, reason, frames",
    "conflict": "two claim one IP address: dst, vlan, known and claimed (lladdr and ifname each)",
    "policy_error": "a policy raised, hangs or says nothing that can be carried out",
    "promoted": "the kernel forwards a pair of stations from now on: mac, ifname, to, egress",
    "revoked": "the kernel no longer forwards a pair of stations: mac, ifname, to, egress",
    "fast_path": "the fast path is full or has failed",
    "lost": "events that came faster than they were read: count",
}

Event = dict[str, Any]


class Monitor(Closes):
    """The events of a switch from now on. Iterate over it to wait for each; or read() when fileno() is readable.

    It ends with close(), or with the switch; until then it costs the switch some time. For one reader; close() may come
    from any thread.
    """

    def __init__(self, events: frozenset[str], limit: int, leave: Callable[[Monitor], None]) -> None:
        self.events = events
        self._limit, self._leave = limit, leave
        self._waiting: deque[Event] = deque()
        self._lost = 0
        self._changed = threading.Condition()
        self._fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._ended = False
        in_child(self, Monitor._leave_to_parent)

    def fileno(self) -> int:
        """A descriptor that is readable when events wait, or when it has ended; -1 after close()."""
        return self._fd

    def read(self) -> list[Event] | None:
        """The events that wait, oldest first; None: it has ended. It never blocks."""
        with self._changed:
            events, self._waiting = list(self._waiting), deque()
            if self._lost:
                events.insert(0, {"event": "lost", "time": time.time(), "count": self._lost})
                self._lost = 0
            if self._fd >= 0 and not self._ended:
                with contextlib.suppress(BlockingIOError):  # nothing has waited
                    os.eventfd_read(self._fd)
            return None if self._ended and not events else events

    def __iter__(self) -> Iterator[Event]:
        """Each event as it comes, until it ends."""
        while True:
            with self._changed:
                while not self._waiting and not self._lost and not self._ended:
                    self._changed.wait()
            if (events := self.read()) is None:
                return
            yield from events

    def put(self, event: Event) -> None:
        """Add an event; the oldest is lost if there is no room."""
        with self._changed:
            if self._ended:
                return
            if len(self._waiting) == self._limit:
                self._waiting.popleft()
                self._lost += 1
            self._waiting.append(event)
            self._wake()

    def lose(self, count: int) -> None:
        """Count events that never came here."""
        with self._changed:
            self._lost += count

    def end(self) -> None:
        """No more events will come; those that wait can still be read."""
        with self._changed:
            self._ended = True
            self._wake()

    def close(self) -> None:
        """End it."""
        self._leave(self)
        self.end()
        with self._changed:
            fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _wake(self) -> None:
        self._changed.notify_all()
        if self._fd >= 0 and (self._ended or len(self._waiting) == 1):
            os.eventfd_write(self._fd, 1)

    def _leave_to_parent(self) -> None:
        """In a forked child: the events are the parent's."""
        self._changed = threading.Condition()
        self._leave = _nobody
        self._waiting.clear()
        self._lost = 0
        self.close()


class Feed:
    """The events of one switch, for its monitors."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._monitors: tuple[Monitor, ...] = ()
        #: the events that somebody wants: what is not there need not be found out
        self.wanted: frozenset[str] = frozenset()
        #: called when `wanted` may have changed
        self.on_change: Callable[[], None] = _nothing

    def monitor(self, events: Iterable[str] | None, limit: int) -> Monitor:
        """The events of these names (None: all) from now on; at most `limit` wait. Raises ConfigError."""
        if isinstance(events, str):
            raise ConfigError(f"events is a list of names, not {events!r}; write [{events!r}]")
        names = frozenset(EVENTS if events is None else events)
        if strange := sorted(names - EVENTS.keys()):
            raise ConfigError(f"no event is named {strange[0]!r}; there are: {', '.join(EVENTS)}")
        if not 0 < limit <= 1 << 20:
            raise ConfigError(f"a monitor keeps 1 … {1 << 20} events, not {limit}")
        monitor = Monitor(names, limit, self._leave)
        with self._lock:
            self._set((*self._monitors, monitor))
        self.on_change()
        return monitor

    def tell(self, event: str, **fields: Any) -> None:
        """Tell the monitors that want it; `time` is now unless it is given."""
        if event in self.wanted:
            said = {"event": event, "time": time.time(), **fields}
            for monitor in self._monitors:
                if event in monitor.events:
                    monitor.put(dict(said))  # whoever gets it may change it

    def tell_lost(self, events: frozenset[str], count: int) -> None:
        """So many of these events came faster than they were found out."""
        for monitor in self._monitors:
            if events & monitor.events:
                monitor.lose(count)

    def close(self) -> None:
        """End all monitors."""
        with self._lock:
            monitors = self._monitors
            self._set(())
        for monitor in monitors:
            monitor.end()

    def _leave(self, monitor: Monitor) -> None:
        with self._lock:
            self._set(tuple(other for other in self._monitors if other is not monitor))
        self.on_change()

    def _set(self, monitors: tuple[Monitor, ...]) -> None:
        self._monitors = monitors
        self.wanted = frozenset(name for monitor in monitors for name in monitor.events)


def _nobody(monitor: Monitor) -> None:
    """A monitor that no feed knows."""


def _nothing() -> None:
    """Nobody is to be told."""
