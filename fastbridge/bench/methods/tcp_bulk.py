"""TCP bulk transfer.

What users of a lab feel: segmentation offload makes frames of up to 64 KB, so that it says nothing of frames per
second, and these say nothing of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from fastbridge.bench.tester.offer import Stream, steady
from fastbridge.errors import BenchError

from . import Findings, Method
from .bounds import positive, whole
from .measurer import Measurer


@dataclass(frozen=True)
class TcpBulk(Method):
    """TCP connections between two pods, as fast as their kernels make them: payload received (RFC 6349 §4.2)."""

    name = "tcp-bulk"
    section = "RFC 6349 §4.2"
    units: ClassVar[Mapping[str, str]] = {"throughput": "Gb/s"}
    primary = "throughput"

    seconds: float = 1.0
    connections: int = 1  #: from one program to another
    pinned: bool = True  #: whether the receiver stays on its CPU, or goes where the scheduler puts it

    def __post_init__(self) -> None:
        positive(self, "seconds")
        whole(self, connections=1)

    @property
    def subject(self) -> str:
        """How many connections, and where the receiver is if not on its CPU."""
        several = f"{self.connections} connection{'s' if self.connections > 1 else ''}"
        return several if self.pinned else f"{several}, receiver placed by the scheduler"

    def run(self, measurer: Measurer) -> Findings:
        """One trial."""
        stream = Stream(0, (1,), kind="tcp", flows=self.connections, pinned=self.pinned)
        trial = measurer.trial(steady(stream, self.seconds))
        if not trial.window_bytes:
            raise BenchError("not a byte came through a TCP connection")
        return Findings({"throughput": trial.gigabits_per_second})
