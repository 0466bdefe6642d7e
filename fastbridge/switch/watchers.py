"""The captures and mirrors of a switch that somebody holds."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING

from fastbridge.forks import in_child

if TYPE_CHECKING:
    from .capture import Capture
    from .mirror import Mirror


class Watchers:
    """A weak set for many threads: a capture may end in its own while the switch tells all that a port goes."""

    def __init__(self) -> None:
        self._held: weakref.WeakSet[Capture | Mirror] = weakref.WeakSet()
        self._unlock()
        in_child(self, Watchers._unlock)

    def __iter__(self) -> Iterator[Capture | Mirror]:
        with self._lock:
            return iter(list(self._held))

    def __len__(self) -> int:
        return len(self._held)

    def add(self, watcher: Capture | Mirror) -> None:
        """Hear of ports from now on."""
        with self._lock:
            self._held.add(watcher)

    def discard(self, watcher: Capture | Mirror) -> None:
        """Hear of nothing more; does nothing for one that is not there."""
        with self._lock:
            self._held.discard(watcher)

    def _unlock(self) -> None:
        self._lock = threading.Lock()
