"""Log, in moderation.

What a switch logs while it runs. An application's handler may block, so the switch's threads never call one: records
go through an outbox. Pods can make some things happen a thousand times a second. Each of these is logged once in 10 s,
each kind of thing at most 20 times, and the rest as one number. Monitors (feed.py) get all of it.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from .feed import Feed
from .outbox import Outbox

_WINDOW_SECONDS = 10.0  # between two lines about the same thing
_MOST = 20  # lines of one kind in that time; more are only counted
_THINGS_KEPT = 65536  # remembered within the window; beyond, one thing may be counted twice
_PATIENCE = 1.0  # seconds that the handlers have for the last records when a switch stops

_log = logging.getLogger(__name__)


class Event(NamedTuple):
    """What a log line says, for those who monitor the switch: a name of feed.EVENTS, and its fields."""

    name: str
    fields: dict[str, Any]


@dataclass(slots=True)
class _Kind:
    logger: logging.Logger
    ends: float  # its window
    said: int = 0
    more: int = 0
    told: dict[str, float] = field(default_factory=dict)  # when each thing was


class Journal:
    """The log of one switch. It calls handlers at once; from start() to stop() a thread of its own calls them."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.feed = Feed()
        self._lock = threading.Lock()
        self._kinds: dict[str, _Kind] = {}
        self._outbox: Outbox[logging.LogRecord] | None = None

    def start(self) -> None:
        """Leave the handlers to a thread."""
        self._outbox = Outbox("fastbridge-log", _handle, _tell_lost, lambda record: len(str(record.msg)) + 256)

    def stop(self) -> None:
        """Log the numbers that are due, and wait a second for the handlers. Handlers that block are left behind."""
        self._summarise(self._clock() + _WINDOW_SECONDS)
        outbox, self._outbox = self._outbox, None
        if outbox is not None:
            outbox.close(_PATIENCE)

    def tick(self) -> None:
        """To be called about once a second. Logs how much more there was of each kind whose window is over."""
        self._summarise(self._clock())

    def warn(
        self,
        logger: logging.Logger,
        kind: str,
        text: str,
        *,
        thing: str = "",
        level: int = logging.WARNING,
        event: Event | None = None,
    ) -> None:
        """Log, in moderation.

        kind: the kind of thing, in the plural. thing: what it is about; "": the caller says it seldom enough by itself.
        level: ERROR adds the traceback of the exception being handled, if there is one.
        event: the same for monitors, which get every one.
        """
        if event is not None:
            self.feed.tell(event.name, **event.fields, text=text)
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
        """Never call it with the lock: without an outbox a handler is called here."""
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
    text = f"{count:,} lines of this log are lost: they came faster than the handlers took them"
    return _log.makeRecord(_log.name, logging.WARNING, __file__, 0, text, (), None)
