"""DPDK's testpmd.

Its io mode passes frames from one port to the other without a look: not a switch, but the least work that a
user-space forwarder can do. It polls, by net_af_packet or, as testpmd-xdp, by net_af_xdp (copy mode on
veth). With default offloads ping works and TCP does not: both drivers lose the pending checksum. With offloads off TCP
works.
"""

from __future__ import annotations

import shlex
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fastbridge.bench.machine.offloads import turn_off_offloads
from fastbridge.lab.topology import Lab

from .engine import Engine, lacks_program, only_two
from .probe import await_forwarding
from .running import Programs, Running

READY_SECONDS = 20.0
_PROGRAM = "dpdk-testpmd"
# --no-huge excludes --in-memory; without shared configuration it leaves no file behind either.
_EAL = ("--no-huge", "--no-pci", "--no-shconf", "--no-telemetry", "-m", "256")
_FORWARDING = (
    "--forward-mode=io",
    "--auto-start",
    "--nb-ports=2",
    "--total-num-mbufs=16384",
    "--rxd=2048",
    "--txd=2048",
)
_AF_XDP = 44
_CAP_NET_ADMIN, _CAP_SYS_ADMIN = 12, 21


@dataclass(frozen=True)
class Testpmd(Engine):
    """io forwarding between two host ends, by a polling thread."""

    __test__ = False  # not a test, whatever pytest thinks of the name

    xdp: bool = False
    most_ports = 2
    offloads_off = True

    @property
    def name(self) -> str:  # type: ignore[override] # nobody renames an engine
        """One name for each driver."""
        return "testpmd-xdp" if self.xdp else "testpmd"

    def version(self) -> str:
        """DPDK's version."""
        said = subprocess.run(
            [_PROGRAM, "-v", "-h"], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        return next((line.split("'")[1] for line in said.stderr.splitlines() if "RTE Version" in line), "unknown")

    def missing(self) -> str | None:
        """The program; for AF_XDP also a privilege that no user namespace gives."""
        if self.xdp and not _has_capabilities():
            return "to load an XDP program takes root on the machine itself (CAP_NET_ADMIN and CAP_SYS_ADMIN)"
        if self.xdp and not _kernel_has_af_xdp():
            return "this kernel has no AF_XDP sockets: it was built without CONFIG_XDP_SOCKETS"
        return lacks_program("dpdk-dev", _PROGRAM)

    @contextmanager
    def attach(self, lab: Lab, cpu: int) -> Iterator[Running]:
        """Run it until the block ends."""
        only_two(self.name, lab)
        turn_off_offloads(lab)
        with Programs(self.name, lab, cpu, self._start) as running:
            yield running

    def _start(self, programs: Programs) -> None:
        # net_af_xdp's busy polling (its default, Linux 5.11) stays on: without it a ping took several times as long.
        driver = "net_af_xdp" if self.xdp else "net_af_packet"
        devices = [f"--vdev={driver}{n},iface={name}" for n, name in enumerate(programs.interfaces)]
        # It needs two threads; the main one only waits for input.
        argv = [_PROGRAM, *_EAL, f"--lcores=0@{programs.cpu},1@{programs.cpu}", *devices, "--", *_FORWARDING]
        programs.command = shlex.join(argv)
        programs.buffers = "rings of 2048 frames a port" if self.xdp else "rings of 512 frames a port"
        # Otherwise libxdp would pin its own program in the machine's BPF file system, and leave it there.
        programs.run(["env", "LIBXDP_SKIP_DISPATCHER=1", *argv] if self.xdp else argv, private=True)
        await_forwarding(programs, READY_SECONDS)


def _kernel_has_af_xdp() -> bool:
    try:
        socket.socket(_AF_XDP, socket.SOCK_RAW).close()
    except OSError:
        return False
    return True


def _has_capabilities() -> bool:
    status = Path("/proc/self/status").read_text()
    effective = next(int(line.split()[1], 16) for line in status.splitlines() if line.startswith("CapEff:"))
    in_first_namespace = Path("/proc/self/uid_map").read_text().split() == ["0", "0", str((1 << 32) - 1)]
    return in_first_namespace and all(effective >> bit & 1 for bit in (_CAP_NET_ADMIN, _CAP_SYS_ADMIN))
