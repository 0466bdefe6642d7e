"""The command line as a process, and its output."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
from functools import cache
from pathlib import Path
from typing import Any

import fastbridge

ROOT = Path(fastbridge.__file__).parents[1]
COMMAND = [sys.executable, "-W", "error", "-m", "fastbridge"]


class Forker:
    """Forks the command line for each request (forker.py)."""

    def __init__(self) -> None:
        python = [sys.executable, "-W", "error", str(Path(__file__).with_name("forker.py"))]
        # The bench's numpy has threads that would not survive a fork.
        environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self._process = subprocess.Popen(python, cwd=ROOT, env=environment, text=True, **pipes)  # type: ignore[call-overload]
        self._pid = int(self._process.stdout.readline())
        self._process.wait()  # it has forked
        self._answered = select.poll()
        self._answered.register(self._process.stdout, select.POLLIN)
        self._lock = threading.Lock()

    def ask(self, *request: Any, timeout: float) -> list[Any]:
        """The answer to a request. Raises subprocess.TimeoutExpired."""
        with self._lock:
            with contextlib.suppress(BrokenPipeError):  # said below
                self._process.stdin.write(f"{json.dumps(request)}\n")
                self._process.stdin.flush()
            if not self._answered.poll(1000 * timeout):
                os.killpg(self._pid, signal.SIGKILL)
                forker.cache_clear()
                raise subprocess.TimeoutExpired(request[0], timeout)
            line = self._process.stdout.readline()
            if not line:
                forker.cache_clear()
                raise ChildProcessError(f"what forks commands has ended, at {request[0]}")
            answer: list[Any] = json.loads(line)
        return answer


forker = cache(Forker)


def namespaces() -> list[int]:
    """Where this thread is."""
    return [Path(f"/proc/thread-self/ns/{kind}").stat().st_ino for kind in ("net", "mnt")]


HERE = namespaces()


def run(
    *arguments: str,
    input: str = "",  # noqa: A002 - as subprocess.run() has it
    timeout: float = 180,
    **options: Any,
) -> subprocess.CompletedProcess[str]:
    """What becomes of a command line. With any other option of subprocess.run() it is started as users do."""
    if options or namespaces() != HERE:
        given = {"input": input} if "stdin" not in options else {}
        options = {"capture_output": True, "text": True, "timeout": timeout, "cwd": ROOT} | given | options
        return subprocess.run([*COMMAND, *arguments], **options)
    result = forker().ask(arguments, dict(os.environ), str(ROOT), input, timeout=timeout)
    return subprocess.CompletedProcess([*COMMAND, *arguments], *result)


def complaint(done: subprocess.CompletedProcess[str], status: int) -> str:
    """The one line that a failed command prints."""
    assert (done.returncode, done.stdout) == (status, ""), done
    lines = done.stderr.splitlines()
    assert len(lines) == 1 and lines[0].startswith("fastbridge: "), done.stderr
    return lines[0].removeprefix("fastbridge: ")


def complaints(err: str) -> list[str]:
    """What a run has said on stderr, but for what it says of a busy machine: that a port is slow to send to."""
    return [line for line in err.splitlines() if "costly" not in line]


def next_complaint(process: subprocess.Popen[str]) -> str:
    """The next line that a run writes to stderr, but for those of costly ports."""
    assert process.stderr is not None
    while not complaints(line := process.stderr.readline()) and line:
        pass
    return line


def say(process: subprocess.Popen[str]) -> dict[str, Any]:
    """The next JSON line of a process."""
    assert process.stdout is not None
    said: dict[str, Any] = json.loads(process.stdout.readline())
    return said
