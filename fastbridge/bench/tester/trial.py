"""The result of a trial.

Every count is as counted; none is derived from another. Intended: the frames in the schedule. Offered: the frames that
the sender's kernel accepted. Received: the frames that the pods' interfaces had counted once the counts stood still.
"""

from __future__ import annotations

import base64
import sys
import zlib
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from fastbridge.bench.machine.disturbance import Disturbance
from fastbridge.errors import BenchError
from fastbridge.extras import way_to

from .offer import Offer

CAPACITY = 1 << 22  #: most samples of a trial, or arrivals of their copies


@dataclass(frozen=True)
class Samples:
    """The stamped frames of a trial, or its requests."""

    sent: int
    received: int  #: different samples that arrived
    duplicated: int  #: arrivals of a sample that had arrived before
    reordered: int  #: arrivals after a later one of the same stream and port (RFC 4737 §3)
    corrupted: int  #: arrivals with an altered payload; not counted in received
    missed: int  #: arrivals that the receiver had no room for: not the DUT's loss
    histogram: str  #: one-way latency in ns (requests: round trip): HdrHistogram, compressed V2 encoding, base64
    last_lost: float | None = None  #: seconds from the first frame to the sending of the last lost sample
    longest_gap: float = 0.0  #: seconds between two arrivals in a row, over all ports
    early: int = 0  #: arrivals that the kernel stamped before a queue, because a program on the machine asked
    loss_runs: tuple[tuple[int, ...], ...] = ()  #: samples lost in a row, and how often so many were; of unicast
    delays: str = ""  #: latency in ns of each that arrived, in order of sending: 8 bytes, little-endian; zlib, base64

    @cached_property
    def latency(self) -> Any:
        """The hdrh.histogram.HdrHistogram of one-way latency in ns. Raise BenchError if it cannot be read."""
        try:
            from hdrh.histogram import HdrHistogram  # from an extra; counts do not need it
        except ImportError:
            raise BenchError(f"latency needs the package hdrhistogram: {way_to('bench')}") from None
        try:
            return HdrHistogram.decode(self.histogram)
        except Exception as error:  # from base64, zlib or the package, by what is broken
            raise BenchError(f"samples.histogram is not an HdrHistogram in base64: {error}") from None

    @cached_property
    def delays_ns(self) -> Sequence[int]:
        """One-way latency in ns of every sample that arrived, in the order of sending; empty if it was not kept.

        Raise BenchError if it cannot be read.
        """
        numbers = array("q")
        try:
            numbers.frombytes(zlib.decompress(base64.b64decode(self.delays, validate=True)) if self.delays else b"")
        except (ValueError, zlib.error) as error:
            raise BenchError(f"samples.delays is not what zlib and base64 make: {error}") from None
        if sys.byteorder == "big":
            numbers.byteswap()
        return numbers

    def percentiles(self, percents: Iterable[float]) -> dict[float, float]:
        """One-way latency in ns at each percentile; empty if no sample arrived."""
        # All at once, because each pass goes through the histogram in Python from its beginning.
        return dict(self.latency.get_percentile_to_value_dict(percents)) if self.received else {}


@dataclass(frozen=True)
class Trial:
    """One trial, as counted.

    Rate and CPU time are from a window inside the trial, while the path is full. Buffers that fill at the start and
    drain at the end would flatter the engine with the bigger buffers. Loss is from the whole trial, after the drain.
    A trial too short for a window (a burst) has its whole length as the window.
    """

    offer: Offer
    seconds: float  #: time during which frames were offered
    window_seconds: float
    window_bytes: int  #: received in the window: frames without FCS (as Offer.apart counts them), or TCP payload
    cpu_machine_seconds: float  #: busy time of all CPUs in the window, /proc/stat (10 ms steps)
    steal_seconds: float  #: taken by the hypervisor in the window
    cpu_switch_seconds: float | None = None  #: CPU time of the engine's processes in the window; None: it has none
    window_frames: int | None = None  #: None here and in the frame counts below: a TCP trial
    intended: int | None = None
    sent: tuple[int, ...] = ()  #: frames offered, by port
    received: tuple[int, ...] = ()  #: frames that came out of the DUT, by port
    refused: int = 0  #: frames that the sender's kernel refused (no room, or too long): intended, not offered
    involuntary_switches: int = 0  #: of the sender's process
    samples: Samples | None = None
    disturbance: Disturbance | None = None  #: None: not watched

    @property
    def offered(self) -> int | None:
        """Frames the sender's kernel accepted."""
        return sum(self.sent) if self.sent else None

    @property
    def forwarded(self) -> int | None:
        """Frames that came out of the right ports; of broadcasts, every copy."""
        if not self.received:
            return None
        wanted = {port for stream in self.offer.streams for port in stream.destinations}
        sources = {stream.source for stream in self.offer.streams}
        if self.offer.is_broadcast:
            several = len(sources) > 1  # each hears the others
            wanted = {port for port in range(len(self.received)) if several or port not in sources}
        return sum(self.received[port] for port in wanted)

    @property
    def expected(self) -> int | None:
        """The value of `forwarded` without loss."""
        copies = len(self.received) - 1 if self.offer.is_broadcast else 1
        return None if self.offered is None else self.offered * copies

    @property
    def strayed(self) -> int:
        """Frames that came out of ports without a stream to them: flooded frames."""
        if self.offer.is_broadcast:
            return 0
        wanted = {port for stream in self.offer.streams for port in stream.destinations}
        return sum(count for port, count in enumerate(self.received) if port not in wanted)

    @property
    def loss_ratio(self) -> float | None:
        """Lost share of the offered frames. A stray frame of a pod's own kernel cannot make it negative."""
        if self.expected is None or self.forwarded is None:
            return None
        return max(0.0, 1.0 - self.forwarded / self.expected) if self.expected else 0.0

    @property
    def offered_rate(self) -> float | None:
        """Offered load, frames/s."""
        return None if self.offered is None else self.offered / self.seconds

    @property
    def frames_per_second(self) -> float | None:
        """Forwarding rate in the window."""
        return None if self.window_frames is None else self.window_frames / self.window_seconds

    @property
    def gigabits_per_second(self) -> float:
        """Rate in the window, of frames without FCS or of TCP payload."""
        return self.window_bytes * 8e-9 / self.window_seconds

    @property
    def cpu_machine_ns(self) -> float | None:
        """Busy time of the whole machine per forwarded frame, tester included."""
        return self.cpu_machine_seconds * 1e9 / self.window_frames if self.window_frames else None

    @property
    def cpu_switch_ns(self) -> float | None:
        """CPU time of the engine's processes per forwarded frame."""
        if self.cpu_switch_seconds is None or not self.window_frames:
            return None
        return self.cpu_switch_seconds * 1e9 / self.window_frames
