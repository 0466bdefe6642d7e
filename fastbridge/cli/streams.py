"""Streams, without waiting.

Lines for stdout and stderr of a command that a signal must always end, whatever its readers do.
"""

from __future__ import annotations

import os
import sys
from typing import Literal, TextIO

from fastbridge.outbox import Outbox, write_text

_PATIENCE = 2.0  # seconds that a reader has for the last lines


def open_missing() -> None:
    """Put /dev/null where a standard stream was closed before this program began.

    Otherwise the next file that is opened, a socket or a report, would get the stream's number and output.
    """
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # it gets the lowest free number: this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115 - for good


class StreamBox:
    """Writes lines to stdout or stderr from a thread of its own. Writes nothing where the stream is missing.

    lost: the line that tells of lost lines, with a place for their number.
    """

    def __init__(self, name: Literal["stdout", "stderr"], lost: str) -> None:
        self._name = name
        self._box: Outbox[str] = Outbox("fastbridge-lines", self._write, lost.format, len)

    def put(self, line: str, *, always: bool = False) -> None:
        """Have a line written, without waiting. always: also when there is no room."""
        self._box.put(line, always=always)

    def hold(self, held: bool) -> None:
        """Let lines wait, and start no thread: it would keep the privileges that this one gives up."""
        self._box.hold(held)

    def check(self) -> None:
        """Raise the last error of writing."""
        if self._box.error is not None:
            raise self._box.error

    def close(self) -> bool:
        """Wait until all is written, for 2 s at most; returns whether it is."""
        return self._box.close(_PATIENCE)

    def _write(self, line: str) -> None:
        stream: TextIO | None = getattr(sys, self._name)
        if stream is not None:
            write_text(stream.fileno(), line + "\n", stream.encoding)


#: The log, and a command's one line of error.
ERRORS = StreamBox("stderr", "fastbridge: {:,} lines of this log are lost: nobody read them in time")
