"""A capture into a file, or a pipe, by a thread of its own."""

from __future__ import annotations

import errno
import os
import select
import stat
import threading
from collections.abc import Sequence
from typing import Protocol, Union

from fastbridge.closes import Closes
from fastbridge.errors import ConfigError, FastbridgeError
from fastbridge.forks import in_child
from fastbridge.threads import start_thread
from fastbridge.waiting import wait_for

from .capture import Capture
from .recorder import Recorder

_REST_SECONDS = 0.005  # between two reads, so that many frames are read at once
_LOOK_SECONDS, _PATIENCE = 0.1, 2.0  # how often a pipe without a reader is looked at; that it is waited for at the end


class HasFileno(Protocol):
    """An open file."""

    def fileno(self) -> int:
        """Its descriptor."""
        ...


CaptureFile = Union[str, "os.PathLike[str]", int, HasFileno]


class CaptureError(FastbridgeError):
    """A capture cannot be written."""


def record(capture: Capture, file: CaptureFile, comments: Sequence[str]) -> FileCapture:
    """Write a capture into a file, after some comments. Raises ConfigError, and then the capture has ended."""
    try:
        recorder = Recorder(capture, comments)
        if isinstance(file, (str, os.PathLike)):
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
            try:
                return FileCapture(capture, recorder, descriptor, str(file), own=True)
            except BaseException:
                os.close(descriptor)
                raise
        descriptor = file if isinstance(file, int) else file.fileno()
        return FileCapture(capture, recorder, descriptor, getattr(file, "name", f"file {descriptor}"), own=False)
    except OSError as error:
        capture.close()
        raise ConfigError(f"cannot write {file}: {error.strerror}; name another file") from None
    except BaseException:
        capture.close()
        raise


class FileCapture(Closes):
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
        self._thread = start_thread("fastbridge-capture", self._work)
        in_child(self, FileCapture._leave_to_parent)

    @property
    def frames(self) -> int:
        """Frames written so far."""
        return self._recorder.frames

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

    def _leave_to_parent(self) -> None:
        """In a forked child: the parent writes the file, by a thread that may have held the lock of this."""
        self._closing = threading.Event()

    def _work(self) -> None:
        try:
            while not self._capture.ended:
                self._write(self._recorder.take())
                wait_for(self._capture.fileno(), select.POLLIN)
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
            if self._regular or wait_for(self._file, select.POLLOUT, _LOOK_SECONDS):
                rest = rest[os.write(self._file, rest[:piece]) :]
            elif self._closing.is_set():
                patience -= _LOOK_SECONDS
                if patience <= 0:
                    raise OSError(errno.ETIMEDOUT, "nobody reads it")
