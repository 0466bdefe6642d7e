"""Trials between pods.

The first pod of a lab sends, the others receive; whatever joins their host ends is under test. The
tester must not load it: receivers are counted by their interfaces' own counters, which cost nothing,
and the sender is a process of its own on its own CPU (METHODS: the tester must not load the DUT).
Frames carry EtherType 0x88b5 (IEEE 802 local experimental), which no kernel answers.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from fastbridge.errors import BenchError
from fastbridge.pods import Pod
from fastbridge.topology import Lab

from .child import Child
from .engines import Running
from .machine import CpuTime, Layout
from .results import Scenario, Trial

ETHERTYPE = b"\x88\xb5"
FCS = 4
WARM_UP = 0.05  # seconds of sending before the window: the path is full well before
TAIL = 0.03  # and after it, so that the window closes while frames still come
QUIET = 0.01  # drained: no frame for so long
DRAIN_LIMIT = 1.0
ANSWER_SECONDS = 5.0  # beyond a trial's own length
START_SECONDS = 20.0
ATTEMPTS = 3


@dataclass(frozen=True)
class Reading:
    """All counters at one moment."""

    time: float
    frames: int
    octets: int
    cpu: CpuTime
    switch: float | None


class Station:
    """The tester's process in one pod, started again when it has died."""

    def __init__(self, pod: Pod, cpu: int) -> None:
        self._pod, self._cpu = pod, cpu
        self._ready = False
        self._child: Child | None = self._start()

    def _start(self) -> Child:
        argv = [sys.executable, "-m", "fastbridge.bench.station"]
        return Child(self._pod.popen, argv, name=f"the tester in {self._pod.name}", cpu=self._cpu)

    def tell(self, **command: Any) -> None:
        """Give a command; its answer is to be fetched with answer()."""
        self._child = self._child or self._start()
        if not self._ready:  # asked only now, so that all stations start up side by side
            self.answer(START_SECONDS)
            self._ready = True
        with self._afresh_after_failure():
            self._child.tell(json.dumps(command))

    def answer(self, timeout: float) -> dict[str, Any]:
        """The next answer; raise BenchError when it is an error, or when there is none."""
        assert self._child is not None
        with self._afresh_after_failure():
            answer: dict[str, Any] = json.loads(self._child.line(timeout))
        if "error" in answer:
            raise BenchError(f"{self._child.name}: {answer['error']}")
        return answer

    @contextmanager
    def _afresh_after_failure(self) -> Iterator[None]:
        try:
            yield
        except BenchError:
            self.stop()
            raise

    def ask(self, **command: Any) -> dict[str, Any]:
        """Give a command and wait for its answer."""
        self.tell(**command)
        return self.answer(ANSWER_SECONDS)

    def stop(self) -> None:
        """End the process; the next command starts a new one."""
        if self._child is not None:
            self._child.stop()
            self._child, self._ready = None, False


