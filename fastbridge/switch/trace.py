"""Frame trace, bounded.

A record of the switch's decisions, frame by frame, for the demo, for tests and for debugging.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Literal, NamedTuple, cast

from fastbridge.core.codes import DROP_REASONS
from fastbridge.core.tapping import Tap
from fastbridge.dissect import dissect, header
from fastbridge.errors import ConfigError

if TYPE_CHECKING:
    from fastbridge.core.dataplane import Dataplane
    from fastbridge.core.tapping import Row

Action = Literal["forwarded", "flooded", "consumed", "dropped", "unsent"]
Learned = Literal["new", "moved", "refused"]

_LISTED = 32  # egress ports of a frame, with room for these in a record of a trace
_RECORD = 64 + 2 * _LISTED  # bytes of a record without the frame


class TraceEvent(NamedTuple):
    """One frame and its decision; or, of a capture, a copy that was not sent."""

    time_ns: int  #: CLOCK_MONOTONIC
    ingress: str  #: "": the switch itself has sent it
    frame: bytes  #: its first bytes, at most `snap`
    length: int  #: its whole length in bytes, without FCS
    action: Action
    reason: str | None  #: why it was dropped, or not sent
    learned: Learned | None  #: the change that its source made to the FDB; None: nothing new
    egress: tuple[str, ...]  #: the ports its copies went to, at most the first 32
    number: int = 0  #: the same for all that is told of one frame
    worker: int = 0
    segment: int = 0  #: bytes of payload of each frame that this one is still to be cut into (GSO); 0: none

    def __str__(self) -> str:
        """One line: what the frame is, and what happened to it."""
        if len(self.frame) < 14:
            said = f"{len(self.frame)} bytes"
        else:
            ends, about = header(self.frame), dissect(self.frame)
            said = f"{about.protocol} {about.text}, {ends.source} > {ends.destination}, {self.length} bytes"
        learned = "" if self.learned is None else f"; source {self.learned if self.learned != 'new' else 'learned'}"
        return f"{self.ingress or 'the switch'} → {said}: {self.fate}{learned}"

    @property
    def fate(self) -> str:
        """What happened to it."""
        done = "not sent" if self.action == "unsent" else self.action
        where = f" to {', '.join(self.egress)}" if self.egress else ""
        return f"{done}{where}{f' ({self.reason})' if self.reason else ''}"


class Trace:
    """Records decisions while its `with` block runs. A full trace counts newer events in `lost`; it never waits."""

    def __init__(
        self,
        dataplane: Dataplane,
        name_of: Callable[[int], str],
        snap: int,
        limit: int,
        seeing_all: Callable[[], AbstractContextManager[None]],
    ) -> None:
        """seeing_all: while it is entered, every frame comes to the core."""
        if snap < 0 or not 0 < limit <= 1 << 20:
            raise ConfigError(f"a trace keeps snap ≥ 0 bytes of 1 … {1 << 20} frames, not {snap} of {limit}")
        dataplane.now()  # a forked child's says whose it is
        room = (limit + 1) * (_RECORD + snap)
        self._tap = Tap(dataplane, snap=snap, room=room, limit=limit, own=False, reasons=DROP_REASONS)
        self._name_of = name_of
        self._seeing_all, self._entered = seeing_all, ExitStack()
        self.lost = 0

    def __enter__(self) -> Trace:
        self._tap.start()
        try:
            self._entered.enter_context(self._seeing_all())
        except BaseException:
            self._tap.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._entered.close()
        self._tap.stop()

    def read(self, timeout: float = 0.0) -> list[TraceEvent]:
        """Take the events recorded since the last read, waiting up to `timeout` seconds for the first."""
        deadline = time.monotonic() + timeout
        while not (events := self._take()) and time.monotonic() < deadline:
            time.sleep(0.005)
        return events

    __contains__: None = None  # `in` would read the events, and so take them away

    def __iter__(self) -> Iterator[TraceEvent]:
        """Take the events recorded since the last read."""
        return iter(self.read())

    def _take(self) -> list[TraceEvent]:
        rows = self._tap.read()
        self.lost = self._tap.counts[1]
        return [event(row, self._name_of) for row in rows]


def event(row: Row, name_of: Callable[[int], str]) -> TraceEvent:
    """What a tap's row tells."""
    when, worker, number, ingress, frame, length, segment, action, reason, learned, egress = row
    return TraceEvent(
        when,
        "" if ingress is None else name_of(ingress),
        frame,
        length,
        cast(Action, action or "unsent"),
        reason,
        cast(Learned | None, learned),
        tuple(map(name_of, egress)),
        number,
        worker,
        segment,
    )
