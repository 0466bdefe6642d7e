"""Capture by the control socket.

The verb `capture` gives a file in parts, or frames in words, as events; `capture.stop` ends it, and the rest follows.
"""

from __future__ import annotations

import base64
import itertools
import os
import time
import weakref
from collections.abc import Callable
from typing import Any

from fastbridge.errors import ConfigError

from .capture import WHOLE, Capture, Wish
from .recorder import Recorder
from .rows import CaptureRow
from .trace import TraceEvent

_MOST = 8  # captures at a time: each has 16 MB for each worker


class CaptureVerbs:
    """The captures of a switch's clients, by number."""

    def __init__(self, watch: Callable[[Wish], Capture], about: Callable[[], list[str]]) -> None:
        """watch: starts a capture. about: what its file says of the switch."""
        self._watch, self._about = watch, about
        self._numbers = itertools.count(1)
        self._streams: weakref.WeakValueDictionary[int, CaptureStream] = weakref.WeakValueDictionary()

    def capture(
        self,
        ports: list[str] | None = None,
        drops: bool = False,
        reasons: list[str] | None = None,
        filter: str = "",  # noqa: A002 - its name in the protocol
        count: int | None = None,
        snap: int = WHOLE,
        copies: bool = False,
        most_bytes: int | None = None,
        text: bool = False,
    ) -> CaptureStream:
        """Capture frames: from or to some ports, drops only, for some reasons, by a filter in tcpdump's words.

        The first event has the number of the capture. Then each has a part of a pcapng file in base64 (`pcapng`), or
        with `text` a frame in words. The last one says how many frames were told, and lost.
        """
        if sum(not stream.finished for stream in list(self._streams.values())) >= _MOST:
            raise ConfigError(f"{_MOST} captures run by the control socket, which is the most: end one of them")
        wish = Wish(ports or (), drops, reasons or (), filter, count, snap, copies, most_bytes)
        comments = [] if text else self._about()
        capture = self._watch(wish)
        number = next(self._numbers)
        try:
            stream = CaptureStream(capture, None if text else Recorder(capture, comments), number)
        except ConfigError:
            capture.close()
            raise
        self._streams[number] = stream
        return stream

    def stop(self, capture: int) -> list[CaptureRow]:
        """End a capture. What it has yet to tell comes by its stream, which then ends."""
        stream = self._streams.get(capture)
        if stream is None:
            raise ConfigError(f"there is no capture {capture}; the first event of a capture has its number")
        stream.stop()
        return [{"capture": capture}]


class CaptureStream:
    """A capture as events for a client, each with a part of a pcapng file in base64, or with frames in words.

    So the switch opens none of its client's files and waits for none. What the client does not read stays in the tap.
    """

    def __init__(self, capture: Capture, recorder: Recorder | None, number: int) -> None:
        """recorder: makes the file; None: tell the frames in words. number: what capture.stop calls it by."""
        self._capture, self._recorder = capture, recorder
        self._first: list[dict[str, Any]] = [{"event": "capture", "capture": number}]
        self.finished = False  #: it has no more events
        self._wall = time.time_ns() - time.monotonic_ns()
        self._wake()

    def fileno(self) -> int:
        """Readable when events wait."""
        return self._capture.fileno()

    def read(self) -> list[dict[str, Any]] | None:
        """The events that wait; None: it has ended."""
        if self.finished:
            return None
        events, self._first = self._first, []
        ended = self._capture.ended
        more = self._events(self._recorder.take() if self._recorder else b"")
        events += more
        if ended and not more:  # until then what is left comes in parts: each takes the server little time
            self.finished = True
            if self._recorder:
                events += self._events(self._recorder.finish())
            frames = self._recorder.frames if self._recorder else self._capture.frames
            events.append({"event": "ended", "frames": frames, "lost": self._capture.lost})
        if self._capture.ended:  # last: taking frames makes the descriptor unreadable
            self._wake()
        return events

    def stop(self) -> None:
        """End the capture. What is left, and the statistics, can still be read."""
        self._capture.close()

    def close(self) -> None:
        """No more events."""
        self._capture.close()
        self.finished = True

    def _events(self, made: bytes) -> list[dict[str, Any]]:
        if self._recorder:
            return [{"event": "part", "pcapng": base64.b64encode(made).decode()}] if made else []
        return [self._told(seen) for seen in self._capture.read()]

    def _told(self, seen: TraceEvent) -> dict[str, Any]:
        return {
            "event": "frame",
            "time": round((self._wall + seen.time_ns) / 1e9, 9),
            "ifname": seen.ingress,
            "action": seen.action,
            "reason": seen.reason,
            "to": list(seen.egress),
            "length": seen.length,
            "number": seen.worker << 48 | seen.number,
            "text": str(seen),
        }

    def _wake(self) -> None:
        os.eventfd_write(self._capture.fileno(), 1)
