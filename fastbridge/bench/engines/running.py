"""Engines at work.

What the tester needs of an engine that runs, whether it is programs or a part of the kernel: whether it
still lives, the CPU time it has used, and to hold it still, restart it and end it.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

from fastbridge.bench.machine.child import HOME, Child
from fastbridge.errors import BenchError
from fastbridge.lab.topology import Lab

PAUSE_SECONDS = 5.0

# A tmpfs in a mount namespace of its own goes with the last process in it, so that no file outlives an engine,
# not even when the bench is killed. What the engines write, they write in /run. mount -n: no note of it in the old one.
_PRIVATE = ("unshare", "--mount", "sh", "-c", 'mount -n -t tmpfs tmpfs /run && exec "$@"', "sh")
_TO_STDERR = ("sh", "-c", 'exec "$@" >&2', "sh")  # nobody reads stdout, and a full pipe would stop the program


class Running(ABC):
    """An engine at work."""

    command: str  #: as a reader of the results would type it
    buffers: str  #: what holds frames that wait for it
    processes: Sequence[Child] = ()  #: none where the kernel does the work
    #: Frames that its kernel fast path took, and that it took itself, as it says at its end; None where it does not
    paths: tuple[int, int] | None = None

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def check(self) -> None:
        """Raise BenchError when it has died."""
        for process in self.processes:
            process.check()

    def is_alive(self) -> bool:
        """Whether it has not died."""
        try:
            self.check()
        except BenchError:
            return False
        return True

    def cpu_seconds(self) -> float | None:
        """CPU time of its processes so far, those they have started included; None where it has none.

        Raises BenchError when one has died.
        """
        if not self.processes:
            return None
        used = sum(_cpu_seconds(pid) for process in self.processes for pid in _tree(process.process.pid))
        self.check()  # of one that died there is nothing to read
        return used

    def pause(self) -> None:
        """Hold its processes still: one that polls would take the CPU from the engine that is measured.

        Returns when every thread has stopped: on a busy CPU a signal takes its time. Raises BenchError when one
        has not after PAUSE_SECONDS.
        """
        self._signal(signal.SIGSTOP)
        deadline = time.monotonic() + PAUSE_SECONDS
        for process in self.processes:
            while not all(map(_is_still, _tree(process.process.pid))):
                if time.monotonic() > deadline:
                    raise BenchError(f"{process.name} goes on in spite of SIGSTOP")
                time.sleep(0.001)

    def resume(self) -> None:
        """Let them run again."""
        self._signal(signal.SIGCONT)

    @abstractmethod
    def restart(self, kill: bool) -> None:
        """End it, in its own way or by force, and start it again on the same ports, its FDB empty.

        Returns when it is ready; raises BenchError when it does not get so far.
        """

    @abstractmethod
    def stop(self) -> None:
        """End it; a second call does nothing."""

    def _signal(self, number: int) -> None:
        for process in self.processes:
            # It leads a session of its own, and so the process group of all that it has started.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.process.pid, number)


class InKernel(Running):
    """A part of the kernel: `join` makes it, for as long as its context lasts."""

    def __init__(self, command: str, join: Callable[[], AbstractContextManager[object]]) -> None:
        self.command, self.buffers = command, "none of its own"
        self._join = join
        self._joined = ExitStack()
        self._joined.enter_context(join())

    def restart(self, kill: bool) -> None:
        """Deleted and made anew: there is no process to kill."""
        self.stop()
        self._joined.enter_context(self._join())

    def stop(self) -> None:
        """Delete it."""
        self._joined.close()


class Programs(Running):
    """One program or several in the namespace of the lab's host ends, all on one CPU.

    `start` starts them by `run`, waits until they are ready, and says in `buffers` what there is to say. `ended` is
    given what each of them said at last.
    """

    def __init__(
        self,
        name: str,
        lab: Lab,
        cpu: int,
        start: Callable[[Programs], None],
        *,
        pinned: bool = True,
        ended: Callable[[Programs, str], None] = lambda programs, said: None,
    ) -> None:
        self.name, self.lab, self.cpu, self.pinned = name, lab, cpu, pinned
        self.command, self.buffers = "", "-"
        self.processes: list[Child] = []
        self._start, self._ended = start, ended
        self._begin()

    @property
    def interfaces(self) -> list[str]:
        """The host ends it is to join."""
        return [port.name for port in self.lab.ports]

    def run(
        self, argv: Sequence[str], part: str = "", *, private: bool = False, quiet: bool = False, cwd: str | Path = HOME
    ) -> Child:
        """Start one of its programs; `part` is what errors call it, where there are several.

        `private`: with a /run of its own, empty and gone with it, which the programs after it share. `quiet`:
        its stdout goes where its stderr goes. `cwd`: where it is started, by default where this package is.
        """
        words = [*(_TO_STDERR if quiet else ()), *argv]
        if private:
            words = [*(self._enter() or _PRIVATE), *words]
        name = f"{self.name}'s {part}" if part else self.name
        with _on_cpu(self.cpu) if self.pinned else contextlib.nullcontext():
            self.processes.append(Child(self.lab.popen_host, words, name=name, cwd=cwd))
        return self.processes[-1]

    def ask(self, argv: Sequence[str], *, timeout: float) -> str:
        """Run a program of its to the end, in the same private /run; returns what it says.

        Raises BenchError when it fails, or takes longer than `timeout` seconds.
        """
        try:
            done = self.lab.run_host([*self._enter(), *argv], timeout=timeout, check=False)
        except subprocess.TimeoutExpired:
            raise BenchError(f"{self.name}: no end of {shlex.join(argv)} in {timeout:g} s") from None
        if done.returncode:
            self.check()  # a better reason than that it could not be asked
            last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
            raise BenchError(f"{self.name}: {shlex.join(argv)}: {' '.join(last)}")
        return done.stdout

    def restart(self, kill: bool) -> None:
        """Stop all of them, by SIGKILL if `kill`, and start them again."""
        if kill:
            self._signal(signal.SIGKILL)
        self.stop()
        self._begin()

    def stop(self) -> None:
        """End them, by force if need be, and whatever they have started."""
        self.resume()  # a stopped process takes no SIGTERM
        while self.processes:
            process = self.processes.pop()
            if process.process.stdin is not None:
                process.process.stdin.close()  # testpmd waits for a key, whatever signal comes
            process.stop()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.process.pid, signal.SIGKILL)
            self._ended(self, process.unread)

    def _begin(self) -> None:
        try:
            self._start(self)
            self.check()
        except BaseException:
            self.stop()
            raise

    def _enter(self) -> list[str]:
        return ["nsenter", f"--mount=/proc/{self.processes[0].process.pid}/ns/mnt"] if self.processes else []


@contextlib.contextmanager
def _on_cpu(cpu: int) -> Iterator[None]:
    """Programs started meanwhile inherit the CPU; pinned afterwards, one could have started others before."""
    usual = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    try:
        yield
    finally:
        os.sched_setaffinity(0, usual)


def _cpu_seconds(pid: int) -> float:
    """From the scheduler's own nanosecond count; 0 for a process that is gone."""
    total = 0
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            total += int((task / "schedstat").read_text().split()[0])
    return total * 1e-9


def _is_still(pid: int) -> bool:
    """Whether all threads of a process are stopped; one that is gone, or about to be, counts as such."""
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            if (task / "stat").read_text().rpartition(")")[2].split()[0] not in "TtZX":
                return False
    return True


def _tree(pid: int) -> list[int]:
    """A process and all that it has started."""
    found = [pid]
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += _tree(int(child))
    return found
