"""Storms: what is left for the others while one pod sends as much ARP, or from as many addresses, as it can."""

from __future__ import annotations

import itertools
import os
import select
import socket
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np
import pytest
from arp_parts import Sender, arp_request, percentile, switched
from work import Figures, Work, record

from fastbridge import Lab, PrivilegeError, Switch, Topology
from fastbridge.bench.machine.cpus import Layout
from fastbridge.bench.tester.agent_process import AgentProcess
from fastbridge.core.tester.traffic import Generator, Lane
from fastbridge.lab.pods import Pod
from fastbridge.waiting import wait_for

pytestmark = pytest.mark.live

POLICY = "guard,ratelimit=50,suppress"
BLOCKS = 2
WARM_UP = 0.3  # of TCP, within the storm
ASK_SECONDS = 0.05  # between two questions: well within the rate limit
PLAN = Topology.of(5, ipv6=None)
ETH_P_ARP, REPLY = 0x0806, b"\0\2"
SOURCES = 1_000_000
ETHERTYPE = b"\x88\xb5" + bytes(46)  # IEEE 802 local experimental, and padding


@dataclass(frozen=True)
class Trial:
    gigabits_per_second: float  # of the bystanders' TCP
    storm: float  # frames a second
    asked: int
    answers: list[float]  # seconds


class Storm:
    """A bystander pair, a pod that asks another, and a sender that storms beside them, or where there is no switch."""

    def __init__(self, stack: ExitStack, policy: str) -> None:
        layout = Layout.of_machine()
        lab = switched(stack, PLAN, policy)
        alone = stack.enter_context(Lab(Topology.of(1, ipv6=None)))
        self.stormer, client, self.server, self.asker, self.owner = lab
        for asker, owner in itertools.permutations(lab, 2):
            assert asker.ping(owner)
        self.source = AgentProcess(client.popen, layout.sender, "the TCP client")
        self.sink = AgentProcess(self.server.popen, layout.receiver, "the TCP server")
        for station in (self.source, self.sink):
            stack.callback(station.stop)
        self.beside = Sender(stack, self.stormer, layout.sender)
        self.elsewhere = Sender(stack, alone["pod1"], layout.sender)

    def trial(self, beside: bool, seconds: float) -> Trial:
        storm = self.beside if beside else self.elsewhere
        frames = [arp_request(self.stormer, pod) for pod in (self.server, self.asker, self.owner)]
        length = seconds + 2 * WARM_UP
        storm.begin(frames, length, None)
        assert self.server.ipv4
        address = str(self.server.ipv4.ip)
        self.sink.tell(do="receive_tcp", address=address, warm_up=WARM_UP, seconds=seconds)
        self.source.tell(do="send_tcp", address=address, port=self.sink.answer(5.0)["port"])
        self.sink.answer(5.0)
        asked, answers = ask(self.asker, self.owner, seconds)
        received = self.sink.answer(seconds + 5.0)
        self.source.answer(5.0)
        stormed = storm.end(length + 5.0)
        rate = received["bytes"] * 8e-9 / received["seconds"]
        return Trial(rate, stormed, asked, answers)


def ask(pod: Pod, target: Pod, seconds: float) -> tuple[int, list[float]]:
    """Ask by ARP again and again, a second at most for each as a kernel does; returns how many, and the answers."""
    question, asked, answers = arp_request(pod, target), 0, []
    end = time.monotonic() + seconds
    with pod.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as wire:
        wire.bind((pod.interface, ETH_P_ARP))
        while (began := time.monotonic()) < end:
            asked += 1
            wire.send(question)
            while wait_for(wire.fileno(), select.POLLIN, max(0.0, began + 1.0 - time.monotonic())):
                frame = wire.recv(2048)
                if frame[20:22] == REPLY and frame[28:32] == question[38:42]:
                    answers.append(time.monotonic() - began)
                    break
            time.sleep(ASK_SECONDS)
    return asked, answers


