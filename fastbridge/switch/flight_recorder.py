"""Flight recorder: the last frames, for when something has gone wrong."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import chain

from fastbridge.closes import Closes

from .capture import Capture
from .recorder import Recorder
from .trace import TraceEvent


class FlightRecorder(Closes):
    """The last frames of all ports, with what became of them; older ones make room for them.

    They lie in the core's memory. Nobody reads along, so there is no thread; what was kept is read after the end.
    """

    def __init__(self, capture: Capture) -> None:
        """capture: one that keeps the last frames."""
        self._capture = capture

    @property
    def seen(self) -> int:
        """How many frames there were, also those that it keeps no longer."""
        return self._capture.seen

    def close(self) -> None:
        """Record no more."""
        self._capture.close()

    @cached_property
    def events(self) -> list[TraceEvent]:
        """The frames that it keeps, by time. Ends the recording."""
        self.close()
        return list(chain.from_iterable(iter(self._capture.read, [])))

    def pcapng(self, comments: Sequence[str] = ()) -> bytes:
        """The same as a file, which begins with the comments: see docs/capture.md. Ends the recording."""
        frames = self.events
        recorder = Recorder(self._capture, [*comments, f"the last {len(frames)} of {self.seen} frames"])
        return recorder.tell(frames) + recorder.finish()
