"""Programs of others that run in pods for the length of a test."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastbridge.lab.pods import Pod


def needs(program: str) -> str:
    found = shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if found is None:
        pytest.skip(f"no {program} on this machine")
    return found


@contextlib.contextmanager
def running(pod: Pod, argv: list[str], log: Path) -> Iterator[int]:
    """A program in a pod, in a mount namespace and a process group of its own; the latter's id."""
    script = 'mount -t tmpfs none /run && exec "$@"'
    with log.open("w") as out:
        process = pod.popen(
            ["unshare", "-m", "sh", "-c", script, "sh", *argv], stdout=out, stderr=out, start_new_session=True
        )
    try:
        yield process.pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(10)
        except Exception:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def log_of(directory: Path, pod: Pod) -> str:
    return (directory / f"{pod.name}.log").read_text()[-500:]
