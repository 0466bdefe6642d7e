"""Requests and responses over TCP.

What most programs in pods do all day: a request of a byte, an answer of a byte, and the next request when the answer is
there. Each of them wakes the other side, so that it is a test of latency, and of how it adds up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from fastbridge.bench.tester.offer import Stream, steady
from fastbridge.errors import BenchError

from . import Findings, Method
from .bounds import positive
from .latency import percentiles_of
from .measurer import Measurer


@dataclass(frozen=True)
class RequestResponse(Method):
    """Transactions a second of one client and one server: over an open connection, or with a connection for each."""

    name = "request-response"
    section = "netperf TCP_RR, TCP_CRR"
    units: ClassVar[Mapping[str, str]] = {"transactions": "transactions/s", "p50": "µs", "p99": "µs"}
    primary = "transactions"

    connect: bool = False  #: whether each request has a connection of its own
    seconds: float = 1.0

    def __post_init__(self) -> None:
        positive(self, "seconds")

    @property
    def subject(self) -> str:
        """What it takes to ask."""
        return "a connection each" if self.connect else "1 connection"

    def run(self, measurer: Measurer) -> Findings:
        """One trial; of the times, the program that asks reads the clock."""
        trial = measurer.trial(steady(Stream(0, (1,), kind="tcp-crr" if self.connect else "tcp-rr"), self.seconds))
        if trial.samples is None or not trial.samples.received:
            raise BenchError("not a request was answered")
        times = percentiles_of(trial.samples)
        rate = trial.samples.received / trial.window_seconds
        return Findings({"transactions": rate, "p50": times["p50"], "p99": times["p99"]})
