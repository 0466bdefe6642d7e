"""The plain-Python peer.

A separate program (forwarder.py) that uses only the standard library. Works with default offloads, TCP included: it
passes the vnet header on.
"""

from __future__ import annotations

import platform
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fastbridge.lab.topology import Lab
from fastbridge.programs import find_python

from .engine import Engine
from .forwarder import RECEIVE_BUFFER
from .running import Programs, Running

READY_SECONDS = 5.0


@dataclass(frozen=True)
class PythonSockets(Engine):
    """AF_PACKET sockets, epoll and a dict."""

    name: str = "python"

    def version(self) -> str:
        """The interpreter's version."""
        return f"{platform.python_implementation()} {platform.python_version()}"

    @contextmanager
    def attach(self, lab: Lab, cpu: int) -> Iterator[Running]:
        """Run the forwarder until the block ends."""
        with Programs(self.name, lab, cpu, self._start) as running:
            yield running

    def _start(self, programs: Programs) -> None:
        program = Path(__file__).with_name("forwarder.py")
        options = ["-I", "-S"]
        programs.command = shlex.join(["python", *options, program.name, *programs.interfaces])
        programs.buffers = f"receive buffer {RECEIVE_BUFFER >> 20} MiB a port"
        programs.run([find_python(), *options, str(program), *programs.interfaces]).line(READY_SECONDS)
