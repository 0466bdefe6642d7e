"""fastbridge itself.

The bench measures it as its users run it: `fastbridge run --json` in a separate process, so the bench's own work takes
no time from the switch's thread. It works with default offloads, TCP included. The variants say which path frames
should take. The switch's own counters say at its end which path they took.
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

from fastbridge.bench.wanted_link import WantedLink
from fastbridge.errors import BenchError
from fastbridge.lab.topology import Lab
from fastbridge.programs import python_module
from fastbridge.switch.fast_path import hands

from .engine import Engine
from .running import Programs, Running

READY_SECONDS = 10.0


# Addresses: room for all that a method uses, as the Linux bridge has. The default is 65,536.
_CAPACITY = ("--capacity", "1100000")
_BY_CORE = (*_CAPACITY, "--fast-path", "off")
_COUNTS = (2, 4)  # of workers


@dataclass(frozen=True)
class Fastbridge(Engine):
    """`fastbridge run` over the lab's host ends, with `options` as they are."""

    name: str = "fastbridge"
    options: tuple[str, ...] = _CAPACITY
    workers: int = 1  #: several workers are not pinned to one CPU
    hand: str = ""  #: hand of the fast path; without it there is nothing to measure

    def version(self) -> str:
        """The package's version."""
        try:
            return metadata.version("fastbridge")
        except metadata.PackageNotFoundError:
            return "source tree"

    def missing(self) -> str | None:
        """Why the kernel refuses the hand, or how many CPUs there are: each of several workers needs one."""
        if self.hand:
            with Lab(1) as lab:  # the engine forwards in a lab, and an ordinary user may try the hand there
                why = hands.missing(self.hand, lab.ports[0].open_socket)
                hands.settle()
            if why:
                return why
        cpus = len(os.sched_getaffinity(0))
        return None if self.workers <= cpus else f"{self.workers} workers need as many CPUs; there are {cpus}"

    def refuses(self, link: WantedLink) -> str | None:
        """Nothing."""
        return None

    @contextmanager
    def attach(self, lab: Lab, cpu: int) -> Iterator[Running]:
        """Run the switch until the block ends."""
        with Programs(self.name, lab, cpu, self._start, pinned=self.workers == 1, ended=_note_paths) as running:
            yield running

    def _start(self, programs: Programs) -> None:
        links = ["--link", f"{programs.interfaces[1]}:{_words(programs.link)}"] if programs.link else []
        arguments = ["run", "--json", *self.options, *links, *programs.interfaces]
        programs.command = shlex.join(["fastbridge", *arguments])
        switch = programs.run([*python_module("fastbridge"), *arguments])
        line = switch.line(READY_SECONDS)
        if json.loads(line).get("event") != "ready":
            raise BenchError(f"{self.name} said {line!r} when it should have been ready")
        programs.buffers = _rings(switch.process.pid)


def _words(link: WantedLink) -> str:
    """The link to the pod, as `--link` reads it."""
    words = {
        "delay": link.delay and f"{link.delay * 1e3:g}ms",
        "jitter": link.jitter and f"{link.jitter * 1e3:g}ms",
        "distribution": link.jitter and link.distribution,
        "reorder": link.overtakes and "jitter",
        "loss": not link.burst and link.loss and f"{link.loss * 100:g}%",
        "loss_model": link.burst and f"gilbert({','.join(f'{share:.9%}' for share in link.leaving)})",
        "rate": link.rate and f"{link.rate}bit",
        "limit": link.limit and f"{link.limit}B",
    }
    return ",".join(f"to_pod.{name}={value}" for name, value in words.items() if value)


def _rings(pid: int) -> str:
    """The rings as the kernel granted them. A short ring can cause loss."""
    sizes: Counter[str] = Counter()
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        area, *_, name = line.split()
        if name.startswith("socket:"):
            first, last = (int(address, 16) for address in area.split("-"))
            sizes[f"{(last - first) / (1 << 20):g} MiB"] += 1
    return f"rings: {', '.join(f'{count} of {size}' for size, count in sizes.items())}"


def _note_paths(programs: Programs, said: str) -> None:
    """Add the counters that a switch prints when it stops. A killed switch prints none."""
    for line in said.splitlines():
        event = json.loads(line) if line.startswith("{") else {}
        if event.get("event") == "stopped":
            total = event["counters"]["total"]
            kernel, core = programs.paths or (0, 0)
            programs.paths = kernel + total["fast"], core + total["rx_frames"]


# "nft" and "bpf" are the kernel's fast path. The others are the core: as it is, without coalescing, never asleep, and
# with several workers. The default of `fastbridge run` is "fastbridge".
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
