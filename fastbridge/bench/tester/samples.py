"""Samples, from the log to numbers.

The log is memory that the sender and the receiver of stamped frames share with the bench: when each was sent and
when it arrived, in ns of CLOCK_REALTIME. Nothing is put into words between processes while a trial runs.
"""

from __future__ import annotations

import mmap
import os
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastbridge.bench.extras import way_to
from fastbridge.errors import BenchError

from .trial import CAPACITY, Samples

LONGEST = 3_600_000_000_000  #: ns that a histogram can hold
DIGITS = 3  #: significant ones: below 2 µs every ns is told apart
STEP = 100_000  #: ns; two clocks read one after the other are nearer than that


class MissedError(Exception):
    """The trial is worth nothing, through no fault of the engine's; another may be."""


@dataclass(frozen=True)
class Window:
    """Which part of the log a trial filled, and how."""

    stamped: int
    copies: int | None  #: ports a sample is to arrive at; None: one
    ports: int
    started: int  #: ns of CLOCK_REALTIME, at the first frame


class SampleLog:
    """The shared memory; the file descriptor is for the stations."""

    def __init__(self) -> None:
        self.fd = os.memfd_create("fastbridge-samples")
        os.ftruncate(self.fd, 2 * CAPACITY * 8)  # memory is taken as it is written
        self._memory = mmap.mmap(self.fd, 0)
        self._numbers: Any = np.frombuffer(self._memory, dtype=np.int64)

    @property
    def sent(self) -> Any:
        """By number of the sample."""
        return self._numbers[:CAPACITY]

    @property
    def arrived(self) -> Any:
        """By number; of broadcasts by number * ports + port. 0: not."""
        return self._numbers[CAPACITY:]

    def clear(self) -> None:
        """Forget all, for every process, and give the memory back; also of a trial that was given up."""
        self._memory.madvise(mmap.MADV_REMOVE)

    def samples(self, window: Window, heard: dict[str, int]) -> Samples:
        """What came of a trial's samples; `heard` is the receiver's count.

        Raises MissedError when one arrived before it was sent: the clock has been set.
        """
        width = 1 if window.copies is None else window.ports
        sent = self.sent[: window.stamped]
        arrived = self.arrived[: window.stamped * width].reshape(window.stamped, width)
        came = arrived > 0
        latency = (arrived - sent[:, np.newaxis])[came]
        if latency.size and latency.min() < 0:
            raise MissedError("a sample arrived before it was sent: the system's clock was set back")
        lost = sent[came.sum(axis=1) < (window.copies or 1)]
        gaps = np.diff(np.sort(arrived[came]))
        return Samples(
            sent=window.stamped * (window.copies or 1),
            received=int(latency.size),
            histogram=encode(latency),
            last_lost=float(lost.max() - window.started) * 1e-9 if lost.size else None,
            longest_gap=float(gaps.max()) * 1e-9 if gaps.size else 0.0,
            **heard,
        )

    def close(self) -> None:
        """Let go of the file; the memory goes with the last who has it."""
        os.close(self.fd)


def encode(latency: Any) -> str:
    """An HdrHistogram of ns, compressed V2 encoding, base64; raise BenchError when the package is missing."""
    try:
        from hdrh.histogram import HdrHistogram
    except ImportError:
        raise BenchError(f"latency needs the package hdrhistogram: {way_to('bench')}") from None
    histogram = HdrHistogram(1, LONGEST, DIGITS)
    # Values that the histogram cannot tell apart are counted here, as one call each would take seconds.
    values = np.clip(latency, 1, LONGEST)
    finer = np.maximum(np.frexp(values.astype(np.float64))[1] - 11, 0)
    for value, count in zip(*np.unique(values >> finer << finer, return_counts=True), strict=True):
        histogram.record_value(int(value), int(count))
    encoded = histogram.encode()
    return encoded.decode() if isinstance(encoded, bytes) else str(encoded)


def clock_offset() -> int:
    """Ns from CLOCK_MONOTONIC to CLOCK_REALTIME; slewing moves both, so it changes only when the clock is set."""
    readings = []
    for _ in range(5):
        before, real, after = time.monotonic_ns(), time.time_ns(), time.monotonic_ns()
        readings.append((after - before, real - (before + after) // 2))
    return min(readings)[1]
