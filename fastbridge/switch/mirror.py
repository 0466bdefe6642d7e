"""Mirror, a port that sees what other ports see (SPAN).

The core copies each frame to it, straight from where the frame lies: the tap of a capture, with a port for a ring.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import ExitStack

from fastbridge.closes import Closes
from fastbridge.core.tapping import Tap


class Mirror(Closes):
    """Copies each frame that comes from a port, or goes to one, to another port, from its making to close().

    A frame is copied once, also one between two of the ports. Nothing else goes in or out of that port meanwhile.
    """

    def __init__(
        self,
        tap: Tap,
        sources: Collection[str],
        to: str,
        index: int,
        ports: Callable[[], dict[int, str]],
        done: ExitStack,
    ) -> None:
        """index: that of `to`. ports: names by index, those of now. done: closed at the end."""
        self.sources, self.to = tuple(sources), to
        self._tap, self._index, self._ports, self._done = tap, index, ports, done
        self.note_ports()

    @property
    def frames(self) -> int:
        """Frames that were copied and sent."""
        matched, lost = self._tap.counts
        return matched - lost

    @property
    def lost(self) -> int:
        """Frames whose copies were not sent; `tx_dropped` of the port says why."""
        return self._tap.counts[1]

    def note_ports(self) -> None:
        """Ports have come or gone."""
        self._tap.set_ports([index for index, name in self._ports().items() if name in self.sources])

    def note_leaving(self, index: int) -> None:
        """A port is about to go."""
        if index == self._index:
            self.close()

    def close(self) -> None:
        """Copy no more."""
        self._tap.stop()
        self._done.close()
