"""Log, in moderation.

What a switch says while it runs. Its threads never call a handler: an application's may block, and whoever decides or
forwards must not wait for it, so records go through an outbox. And what pods can make happen a thousand times a second
is told once in 10 s for each thing, at most 20 times for each kind of thing, and then as one number.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from .outbox import Outbox

_WINDOW_SECONDS = 10.0  # the same thing is told so often
_MOST = 20  # lines of one kind in that time; what comes besides is counted
_THINGS_KEPT = 65536  # told of within the window; past them a thing is counted, perhaps not for the first time
_PATIENCE = 1.0  # seconds that the handlers have to take what is left when a switch stops

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Kind:
    logger: logging.Logger
    ends: float  # its window
    said: int = 0
    more: int = 0
    told: dict[str, float] = field(default_factory=dict)  # when each thing was


class Journal:
    """The log of one switch: handlers are called at once, and from start() to stop() by a thread of its own."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._kinds: dict[str, _Kind] = {}
        self._outbox: Outbox[logging.LogRecord] | None = None

    def start(self) -> None:
        """Leave the handlers to a thread."""
        self._outbox = Outbox("fastbridge-log", _handle, _tell_lost, lambda record: len(str(record.msg)) + 256)

    def stop(self) -> None:
        """Say what is left to be said; handlers that block are left behind."""
        self._summarise(self._clock() + _WINDOW_SECONDS)
        outbox, self._outbox = self._outbox, None
        if outbox is not None:
            outbox.close(_PATIENCE)

    def tick(self) -> None:
        """Call it about once a second: says how much more there was of a kind once its window is over."""
        self._summarise(self._clock())

    def warn(
        self, logger: logging.Logger, kind: str, text: str, *, thing: str = "", level: int = logging.WARNING
    ) -> None:
        """Tell, in moderation.

        kind: what it is one of, in the plural. thing: whom it is about; "": what the caller tells of seldom enough.
        level: ERROR has the traceback of the exception being handled, if there is one.
        """
        summary = None
        with self._lock:
            now = self._clock()
            found = self._kinds.get(kind)
            if found is None or now >= found.ends:
                summary = found
                told = {} if found is None else {t: w for t, w in found.told.items() if now - w < _WINDOW_SECONDS}
                found = self._kinds[kind] = _Kind(logger, now + _WINDOW_SECONDS, told=told)
            news = not thing or now - found.told.get(thing, -_WINDOW_SECONDS) >= _WINDOW_SECONDS
            if news and thing and len(found.told) < _THINGS_KEPT:
                found.told[thing] = now
            wanted = news and found.said < _MOST
            found.said += wanted
            found.more += news and not wanted
        if summary is not None:
            self._tell_more(kind, summary)
        if wanted:
            self._say(logger, level, text)

    def _summarise(self, now: float) -> None:
        with self._lock:
            over = {kind: found for kind, found in self._kinds.items() if now >= found.ends}
            for kind, found in over.items():
                self._kinds[kind] = _Kind(found.logger, now, told=found.told)
                if all(now - when >= _WINDOW_SECONDS for when in found.told.values()):
                    del self._kinds[kind]
        for kind, found in over.items():
            self._tell_more(kind, found)

    def _tell_more(self, kind: str, found: _Kind) -> None:
        if found.more:
            self._say(found.logger, logging.WARNING, f"and {found.more:,} more {kind} in {_WINDOW_SECONDS:g} s")

    def _say(self, logger: logging.Logger, level: int, text: str) -> None:
        """For no holder of the lock: without an outbox a handler is called here."""
        if not logger.isEnabledFor(level):
            return
        exception = sys.exc_info() if level >= logging.ERROR else (None, None, None)
        about = None if exception[0] is None else exception
        record = logger.makeRecord(logger.name, level, __file__, 0, text, (), about)
        outbox = self._outbox
        if outbox is None:
            logger.handle(record)
        else:
            outbox.put(record)


def _handle(record: logging.LogRecord) -> None:
    logging.getLogger(record.name).handle(record)


def _tell_lost(count: int) -> logging.LogRecord:
    text = f"{count:,} lines of this log are lost: they came faster than they were taken"
    return _log.makeRecord(_log.name, logging.WARNING, __file__, 0, text, (), None)
