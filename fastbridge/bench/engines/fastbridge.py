"""fastbridge itself.

Measured as its users run it: `fastbridge run --json` as a process of its own, so that the bench's
own work takes no time from the switch's thread.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from fastbridge.bench.child import Child
from fastbridge.errors import BenchError
from fastbridge.topology import Lab

from . import Running

READY_SECONDS = 10.0


@dataclass(frozen=True)
class Fastbridge:
    """`fastbridge run` over the lab's host ends; `options` are given to it as they are."""

    name: str = "fastbridge"
    options: tuple[str, ...] = ()
    joins: bool = True

    def version(self) -> str:
        """The package's."""
        try:
            return metadata.version("fastbridge")
        except metadata.PackageNotFoundError:
            return "source tree"

    @contextmanager
    def attach(self, lab: Lab, cpu: int) -> Iterator[Running]:
        """Run the switch until the block ends."""
        arguments = ["run", "--json", *self.options, *(port.name for port in lab.ports)]
        child = Child(lab.popen_host, [sys.executable, "-m", "fastbridge", *arguments], name=self.name, cpu=cpu)
        try:
            line = child.line(READY_SECONDS)
            if json.loads(line).get("event") != "ready":
                raise BenchError(f"{self.name} said {line!r} when it should have been ready")
            yield Running(shlex.join(["fastbridge", *arguments]), _rings(child.process.pid), child)
        finally:
            child.stop()


def _rings(pid: int) -> str:
    """The rings as the kernel granted them: a short one is a reason for loss."""
    sizes = []
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        area, *_, name = line.split()
        if name.startswith("socket:"):
            first, last = (int(address, 16) for address in area.split("-"))
            sizes.append(f"{(last - first) / (1 << 20):g}")
    return f"rings of {', '.join(sizes)} MiB"
