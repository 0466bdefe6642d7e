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
    """The CPU of each role, the same for every engine.

    With two CPUs the TCP receiver shares the switch's: beside the sender, which has the stack's and a
    kernel switch's work already, it would slow every engine down, and left to the scheduler it changes
    sides between trials (the noise floor was then 30 %).
    """

    sender: int
    switch: int
    receiver: int

    @classmethod
    def of_machine(cls) -> Layout:
        """Sender and switch on different CPUs wherever there are two."""
        cpus = sorted(os.sched_getaffinity(0))
        return cls(cpus[0], cpus[min(1, len(cpus) - 1)], cpus[min(2, len(cpus) - 1)])

    def described(self) -> dict[str, str]:
        """Role → CPU, for the fingerprint."""
        roles = {"sender": self.sender, "switch": self.switch, "TCP receiver": self.receiver}
        return {role: f"CPU {cpu}" for role, cpu in roles.items()}


@dataclass(frozen=True)
class CpuTime:
    """Seconds since boot, over all CPUs."""

    busy: float  #: user, nice, system, irq, softirq
    programs: float  #: of it user, nice and system
    steal: float  #: runnable, but the hypervisor ran something else

    @classmethod
    def now(cls) -> CpuTime:
        """Read /proc/stat."""
        with Path("/proc/stat").open(encoding="ascii") as stat:
            user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, stat.readline().split()[1:9])
        programs = user + nice + system
        return cls((programs + irq + softirq) * _TICK, programs * _TICK, steal * _TICK)
