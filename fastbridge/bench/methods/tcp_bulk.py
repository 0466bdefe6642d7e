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
from .bounds import positive
from .measurer import Measurer


@dataclass(frozen=True)
class TcpBulk(Method):
    """One TCP connection between two pods, as fast as their kernels make it: payload received (RFC 6349 §4.2)."""

    name = "tcp-bulk"
    section = "RFC 6349 §4.2"
    units: ClassVar[Mapping[str, str]] = {"throughput": "Gb/s"}
    primary = "throughput"

    seconds: float = 1.0

    def __post_init__(self) -> None:
        positive(self, "seconds")

    @property
    def subject(self) -> str:
        """The number of connections."""
        return "1 connection"

    def run(self, measurer: Measurer) -> Findings:
        """One trial."""
        trial = measurer.trial(steady(Stream(0, (1,), kind="tcp"), self.seconds))
        if not trial.window_bytes:
            raise BenchError("not a byte came through the TCP connection")
        return Findings({"throughput": trial.gigabits_per_second})
