"""Patterns between two pods.

What the methods of RFC 2544 share: the streams, their names, and the first trial, which bounds all loads.
"""

from __future__ import annotations

import math

from fastbridge.bench.measurer import Measurer
from fastbridge.bench.offer import FCS, IMIX, Stream, steady
from fastbridge.bench.trial import Trial
from fastbridge.errors import BenchError

PATTERNS = ("pair", "bidirectional")
SAMPLES_PER_SECOND = 10_000  # ten beyond the 99.9th percentile of a second, and no load worth mentioning


def streams_of(pattern: str, sizes: tuple[int, ...]) -> tuple[Stream, ...]:
    """One-way ("pair") or both ways at the same time (RFC 2544 §14)."""
    if pattern not in PATTERNS:
        raise BenchError(f"no traffic pattern {pattern!r}; there are {' and '.join(PATTERNS)}")
    forth, back = Stream(0, (1,), sizes), Stream(1, (0,), sizes)
    return (forth,) if pattern == "pair" else (forth, back)


def subject_of(sizes: tuple[int, ...], *others: str) -> str:
    """Say it shortly: "64 B", "IMIX", "64 B, bidirectional"; a pattern of "pair" goes without saying."""
    text = "IMIX" if sizes == IMIX else "/".join(map(str, sizes)) + " B"
    return ", ".join([text, *(other for other in others if other and other != "pair")])


def gigabits(frames_per_second: float, sizes: tuple[int, ...]) -> float:
    """Gb/s of frames without FCS, of these sizes in turn."""
    return frames_per_second * sum(size - FCS for size in sizes) / len(sizes) * 8e-9


def full_load(measurer: Measurer, streams: tuple[Stream, ...], seconds: float) -> Trial:
    """An unpaced trial: what it offers is the most that can be offered to this DUT here.

    Raise BenchError when nothing of it comes out.
    """
    trial = measurer.trial(steady(streams, seconds))
    if not trial.offered:
        raise BenchError(f"none of {trial.intended or 0:,} frames can be sent: they are too long for the pod's MTU")
    if not trial.forwarded:
        raise BenchError(f"the DUT forwarded none of {trial.offered or 0:,} frames")
    return trial


def copies_of(trial: Trial) -> int:
    """How many copies of each frame come out when none is lost: of broadcasts one a port."""
    return max(1, (trial.expected or 0) // (trial.offered or 1))


def came_out(trial: Trial, port: int, sender: int) -> int:
    """Frames that came out of `port`, but for those the DUT itself says to everybody.

    A Linux bridge, for one, joins groups and reports that; `sender` gets those, too, and nothing else.
    """
    return max(0, trial.received[port] - trial.received[sender])


def sampling(load: float, streams: tuple[Stream, ...]) -> int:
    """Stamp every so manieth frame: about 10,000 a second, of every stream and size."""
    every = max(1, round(load / SAMPLES_PER_SECOND))
    turn = math.lcm(*(len(stream.sizes) for stream in streams)) * len(streams)
    while math.gcd(every, turn) != 1:
        every += 1
    return every
