"""A link, in plain Python: what docs/links.md says of an emulated wire, slow and simple.

One frame at a time, integers for times (ns) and bits. A frame is bytes, as a wire has it. A GSO frame knows what it is
on a wire (Offloaded), by the tests' own segmentation.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from fastbridge.links.stages import Stages

ALL = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15
STREAMS = ("loss", "duplicate", "corrupt", "delay", "reorder")


def mix(value: int) -> int:
    """splitmix64's output function."""
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 & ALL
    value = (value ^ value >> 27) * 0x94D049BB133111EB & ALL
    return value ^ value >> 31


class Stream:
    """Random numbers of 64 bits."""

    def __init__(self, seed: int, number: int) -> None:
        self.state = mix(seed + number * GOLDEN & ALL)

    def draw(self) -> int:
        self.state = self.state + GOLDEN & ALL
        return mix(self.state)

    def chance(self, probability: float) -> bool:
        return probability > 0 and self.draw() <= min(ALL, int(probability * 2.0**64))


class Offloaded(bytes):
    """A GSO frame, and its segments."""

    segments: tuple[bytes, ...]

    def __new__(cls, frame: bytes, segments: Sequence[bytes]) -> Offloaded:
        made = super().__new__(cls, frame)
        made.segments = tuple(segments)
        return made


class Unit(NamedTuple):
    """What becomes of a frame, a segment or a copy of one on a link."""

    frame: bytes
    fate: str  # "passes": at once, as it is; "flies"; or the reason why it is dropped
    due: int = 0


