"""Capture, of all ports in one file.

What the switch saw and did, frame by frame, read from a tap in the core (core/tap.pxd): as events, as the bytes of a
pcapng file, or into such a file. A capture that is read too slowly loses frames and counts them; the switch never waits
for it. The tap's rings are all the memory that it takes.
"""

from __future__ import annotations

import base64
import errno
import os
import select
import stat
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from functools import lru_cache, partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, TypedDict, Union

from fastbridge import pcapng
from fastbridge.core.codes import DROP_REASONS, TX_DROP_REASONS
from fastbridge.core.tapping import Tap
from fastbridge.errors import ConfigError, FastbridgeError
from fastbridge.pcap_filter import compile_filter

from .trace import TraceEvent, event

if TYPE_CHECKING:
    from typing_extensions import Self

    from fastbridge.core.dataplane import Dataplane


class HasFileno(Protocol):
    """An open file."""

    def fileno(self) -> int:
        """Its descriptor."""
        ...


CaptureFile = Union[str, "os.PathLike[str]", int, HasFileno]

WHOLE = 1 << 18  #: bytes of a frame that are kept unless a capture says otherwise: more than any frame but BIG TCP's
_ROOM = 1 << 24  # bytes of each worker's ring: 50 ms of small frames at a million a second, in memory once touched
_AT_A_TIME = 1 << 18  # bytes of a ring read at once
_REST_SECONDS = 0.005  # between two reads for a file, so that many frames are read at once
_LOOK_SECONDS, _PATIENCE = 0.1, 2.0  # how often a pipe without a reader is looked at; that it is waited for at the end

_STATISTICS = len(pcapng.statistics(0, 0, 0, accepted=0, dropped=0, delivered=0))  # bytes, of each interface


class CaptureError(FastbridgeError):
    """A capture cannot be written."""


@dataclass(frozen=True)
class Wish:
    """Which frames a capture is to see, and how much of them.

    ports: only frames that come from one of these ports, or go to one; none: of all ports.
    drops: only frames that are dropped, and copies that are not sent. The fast path goes on meanwhile.
    reasons: only those dropped for one of these reasons, as counters() names them. Implies `drops`.
    filter: only frames that match it, in tcpdump's words (pcap-filter(7)); needs libpcap.
    count: end after so many frames. snap: bytes kept of a frame.
    copies: in a pcapng file, a block for each copy, too. most_bytes: end before it is larger.
    """

    ports: Collection[str] = ()
    drops: bool = False
    reasons: Collection[str] = ()
    filter: str = ""
    count: int | None = None
    snap: int = WHOLE
    copies: bool = False
    most_bytes: int | None = None

    def __post_init__(self) -> None:
        known = (*DROP_REASONS, *TX_DROP_REASONS)
        strange = next((reason for reason in self.reasons if reason not in known), None)
        if strange is not None:
            raise ConfigError(f"there is no drop reason {strange!r}; there are: {', '.join(known)}")
        if self.count is not None and self.count < 1:
            raise ConfigError(f"a capture ends after 1 frame or more, not {self.count}")
        if not 1 <= self.snap <= 1 << 20:
            raise ConfigError(f"a capture keeps 1 … {1 << 20} bytes of a frame, not {self.snap}")

    @property
    def only_drops(self) -> bool:
        """Whether frames that are forwarded do not matter."""
        return self.drops or bool(self.reasons)

    def __str__(self) -> str:
        words = [f"ports {', '.join(self.ports)}" if self.ports else "all ports"]
        if self.only_drops:
            words.append("drops" + (f" for {', '.join(self.reasons)}" if self.reasons else ""))
        if self.filter:
            words.append(f"filter {self.filter!r}")
        if self.copies:
            words.append("every copy")
        return "; ".join([*words, f"{self.snap} bytes of a frame"])


class WishWords(TypedDict, total=False):
    """The words of a Wish."""

    ports: Collection[str]
    drops: bool
    reasons: Collection[str]
    filter: str
    count: int | None
    snap: int
    copies: bool
    most_bytes: int | None


class Watched:
    """What a tap needs to know of its switch; the switch says when its ports change.

    A port's index may be another port's later. So each name has the time from which on it counts.
    """

    def __init__(
        self, dataplane: Dataplane, ports: Callable[[], dict[int, str]], ended: Callable[[Capture], object]
    ) -> None:
        self.dataplane = dataplane
        self.ports = ports  # by index, those of now
        self.ended = ended  # called for a capture that has ended
        self._names: dict[int, list[tuple[int, str]]] = {index: [(0, name)] for index, name in ports().items()}

    def note(self) -> None:
        """Ports have come or gone."""
        now = time.monotonic_ns()
        for index, name in self.ports().items():
            known = self._names.setdefault(index, [])
            if not known or known[-1][1] != name:
                known.append((now, name))

    def name_of(self, when: int, index: int) -> str:
        """The name that a port had at that time."""
        known = self._names.get(index, [])
        if len(known) == 1:
            return known[0][1]
        return next((name for since, name in reversed(known) if since <= when), known[0][1] if known else f"#{index}")

    @property
    def names(self) -> list[str]:
        """All names there have been."""
        return list(dict.fromkeys(name for known in self._names.values() for _, name in known))

    @property
    def indexes(self) -> dict[int, str]:
        """All indexes there have been, with their last names."""
        return {index: known[-1][1] for index, known in self._names.items()}


