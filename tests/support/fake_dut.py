"""Fake DUT: a measurer in virtual time.

Frames are made in the order the tester makes them, pass a queue of known rate and room, then the real in-memory
switch, and are counted per port. What a method finds can so be compared with what is true. Nothing waits: a
second of traffic takes some milliseconds.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from hdrh.histogram import HdrHistogram
from numpy.typing import NDArray

from fastbridge import Switch
from fastbridge.bench.tester.offer import FCS, Offer, Stream
from fastbridge.bench.tester.trial import Samples, Trial

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

BROADCAST = -1  # as a destination port
WARM_UP = 0.1  # of a trial is before its window
PAUSE = 0.1  # seconds between trials
CHUNK = 1024  # frames the switch is asked about before looking whether its answers have settled


def mac(port: int, index: int) -> bytes:
    """Address number `index` behind a port. 0 is the pod's own."""
    if index == 0:
        return bytes([0x02, 0, 0, 0]) + port.to_bytes(2, "big")
    return b"\x12" + port.to_bytes(2, "big") + index.to_bytes(3, "big")


@dataclass
class Frames:
    """The frames of a trial, in order: arrays of equal length."""

    source: Integers
    destination: Integers  # BROADCAST: to everybody
    sender: Integers  # index of its source address
    target: Integers
    size: Integers

    @classmethod
    def of(cls, streams: tuple[Stream, ...], count: int) -> Frames:
        """Streams in turn; each uses its destinations, sizes and addresses in turn (bench/frames.py)."""
        frames = cls(*(np.zeros(count, np.int64) for _ in range(5)))
        for number, stream in enumerate(streams):
            mine = slice(number, None, len(streams))
            turn = np.arange(len(frames.source[mine]))
            destinations, sizes = np.array(stream.destinations or (BROADCAST,)), np.array(stream.sizes)
            frames.source[mine] = stream.source
            frames.destination[mine] = destinations[turn % len(destinations)]
            frames.sender[mine] = stream.first + turn % stream.sources
            frames.target[mine] = stream.first + turn // len(destinations) % stream.targets
            rounds = math.gcd(len(sizes), len(destinations))  # every destination gets every size
            frames.size[mine] = sizes[(turn + turn // len(sizes) % rounds) % len(sizes)]
        return frames

    def kinds(self) -> tuple[Integers, Integers]:
        """The place of the first frame of each kind (all the same to a switch), and the kind of each frame."""
        kind = np.zeros(len(self.source), np.int64)
        for column in (self.source, self.destination, self.sender, self.target):
            _, values = np.unique(column, return_inverse=True)
            kind = kind * (int(values.max(initial=0)) + 1) + values
        _, first, kinds = np.unique(kind, return_index=True, return_inverse=True)
        return first, kinds

    def header(self, k: int) -> bytes:
        """Addresses and EtherType of frame k."""
        destination = int(self.destination[k])
        to = b"\xff" * 6 if destination == BROADCAST else mac(destination, int(self.target[k]))
        return to + mac(int(self.source[k]), int(self.sender[k])) + b"\x88\xb5"


class FakeDut:
    """A measurer whose DUT has known properties.

    rate, buffer: frames/s it forwards, all ports together, and frames it holds meanwhile (tail drop); None: any rate.
    egress_rate, egress_buffer: the same of each port's egress, behind the switch.
    delay: seconds a frame takes besides; loss: ratio lost, evenly spread.
    capacity: FDB entries; evicts: whether a full FDB learns at the cost of another entry, or no more.
    learning_rate: addresses/s it learns; frames of others are forwarded without being learned.
    restart_seconds, killed_seconds: outage when restarted gracefully (also by restart()) and killed.
    filters: smallest and largest frame size (with FCS) it forwards.
    relapse: seconds after its queue was full in which it still loses every 19th frame.
    sender_rate: frames/s the tester can offer. tcp_rate: bit/s of a TCP stream.
    """

    def __init__(
        self,
        ports: int = 2,
        *,
        rate: float | None = None,
        buffer: int = 100,
        egress_rate: float | None = None,
        egress_buffer: int = 100,
        delay: float = 10e-6,
        loss: float = 0.0,
        capacity: int = 65536,
        evicts: bool = True,
        learning_rate: float | None = None,
        restart_seconds: float = 0.1,
        killed_seconds: float | None = None,
        filters: tuple[int, int] = (0, 1 << 16),
        relapse: float = 0.0,
        sender_rate: float = 100_000.0,
        tcp_rate: float = 10e9,
        seed: int = 1,
    ) -> None:
        self.ports = ports
        self.trials = 0
        self.virtual_seconds = 0.0
        self._rate, self._buffer = rate, buffer
        self._egress_rate, self._egress_buffer = egress_rate, egress_buffer
        self._delay, self._loss, self._filters = delay, loss, filters
        self._capacity, self._evicts, self._learning_rate = capacity, evicts, learning_rate
        self._outages = {"graceful": restart_seconds, "killed": killed_seconds or restart_seconds}
        self._relapse = relapse
        self._sender_rate, self._tcp_rate = sender_rate, tcp_rate
        self._random = np.random.default_rng(seed)
        self._forget()

    def restart(self) -> None:
        """An empty FDB, after the outage."""
        self.virtual_seconds += self._outages["graceful"]
        self._forget()

    def _forget(self) -> None:
        self._switch = Switch.in_memory(
            self.ports, capacity=self._capacity, ageing=None, clock=lambda: self.virtual_seconds
        )
        self._next_learned, self._learned = 0.0, 0

    def trial(self, offer: Offer) -> Trial:
        """Run one."""
        self.trials += 1
        if offer.is_tcp:
            return self._tcp(offer)
        if offer.learn:
            self._teach(offer)
        times, intended, seconds = self._schedule(offer)
        frames = Frames.of(offer.streams, len(times))
        frame, port, arrived = self._forwarded(offer, frames, times)
        self.virtual_seconds += seconds + PAUSE
        wanted = _wanted(offer, frames, frame, port)
        timed = offer.seconds > 0
        begin = WARM_UP * seconds if timed else 0.0
        inside = np.isin(port, frames.destination) | offer.is_broadcast
        inside = inside & (arrived >= begin) & (arrived < seconds) if timed else inside
        return Trial(
            offer,
            seconds,
            window_seconds=seconds - begin,
            window_bytes=int((frames.size[frame[inside]] - FCS).sum()),
            cpu_machine_seconds=0.0,
            steal_seconds=0.0,
            window_frames=int(inside.sum()),
            intended=intended,
            sent=tuple(np.bincount(frames.source, minlength=self.ports).tolist()),
            received=tuple(np.bincount(port, minlength=self.ports).tolist()),
            samples=self._samples(offer, times, frame[wanted], arrived[wanted]) if offer.sample else None,
        )

    def _samples(self, offer: Offer, times: Floats, frame: Integers, arrived: Floats) -> Samples:
        stamped = frame % offer.sample == 0
        frame, arrived = frame[stamped], arrived[stamped]
        histogram = HdrHistogram(1, 60_000_000_000, 3)
        values, counts = np.unique(np.rint((arrived - times[frame]) * 1e9).astype(np.int64), return_counts=True)
        for value, count in zip(values.tolist(), counts.tolist(), strict=True):
            histogram.record_value(max(1, value), count)
        sent = np.arange(0, len(times), offer.sample)
        copies = self.ports - 1 if offer.is_broadcast else 1
        never = sent[np.bincount(frame, minlength=len(times))[sent] < copies]
        return Samples(
            sent=len(sent) * copies,
            received=len(frame),
            duplicated=0,
            reordered=0,
            corrupted=0,
            missed=0,
            histogram=histogram.encode().decode("ascii"),
            last_lost=float(times[never[-1]]) if len(never) else None,
            longest_gap=float(np.diff(np.sort(arrived)).max(initial=0.0)),
        )

    def _tcp(self, offer: Offer) -> Trial:
        seconds = offer.seconds
        self.virtual_seconds += seconds + PAUSE
        return Trial(offer, seconds, seconds, round(self._tcp_rate * seconds / 8), 0.0, 0.0)

    def _teach(self, offer: Offer) -> None:
        """Let each address of the offer send a frame to itself, slowly."""
        for stream in offer.streams:
            for port, count in ((stream.source, stream.sources), *((p, stream.targets) for p in stream.destinations)):
                addresses = [mac(port, stream.first + i) for i in range(count)]
                if not self._evicts:
                    addresses = [mac for mac in addresses if self._is_known(mac) or self._has_room()]
                self._switch.process(port, [mac + mac + b"\x88\xb5" + bytes(46) for mac in addresses])

    def _schedule(self, offer: Offer) -> tuple[Floats, int, float]:
        """When each frame is sent, how many were intended, and the length of it all."""
        begin, intended, parts = 0.0, 0, []
        for phase in offer.phases:
            rate = min(phase.rate or math.inf, self._sender_rate)
            count = phase.frames or int((phase.seconds or 0.0) * rate + 0.5)
            parts.append(begin + np.arange(count) / rate)
            begin += phase.seconds or count / rate
            intended += count if phase.seconds is None else int(phase.seconds * (phase.rate or rate) + 0.5)
        return np.concatenate(parts), intended, begin

    def _forwarded(self, offer: Offer, frames: Frames, times: Floats) -> tuple[Integers, Integers, Floats]:
        """Every copy that comes out: the frame's place, the port, the time."""
        lives = [(0.0, math.inf)]
        if offer.restart:
            half = offer.seconds / 2
            lives = [(0.0, half), (half + self._outages[offer.restart], math.inf)]
        lost = self._lost(len(times)) | (frames.size < self._filters[0]) | (frames.size > self._filters[1])
        copies = []
        for number, (begin, end) in enumerate(lives):
            if number:
                self._forget()
            alive = np.flatnonzero((times >= begin) & (times < end))
            left = serve(times[alive], self._rate, self._buffer, self._relapse)
            passed = (left < end) & ~lost[alive]
            copies += list(self._egress(frames, alive[passed], left[passed], end))
        return tuple(np.concatenate(column) for column in zip(*copies, strict=True))  # type: ignore[return-value]

    def _lost(self, count: int) -> NDArray[np.bool_]:
        """One frame of every 1/loss, at a random place among them: an exact ratio without a period."""
        lost = np.zeros(count, np.bool_)
        if self._loss:
            places = (np.arange(math.ceil(count * self._loss)) + self._random.random()) / self._loss
            spread = self._random.random(len(places)) * (1 / self._loss - 1)
            places = (places + spread).astype(np.int64)
            lost[places[places < count]] = True
        return lost

    def _egress(
        self, frames: Frames, places: Integers, times: Floats, end: float
    ) -> Iterator[tuple[Integers, Integers, Floats]]:
        """The copies of the frames at `places`, by port."""
        numbers: dict[tuple[int, ...], int] = {}  # few: one a port, and one a flood
        answers = np.array(
            [numbers.setdefault(ports, len(numbers)) for ports in self._answers(frames, places, times)], np.int64
        )
        for port in range(self.ports):
            mine = np.flatnonzero(np.isin(answers, [number for ports, number in numbers.items() if port in ports]))
            left = serve(times[mine], self._egress_rate, self._egress_buffer)
            out = left < end
            yield places[mine[out]], np.full(int(out.sum()), port), left[out] + self._delay

    def _answers(self, frames: Frames, places: Integers, times: Floats) -> list[tuple[int, ...]]:
        """The egress ports of each frame, as the real switch says.

        Once it has been asked about every kind of frame and its FDB did not change meanwhile, it will say the same
        again and is not asked any more.
        """
        first, kinds = frames.kinds()
        headers = [frames.header(int(k)) for k in first]
        answers: list[tuple[int, ...]] = []
        chunk = max(CHUNK, 2 * len(headers))
        for begin in range(0, len(places), chunk):
            part = places[begin : begin + chunk]
            before = self._changes()
            new, learned_all = self._ask(frames, part, kinds, headers, times[begin : begin + chunk])
            answers += new
            settled = learned_all and self._changes() == before
            known = dict(zip(kinds[part].tolist(), new, strict=True))
            rest = kinds[places[begin + chunk :]]
            if settled and np.isin(rest, list(known)).all():
                return answers + [known[kind] for kind in rest.tolist()]
        return answers

    def _changes(self) -> tuple[int, ...]:
        """How often the FDB changed, or would have changed with more room."""
        counters = self._switch.counters()
        return counters.learned, counters.moved, counters.evicted, counters.refused

    def _ask(
        self, frames: Frames, part: Integers, kinds: Integers, headers: list[bytes], times: Floats
    ) -> tuple[list[tuple[int, ...]], bool]:
        """Let the switch decide: runs of frames from one port at a time; says whether it could learn every source."""
        sources = frames.source[part]
        runs = np.split(np.arange(len(part)), np.flatnonzero(np.diff(sources)) + 1)
        answers: list[tuple[int, ...]] = []
        learned_all = True
        for run in runs:
            ingress = int(sources[run[0]])
            several = [headers[kind] for kind in kinds[part[run]].tolist()]
            if self._learning_rate is None and self._evicts:
                answers += self._decide(ingress, several)
                continue
            for header, time in zip(several, times[run].tolist(), strict=True):
                if self._learns(header[6:12], self.virtual_seconds + time):
                    answers += self._decide(ingress, [header])
                else:
                    learned_all = False
                    answers.append(self._look_up(ingress, header[:6]))
        return answers, learned_all

    def _decide(self, ingress: int, headers: list[bytes]) -> list[tuple[int, ...]]:
        numbered = [header + number.to_bytes(46, "big") for number, header in enumerate(headers)]
        out: list[list[int]] = [[] for _ in headers]
        for port, frame in self._switch.process(ingress, numbered):
            out[int.from_bytes(frame[14:], "big")].append(port)
        return [tuple(ports) for ports in out]

    def _learns(self, address: bytes, now: float) -> bool:
        """Whether a frame's source is known or can be learned now."""
        if self._is_known(address):
            return True
        if self._learning_rate is not None:
            if now < self._next_learned - 1e-9:
                return False
            gap = 1 / self._learning_rate
            self._next_learned = max(self._next_learned, now - gap) + gap
        return self._has_room()

    def _is_known(self, address: bytes) -> bool:
        return self._switch.fdb.lookup(int.from_bytes(address, "big")) is not None

    def _has_room(self) -> bool:
        """Learn a new address if there is room; returns whether there is."""
        self._learned += 1
        return self._evicts or self._learned <= self._capacity

    def _look_up(self, ingress: int, destination: bytes) -> tuple[int, ...]:
        entry = None if destination[0] & 1 else self._switch.fdb.lookup(int.from_bytes(destination, "big"))
        ports = range(self.ports) if entry is None else [int(entry.port)]
        return tuple(port for port in ports if port != ingress)


def serve(times: Floats, rate: float | None, room: int, relapse: float = 0.0) -> Floats:
    """When each frame leaves a queue that serves `rate` frames/s and holds `room`; never (inf) when there is none.

    For `relapse` seconds after there was none, every 19th (a prime: no sampling goes with it) is lost as well.
    """
    if rate is None:
        return times
    service, free, ill = 1 / rate, -math.inf, -math.inf
    full = (room - 1 + 1e-6) * service  # seconds of work left when one more has no room
    left = []
    for number, time in enumerate(times.tolist()):
        if free - time > full:
            ill = time + relapse
            left.append(math.inf)
        elif time < ill and number % 19 == 0:
            left.append(math.inf)
        else:
            free = (free if free > time else time) + service
            left.append(free)
    return np.array(left)


def _wanted(offer: Offer, frames: Frames, frame: Integers, port: Integers) -> NDArray[np.bool_]:
    """Which copies came out at their destination."""
    return np.full(len(frame), True) if offer.is_broadcast else frames.destination[frame] == port
