"""Any other program.

`--engine-command 'prog {ports}'`: any program that joins the Ethernet interfaces in its command line. Offloads have
their defaults, and the program must pass on the work that they leave. If it does not, no TCP connection works: that is
a fact about the program (from Python, `offloads_off` turns them off).
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from fastbridge.bench.machine.offloads import turn_off_offloads
from fastbridge.errors import BenchError, ConfigError
from fastbridge.lab.topology import Lab
from fastbridge.programs import find_program

from .engine import Engine
from .probe import forwards
from .running import Programs, Running

READY_SECONDS = 10.0
_NAMED = re.compile(r"([A-Za-z0-9_.-]+)=(.*)", re.DOTALL)
_SCRIPTS = (".py", ".pl", ".sh", ".rb")


@dataclass(frozen=True)
class CommandEngine(Engine):
    """A program that runs in the foreground, in the namespace of the host ends, until SIGTERM.

    `command` is split as a shell does, but no shell runs it. The word {ports} stands for the interfaces, one
    word each; inside a longer word they are joined by commas. {cpu} is the CPU that it is pinned to.
    """

    command: str
    name: str = "command"
    offloads_off: bool = False
    most_ports: int | None = None

    def __post_init__(self) -> None:
        try:
            words = shlex.split(self.command)
        except ValueError as error:
            raise ConfigError(f"engine command {self.command!r}: {error}") from error
        if not any("{ports}" in word for word in words[1:]):
            raise ConfigError(f"engine command {self.command!r}: {{ports}} must stand where the interfaces are to be")

    def missing(self) -> str | None:
        """The program."""
        program = shlex.split(self.command)[0]
        return None if find_program(program) else f"there is no program {program!r} on the PATH"

    @contextmanager
    def attach(self, lab: Lab, cpu: int) -> Iterator[Running]:
        """Run it until the block ends; it counts as ready when it forwards, or after READY_SECONDS."""
        if self.offloads_off:
            turn_off_offloads(lab)
        with _Foreground(self.name, lab, cpu, self._start) as running:
            yield running

    def argv(self, interfaces: list[str], cpu: int) -> list[str]:
        """The words of its command line."""
        words: list[str] = []
        for word in shlex.split(self.command):
            if word == "{ports}":
                words += interfaces
            else:
                words.append(word.replace("{ports}", ",".join(interfaces)).replace("{cpu}", str(cpu)))
        return words

    def _start(self, programs: Programs) -> None:
        argv = self.argv(programs.interfaces, programs.cpu)
        programs.command = shlex.join(argv)
        programs.run(argv, quiet=True, cwd=Path.cwd())
        forwards(programs, READY_SECONDS)


class _Foreground(Programs):
    """A program of which only the first process is known."""

    def check(self) -> None:
        """Raise BenchError when the program has ended; the error says so if it seems to have gone to the background."""
        try:
            super().check()
        except BenchError as error:
            if any(child.process.returncode == 0 for child in self.processes):
                raise BenchError(f"{error}; it must stay in the foreground until SIGTERM") from None
            raise


def parse_command(text: str) -> CommandEngine:
    """`COMMAND` or `NAME=COMMAND`; without a name the engine gets the file name of the program.

    If the program is given a script, it gets the script's file name. Raises ConfigError for a
    command without {ports}.
    """
    named = _NAMED.fullmatch(text.strip())
    engine = CommandEngine(named[2] if named else text)
    return replace(engine, name=named[1] if named else _program(shlex.split(engine.command)))


def _program(words: list[str]) -> str:
    scripts = (word for word in words[1:] if word.endswith(_SCRIPTS) and not word.startswith("-"))
    return Path(next(scripts, words[0])).name
