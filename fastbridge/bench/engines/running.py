"""Engines at work.

The tester's view of a running engine, be it programs or a part of the kernel: it tells whether it still lives and how
much CPU time it has used, and the tester can pause, restart and stop it.
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
from fastbridge.bench.wanted_link import WantedLink
from fastbridge.errors import BenchError
from fastbridge.lab.topology import Lab

PAUSE_SECONDS = 5.0

# A tmpfs in a mount namespace of its own goes with the last process in it. So no file outlives an engine, even if the
# bench is killed. Engines write only in /run. mount -n: leaves no entry in the old /run.
_PRIVATE = ("unshare", "--mount", "sh", "-c", 'mount -n -t tmpfs tmpfs /run && exec "$@"', "sh")
_TO_STDERR = ("sh", "-c", 'exec "$@" >&2', "sh")  # nobody reads stdout, and a full pipe would stop the program


class Running(ABC):
    """An engine at work."""

    command: str  #: as a user would type it
    buffers: str  #: the buffers for frames that wait for it
    link: WantedLink | None = None  #: that it emulates now
    processes: Sequence[Child] = ()  #: none where the kernel does the work
    #: Frames taken by its kernel fast path and by itself, as it says at its end; None: it does not say
    paths: tuple[int, int] | None = None

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def check(self) -> None:
        """Raise BenchError if it has died."""
        for process in self.processes:
            process.check()

    def is_alive(self) -> bool:
        """Whether it still lives."""
        try:
            self.check()
        except BenchError:
            return False
        return True

    def cpu_seconds(self) -> float | None:
        """CPU time so far of its processes and their descendants; None if it has no processes.

        Raises BenchError if one has died.
        """
        if not self.processes:
            return None
        used = sum(_cpu_seconds(pid) for process in self.processes for pid in _tree(process.process.pid))
        self.check()  # a dead process has no time to read
        return used

    def pause(self) -> None:
        """Stop its processes for a while. A polling process would take the CPU from the measured engine.

        Returns when every thread has stopped: on a busy CPU a signal takes time. Raises BenchError if a thread still
        runs after PAUSE_SECONDS.
        """
        self._signal(signal.SIGSTOP)
        deadline = time.monotonic() + PAUSE_SECONDS
        for process in self.processes:
            while not all(map(_is_still, _tree(process.process.pid))):
                if time.monotonic() > deadline:
                    raise BenchError(f"{process.name} still runs after SIGSTOP")
                time.sleep(0.001)

    def resume(self) -> None:
        """Let its processes run again."""
        self._signal(signal.SIGCONT)

    @abstractmethod
    def restart(self, kill: bool) -> None:
        """End it, in its own way or with `kill` by force. Start it again on the same ports with an empty FDB.

        Returns when it is ready. Raises BenchError if it does not become ready.
        """

    def emulate(self, link: WantedLink | None) -> None:
        """Emulate this link, or none, from now on: a restart with it. Raises what restart does."""
        self.link = link
        self.restart(kill=False)

    @abstractmethod
    def stop(self) -> None:
        """End it. A second call does nothing."""

    def _signal(self, number: int) -> None:
        for process in self.processes:
            # It leads its own session, and so the process group of everything it started.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.process.pid, number)


class InKernel(Running):
    """A part of the kernel. `join` makes it, with the link that it emulates, while its context lasts."""

    def __init__(self, command: str, join: Callable[[WantedLink | None], AbstractContextManager[object]]) -> None:
        self.command, self.buffers = command, "none of its own"
        self._join = join
        self._joined = ExitStack()
        self._joined.enter_context(join(None))

    def restart(self, kill: bool) -> None:
        """Delete it and make it anew. There is no process to kill."""
        self.stop()
        self._joined.enter_context(self._join(self.link))

    def stop(self) -> None:
        """Delete it."""
        self._joined.close()


class Programs(Running):
    """One or more programs in the namespace of the lab's host ends, all on one CPU if `pinned`.

    `start` starts them with `run`, waits until they are ready and fills in `buffers`. `ended` gets the last output of
    each program.
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
        """The host ends to join."""
        return [port.name for port in self.lab.ports]

    def run(
        self, argv: Sequence[str], part: str = "", *, private: bool = False, quiet: bool = False, cwd: str | Path = HOME
    ) -> Child:
        """Start one of its programs. `part`: its name in errors, if there are several.

        `private`: it gets its own /run, empty at first. Later private programs share it, and it goes with the last of
        them. `quiet`: its stdout goes to its stderr. `cwd`: its working directory, by default this package's place.
        """
        words = [*(_TO_STDERR if quiet else ()), *argv]
        if private:
            words = [*(self._enter() or _PRIVATE), *words]
        name = f"{self.name}'s {part}" if part else self.name
        with _on_cpu(self.cpu) if self.pinned else contextlib.nullcontext():
            self.processes.append(Child(self.lab.popen_host, words, name=name, cwd=cwd))
        return self.processes[-1]

    def ask(self, argv: Sequence[str], *, timeout: float) -> str:
        """Run a command to its end, in the same private /run. Returns its output.

        Raises BenchError if it fails or takes longer than `timeout` seconds.
        """
        try:
            done = self.lab.run_host([*self._enter(), *argv], timeout=timeout, check=False)
        except subprocess.TimeoutExpired:
            raise BenchError(f"{self.name}: {shlex.join(argv)} did not end in {timeout:g} s") from None
        if done.returncode:
            self.check()  # its death is a better reason than the failed command
            last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
            raise BenchError(f"{self.name}: {shlex.join(argv)}: {' '.join(last)}")
        return done.stdout

    def restart(self, kill: bool) -> None:
        """Stop all programs, with SIGKILL if `kill`, and start them again."""
        if kill:
            self._signal(signal.SIGKILL)
        self.stop()
        self._begin()

    def stop(self) -> None:
        """End the programs, by force if necessary, and everything they started."""
        self.resume()  # a stopped process takes no SIGTERM
        while self.processes:
            process = self.processes.pop()
            if process.process.stdin is not None:
                process.process.stdin.close()  # testpmd waits for a key, despite any signal
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
    """Programs started meanwhile inherit the CPU. Pinned later, a program might already have started others."""
    usual = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    try:
        yield
    finally:
        os.sched_setaffinity(0, usual)


def _cpu_seconds(pid: int) -> float:
    """CPU time by the scheduler's own nanosecond count; 0 if the process is gone."""
    total = 0
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            total += int((task / "schedstat").read_text().split()[0])
    return total * 1e-9


def _is_still(pid: int) -> bool:
    """Whether all threads of a process are stopped. A thread that is gone, or about to be, counts as stopped."""
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            if (task / "stat").read_text().rpartition(")")[2].split()[0] not in "TtZX":
                return False
    return True


def _tree(pid: int) -> list[int]:
    """A process and all its descendants."""
    found = [pid]
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += _tree(int(child))
    return found
