"""Samples: from the log to numbers.

The log is memory that the sender and the receiver of stamped frames share with the bench. It has the times when each
frame was sent and arrived, in ns of CLOCK_REALTIME. So the processes exchange no messages while a trial runs.
"""

from __future__ import annotations

import base64
import mmap
import os
import time
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastbridge.errors import BenchError
from fastbridge.extras import way_to

from .trial import CAPACITY, Samples

LONGEST = 3_600_000_000_000  #: ns that a histogram can hold
DIGITS = 3  #: significant digits: below 2 µs the histogram resolves every ns
STEP = 100_000  #: ns; two clocks read one after the other differ by less


class MissedError(Exception):
    """The trial is invalid, through no fault of the engine. Another may be valid."""


@dataclass(frozen=True)
class Window:
    """The part of the log that a trial filled, and its layout."""

    stamped: int
    copies: int | None  #: ports that a broadcast sample should reach; None: unicast, one port
    ports: int
    started: int  #: ns of CLOCK_REALTIME, at the first frame
    delays: bool = False  #: whether to keep the latency of each sample


class SampleLog:
    """The shared memory. The agents get its file descriptor."""

    def __init__(self) -> None:
        self.fd = os.memfd_create("fastbridge-samples")
        os.ftruncate(self.fd, 2 * CAPACITY * 8)  # memory is allocated as it is written
        self._memory = mmap.mmap(self.fd, 0)
        self._numbers: Any = np.frombuffer(self._memory, dtype=np.int64)

    @property
    def sent(self) -> Any:
        """Times of sending, by number of the sample."""
        return self._numbers[:CAPACITY]

    @property
    def arrived(self) -> Any:
        """Times of arrival, by number; for broadcasts, by number * ports + port. 0: did not arrive."""
        return self._numbers[CAPACITY:]

    def clear(self) -> None:
        """Clear the log for every process and free its memory, also after an abandoned trial."""
        self._memory.madvise(mmap.MADV_REMOVE)

    def samples(self, window: Window, heard: dict[str, int]) -> Samples:
        """The results of a trial's samples. `heard` is the receiver's count.

        Raises MissedError if a sample arrived before it was sent: the clock was set.
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
            loss_runs=loss_runs(came[:, 0]) if window.copies is None else (),
            delays=keep(latency) if window.delays else "",
            **heard,
        )

    def close(self) -> None:
        """Close the file. The memory goes with its last user."""
        os.close(self.fd)


def encode(latency: Any) -> str:
    """An HdrHistogram of ns, compressed V2 encoding, base64. Raise BenchError if the package is missing."""
    try:
        from hdrh.histogram import HdrHistogram
    except ImportError:
        raise BenchError(f"latency needs the package hdrhistogram: {way_to('bench')}") from None
    histogram = HdrHistogram(1, LONGEST, DIGITS)
    # Count values that the histogram cannot tell apart here: one call for each would take seconds.
    values = np.clip(latency, 1, LONGEST)
    finer = np.maximum(np.frexp(values.astype(np.float64))[1] - 11, 0)
    for value, count in zip(*np.unique(values >> finer << finer, return_counts=True), strict=True):
        histogram.record_value(int(value), int(count))
    encoded = histogram.encode()
    return encoded.decode() if isinstance(encoded, bytes) else str(encoded)


def loss_runs(came: Any) -> tuple[tuple[int, int], ...]:
    """Lengths of runs of lost samples, ascending, and how many there are of each."""
    edges = np.flatnonzero(np.diff(np.concatenate(([True], came, [True])).astype(np.int8)))
    lengths, counts = np.unique(edges[1::2] - edges[::2], return_counts=True)
    return tuple(zip(lengths.tolist(), counts.tolist(), strict=True))


def keep(latency: Any) -> str:
    """Latencies in ns as Samples.delays has them."""
    return base64.b64encode(zlib.compress(latency.astype("<i8").tobytes(), 9)).decode()


def clock_offset() -> int:
    """Ns from CLOCK_MONOTONIC to CLOCK_REALTIME. Slewing moves both, so only setting the clock changes it."""
    readings = []
    for _ in range(5):
        before, real, after = time.monotonic_ns(), time.time_ns(), time.monotonic_ns()
        readings.append((after - before, real - (before + after) // 2))
    return min(readings)[1]
