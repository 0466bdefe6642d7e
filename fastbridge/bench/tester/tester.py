"""The tester, live.

It runs trials between the pods of a lab. An engine joins the lab's host ends. One process sends for all pods (several
on one CPU would spoil each other's pacing) and one receives for all, over sockets opened in the pods. Only TCP and
pings run in the pods. The tester must not load the engine. The pods' interfaces count frames, which costs nothing.
Sockets take only stamped frames, and only in trials that have any.

A trial has these steps:

- The engine learns the addresses of the offer.
- The tester reads the pods' counters once they stand still.
- The sender sends, phase after phase. Meanwhile two readings of all counters make the window.
- The tester reads the counters again once they stand still.

The difference is the number of received frames. The window gives rate and CPU time. If this process got the CPU too
late and missed the window, the trial runs again.
"""

from __future__ import annotations

import socket
import time
from dataclasses import replace
from typing import Any

from fastbridge.bench.engines import Running
from fastbridge.bench.machine.cpus import Layout
from fastbridge.bench.machine.disturbance import Watch
from fastbridge.closes import Closes
from fastbridge.errors import BenchError, ConfigError
from fastbridge.lab.pods import POD_END, Pod
from fastbridge.lab.topology import Lab
from fastbridge.link_watch import LinkCounters
from fastbridge.open_files import reserve_files

from .agent_process import ANSWER_SECONDS, AgentProcess
from .end_to_end import EndToEnd
from .frames import UDP_PORT, LanePlan, announcement, plan
from .offer import FCS, Offer
from .readings import Reading
from .samples import STEP, MissedError, SampleLog, Window, clock_offset
from .trial import CAPACITY, Samples, Trial

WARM_UP, TAIL = 0.05, 0.03  # seconds before a window, while the path fills, and after it, while the path is still full
SHORTEST = 0.2  # seconds; shorter trials have no window
DRAIN_LIMIT = 30.0  # seconds; hundreds of ports with full socket buffers drain for seconds, a loop never does
SLOWEST = 10_000.0  # frames/s: any sender reaches this, so it says when to give up on one
# Learning. Open vSwitch decides about every new address, and loses frames meanwhile: of 2,000 addresses announced at
# 20,000 a second it loses some 5 %; announced twice at 10,000, none. Its FDB has 8,192 entries. Engines with larger
# FDBs keep up.
LEARN_RATE, LEARN_RATE_OF_MANY = 10_000.0, 50_000.0  # frames/s
MANY = 20_000  # addresses
ROUNDS = 2  # the second teaches what the first lost
AGEING = 90.0  # seconds from learning to the end of a trial; VDE forgets after 100 s, others after 300 s
# Frames that wait in a qdisc of the kernel's count as their sender's. With the usual buffer it would stop sending
# before a link's queue is full.
ROOM = 64 << 20  # bytes
ATTEMPTS = 3


