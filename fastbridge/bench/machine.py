"""CPU time of the machine.

Which CPUs the bench's roles get, and how busy all of them were, from /proc/stat: the one count that
holds the softirq work of a kernel switch too. Its steps are 10 ms, so a window is some 100 ms at least.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

_TICK = 1.0 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Layout:
    """The CPU of each role; the TCP receiver is left to the scheduler where there is none to spare."""

    sender: int
    switch: int
    receiver: int | None

    @classmethod
    def of_machine(cls) -> Layout:
        """Sender and switch on different CPUs wherever there are two."""
        cpus = sorted(os.sched_getaffinity(0))
        return cls(cpus[0], cpus[1 % len(cpus)], cpus[2] if len(cpus) > 2 else None)

    def described(self) -> dict[str, str]:
        """Role → CPU, for the fingerprint."""
        receiver = "any CPU" if self.receiver is None else f"CPU {self.receiver}"
        return {"sender": f"CPU {self.sender}", "switch": f"CPU {self.switch}", "TCP receiver": receiver}


@dataclass(frozen=True)
class CpuTime:
    """Seconds since boot, over all CPUs."""

    busy: float  #: user, nice, system, irq, softirq
    steal: float  #: runnable, but the hypervisor ran something else

    @classmethod
    def now(cls) -> CpuTime:
        """Read /proc/stat."""
        with Path("/proc/stat").open(encoding="ascii") as stat:
            user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, stat.readline().split()[1:9])
        return cls((user + nice + system + irq + softirq) * _TICK, steal * _TICK)
