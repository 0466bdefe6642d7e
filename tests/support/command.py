"""The command line as a process, and what it says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import fastbridge

ROOT = Path(fastbridge.__file__).parents[1]
COMMAND = [sys.executable, "-W", "error", "-m", "fastbridge"]


def run(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    options = {"capture_output": True, "text": True, "timeout": 60, "cwd": ROOT} | options
    return subprocess.run([*COMMAND, *arguments], **options)


def complaint(done: subprocess.CompletedProcess[str], status: int) -> str:
    """The one line that a failed command says."""
    assert (done.returncode, done.stdout) == (status, ""), done
    lines = done.stderr.splitlines()
    assert len(lines) == 1 and lines[0].startswith("fastbridge: "), done.stderr
    return lines[0].removeprefix("fastbridge: ")


def say(process: subprocess.Popen[str]) -> dict[str, Any]:
    """The next JSON line of a process."""
    assert process.stdout is not None
    said: dict[str, Any] = json.loads(process.stdout.readline())
    return said