class Tester:
    """Runs trials in a lab whose host ends are joined by `engine`, called `name` in the trials."""

    def __init__(self, lab: Lab, engine: Running, *, name: str, layout: Layout, joined: bool = True) -> None:
        self.name = name
        self._engine = engine
        self.joined = joined
        self._sender, *self._receivers = lab
        self._source = Station(self._sender, layout.sender)
        self._sinks = [Station(pod, layout.receiver) for pod in self._receivers]

    def __enter__(self) -> Tester:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the tester's processes."""
        for station in (self._source, *self._sinks):
            station.stop()

    def run(self, scenario: Scenario, *, block: int = 0, position: int = 0) -> Trial:
        """Run one trial; raise BenchError when the engine has died or nothing arrives."""
        labels = {"engine": self.name, "scenario": scenario.name, "block": block, "position": position}
        self._engine.check()
        try:
            if scenario.frame_size is None:
                trial = self._tcp(scenario.seconds, labels)
            else:
                trial = self._frames(scenario.frame_size, scenario.rate, scenario.seconds, labels)
        finally:
            self._engine.check()  # that it died is a better reason than what came of it
        if trial.window_bytes == 0:
            raise BenchError(f"{self.name} forwarded nothing in {scenario.seconds:g} s")
        return trial

    def _frames(self, frame_size: int, rate: float | None, seconds: float, labels: dict[str, Any]) -> Trial:
        self._announce()
        frames = [frame(pod.mac.packed, self._sender.mac.packed, frame_size).hex() for pod in self._receivers]
        length = WARM_UP + seconds + TAIL
        for _ in range(ATTEMPTS):
            before = self._drained()
            self._source.ask(do="send", interface=self._sender.interface, frames=frames, seconds=length, rate=rate)
            time.sleep(WARM_UP)  # from when it says that it begins
            first = self._read()
            time.sleep(seconds)
            last = self._read()
            sent = self._source.answer(length + ANSWER_SECONDS)
            forwarded = self._drained() - before
            began = sent["started_ns"] * 1e-9
            if began < first.time and last.time < began + sent["seconds"]:
                return Trial(
                    **labels,
                    **_window(first, last),
                    seconds=sent["seconds"],
                    window_seconds=last.time - first.time,
                    window_bytes=last.octets - first.octets,
                    window_frames=last.frames - first.frames,
                    intended=sent["intended"],
                    offered=sent["offered"],
                    forwarded=forwarded,
                    involuntary_switches=sent["involuntary_switches"],
                )
        raise BenchError(f"the machine is too busy to measure: {ATTEMPTS} trials of {self.name} missed their window")

    def _tcp(self, seconds: float, labels: dict[str, Any]) -> Trial:
        receiver, sink = self._receivers[0], self._sinks[0]
        if receiver.ipv4 is None:
            raise BenchError(f"{receiver.name} has no IPv4 address to connect to")
        address = str(receiver.ipv4.ip)
        sink.tell(do="receive_tcp", address=address, warm_up=2 * WARM_UP, seconds=seconds)
        port = sink.answer(ANSWER_SECONDS)["port"]
        self._source.tell(do="send_tcp", address=address, port=port)
        try:
            sink.answer(ANSWER_SECONDS)  # the window begins
            first = self._read()
            received = sink.answer(seconds + ANSWER_SECONDS)
            last = self._read()
            self._source.answer(ANSWER_SECONDS)
        except BenchError:
            self.close()  # one side may still wait for the other
            raise
        return Trial(
            **labels,
            **_window(first, last),
            seconds=received["seconds"],
            window_seconds=received["seconds"],
            window_bytes=received["bytes"],
        )

    def _announce(self) -> None:
        # Every receiver's address, and the sender's, are in the FDB before the first counted frame.
        if not self.joined:
            return
        for pod, station in zip(self._receivers, self._sinks, strict=True):
            reply = frame(self._sender.mac.packed, pod.mac.packed, 64).hex()
            station.ask(do="announce", interface=pod.interface, frames=[reply])

    def _read(self) -> Reading:
        frames, octets = self._received()
        return Reading(time.monotonic(), frames, octets, CpuTime.now(), self._engine.cpu_seconds())

    def _received(self) -> tuple[int, int]:
        if not self.joined:
            counters = self._sender.counters()
            return counters.tx_frames, counters.tx_bytes
        every = [pod.counters() for pod in self._receivers]
        return sum(c.rx_frames for c in every), sum(c.rx_bytes for c in every)

    def _drained(self) -> int:
        # The receivers' frame count once it stands still.
        limit = time.monotonic() + DRAIN_LIMIT
        frames = -1
        while (now := self._received()[0]) != frames and time.monotonic() < limit:
            frames = now
            time.sleep(QUIET)
        return now


def frame(destination: bytes, source: bytes, size: int) -> bytes:
    """Make a test frame of `size` bytes with FCS: 64 is 60 bytes here, as AF_PACKET takes it."""
    return (destination + source + ETHERTYPE).ljust(size - FCS, b"\0")


def _window(first: Reading, last: Reading) -> dict[str, Any]:
    switch = None if first.switch is None or last.switch is None else last.switch - first.switch
    return {
        "cpu_machine_seconds": last.cpu.busy - first.cpu.busy,
        "steal_seconds": last.cpu.steal - first.cpu.steal,
        "cpu_switch_seconds": switch,
    }