class Tester(Closes):
    """The Measurer of a lab whose host ends `running` joins. Errors call it `name`.

    `settle`: after so many seconds without a frame the engine counts as drained.
    """

    def __init__(self, lab: Lab, running: Running, *, name: str, layout: Layout, settle: float = 0.02) -> None:
        self.name = name
        self._running, self._settle = running, settle
        self._pods = lab.pods
        self._log = SampleLog()
        self._senders = [
            AgentProcess(lab.popen_host, cpu, name, self._sending_sockets, self._log.fd)
            for cpu, name in (
                (layout.sender, "the tester's sender"),
                (layout.switch, "the tester's sender on the switch's CPU"),
            )
        ]
        self._receiver = AgentProcess(
            lab.popen_host, layout.receiver, "the tester's receiver", self._receiving_sockets, self._log.fd
        )
        self._end_to_end = EndToEnd(self._pods, running, layout, self._log)
        self._sinks: dict[int, socket.socket] = {}
        self._number = 0
        self._listening = False
        self._learned: tuple[set[tuple[int, int, int]], float] = set(), 0.0
        reserve_files(4 * len(self._pods))

    def close(self) -> None:
        """End the tester's processes."""
        self._stop()
        for sink in self._sinks.values():
            sink.close()
        self._log.close()

    @property
    def ports(self) -> int:
        """Number of pods in the lab."""
        return len(self._pods)

    def restart(self) -> None:
        """Restart the engine, which empties its FDB."""
        self._running.restart(kill=False)
        self._running.check()
        self._learned = set(), 0.0

    def trial(self, offer: Offer) -> Trial:
        """Run one trial. Raise BenchError if the engine has died, or if nothing of a plain offer arrives."""
        ports = {port for stream in offer.streams for port in (stream.source, *stream.destinations)}
        if max(ports) >= self.ports:
            raise ConfigError(f"there is no port {max(ports)}: the lab has {self.ports}")
        if any(phase.seconds and phase.rate and phase.seconds * phase.rate < 0.5 for phase in offer.phases):
            raise BenchError(f"at so low a load a trial of {offer.seconds:g} s has no frame: make it longer")
        self._running.check()
        if offer.link != self._running.link:
            self._running.emulate(offer.link)
            self._learned = set(), 0.0
        watch = Watch()  # throughout, not just in the window: looking at every process takes a while
        try:
            trial = self._end_to_end.trial(offer) if offer.is_end_to_end else self._frames(offer)
        except BaseException:
            self._stop()  # agents may still be busy
            raise
        finally:
            self._running.check()  # its death is a better reason than the error that followed
        if _is_plain(offer) and not (trial.window_bytes if offer.is_end_to_end else trial.forwarded):
            raise BenchError(f"{self.name} forwarded nothing in {trial.seconds:.1f} s")
        return replace(trial, disturbance=watch.disturbance())

    # -- frames

    def _frames(self, offer: Offer) -> Trial:
        lanes = [plan(stream, self._pods) for stream in offer.streams]
        for _ in range(ATTEMPTS):
            self._prepare(offer)
            try:
                return self._attempt(offer, lanes)
            except MissedError as missed:
                reason = missed
                if not offer.learn:  # a second one would differ: the FDB has changed
                    break
        raise BenchError(f"{self.name}: no trial was valid: {reason}")

    def _prepare(self, offer: Offer) -> None:
        if any(stream.kind == "udp" for stream in offer.streams):
            for port in self._wanted(offer):
                if port not in self._sinks:
                    self._sinks[port] = _open_sink(self._pods[port])
        if offer.learn:
            self._learn(offer)
        else:
            self._learned = set(), 0.0

    def _attempt(self, offer: Offer, lanes: list[LanePlan]) -> Trial:
        wanted = self._wanted(offer)
        before = self._still()
        clock = clock_offset()
        self._listen(offer, wanted)
        first = self._read(wanted)
        self._begin(lanes, offer)
        began = time.monotonic()
        last: Reading | None = None
        if offer.restart is not None:
            _sleep_until(began + offer.seconds / 2)
            self._running.restart(kill=offer.restart == "killed")
            self._learned = set(), 0.0
        elif _has_window(offer):
            _sleep_until(began + WARM_UP)
            first = self._read(wanted)
            _sleep_until(began + offer.seconds - TAIL)
            last = self._read(wanted)
        sent = self._sent(offer, _longest(offer) + ANSWER_SECONDS)
        after = self._still(offer.link.longest if offer.link else 0.0)
        if last is not None and not sent["started_ns"] * 1e-9 < first.time < last.time < sent["ended"]:
            raise MissedError("the machine is too busy, the windows were missed")
        window = first.until(last or self._read(wanted), None if last else sent["seconds"])
        window["window_frames"], window["window_bytes"] = offer.apart(window["window_frames"], window["window_bytes"])
        if offer.restart is not None:
            window["cpu_switch_seconds"] = None  # of another process
        return Trial(
            offer,
            seconds=sent["seconds"],
            **window,
            intended=sent["intended"],
            sent=tuple(self._by_port(lanes, sent["sent"])),
            received=tuple(
                offer.apart(now.rx_frames - then.rx_frames, now.rx_bytes - then.rx_bytes)[0]
                for now, then in zip(after, before, strict=True)
            ),
            refused=sent["refused"],
            involuntary_switches=sent["involuntary_switches"],
            samples=self._samples(offer, sent, clock) if offer.sample else None,
        )

    def _begin(self, lanes: list[LanePlan], offer: Offer) -> None:
        options = {"room": ROOM} if offer.link else {}
        if offer.sample:
            most = CAPACITY // (self.ports if offer.is_broadcast else 1)
            options |= {"sample": offer.sample, "most": most, "trial": self._number, "log": self._log.fd}
        for sender in offer.senders:
            own = [lane for lane, stream in zip(lanes, offer.streams, strict=True) if stream.sender == sender]
            share = len(own) / len(lanes)
            phases = [
                (phase.seconds, phase.rate and phase.rate * share, phase.frames and round(phase.frames * share))
                for phase in offer.phases
            ]
            self._send(self._senders[sender], own, phases, **options)

    def _send(self, sender: AgentProcess, lanes: list[LanePlan], phases: list[Any], **options: int) -> None:
        # Returns when sending begins.
        sockets = sender.sockets()
        sender.ask(
            do="send",
            lanes=[{"socket": sockets[lane.port], **lane.described()} for lane in lanes],
            phases=phases,
            **options,
        )

    def _sent(self, offer: Offer, timeout: float) -> dict[str, Any]:
        """The senders' answers, combined. The trial began with the last sender and `ended` with the first."""
        answers = {sender: self._senders[sender].answer(timeout) for sender in offer.senders}
        every = list(answers.values())
        counts = {sender: iter(answer["sent"]) for sender, answer in answers.items()}
        return {
            **{name: sum(answer[name] for answer in every) for name in ("intended", "refused", "involuntary_switches")},
            "sent": [next(counts[stream.sender]) for stream in offer.streams],
            "stamped": every[0]["stamped"],  # samples have one sender
            "started_ns": max(answer["started_ns"] for answer in every),
            "seconds": max(answer["seconds"] for answer in every),
            "ended": min(answer["started_ns"] * 1e-9 + answer["seconds"] for answer in every),
        }

    def _by_port(self, lanes: list[LanePlan], sent: list[int]) -> list[int]:
        return [sum(n for lane, n in zip(lanes, sent, strict=True) if lane.port == port) for port in range(self.ports)]

    def _wanted(self, offer: Offer) -> list[int]:
        """Ports that the offer's frames are for, as in Trial.forwarded."""
        sources = {stream.source for stream in offer.streams}
        if offer.is_broadcast:
            return [port for port in range(self.ports) if len(sources) > 1 or port not in sources]
        return sorted({port for stream in offer.streams for port in stream.destinations})

    # -- learning

    def _learn(self, offer: Offer) -> None:
        """Put every address of the offer into the FDB before the first counted frame."""
        ranges = {(stream.source, stream.first, stream.sources) for stream in offer.streams}
        ranges |= {(port, stream.first, stream.targets) for stream in offer.streams for port in stream.destinations}
        known, since = self._learned
        if known == ranges and time.monotonic() + _longest(offer) < since + AGEING:
            return
        rate = LEARN_RATE if sum(count for _, _, count in ranges) <= MANY else LEARN_RATE_OF_MANY
        for _ in range(ROUNDS):
            since = time.monotonic()  # the first frame of the last round
            for count in sorted({count for _, _, count in ranges}):
                lanes = [announcement(self._pods, *range_) for range_ in sorted(ranges) if range_[2] == count]
                frames = count * len(lanes)
                self._send(self._senders[0], lanes, [(None, rate, frames)])
                self._senders[0].answer(frames / SLOWEST + ANSWER_SECONDS)
        self._learned = ranges, since

    # -- samples

    def _listen(self, offer: Offer, wanted: list[int]) -> None:
        self._number += 1
        if not offer.sample:
            if self._listening and self._receiver.is_started:
                self._receiver.ask(do="listen", ports=[])
            self._listening = False
            return
        self._log.clear()
        if not self._receiver.is_started:
            sockets = self._receiver.sockets()
            self._receiver.ask(do="open", sockets=sockets, interface=POD_END, log=self._log.fd)
        streams, copies = len(offer.streams), offer.is_broadcast
        self._receiver.ask(do="listen", ports=wanted, trial=self._number, streams=streams, copies=copies)
        self._listening = True

    def _samples(self, offer: Offer, sent: dict[str, Any], clock: int) -> Samples:
        heard = self._receiver.ask(do="heard")
        copies = self.ports - 1 if offer.is_broadcast else None
        if abs(clock_offset() - clock) > STEP:
            raise MissedError("the system's clock was set meanwhile, and latency cannot be told")
        if sent["stamped"] >= CAPACITY // (self.ports if copies else 1):
            raise BenchError(
                f"more than {sent['stamped']} samples in a trial: sample less often than 1 in {offer.sample}"
            )
        window = Window(sent["stamped"], copies, self.ports, sent["started_ns"] + clock, offer.delays)
        return self._log.samples(window, heard)

    # -- counters

    def _read(self, wanted: list[int]) -> Reading:
        return Reading.of([self._pods[port] for port in wanted], self._running)

    def _still(self, longest: float = 0.0) -> list[LinkCounters]:
        """The pods' counters, once no frame has come for `settle` seconds; on a link, `longest` seconds more."""
        limit = time.monotonic() + DRAIN_LIMIT
        counters: list[LinkCounters] = []
        while True:
            before, counters = counters, [pod.counters() for pod in self._pods]
            if [c.rx_frames for c in counters] == [c.rx_frames for c in before]:
                return counters
            if time.monotonic() > limit:
                raise BenchError(
                    f"{self.name}: frames still come {DRAIN_LIMIT:g} s after the last one: a loop, or endless buffers"
                )
            time.sleep(self._settle + longest)

    # -- agents

    def _sending_sockets(self) -> list[socket.socket]:
        opened = self._receiving_sockets()
        for sender in opened:
            sender.bind((POD_END, 0))  # protocol 0: only sends, and puts no tap on the pod end
        return opened

    def _receiving_sockets(self) -> list[socket.socket]:
        return [pod.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) for pod in self._pods]

    def _stop(self) -> None:
        for agent in (*self._senders, self._receiver):
            agent.stop()
        self._end_to_end.stop()


def _open_sink(pod: Pod) -> socket.socket:
    # Nobody reads it. Once its small buffer is full, the kernel drops datagrams silently.
    sink = pod.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sink.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    sink.bind(("", UDP_PORT))
    return sink


def _has_window(offer: Offer) -> bool:
    return offer.seconds >= SHORTEST and all(phase.frames is None for phase in offer.phases)


def _is_plain(offer: Offer) -> bool:
    """Whether some of it must arrive: steady unicast of frames of valid size, without a restart of the engine."""
    return (
        offer.restart is None
        and not offer.is_broadcast
        and all(phase.frames is None for phase in offer.phases)
        and all(64 <= size <= 1514 + FCS for stream in offer.streams for size in stream.sizes)
    )


def _longest(offer: Offer) -> float:
    """Seconds that any working sender needs at most."""
    return offer.seconds + sum((phase.frames or 0) / min(phase.rate or SLOWEST, SLOWEST) for phase in offer.phases)


def _sleep_until(moment: float) -> None:
    time.sleep(max(0.0, moment - time.monotonic()))
