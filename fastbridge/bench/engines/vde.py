"""VDE, Virtual Distributed Ethernet.

vde_switch with a tap for each port. It cannot take a veth end: vde_pcapplug of vde2 2.3.2 opens libpcap without a
timeout, and no frame passes until a whole capture block is full. So a Linux bridge of two ports, without
learning, joins each tap to its host end, as VDE's users do; its cost is in VDE's numbers. Works with default
offloads, TCP included: the kernel does checksums and segmentation before a tap.
"""

from __future__ import annotations

import shlex
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from fastbridge.errors import BenchError
from fastbridge.lab.links import Links
from fastbridge.lab.topology import Lab
from fastbridge.programs import find_program

from .engine import Engine, lacks_program, lacks_tun
from .probe import await_forwarding
from .running import Programs, Running

READY_SECONDS = 10.0
_SPARE_PORTS = 1  # port numbers begin with 1, and 0 counts, too


@dataclass(frozen=True)
class Vde(Engine):
    """vde_switch, with its default FDB: 128 hash buckets, ageing 100 s."""

    name: str = "vde"

    def version(self) -> str:
        """The version of vde_switch."""
        said = subprocess.run(
            [find_program("vde_switch") or "vde_switch", "--version"], capture_output=True, text=True, check=False
        )
        return said.stdout.splitlines()[0].split()[-1]

    def missing(self) -> str | None:
        """The program, or the tun device."""
        return lacks_tun() or lacks_program("vde2", "vde_switch")

    @contextmanager
    def attach(self, lab: Lab, cpu: int) -> Iterator[Running]:
        """Run it until the block ends, its control socket in a private tmpfs."""
        with _joints(lab), Programs(self.name, lab, cpu, self._start) as running:
            yield running

    def _start(self, programs: Programs) -> None:
        count = len(programs.interfaces)
        taps = [f"--tap={_tap(n)}" for n in range(count)]
        argv = ["vde_switch", "--sock=/run/vde", f"--numports={count + _SPARE_PORTS}", *taps]
        programs.command = shlex.join(argv)
        programs.buffers = "each tap's queue, 1000 frames"
        programs.run(argv, private=True, quiet=True)
        _join(programs)
        await_forwarding(programs, READY_SECONDS)


def _tap(n: int) -> str:
    return f"fb-tap{n}"


def _joint(n: int) -> str:
    return f"fb-joint{n}"


@contextmanager
def _joints(lab: Lab) -> Iterator[None]:
    """Each host end has its own bridge; a restart of the switch does not change them."""
    names = [_joint(n) for n in range(len(lab))]
    with Links(lab.namespace) as links:
        for name, port in zip(names, lab.ports, strict=True):
            links.add_bridge(name, [port.name], br_mcast_snooping=0)
            links.set_bridge_port(port.name, learning=0)
    try:
        yield
    finally:
        with Links(lab.namespace) as links:
            for name in names:
                links.delete(name)


def _join(programs: Programs) -> None:
    deadline = time.monotonic() + READY_SECONDS
    with Links(programs.lab.namespace) as links:
        for n in range(len(programs.lab)):
            while not links.exists(_tap(n)):
                programs.check()
                if time.monotonic() > deadline:
                    raise BenchError(f"{programs.name} opened no tap in {READY_SECONDS:g} s")
                time.sleep(0.005)
            links.set(_tap(n), master=links.index(_joint(n)))
            links.set_bridge_port(_tap(n), learning=0)
            links.set(_tap(n), state="up", arp=False)
