"""The command line as a process, and its output."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import fastbridge

ROOT = Path(fastbridge.__file__).parents[1]
COMMAND = [sys.executable, "-W", "error", "-m", "fastbridge"]


def run(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    options = {"capture_output": True, "text": True, "timeout": 180, "cwd": ROOT} | options
    return subprocess.run([*COMMAND, *arguments], **options)


# One Python that has imported all commands, and forks for each request: hundreds of starts would take minutes.
RUN_EACH = """
import json, os, sys, tempfile
from fastbridge.cli import compare, demo, lab, main, report, run, track

def begin(arguments, files):
    for number, file in enumerate(files, 1):
        os.dup2(file.fileno(), number)
    sys.argv = ["fastbridge", *arguments]
    status = 70
    try:
        main()
    except SystemExit as left:
        status = left.code or 0
    finally:
        os._exit(status)

results = []
for arguments in json.load(sys.stdin):
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        if not (child := os.fork()):
            begin(arguments, (out, err))
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        texts = [file.seek(0) or file.read().decode() for file in (out, err)]
        results.append([status, *texts])
json.dump(results, sys.stdout)
"""


def run_each(*requests: tuple[str, ...]) -> list[subprocess.CompletedProcess[str]]:
    """The results of `run` for each request. Each is a process of its own, forked from one Python."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", RUN_EACH],
        input=json.dumps(requests),
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},  # the bench's numpy has threads that would not survive a fork
        capture_output=True,
        text=True,
        timeout=120,
        cwd=ROOT,
        check=True,
    )
    return [
        subprocess.CompletedProcess([*COMMAND, *arguments], *result)
        for arguments, result in zip(requests, json.loads(done.stdout), strict=True)
    ]


def complaint(done: subprocess.CompletedProcess[str], status: int) -> str:
    """The one line that a failed command prints."""
    assert (done.returncode, done.stdout) == (status, ""), done
    lines = done.stderr.splitlines()
    assert len(lines) == 1 and lines[0].startswith("fastbridge: "), done.stderr
    return lines[0].removeprefix("fastbridge: ")


def say(process: subprocess.Popen[str]) -> dict[str, Any]:
    """The next JSON line of a process."""
    assert process.stdout is not None
    said: dict[str, Any] = json.loads(process.stdout.readline())
    return said
