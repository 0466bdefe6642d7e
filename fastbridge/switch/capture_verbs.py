"""Capture by the control socket.

The verb `capture` gives a file in parts, or frames in words, as events; `capture.stop` ends it, and the rest follows.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable

from fastbridge.errors import ConfigError

from .capture import WHOLE, Capture, CaptureStream, Recorder, Wish
from .rows import CaptureRow


class CaptureVerbs:
    """The captures of a switch's clients, by number."""

    def __init__(self, watch: Callable[[Wish], Capture], about: Callable[[], str]) -> None:
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
        with `text` a frame in words. The last one says how many frames were seen, and lost.
        """
        wish = Wish(ports or (), drops, reasons or (), filter, count, snap, copies, most_bytes)
        capture = self._watch(wish)
        number = next(self._numbers)
        stream = CaptureStream(capture, None if text else Recorder(capture, [self._about()]), number)
        self._streams[number] = stream
        return stream

    def stop(self, capture: int) -> list[CaptureRow]:
        """End a capture. What it has yet to tell comes by its stream, which then ends."""
        stream = self._streams.get(capture)
        if stream is None:
            raise ConfigError(f"there is no capture {capture}; the first event of a capture has its number")
        stream.stop()
        return [{"capture": capture}]