class Capture:
    """Frames and their fates, from its making to close(). read() never waits; wait for fileno() to be readable."""

    def __init__(self, watched: Watched, wish: Wish, seeing_all: Callable[[], AbstractContextManager[None]]) -> None:
        """seeing_all: while it is entered, every frame comes to the core."""
        self.wish = wish
        self.frames = 0  #: read so far
        self.ended = False  #: nothing more will come: it was closed, or has read as many frames as it was to read
        self.watched = watched
        self._tap = Tap(
            watched.dataplane,
            snap=wish.snap,
            room=_ROOM,
            sent=not wish.only_drops,
            own=not wish.only_drops,
            reasons=wish.reasons or None,
            passing=compile_filter(wish.filter) if wish.filter else None,
            every_copy=wish.copies,
        )
        self._entered = ExitStack()
        self.note_ports()
        self._tap.start()
        if not wish.only_drops:
            try:
                self._entered.enter_context(seeing_all())
            except BaseException:
                self._tap.stop()
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    __contains__: None = None  # `in` would read the frames, and so take them away

    def __iter__(self) -> Iterator[TraceEvent]:
        """Frames as they come, until the capture ends. Waits for them."""
        while not self.ended:
            _wait(self.fileno(), select.POLLIN)
            yield from self.read()

    def fileno(self) -> int:
        """Readable when there are frames to read."""
        return self._tap.fileno()

    @property
    def lost(self) -> int:
        """Frames that the capture has lost, because they were not read in time."""
        return self._tap.counts[1]

    def lost_of(self) -> Counter[str]:
        """Those, by port."""
        lost: Counter[str] = Counter()
        for index, name in self.watched.indexes.items():
            lost[name] += self._tap.lost_of(index)
        return lost

    def note_ports(self) -> None:
        """Ports have come or gone."""
        self.watched.note()
        if self.wish.ports:
            self._tap.set_ports([i for i, name in self.watched.ports().items() if name in self.wish.ports])

    def note_leaving(self, index: int) -> None:
        """A port is about to go: its frames stay."""

    def read(self) -> list[TraceEvent]:
        """Take frames that were seen, by time; some of them if there are many."""
        rows = self._tap.read(_AT_A_TIME)
        if self.wish.count is not None:
            rows = rows[: self.wish.count - self.frames]
        self.frames += len(rows)
        if self.frames == self.wish.count:
            self.close()
        return [event(row, partial(self.watched.name_of, row[0])) for row in rows]

    def close(self) -> None:
        """See no more frames. Those that were seen can still be read, unless there were as many as wished for."""
        self._entered.close()
        self._tap.stop()
        self.watched.ended(self)
        self.ended = True
        os.eventfd_write(self._tap.fileno(), 1)  # whoever waits shall see it


class Recorder:
    """Makes a pcapng file of a capture: interfaces are ports, a block is a frame with its fate in a comment.

    A received frame is inbound at its ingress port. A copy that was not sent, and a frame of the switch's own, is
    outbound at its egress port. What is told of one frame has one packet id.
    """

    def __init__(self, capture: Capture, comments: Sequence[str] = ()) -> None:
        self._capture = capture
        self._wall = time.time_ns() - time.monotonic_ns()
        self._start = time.time_ns()
        self._numbers: dict[str, int] = {}
        self._written: Counter[str] = Counter()
        self._full = False  # the next frame would be too much
        wanted = capture.wish.ports or capture.watched.names
        self._head = pcapng.section([*comments, f"capture: {capture.wish}"])
        self._head += b"".join(map(self._interface, wanted))
        self._room = capture.wish.most_bytes

    def take(self) -> bytes:
        """The blocks of frames seen since the last call; b"" if there are none. Never waits."""
        made, self._head = [self._head], b""
        self._use(len(made[0]))
        for seen in () if self._full else self._capture.read():
            blocks = list(self._blocks(seen))
            heads = [head for head, _, _ in blocks]
            size = sum(map(len, heads)) + sum(len(block) for _, _, block in blocks)
            if self._room is not None and size + _STATISTICS * len(self._numbers) > self._room:
                self._full = True
                self._capture.close()
                made += heads
                break
            self._use(size)
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
                    number, self._start, end, accepted=accepted, dropped=lost[name], delivered=self._written[name]
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


