"""fastbridge itself.

Measured as its users run it: `fastbridge run --json` as a process of its own, so that the bench's own work
takes no time from the switch's thread. Works with default offloads, TCP included. The variants say which path frames
take; which one they took, the switch's own counters say at its end.
"""

from __future__ import annotations

import json
import os
import shlex
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from fastbridge.errors import BenchError
from fastbridge.lab.topology import Lab
from fastbridge.programs import python_module
from fastbridge.switch.fast_path import hands

from .engine import Engine
from .running import Programs, Running

READY_SECONDS = 10.0


# Room for every address that a method uses, as the Linux bridge has; 65,536 are the default.
_CAPACITY = ("--capacity", "1100000")
_BY_CORE = (*_CAPACITY, "--fast-path", "off")
_COUNTS = (2, 4)  # of workers


@dataclass(frozen=True)
class Fastbridge(Engine):
    """`fastbridge run` over the lab's host ends; `options` are given to it as they are."""

    name: str = "fastbridge"
    options: tuple[str, ...] = _CAPACITY
    workers: int = 1  #: several are not kept on one CPU
    hand: str = ""  #: of the fast path; without it there is nothing to measure

    def version(self) -> str:
        """The package's."""
        try:
            return metadata.version("fastbridge")
        except metadata.PackageNotFoundError:
            return "source tree"

    def missing(self) -> str | None:
        """A hand that the kernel refuses, or CPUs: several workers need one each."""
        if self.hand:
            with Lab(1) as lab:  # where it will forward, and where an ordinary user may try it
                why = hands.missing(self.hand, lab.ports[0].open_socket)
                hands.settle()
            if why:
                return why
        cpus = len(os.sched_getaffinity(0))
        return None if self.workers <= cpus else f"{self.workers} workers need as many CPUs; there are {cpus}"

    @contextmanager
    def attach(self, lab: Lab, cpu: int) -> Iterator[Running]:
        """Run the switch until the block ends."""
        with Programs(self.name, lab, cpu, self._start, pinned=self.workers == 1, ended=_note_paths) as running:
            yield running

    def _start(self, programs: Programs) -> None:
        arguments = ["run", "--json", *self.options, *programs.interfaces]
        programs.command = shlex.join(["fastbridge", *arguments])
        switch = programs.run([*python_module("fastbridge"), *arguments])
        line = switch.line(READY_SECONDS)
        if json.loads(line).get("event") != "ready":
            raise BenchError(f"{self.name} said {line!r} when it should have been ready")
        programs.buffers = _rings(switch.process.pid)


def _rings(pid: int) -> str:
    """The rings as the kernel granted them: a short one is a reason for loss."""
    sizes: Counter[str] = Counter()
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        area, *_, name = line.split()
        if name.startswith("socket:"):
            first, last = (int(address, 16) for address in area.split("-"))
            sizes[f"{(last - first) / (1 << 20):g} MiB"] += 1
    return f"rings: {', '.join(f'{count} of {size}' for size, count in sizes.items())}"


def _note_paths(programs: Programs, said: str) -> None:
    """Add what a switch says when it is stopped; one that was killed says nothing."""
    for line in said.splitlines():
        event = json.loads(line) if line.startswith("{") else {}
        if event.get("event") == "stopped":
            total = event["counters"]["total"]
            kernel, core = programs.paths or (0, 0)
            programs.paths = kernel + total["fast"], core + total["rx_frames"]


# By the kernel's fast path, or by the core: as it is, each frame sent by itself, never asleep, by several workers.
# What `fastbridge run` has by default is "fastbridge".
VARIANTS = (
    Fastbridge("fastbridge/nft", (*_CAPACITY, "--fast-path", "nft"), hand="nft"),
    Fastbridge("fastbridge/bpf", (*_CAPACITY, "--fast-path", "bpf"), hand="bpf"),
    Fastbridge("fastbridge/af-packet", _BY_CORE),
    Fastbridge("fastbridge/no-coalesce", (*_BY_CORE, "--no-coalesce")),
    Fastbridge("fastbridge/busy-poll", (*_BY_CORE, "--busy-poll", "1000000")),
    *(Fastbridge(f"fastbridge/{n}-workers", (*_BY_CORE, "--workers", str(n)), workers=n) for n in _COUNTS),
    *(
        Fastbridge(f"fastbridge/{n}-workers-fanout", (*_BY_CORE, "--workers", str(n), "--fanout"), workers=n)
        for n in _COUNTS
    ),
)
