"""One Python that has imported the commands, and forks for each request: hundreds of starts would take minutes.

A request is a line of JSON on stdin, [arguments, environment, directory, input]. The answer is one on stdout, [exit
status, stdout, stderr]. The first line is its own process id. It ends with its stdin. A forked command ends by
os._exit(): what it does at exit, and what it leaves unclosed then, is for tests that start a process.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
import traceback
from importlib import import_module
from typing import IO, NoReturn

from fastbridge.cli import main


def begin(arguments: list[str], environment: dict[str, str], directory: str, files: list[IO[bytes]]) -> NoReturn:
    status = 70
    try:
        for number, file in enumerate(files):
            os.dup2(file.fileno(), number)
        os.environ.clear()
        os.environ.update(environment)
        os.chdir(directory)
        sys.argv = ["fastbridge", *arguments]
        main()
    except SystemExit as left:
        status = int(left.code or 0)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(status)


def answer(arguments: list[str], environment: dict[str, str], directory: str, given: str) -> list[str | int]:
    with contextlib.suppress(ImportError):  # what is no command is said by what is forked
        import_module(f"fastbridge.cli.{next(iter(arguments), '')}")
    with tempfile.TemporaryFile() as stdin, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        stdin.write(given.encode())
        stdin.seek(0)
        if not (child := os.fork()):
            begin(arguments, environment, directory, [stdin, out, err])
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        out.seek(0)
        err.seek(0)
        return [status, *(file.read().decode(errors="replace") for file in (out, err))]


if __name__ == "__main__":
    if os.fork():  # whoever looks for processes that a test has left behind does not find it
        os._exit(0)
    os.setsid()
    for each in ("lab.topology", "switch.live"):  # what commands import when they come to it
        import_module(f"fastbridge.{each}")
    print(os.getpid(), flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(*json.loads(line))), flush=True)