def record(capture: Capture, file: CaptureFile, comment: str) -> FileCapture:
    """Write a capture into a file. Raises ConfigError, and then the capture has ended."""
    try:
        recorder = Recorder(capture, [comment])
        if isinstance(file, (str, os.PathLike)):
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
            return FileCapture(capture, recorder, descriptor, str(file), own=True)
        descriptor = file if isinstance(file, int) else file.fileno()
        return FileCapture(capture, recorder, descriptor, getattr(file, "name", f"file {descriptor}"), own=False)
    except OSError as error:
        capture.close()
        raise ConfigError(f"cannot write {file}: {error.strerror}; name another file") from None
    except BaseException:
        capture.close()
        raise


def _wait(descriptor: int, event_mask: int, seconds: float | None = None) -> bool:
    """Wait until it can be read or written; returns whether it can."""
    poll = select.poll()
    poll.register(descriptor, event_mask)
    return bool(poll.poll(None if seconds is None else 1000 * seconds))


class FileCapture:
    """A capture into a pcapng file, by a thread of its own, until close(), or until it ends by itself.

    When the reader of a pipe is gone the capture ends, without an error.
    """

    def __init__(self, capture: Capture, recorder: Recorder, file: int, name: str, *, own: bool) -> None:
        """own: close the file at the end."""
        self._capture, self._recorder = capture, recorder
        self._file, self._name, self._own = file, name, own
        self._error: OSError | None = None
        self._regular = stat.S_ISREG(os.fstat(file).st_mode)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name="fastbridge-capture", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def frames(self) -> int:
        """Frames read so far."""
        return self._capture.frames

    @property
    def lost(self) -> int:
        """Frames that the capture has lost."""
        return self._capture.lost

    @property
    def ended(self) -> bool:
        """Whether it has ended, by itself or by close()."""
        return not self._thread.is_alive()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the capture has ended by itself; returns whether it has."""
        self._thread.join(timeout)
        return self.ended

    def close(self) -> None:
        """End the capture and write what is left. A pipe's reader has 2 s for it.

        Raises CaptureError if the file could not be written.
        """
        self._closing.set()
        self._capture.close()
        self._thread.join()
        error, self._error = self._error, None
        if error is not None:
            raise CaptureError(f"cannot write {self._name}: {error.strerror}")

    def _work(self) -> None:
        try:
            while not self._capture.ended:
                self._write(self._recorder.take())
                _wait(self._capture.fileno(), select.POLLIN)
                self._closing.wait(_REST_SECONDS)
            self._write(self._recorder.finish())
        except BrokenPipeError:
            pass  # its reader has seen enough
        except OSError as error:
            self._error = error
        finally:
            self._capture.close()
            if self._own:
                os.close(self._file)

    def _write(self, data: bytes) -> None:
        """Write all. A pipe takes a piece when it is writable; then the write does not wait."""
        rest, piece = memoryview(data), len(data) if self._regular else select.PIPE_BUF
        patience = _PATIENCE
        while rest:
            if self._regular or _wait(self._file, select.POLLOUT, _LOOK_SECONDS):
                rest = rest[os.write(self._file, rest[:piece]) :]
            elif self._closing.is_set():
                patience -= _LOOK_SECONDS
                if patience <= 0:
                    raise OSError(errno.ETIMEDOUT, "nobody reads it")


class CaptureStream:
    """A capture as events for a client, each with a part of a pcapng file in base64, or with frames in words.

    So the switch opens none of its client's files and waits for none. What the client does not read stays in the tap.
    """

    def __init__(self, capture: Capture, recorder: Recorder | None, number: int) -> None:
        """recorder: makes the file; None: tell the frames in words. number: what capture.stop calls it by."""
        self._capture, self._recorder = capture, recorder
        self._first: list[dict[str, Any]] = [{"event": "capture", "capture": number}]
        self._finished = False
        self._wall = time.time_ns() - time.monotonic_ns()
        self._wake()

    def fileno(self) -> int:
        """Readable when events wait."""
        return self._capture.fileno()

    def read(self) -> list[dict[str, Any]] | None:
        """The events that wait; None: it has ended."""
        if self._finished:
            return None
        events, self._first = self._first, []
        if not self._capture.ended:
            return events + self._events(self._recorder.take() if self._recorder else b"")
        self._finished = True
        events += self._events(self._recorder.finish() if self._recorder else b"")
        self._wake()
        return [*events, {"event": "ended", "frames": self._capture.frames, "lost": self._capture.lost}]

    def stop(self) -> None:
        """End the capture. What is left, and the statistics, can still be read."""
        self._capture.close()

    def close(self) -> None:
        """No more events."""
        self._capture.close()
        self._finished = True

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
