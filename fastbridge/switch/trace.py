"""Frame trace, bounded.

A record of the switch's decisions, frame by frame, for the demo, for tests and for debugging.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Literal, NamedTuple, cast

from fastbridge.core.tracing import Tracer
from fastbridge.dissect import dissect, header
from fastbridge.errors import ConfigError

if TYPE_CHECKING:
    from fastbridge.core.dataplane import Dataplane

Action = Literal["forwarded", "flooded", "consumed", "dropped"]


class TraceEvent(NamedTuple):
    """One frame and its decision."""

    time_ns: int  #: CLOCK_MONOTONIC
    ingress: str
    frame: bytes  #: its first bytes, at most `snap`
    length: int  #: its whole length in bytes, without FCS
    action: Action
    reason: str | None  #: why it was dropped
    learned: Literal["new", "moved", "refused"] | None  #: the change that its source made to the FDB; None: nothing new
    egress: tuple[str, ...]  #: the ports its copies went to, at most the first 32

    def __str__(self) -> str:
        """One line: what the frame is, and what happened to it."""
        if len(self.frame) < 14:
            said = f"{len(self.frame)} bytes"
        else:
            ends, about = header(self.frame), dissect(self.frame)
            said = f"{about.protocol} {about.text}, {ends.source} > {ends.destination}, {self.length} bytes"
        fate = f"{self.action} to {', '.join(self.egress)}" if self.egress else self.action
        why = f" ({self.reason})" if self.reason else ""
        learned = "" if self.learned is None else f"; source {self.learned if self.learned != 'new' else 'learned'}"
        return f"{self.ingress} → {said}: {fate}{why}{learned}"


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
        self._tracer = Tracer(dataplane)
        self._name_of = name_of
        self._snap, self._limit = snap, limit
        self._seeing_all, self._entered = seeing_all, ExitStack()
        self.lost = 0

    def __enter__(self) -> Trace:
        self._tracer.start(self._snap, self._limit)
        try:
            self._entered.enter_context(self._seeing_all())
        except BaseException:
            self._tracer.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._entered.close()
        self._tracer.stop()  # last: pairs are named for promotion again, and may now be promoted

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
        rows, self.lost = self._tracer.read()
        return [
            TraceEvent(
                when,
                self._name_of(ingress),
                frame,
                length,
                cast(Action, action),
                reason,
                cast(Literal["new", "moved", "refused"] | None, learned),
                tuple(map(self._name_of, egress)),
            )
            for when, ingress, frame, length, action, reason, learned, egress in rows
        ]