@dataclass
class Link:
    """One direction. `stages` None: it was taken off, and frames pass."""

    stages: Stages | None
    epoch: int = 0  # when it was set: its steps begin
    streams: dict[str, Stream] = field(default_factory=dict)
    number: int = 0
    bad: bool = False
    free_at: int = 0
    last_due: int = 0
    queue: deque[tuple[int, int]] = field(default_factory=deque)  # departure, bytes
    waiting: int = 0
    waiting_bytes: int = 0
    counts: Counter[str] = field(default_factory=Counter)

    def set(self, stages: Stages | None, now: int, restart: bool) -> None:
        before, self.stages = self.stages, stages
        if stages is None:
            return
        anew = restart or before is None or before.seed != stages.seed
        if anew or before is None or before.steps != stages.steps:
            self.epoch = now
        if anew:
            self.streams = {name: Stream(stages.seed, k) for k, name in enumerate(STREAMS, 1)}
            self.number, self.bad = 0, False

    def enter(self, now: int, frame: bytes, *, earliest: int = 0) -> list[Unit]:
        """What becomes of a frame that comes now. It is due at `earliest` or later: after those on another link."""
        stages = self.stages or Stages()
        if stages.cut:
            self.counts["cut"] += 1
            return [Unit(frame, "link_cut")]
        together = not (stages.rate or stages.steps or stages.jitter_ns or stages.reorder or stages.corrupt)
        whole = together and not (
            stages.loss or stages.bursts or stages.lose_every or stages.lose_frames or stages.duplicate
        )
        units = [frame] if whole or not isinstance(frame, Offloaded) else list(frame.segments)
        copies = [self.count_copies(stages) for _ in units]
        if together and set(copies) == {1}:
            units, copies = [frame], [1]
        made = list[Unit]()
        for unit, count in zip(units, copies, strict=True):
            if count == 0:
                self.counts["lost"] += 1
                made.append(Unit(unit, "link_loss"))
            for _ in range(count):
                made.append(self.send(stages, now, unit, unit is frame and count == 1, earliest))
        return made

    def count_copies(self, stages: Stages) -> int:
        self.number += 1
        self.counts["entered"] += 1
        lost = self.chance("loss", stages.loss)
        if stages.bursts:
            to_bad, to_good, in_good, in_bad = stages.bursts
            lost |= self.chance("loss", in_bad if self.bad else in_good)
            self.bad ^= self.chance("loss", to_good if self.bad else to_bad)
        if stages.lose_every:
            lost |= self.number % stages.lose_every == 0
        lost |= self.number in stages.lose_frames
        duplicated = self.chance("duplicate", stages.duplicate)
        self.counts["duplicated"] += duplicated
        return 1 - lost + duplicated

    def chance(self, stream: str, probability: float) -> bool:
        return probability > 0 and self.streams[stream].chance(probability)

    def send(self, stages: Stages, now: int, frame: bytes, may_pass: bool, earliest: int) -> Unit:
        wire = frame
        if frame and self.chance("corrupt", stages.corrupt):
            self.counts["corrupted"] += 1
            bit = self.streams["corrupt"].draw() % (8 * len(frame))
            wire = frame[: bit // 8] + bytes([frame[bit // 8] ^ 1 << bit % 8]) + frame[bit // 8 + 1 :]
        departure = self.depart(stages, now, len(frame) + stages.overhead)
        if departure is None:
            self.counts["queue_full"] += 1
            return Unit(wire, "link_queue")
        due = max(self.arrive(stages, departure), earliest)
        if may_pass and wire is frame and due <= now and not self.waiting:
            return Unit(frame, "passes", now)
        self.waiting += 1
        self.waiting_bytes += len(frame)
        return Unit(wire, "flies", due)

    def depart(self, stages: Stages, now: int, length: int) -> int | None:
        """When a frame leaves the queue before the rate; None: there is no room."""
        if not stages.rate and all(rate < 0 for _, rate, _ in stages.steps):
            return now
        while self.queue and self.queue[0][0] <= now:
            self.queue.popleft()
        queued = sum(each for _, each in self.queue)
        if (
            (stages.limit_bytes and queued + length > stages.limit_bytes)
            or (stages.limit_frames and len(self.queue) >= stages.limit_frames)
            or (stages.limit_ns and self.free_at - now > stages.limit_ns)
        ):
            return None
        self.free_at = self.serve(stages, max(now, self.free_at), 8 * length)
        self.queue.append((self.free_at, length))
        return self.free_at

    def serve(self, stages: Stages, start: int, bits: int) -> int:
        """When so many bits have left that begin at `start`, to the nearest ns."""
        left = bits * 10**9  # in bits a second, for so many ns
        if stages.period_ns and left:  # whole periods first: there may be many; a frame may have no bytes
            ends = [at for at, _, _ in stages.steps[1:]] + [stages.period_ns]
            rates = [stages.rate if rate < 0 else rate for _, rate, _ in stages.steps]
            work = sum((end - at) * rate for end, (at, _, _), rate in zip(ends, stages.steps, rates, strict=True))
            start += (left - 1) // work * stages.period_ns
            left -= (left - 1) // work * work
        while True:
            rate, _, until = self.step(stages, start)
            if rate and (until is None or (until - start) * rate >= left):
                done = start + (left + rate // 2) // rate
                return done if until is None else min(done, until)
            assert until is not None  # a trace that ends with rate 0 has a period
            left -= (until - start) * rate
            start = until

    def step(self, stages: Stages, time: int) -> tuple[int, int, int | None]:
        """Rate, delay and the end of the step that holds at a time."""
        since, begin = max(0, time - self.epoch), self.epoch
        if stages.period_ns:
            begin += since // stages.period_ns * stages.period_ns
            since %= stages.period_ns
        rate, delay, until = -1, -1, begin + stages.period_ns if stages.period_ns else None
        for at, new_rate, new_delay in stages.steps:
            if at <= since:
                rate, delay = new_rate, new_delay
            else:
                until = begin + at
                break
        return stages.rate if rate < 0 else rate, stages.delay_ns if delay < 0 else delay, until

    def arrive(self, stages: Stages, departure: int) -> int:
        if self.chance("reorder", stages.reorder):
            self.counts["reordered"] += 1
            return departure
        delay = self.step(stages, departure)[1]
        if stages.jitter_ns:
            draw = self.streams["delay"].draw()
            i, fraction = draw >> 52, draw >> 36 & 0xFFFF
            low, high = stages.table[i], stages.table[i + 1]
            delay = max(0, delay + (stages.jitter_ns * (low + ((high - low) * fraction >> 16)) >> 16))
        due = departure + delay
        if stages.keeps_order:
            self.last_due = due = max(due, self.last_due)
        return due

    def land(self, frame: bytes, delivered: bool = True) -> None:
        self.waiting -= 1
        self.waiting_bytes -= len(frame)
        self.counts["cut"] += not delivered
