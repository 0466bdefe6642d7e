"""Lines, written elsewhere.

A pipe that nobody reads must not stop the switch, nor make it deaf to a signal. So lines go into a bounded queue, and a
thread of its own writes them. A line for which there is no room is lost and counted. Once there is room again, the next
line tells how many were lost.
"""

from __future__ import annotations

import os
import select
import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from fastbridge.waiting import wait_for

Line = TypeVar("Line")

# Characters that wait at most: an hour of ordinary logging, and some 50 lines of the counters of 100 ports.
_ROOM = 1 << 20


class Outbox(Generic[Line]):
    """A bounded queue of lines, and the thread that writes them. The first line starts the thread, unless it is held.

    write: called for each line, by the thread alone. It may block, and it may raise (see `error`).
    tell_lost: makes the line that tells how many were lost.
    weigh: how many characters a line has.
    """

    def __init__(
        self,
        name: str,
        write: Callable[[Line], object],
        tell_lost: Callable[[int], Line],
        weigh: Callable[[Line], int],
    ) -> None:
        self._name, self._write, self._tell_lost, self._weigh = name, write, tell_lost, weigh
        self._changed = threading.Condition()
        self._lines: deque[Line] = deque()
        self._waiting = 0  # characters, those being written included
        self._lost = 0  # lines since the last one that told of it
        self._closing = False
        self._held = False
        self._thread: threading.Thread | None = None
        #: the last exception of write(); its line is lost
        self.error: BaseException | None = None

    def put(self, line: Line, *, always: bool = False) -> None:
        """Have a line written, without waiting. always: also when there is no room."""
        size = self._weigh(line)
        with self._changed:
            # After a loss half the queue must empty first. Otherwise every other line would tell of a loss.
            room = _ROOM // 2 if self._lost else _ROOM
            if self._waiting and self._waiting + size > room and not always:
                self._lost += 1
                return
            self._note_lost()
            self._append(line)
            self._start_if_needed()
            self._changed.notify_all()

    def hold(self, held: bool) -> None:
        """Let lines wait, and start no thread: it would keep the privileges that this one gives up."""
        with self._changed:
            self._held = held
            if self._lines:
                self._start_if_needed()

    def close(self, patience: float) -> bool:
        """End the thread when all lines are written; returns whether they are.

        Waits `patience` seconds at most. The thread goes on with the rest, and ends with the process.
        """
        self.hold(False)
        with self._changed:
            self._closing = True
            self._changed.notify_all()
            thread = self._thread
        if thread is None:
            return True
        thread.join(patience)
        return not thread.is_alive()

    def _append(self, line: Line) -> None:
        self._waiting += self._weigh(line)
        self._lines.append(line)

    def _note_lost(self) -> None:
        if self._lost:
            lost, self._lost = self._lost, 0
            self._append(self._tell_lost(lost))

    def _start_if_needed(self) -> None:
        if self._held or (self._thread is not None and self._thread.is_alive()):
            return
        self._closing = False
        self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:  # no more threads: the next line tries again
            self.error = error
            self._thread = None

    def _work(self) -> None:
        while (line := self._next()) is not None:
            try:
                self._write(line)
            except BaseException as error:  # no reader may end this thread
                with self._changed:
                    self._lost += 1
                    self.error = error
            with self._changed:
                self._waiting -= self._weigh(line)

    def _next(self) -> Line | None:
        """Wait for a line; None: no line is left, and none will come."""
        with self._changed:
            while not self._lines:
                if self._lost and self.error is None:
                    self._note_lost()
                elif self._closing:
                    return None
                else:
                    self._changed.wait()
            return self._lines.popleft()


def write_text(descriptor: int, text: str, encoding: str = "utf-8") -> None:
    """Write a whole text, past Python's buffers: the interpreter cannot end while a thread waits in one of them."""
    rest = memoryview(text.encode(encoding, "replace"))
    while rest:
        try:
            rest = rest[os.write(descriptor, rest) :]
        except BlockingIOError:  # somebody made it non-blocking
            wait_for(descriptor, select.POLLOUT)
