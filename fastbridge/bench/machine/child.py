"""Child processes, watched.

The bench's testers and engines are programs inside a lab. If one dies or hangs, one line must name it and quote its
last words. No wait is without a limit.
"""

from __future__ import annotations

import os
import select
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fastbridge.errors import BenchError

# `python -m` looks there first: a child must run this very package, wherever the bench was started.
HOME = Path(__file__).parents[3]
STOP_SECONDS = 2.0  # time to leave on SIGTERM before SIGKILL
LAST_WORDS = 4096  # bytes of its stderr that are looked at


class Child:
    """A program started by a Pod's popen or a Lab's popen_host, pinned to `cpu`, spoken to in lines.

    A session of its own keeps the terminal's Ctrl-C away from it: the bench stops it itself.
    """

    def __init__(
        self,
        popen: Callable[..., subprocess.Popen[Any]],
        argv: Sequence[str],
        *,
        name: str,
        cpu: int | None = None,
        pass_fds: Sequence[int] = (),
        cwd: str | Path = HOME,
    ) -> None:
        self.name = name
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process, see stop()
        self.process = popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            bufsize=0,
            start_new_session=True,
            pass_fds=tuple(pass_fds),
            cwd=cwd,
        )
        self._pending = b""
        self.unread = ""  #: once it is stopped: what it wrote to stdout, and nobody asked for
        if cpu is not None:
            # Still before its first thread: exec keeps the mask and threads inherit it.
            os.sched_setaffinity(self.process.pid, {cpu})

    def line(self, timeout: float) -> str:
        """The next line of its stdout; raise BenchError when none comes in `timeout` seconds."""
        deadline = time.monotonic() + timeout
        stdout = self.process.stdout
        assert stdout is not None
        waiting = select.poll()
        waiting.register(stdout, select.POLLIN)
        while b"\n" not in self._pending:
            if not waiting.poll(max(0.0, deadline - time.monotonic()) * 1e3):
                raise BenchError(f"{self.name} gave no answer for {timeout:g} s{self.last_words()}")
            data = stdout.read(65536)
            if not data:
                self.process.wait(STOP_SECONDS)
                self.check()
            self._pending += data
        line, _, self._pending = self._pending.partition(b"\n")
        return line.decode()

    def tell(self, line: str) -> None:
        """Write one line to its stdin."""
        stdin = self.process.stdin
        assert stdin is not None
        try:
            stdin.write(line.encode() + b"\n")
        except BrokenPipeError:
            self.process.wait(STOP_SECONDS)
            self.check()

    def check(self) -> None:
        """Raise BenchError when it is no longer running."""
        status = self.process.poll()
        if status is not None:
            how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
            raise BenchError(f"{self.name} {how}{self.last_words()}")

    def cpu_seconds(self) -> float:
        """CPU time of all its threads, from the scheduler's own nanosecond count."""
        try:
            tasks = Path(f"/proc/{self.process.pid}/task").glob("*/schedstat")
            return sum(int(task.read_text().split()[0]) for task in tasks) * 1e-9
        except OSError:
            self.check()
            raise BenchError(f"cannot read the CPU time of {self.name}") from None

    def stop(self) -> None:
        """End it, by force if need be; safe to call again."""
        for end in (self.process.terminate, self.process.kill):
            if self.process.poll() is None:
                end()
                try:
                    self.process.wait(STOP_SECONDS)
                except subprocess.TimeoutExpired:
                    continue
        stdout = self.process.stdout
        if stdout is not None and not stdout.closed:
            os.set_blocking(stdout.fileno(), False)  # whom it has started may have it, too
            self.unread += (stdout.read() or b"").decode(errors="replace")
        for stream in (self.process.stdin, stdout, self._stderr):
            if stream is not None:
                stream.close()

    def last_words(self) -> str:
        """What it said last on stderr, after ": "; empty when it said nothing."""
        if self._stderr.closed:
            return ""
        # By pread, as the place in the file is the child's as well, and it may have said a lot.
        size = os.fstat(self._stderr.fileno()).st_size
        tail = os.pread(self._stderr.fileno(), LAST_WORDS, max(0, size - LAST_WORDS))
        lines = tail.decode(errors="replace").strip().splitlines()
        return f": {lines[-1].strip()}" if lines else ""
