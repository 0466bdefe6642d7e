"""Recorder, a capture as pcapng."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache

from fastbridge import pcapng
from fastbridge.errors import ConfigError

from .capture import Capture
from .trace import TraceEvent

_STATISTICS = len(pcapng.statistics(0, 0, 0, accepted=0, dropped=0, delivered=0))  # bytes, of each interface


class Recorder:
    """Makes a pcapng file of a capture: interfaces are ports, a block is a frame with its fate in a comment.

    A received frame is inbound at its ingress port. A copy that was not sent, and a frame of the switch's own, is
    outbound at its egress port. What is told of one frame has one packet id.
    """

    def __init__(self, capture: Capture, comments: Sequence[str] = ()) -> None:
        self._capture = capture
        self._wall = time.time_ns() - time.monotonic_ns()
        self._numbers: dict[str, int] = {}
        self._written: Counter[str] = Counter()
        self._full = False  # the next frame would be too much
        wanted = capture.wish.ports or capture.watched.names
        self._head = pcapng.section([*comments, f"capture: {capture.wish}"])
        self._head += b"".join(map(self._interface, wanted))
        self.frames = 0  #: written so far
        self._room = capture.wish.most_bytes
        least = len(self._head) + _STATISTICS * len(self._numbers)
        if self._room is not None and self._room < least:
            raise ConfigError(
                f"a file of at most {self._room} bytes holds no frame: it begins with {least:,} bytes; allow more"
            )

    def take(self) -> bytes:
        """The blocks of frames seen since the last call; b"" if there are none. Never waits."""
        return self.tell(() if self._full else self._capture.read())

    def tell(self, frames: Iterable[TraceEvent]) -> bytes:
        """The blocks of frames that were read from the capture."""
        made, self._head = [self._head], b""
        self._use(len(made[0]))
        for seen in frames:
            blocks = list(self._blocks(seen))
            heads = [head for head, _, _ in blocks]
            size = sum(map(len, heads)) + sum(len(block) for _, _, block in blocks)
            if self._room is not None and size + _STATISTICS * len(self._numbers) > self._room:
                self._full = True
                self._capture.close()
                made += heads
                break
            self._use(size)
            self.frames += 1
            for head, port, block in blocks:
                self._written[port] += 1
                made += (head, block)
        return b"".join(made)

    def finish(self) -> bytes:
        """Close the capture; returns the rest of the file: what was still unread, and the statistics."""
        self._capture.close()
        rest = [self.take()]
        while rest[-1]:
            rest.append(self.take())
        lost, end = self._capture.lost_of(), time.time_ns()
        rest += [self._interface(name) for name in lost if lost[name] and name not in self._numbers]
        for name, number in self._numbers.items():
            accepted = self._written[name] + lost[name]
            rest.append(
                pcapng.statistics(
                    number,
                    self._capture.began,
                    end,
                    accepted=accepted,
                    dropped=lost[name],
                    delivered=self._written[name],
                )
            )
        return b"".join(rest)

    def _use(self, size: int) -> None:
        if self._room is not None:
            self._room -= size

    def _interface(self, name: str) -> bytes:
        self._numbers[name] = len(self._numbers)
        return pcapng.interface(name, self._capture.wish.snap, self._capture.wish.filter)

    def _blocks(self, seen: TraceEvent) -> Iterator[tuple[bytes, str, bytes]]:
        """What stands before a block, its port, and the block."""
        if seen.action == "unsent":
            yield self._block(seen, seen.egress[0], "outbound", f"not sent: {seen.reason}")
        elif seen.ingress:
            said = _said(seen.action, seen.reason, seen.egress, seen.learned, seen.segment)
            yield self._block(seen, seen.ingress, "inbound", said)
        elif not self._capture.wish.copies:
            yield self._block(seen, seen.egress[0], "outbound", f"sent by the switch → {', '.join(seen.egress)}")
        if self._capture.wish.copies and seen.action != "unsent":
            source = f"copy of {seen.ingress}" if seen.ingress else "sent by the switch"
            for name in seen.egress:
                yield self._block(seen, name, "outbound", source)

    def _block(self, seen: TraceEvent, port: str, direction: pcapng.Direction, said: str) -> tuple[bytes, str, bytes]:
        head = b"" if port in self._numbers else self._interface(port)
        frame_id = seen.worker << 48 | seen.number
        block = pcapng.frame(
            self._numbers[port], self._wall + seen.time_ns, seen.frame, seen.length, direction, frame_id, seen.worker,
            said,
        )  # fmt: skip
        return head, port, block


@lru_cache(4096)
def _said(action: str, reason: str | None, egress: tuple[str, ...], learned: str | None, segment: int) -> str:
    """A received frame's comment."""
    words = [f"{action} → {', '.join(egress)}" if egress else f"{action}: {reason}" if reason else action]
    if learned:
        words.append(f"source {'learned' if learned == 'new' else learned}")
    if segment:
        words.append(f"GSO: to be cut into frames of {segment} bytes of payload")
    return "; ".join(words)
