"""Readings of all counters, and the difference between two."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fastbridge.bench.engines import Running
from fastbridge.bench.machine.cpus import CpuTime
from fastbridge.lab.pods import Pod


@dataclass(frozen=True)
class Reading:
    """All counters at one moment."""

    time: float
    frames: int
    octets: int
    cpu: CpuTime
    switch: float | None

    @classmethod
    def of(cls, pods: Sequence[Pod], running: Running) -> Reading:
        """Read the frames that these pods received, and the CPU time of the machine and the engine."""
        every = [pod.counters() for pod in pods]
        frames, octets = sum(c.rx_frames for c in every), sum(c.rx_bytes for c in every)
        return cls(time.monotonic(), frames, octets, CpuTime.now(), running.cpu_seconds())

    def until(self, last: Reading, seconds: float | None = None) -> dict[str, Any]:
        """The window of a trial from this reading to `last`. `seconds`: its length, if it is the whole trial."""
        switch = None if self.switch is None or last.switch is None else last.switch - self.switch
        return {
            "window_seconds": last.time - self.time if seconds is None else seconds,
            "window_bytes": last.octets - self.octets,
            "window_frames": last.frames - self.frames,
            "cpu_machine_seconds": last.cpu.busy - self.cpu.busy,
            "steal_seconds": last.cpu.steal - self.cpu.steal,
            "cpu_switch_seconds": switch,
        }
