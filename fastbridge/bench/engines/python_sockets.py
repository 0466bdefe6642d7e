"""The plain-Python peer.

A program of its own (forwarder.py), with nothing but the standard library.
"""

from __future__ import annotations

import platform
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fastbridge.bench.child import Child
from fastbridge.topology import Lab

from . import Running
from .forwarder import RECEIVE_BUFFER

READY_SECONDS = 5.0


@dataclass(frozen=True)
class PythonSockets:
    """AF_PACKET sockets, epoll and a dict."""

    name: str = "python"
    joins: bool = True

    def version(self) -> str:
        """The interpreter's."""
        return f"{platform.python_implementation()} {platform.python_version()}"

    @contextmanager
    def attach(self, lab: Lab, cpu: int) -> Iterator[Running]:
        """Run the forwarder until the block ends."""
        program = Path(__file__).with_name("forwarder.py")
        arguments = ["-I", "-S", str(program), *(port.name for port in lab.ports)]
        child = Child(lab.popen_host, [sys.executable, *arguments], name=self.name, cpu=cpu)
        try:
            child.line(READY_SECONDS)
            command = shlex.join(["python", "-I", "-S", program.name, *arguments[3:]])
            yield Running(command, f"receive buffer {RECEIVE_BUFFER >> 20} MiB a port", child)
        finally:
            child.stop()
