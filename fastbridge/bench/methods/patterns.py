"""Patterns between two pods.

The methods of RFC 2544 share the streams, their names, and the first trial, which bounds all loads.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

from fastbridge.bench.tester.offer import FCS, IMIX, Stream, full_mesh, steady
from fastbridge.bench.tester.trial import CAPACITY, Trial
from fastbridge.errors import BenchError

from .measurer import Measurer

Number = TypeVar("Number", int, float)

PATTERNS = ("pair", "bidirectional")
BUSY = "busy"  # both ways, with a sender on each CPU of the bench: the switch has no CPU to itself
MESH = "mesh"  # every one of MESH_PORTS to every other, by one sender
MESH_PORTS = 4
SAMPLES_PER_SECOND = 10_000  # ten beyond the 99.9th percentile of a second, and a negligible load
# The accuracy of a window. At either edge a sender that lost its CPU is behind by a time slice, and catches up later;
# two frames are on their way. The rate of an unpaced sender wanders, too: with a bridge that loses nothing, a window
# and the whole trial differed by 5 %.
SLICE = 0.005  # seconds
ON_THEIR_WAY = 2  # frames
WANDERING = 0.05  # of an unpaced sender's rate
STRAYS = 0.001  # of all frames: the DUT and the pods' kernels send so many themselves; more are floods
MOST_STRAYS = 100  # frames, if that is more


def known_pattern(pattern: str, known: Sequence[str] = PATTERNS) -> None:
    """Raise BenchError for an unknown pattern."""
    if pattern not in known:
        raise BenchError(f"no traffic pattern {pattern!r}; there are {', '.join(known)}")


def streams_of(pattern: str, sizes: tuple[int, ...]) -> tuple[Stream, ...]:
    """One-way ("pair") or both ways at the same time (RFC 2544 §14), by one sender or ("busy") by two; or a mesh."""
    known_pattern(pattern, (*PATTERNS, BUSY, MESH))
    if pattern == MESH:
        return full_mesh(MESH_PORTS, sizes)
    forth, back = Stream(0, (1,), sizes), Stream(1, (0,), sizes, sender=int(pattern == BUSY))
    return (forth,) if pattern == "pair" else (forth, back)


def subject_of(sizes: tuple[int, ...], *others: str) -> str:
    """A short label: "64 B", "IMIX", "64 B, bidirectional"; the pattern "pair" is not mentioned."""
    text = "IMIX" if sizes == IMIX else "/".join(map(str, sizes)) + " B"
    named = ("busy pods" if other == BUSY else other for other in others)
    return ", ".join([text, *(other for other in named if other and other != "pair")])


def gigabits(frames_per_second: float, sizes: tuple[int, ...]) -> float:
    """Gb/s without FCS, of frames with these sizes in turn."""
    return frames_per_second * sum(size - FCS for size in sizes) / len(sizes) * 8e-9


def full_load(measurer: Measurer, streams: tuple[Stream, ...], seconds: float, sample: int = 0) -> Trial:
    """An unpaced trial: it offers the highest load that is possible with this DUT here.

    Raise BenchError if no frame comes out.
    """
    trial = measurer.trial(steady(streams, seconds, sample=sample))
    if not trial.offered:
        raise BenchError(f"none of {trial.intended or 0:,} frames can be sent: they are too long for the pod's MTU")
    if not trial.forwarded:
        raise BenchError(f"the DUT forwarded none of {trial.offered or 0:,} frames")
    return trial


def counted(value: Number | None, what: str) -> Number:
    """Return `value`; raise BenchError if the trial did not record it (TCP trials and broken records do not)."""
    if value is None:
        raise BenchError(f"a trial has no {what}: it is not one of frames, or its record is broken")
    return value


def forwarding_rate(trial: Trial) -> float:
    """Frames/s in the window: copies of a broadcast count once, and floods do not count."""
    rate = counted(trial.frames_per_second, "window_frames") / copies_of(trial)
    return min(rate, counted(trial.offered_rate, "sent")) if is_flooded(trial) else rate


def is_flooded(trial: Trial) -> bool:
    """Whether more came out at destination ports than went in."""
    expected = counted(trial.expected, "sent")
    return counted(trial.forwarded, "received") > expected + max(MOST_STRAYS, STRAYS * expected)


def flood_aware(measurer: Measurer, trial: Trial) -> tuple[Trial, tuple[str, ...]]:
    """The trial without a remark; if it was flooded, the same trial again with samples, and a remark."""
    if not is_flooded(trial):
        return trial, ()
    offer, load = trial.offer, counted(trial.offered_rate, "sent")
    again = measurer.trial(replace(offer, sample=sampling(load, offer.streams, trial.seconds, measurer.ports)))
    text = (
        f"more came out than went in, {counted(trial.forwarded, 'received'):,} of {trial.offered:,} frames: flooded. "
        "Loss is that of samples, and rates are no more than were offered"
    )
    return again, (text,)


def sustained(trial: Trial, width: float = WANDERING) -> int:
    """Frames that came out, copies of a broadcast once, but no more than the window's rate makes in the trial.

    Frames that come out after the last one was sent were in buffers. In a short trial a DUT with large buffers loses
    nothing at any load. So a load counts as forwarded only if the window shows it. `width` is how much less the rate of
    the window may be, relative, and is at least its accuracy (see SLICE and the constants below it). Where copies of
    flooded frames hide the missing ones, samples tell, if there are any.
    """
    offered = counted(trial.offered, "sent")
    if is_flooded(trial) and trial.samples is not None and trial.samples.sent:
        return round(offered * min(1.0, trial.samples.received / trial.samples.sent))
    forwarded = counted(trial.forwarded, "received") // copies_of(trial)
    rate, load = forwarding_rate(trial), counted(trial.offered_rate, "sent")
    unpaced = any(phase.rate is None for phase in trial.offer.phases)
    short = (load - rate) * trial.window_seconds  # frames
    tolerance = max(width, SLICE / trial.window_seconds, WANDERING if unpaced else 0.0)
    if short <= tolerance * load * trial.window_seconds + ON_THEIR_WAY:
        return forwarded
    return min(forwarded, int(rate * trial.seconds))


def loss_of(trial: Trial, width: float = WANDERING) -> float:
    """Ratio of the offered frames that did not come out at the offered rate (see `sustained`)."""
    offered = counted(trial.offered, "sent")
    return max(0.0, 1 - sustained(trial, width) / offered) if offered else 0.0


def copies_of(trial: Trial) -> int:
    """How many copies of each frame come out without loss: of a broadcast one for each other port."""
    return max(1, (trial.expected or 0) // (trial.offered or 1))


def came_out(trial: Trial, port: int, sender: int) -> int:
    """Frames that came out of `port`, without those that the DUT itself sends to every port.

    A Linux bridge, for example, joins groups and reports it. `sender` receives only such frames.
    """
    return max(0, of_port(trial.received, port, "received") - of_port(trial.received, sender, "received"))


def of_port(counts: tuple[int, ...], port: int, what: str) -> int:
    """A port's count; raise BenchError if the trial has none."""
    return counted(counts[port] if port < len(counts) else None, f"count {what!r} of port {port}")


def sampling(load: float, streams: tuple[Stream, ...], seconds: float, ports: int) -> int:
    """N, to stamp every Nth frame: about 10,000 samples per second, of every stream and size.

    A long trial, or one with a copy for each of `ports`, has fewer: there must be room for all.
    """
    room = CAPACITY // (1 if streams[0].destinations else ports) - 2
    every = max(1, round(load / SAMPLES_PER_SECOND), math.ceil(load * seconds / room))
    turn = math.lcm(*(len(stream.sizes) for stream in streams)) * len(streams)
    while math.gcd(every, turn) != 1:
        every += 1
    return every