@pytest.mark.benchmark(group="arp", timer=Work.time)
def test_arp_storm(benchmark: Any, request: pytest.FixtureRequest) -> None:
    seconds = request.config.getoption("--storm-seconds")
    trials: dict[bool, list[Trial]] = {True: [], False: []}
    with ExitStack() as stack:
        storm = Storm(stack, POLICY)
        storm.trial(True, 0.5)  # to warm up
        for beside in (False, True, True, False) * (BLOCKS // 2):
            trials[beside].append(storm.trial(beside, seconds))
    with_storm, without = ([trial.gigabits_per_second for trial in trials[beside]] for beside in (True, False))
    figures: Figures = {
        "% of what it is with the storm elsewhere": 100 * fmean(with_storm) / fmean(without),
        "storm, frames/s": round(fmean(trial.storm for trial in trials[True])),
        "resolutions meanwhile": sum(trial.asked for trial in trials[True]),
        "answered": sum(len(trial.answers) for trial in trials[True]),
        "slowest ms": 1e3 * max(max(trial.answers, default=0.0) for trial in trials[True]),
    }
    record(
        benchmark, [8 / rate for rate in with_storm], f"bystanders' GB over TCP, ARP storm of {seconds:g} s", figures
    )
    benchmark.extra_info["gigabits_per_second"] = fmean(with_storm)


@pytest.mark.benchmark(group="arp", timer=Work.time)
def test_fdb_flood(benchmark: Any) -> None:
    """A million random sources from one port, all to one other, while the others talk."""
    with ExitStack() as stack:
        try:
            lab = stack.enter_context(Lab(PLAN))
        except PrivilegeError as error:
            pytest.skip(str(error))
        switch = stack.enter_context(Switch(lab.ports, cpu=Layout.of_machine().switch))
        flooder, *others = lab
        for asker, owner in itertools.permutations(others, 2):
            assert asker.ping(owner)
        before = {entry.mac: entry.port for entry in switch.fdb if entry.port != flooder.port.name}
        quiet = others[0].ping(others[1], count=50, interval=0.01)
        frames = from_random_sources(others[-1])
        flood = threading.Thread(target=send, args=(flooder, frames, switch))
        began = time.monotonic()
        flood.start()
        rtts: list[float] = []
        sent = 0
        while flood.is_alive():
            pings = others[0].ping(others[1], count=10, interval=0.01)
            sent, rtts = sent + pings.sent, [*rtts, *pings.rtts]
        seconds = time.monotonic() - began
        after = {entry.mac: entry.port for entry in switch.fdb}
        counters = switch.counters()
    figures: Figures = {
        "frames from random sources": counters.ports[flooder.port.name].rx_frames,
        "learned": counters.learned,
        "refused": counters.refused,
        "others' entries before": len(before),
        "in place afterwards": sum(after.get(mac) == port for mac, port in before.items()),
        "pings meanwhile": sent,
        "answered": len(rtts),
        "ms p99": percentile(rtts, 0.99) * 1e3,
        "ms p99 without": percentile(list(quiet.rtts), 0.99) * 1e3,
    }
    record(benchmark, [seconds / SOURCES], "new source", figures)


def from_random_sources(target: Pod) -> list[bytes]:
    """A frame from each of a million stations that there are not."""
    numbers = np.random.default_rng(1).integers(0, 1 << 40, SOURCES, dtype=np.uint64)
    stations = (numbers | np.uint64(0x02 << 40)).astype(">u8").tobytes()
    return [target.mac.packed + stations[n + 2 : n + 8] + ETHERTYPE for n in range(0, len(stations), 8)]


def send(pod: Pod, frames: list[bytes], switch: Switch) -> None:
    """Send until the switch has received as many frames."""
    os.sched_setaffinity(threading.get_native_id(), {Layout.of_machine().sender})
    with pod.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as wire:
        wire.bind((pod.interface, 0))
        generator = Generator([Lane(wire.fileno(), frames)])
        while (missing := len(frames) - switch.counters().ports[pod.port.name].rx_frames) > 0:
            generator.send([(None, None, missing)])
