"""Capture, of all ports.

What the switch saw and did, frame by frame, read from a tap in the core (core/tap.pxd). A capture that is read too
slowly loses frames and counts them; the switch never waits for it. The tap's rings are all the memory that it takes.
recorder.py makes a file of it, file_capture.py writes one, and capture_verbs.py sends it to a client.
flight_recorder.py keeps the last frames instead.
"""

from __future__ import annotations

import os
import select
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, TypedDict

from fastbridge.closes import Closes
from fastbridge.core.codes import DROP_REASONS, TX_DROP_REASONS
from fastbridge.core.filters import Filter
from fastbridge.core.tapping import Tap
from fastbridge.errors import ConfigError
from fastbridge.pcap_filter import compile_filter
from fastbridge.waiting import wait_for

from .trace import TraceEvent, event

if TYPE_CHECKING:
    from fastbridge.core.dataplane import Dataplane

WHOLE = 1 << 18  #: bytes of a frame that are kept unless a capture says otherwise: more than any frame but BIG TCP's
_ROOM = 1 << 24  # bytes of each worker's ring: 50 ms of small frames at a million a second, in memory once touched
_ROOM_OF_LAST = 1 << 22  # the same of a flight recorder: for as long as the switch is there, most often for nobody
_AT_A_TIME = 1 << 18  # bytes of a ring read at once


@dataclass(frozen=True)
class Wish:
    """Which frames a capture is to see, and how much of them.

    ports: only frames that come from one of these ports, or go to one; none: of all ports.
    drops: only frames that are dropped, and copies that are not sent. The fast path goes on meanwhile.
    reasons: only those dropped for one of these reasons, as counters() names them. Implies `drops`.
    filter: only frames that match it, in tcpdump's words (pcap-filter(7)); needs libpcap.
    count: end after so many frames. snap: bytes kept of a frame.
    copies: in a pcapng file, a block for each copy, too. most_bytes: end before it is larger.
    """

    ports: Collection[str] = ()
    drops: bool = False
    reasons: Collection[str] = ()
    filter: str = ""
    count: int | None = None
    snap: int = WHOLE
    copies: bool = False
    most_bytes: int | None = None
    #: The filter, compiled: here, because that may take long, and no port comes or goes while a capture begins.
    passing: Filter | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        known = DROP_REASONS | TX_DROP_REASONS
        strange = next((reason for reason in self.reasons if reason not in known), None)
        if strange is not None:
            text = f"there is no drop reason {strange!r}; there are: {', '.join(known)}"
            raise ConfigError(f"{text}; what a policy drops is told by: fastbridge monitor --event guard")
        if self.count is not None and self.count < 1:
            raise ConfigError(f"a capture ends after 1 frame or more, not {self.count}")
        if not 1 <= self.snap <= 1 << 20:
            raise ConfigError(f"a capture keeps 1 … {1 << 20} bytes of a frame, not {self.snap}")
        object.__setattr__(self, "passing", compile_filter(self.filter) if self.filter else None)

    @property
    def only_drops(self) -> bool:
        """Whether frames that are forwarded do not matter."""
        return self.drops or bool(self.reasons)

    def __str__(self) -> str:
        words = [f"ports {', '.join(self.ports)}" if self.ports else "all ports"]
        if self.only_drops:
            words.append("drops" + (f" for {', '.join(self.reasons)}" if self.reasons else ""))
        if self.filter:
            words.append(f"filter {self.filter!r}")
        if self.copies:
            words.append("every copy")
        return "; ".join([*words, f"{self.snap} bytes of a frame"])


class WishWords(TypedDict, total=False):
    """The words of a Wish."""

    ports: Collection[str]
    drops: bool
    reasons: Collection[str]
    filter: str
    count: int | None
    snap: int
    copies: bool
    most_bytes: int | None


