"""The Linux bridge.

It has no thread: it forwards in the softirq of the CPU that sends. bridge-nf-call-* is off, its
fastest setting (METHODS: with it on, netfilter's hooks cost about 8 %).
"""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from fastbridge.topology import Lab

from . import Running


@dataclass(frozen=True)
class LinuxBridge:
    """The kernel's bridge over the lab's host ends."""

    name: str = "linux-bridge"
    joins: bool = True

    def version(self) -> str:
        """The kernel's."""
        return platform.release()

    @contextmanager
    def attach(self, lab: Lab, cpu: int) -> Iterator[Running]:
        """Enslave the host ends; `cpu` means nothing to it."""
        with lab.bridge():
            yield Running("bridge over netlink, bridge-nf-call-*=0", "none of its own")
