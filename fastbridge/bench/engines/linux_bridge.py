"""The Linux bridge.

It has no thread: it forwards in the softirq of the CPU that sends. By default bridge-nf-call-* is off, its
fastest setting (on, netfilter's hooks cost about 8 %, trim padding and drop malformed IP); the
variant linux-bridge-nf has them on. Works with default offloads, TCP included. There is no process to kill: both
kinds of restart delete the bridge and make it again, so two results of them differ only by chance.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fastbridge.lab.topology import Lab

from .engine import Engine
from .running import InKernel, Running


@dataclass(frozen=True)
class LinuxBridge(Engine):
    """The kernel's bridge over the lab's host ends, with netfilter's hooks or without."""

    netfilter: bool = False
    most_ports = 1023  # port numbers have 10 bits, and 0 is not used

    @property
    def name(self) -> str:  # type: ignore[override] # nobody renames an engine
        """One name for each setting."""
        return "linux-bridge-nf" if self.netfilter else "linux-bridge"

    def version(self) -> str:
        """The kernel's version."""
        return platform.release()

    def missing(self) -> str | None:
        """Always None: only making a bridge shows that a kernel has none."""
        if self.netfilter and not Path("/proc/sys/net/bridge").exists():
            return "this kernel has no bridge-nf-call-* settings: modprobe br_netfilter"
        return None

    @contextmanager
    def attach(self, lab: Lab, cpu: int) -> Iterator[Running]:
        """Enslave the host ends; `cpu` is not used."""
        command = f"bridge over netlink, bridge-nf-call-*={int(self.netfilter)}; killed = deleted: it has no process"
        with InKernel(command, lambda link: lab.bridge(call_iptables=self.netfilter)) as running:
            yield running