class Watched:
    """What a tap needs to know of its switch; the switch says when its ports change.

    A port's index may be another port's later. So each name has the time from which on it counts.
    """

    def __init__(
        self, dataplane: Dataplane, ports: Callable[[], dict[int, str]], ended: Callable[[Capture], object]
    ) -> None:
        self.dataplane = dataplane
        self.ports = ports  # by index, those of now
        self.ended = ended  # called for a capture that has ended
        self._names: dict[int, list[tuple[int, str]]] = {index: [(0, name)] for index, name in ports().items()}

    def note(self) -> None:
        """Ports have come or gone."""
        now = time.monotonic_ns()
        for index, name in self.ports().items():
            known = self._names.setdefault(index, [])
            if not known or known[-1][1] != name:
                known.append((now, name))

    def name_of(self, when: int, index: int) -> str:
        """The name that a port had at that time."""
        known = self._names.get(index, [])
        if len(known) == 1:
            return known[0][1]
        return next((name for since, name in reversed(known) if since <= when), known[0][1] if known else f"#{index}")

    @property
    def names(self) -> list[str]:
        """All names there have been."""
        return list(dict.fromkeys(name for known in self._names.values() for _, name in known))

    @property
    def indexes(self) -> dict[int, str]:
        """All indexes there have been, with their last names."""
        return {index: known[-1][1] for index, known in self._names.items()}


class Capture(Closes):
    """Frames and their fates, from its making to close(). read() never waits; wait for fileno() to be readable."""

    def __init__(
        self,
        watched: Watched,
        wish: Wish,
        seeing_all: Callable[[], AbstractContextManager[None]],
        last: int | None = None,
    ) -> None:
        """seeing_all: while it is entered, every frame comes to the core.

        last: keep that many frames, the last ones, to be read after close(). The fast path goes on meanwhile.
        """
        self.wish = wish
        self.began = time.time_ns()
        self.frames = 0  #: read so far
        self.ended = False  #: nothing more will come: it was closed, or has read as many frames as it was to read
        self.watched = watched
        self._tap = Tap(
            watched.dataplane,
            snap=wish.snap,
            room=_ROOM if last is None else _ROOM_OF_LAST,
            limit=0xFFFFFFFF if last is None else last,
            keep_last=last is not None,
            sent=not wish.only_drops,
            own=not wish.only_drops,
            reasons=wish.reasons or None,
            passing=wish.passing,
            every_copy=wish.copies,
        )
        self._entered = ExitStack()
        self.note_ports()
        self._tap.start()
        if not wish.only_drops and last is None:
            try:
                self._entered.enter_context(seeing_all())
            except BaseException:
                self._tap.stop()
                raise

    __contains__: None = None  # `in` would read the frames, and so take them away

    def __iter__(self) -> Iterator[TraceEvent]:
        """Frames as they come, until the capture ends. Waits for them."""
        while not self.ended:
            wait_for(self.fileno(), select.POLLIN)
            yield from self.read()
        while rest := self.read():
            yield from rest

    def fileno(self) -> int:
        """Readable when there are frames to read."""
        return self._tap.fileno()

    @property
    def seen(self) -> int:
        """Frames that it was to show, read or not."""
        return self._tap.counts[0]

    @property
    def lost(self) -> int:
        """Frames that the capture has lost, because they were not read in time."""
        return self._tap.counts[1]

    def lost_of(self) -> Counter[str]:
        """Those, by port."""
        lost: Counter[str] = Counter()
        for index, name in self.watched.indexes.items():
            lost[name] += self._tap.lost_of(index)
        return lost

    def note_ports(self) -> None:
        """Ports have come or gone."""
        self.watched.note()
        if self.wish.ports:
            self._tap.set_ports([i for i, name in self.watched.ports().items() if name in self.wish.ports])

    def note_leaving(self, index: int) -> None:
        """A port is about to go: its frames stay."""

    def read(self) -> list[TraceEvent]:
        """Take frames that were seen, by time; some of them if there are many."""
        rows = self._tap.read(_AT_A_TIME)
        if self.wish.count is not None:
            rows = rows[: self.wish.count - self.frames]
        self.frames += len(rows)
        if self.frames == self.wish.count:
            self.close()
        return [event(row, partial(self.watched.name_of, row[0])) for row in rows]

    def close(self) -> None:
        """See no more frames. Those that were seen can still be read, unless there were as many as wished for."""
        self._entered.close()
        self._tap.stop()
        self.watched.ended(self)
        self.ended = True
        os.eventfd_write(self._tap.fileno(), 1)  # whoever waits shall see it
