"""CPU time of the machine.

Which CPUs the bench's roles get, and how busy all CPUs were. Only /proc/stat also counts the softirq work of a kernel
switch. Its steps are 10 ms, so a window has at least about 100 ms.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

_TICK = 1.0 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Layout:
    """The CPU of each role, the same for every engine.

    With two CPUs the TCP receiver shares the switch's CPU. The sender's CPU already does the work of the stack and of a
    kernel switch: beside it the receiver would slow every engine down. Without a fixed CPU it changes sides between
    trials (the noise floor was 30 % then).
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
    programs: float  #: the user, nice and system part
    steal: float  #: runnable, but the hypervisor ran something else

    @classmethod
    def now(cls) -> CpuTime:
        """Read /proc/stat."""
        with Path("/proc/stat").open(encoding="ascii") as stat:
            user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, stat.readline().split()[1:9])
        programs = user + nice + system
        return cls((programs + irq + softirq) * _TICK, programs * _TICK, steal * _TICK)
