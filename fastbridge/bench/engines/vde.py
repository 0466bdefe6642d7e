"""VDE, Virtual Distributed Ethernet.

vde_switch with a tap for each port. It cannot take a veth end: vde_pcapplug of vde2 2.3.2 opens libpcap without a
timeout, and no frame passes until a whole capture block is full. So a Linux bridge of two ports, without
learning, joins each tap to its host end, as VDE's users do; its cost is in VDE's numbers. Works with default
offloads, TCP included: the kernel does checksums and segmentation before a tap.

wirefilter is VDE's emulated link, a cable between two switches.
"""

from __future__ import annotations

import shlex
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from fastbridge.bench.wanted_link import WantedLink
from fastbridge.errors import BenchError
from fastbridge.lab.links import Links
from fastbridge.lab.topology import Lab
from fastbridge.programs import find_program

from .engine import Engine, lacks_program, lacks_tun
from .probe import await_forwarding
from .running import Programs, Running

READY_SECONDS = 10.0
_ONCE_BOTH_ARE_THERE = (
    *("sh", "-c", 'until [ -S /run/vde0/ctl ] && [ -S /run/vde1/ctl ]; do sleep 0.01; done; exec "$@"', "sh"),
)
_SPARE_PORTS = 2  # port numbers begin with 1, and 0 counts, too; and one for a cable


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
        _run(programs, {"/run/vde": range(len(programs.interfaces))})


@dataclass(frozen=True)
class Wirefilter(Vde):
    """Two vde_switches, each with the tap of one port, and wirefilter between them."""

    name: str = "vde/wirefilter"
    most_ports = 2

    def missing(self) -> str | None:
        """A program, or the tun device."""
        return super().missing() or lacks_program("vde2", "wirefilter")

    def refuses(self, link: WantedLink) -> str | None:
        """Its delays are whole milliseconds."""
        return None if (link.delay * 1e3).is_integer() else "delays by whole milliseconds"

    def _start(self, programs: Programs) -> None:
        words = _words(programs.link) if programs.link else []
        wire = ["wirefilter", "-v", "/run/vde0:/run/vde1", *words]
        _run(programs, {"/run/vde0": [0], "/run/vde1": [1]}, wire)


def _words(link: WantedLink) -> list[str]:
    """The link from left to right in the words of wirefilter(1): ms, percent and bytes/s."""
    words = []
    if link.delay or link.jitter:
        # Its limits of a normal distribution are at three standard deviations.
        spread = {"uniform": f"+{link.jitter * 1e3:g}U", "normal": f"+{3 * link.jitter * 1e3:g}N"}[link.distribution]
        words += ["-d", f"LR{link.delay * 1e3:g}" + (spread if link.jitter else "")]
    if link.overtakes:
        words += ["-N"]
    if link.loss:
        words += ["-l", f"LR{link.loss * 100:g}"]
    if link.burst:
        words += ["-L", f"LR{link.burst:g}"]
    if link.rate:
        words += ["-b", f"LR{link.rate / 8:.0f}", "-c", f"LR{link.limit}"]
    return words


def _run(programs: Programs, switches: Mapping[str, Sequence[int]], wire: Sequence[str] = ()) -> None:
    """Start switches, each with its socket and its ports, and the wire between them. Returns when they forward."""
    commands = []
    for path, ports in switches.items():
        taps = [f"--tap={_tap(n)}" for n in ports]
        commands.append(["vde_switch", f"--sock={path}", f"--numports={len(ports) + _SPARE_PORTS}", *taps])
        programs.run(commands[-1], path if wire else "", private=True, quiet=True)
        _join(programs, ports)
    if wire:
        commands.append([*wire])
        programs.run([*_ONCE_BOTH_ARE_THERE, *wire], "wirefilter", private=True, quiet=True)
    programs.command = "; ".join(map(shlex.join, commands))
    programs.buffers = "each tap's queue, 1000 frames"
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


def _join(programs: Programs, ports: Iterable[int]) -> None:
    deadline = time.monotonic() + READY_SECONDS
    with Links(programs.lab.namespace) as links:
        for n in ports:
            while not links.exists(_tap(n)):
                programs.check()
                if time.monotonic() > deadline:
                    raise BenchError(f"{programs.name} opened no tap in {READY_SECONDS:g} s")
                time.sleep(0.005)
            links.set(_tap(n), master=links.index(_joint(n)))
            links.set_bridge_port(_tap(n), learning=0)
            links.set(_tap(n), state="up", arp=False)
