"""A switch whose process is stopped (SIGSTOP): the kernel goes on with what is promoted, and no count is lost."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from command import COMMAND, ROOT, say
from fast import HANDS, need
from frames import GROUP, ethernet
from live import PATIENCE, Wire, eventually, heard_by_a_mark, wires

from fastbridge import Lab, Topology

pytestmark = pytest.mark.live

BURST = 150  # what a wire's buffer has room for
X = 0x02_00_00_00_FF_01


class Stage:
    """Three pods and a run, whose pairs between pods 1 and 2 are promoted."""

    def __init__(self, lab: Lab, process: subprocess.Popen[str], ears: list[Wire]) -> None:
        self.lab, self.process = lab, process
        self.one, self.two, self.three = ears
        self.macs = [int(pod.mac) for pod in lab]

    def frame(self, to: int, sender: int, text: str) -> bytes:
        """Between pods by their own MAC addresses."""
        return ethernet(self.macs[to], self.macs[sender], payload=b"fastbridge " + text.encode())

    def promote(self) -> None:
        for wire, mac in zip((self.one, self.two, self.three), self.macs, strict=True):
            wire.send(ethernet(GROUP, mac))

        def both_ways() -> bool:
            self.one.send(self.frame(1, 0, "first"))
            self.two.send(self.frame(0, 1, "first"))
            ports = say(self.process)["counters"]["ports"]
            return bool(ports["pod1"]["fast"] and ports["pod2"]["fast"])

        eventually(both_ways, "pairs both ways")
        for hearer, sender in ((self.one, self.two), (self.two, self.one)):
            hearer.heard_before(sender.mark())

    def stop(self) -> None:
        self.process.send_signal(signal.SIGSTOP)
        tasks = Path(f"/proc/{self.process.pid}/task")
        eventually(
            lambda: all(") T " in (task / "stat").read_text() for task in tasks.iterdir()), "all threads stopped"
        )

    def go_on(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def ends(self) -> dict[str, dict[str, Any]]:
        """The final counts of each port, when each is what its pod's own interface counts."""
        self.process.terminate()
        lines = self.process.communicate(timeout=PATIENCE)[0].splitlines()
        final = json.loads(lines[-1])
        assert final["event"] == "stopped"
        ports: dict[str, dict[str, Any]] = final["counters"]["ports"]
        for pod in self.lab:
            port, device = ports[pod.name], pod.counters()
            assert port["rx_frames"] + port["rx_missed"] + port["fast"] == device.tx_frames, pod.name
            assert port["tx_frames"] - port["coalesced"] + port["fast_sent"] == device.rx_frames, pod.name
            fates = port["forwarded"] + port["flooded"] + port["consumed"] + sum(port["dropped"].values())
            assert port["rx_frames"] == fates, pod.name
        total = final["counters"]["total"]
        copies = total["tx_frames"] + total["fast_sent"] + sum(total["tx_dropped"].values())
        assert copies == total["forwarded"] + total["fast"] + 2 * total["flooded"]
        return ports


@contextmanager
def stage(hand: str) -> Iterator[Stage]:
    need(hand)
    with Lab(Topology.of(3, ipv6=None)) as lab, wires(lab) as ears:
        command = [*COMMAND, "run", "--json", "--no-loop-detection", "--interval", "0.1", "--fast-path", hand]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process = lab.popen_host([*command, *(port.name for port in lab.ports)], text=True, cwd=ROOT, **pipes)
        try:
            assert say(process)["fast_path"] == hand
            on = Stage(lab, process, ears)
            on.promote()
            yield on
        finally:
            process.kill()
            process.communicate()


def texts(frames: list[bytes]) -> list[str]:
    return [frame.split(b"fastbridge ")[1].decode() for frame in frames]


@HANDS
def test_what_passes_while_it_is_stopped_is_counted_exactly(hand: str) -> None:
    """By the kernel at once, and in the ring until the core goes on; each frame once, in order."""
    with stage(hand) as on:
        on.stop()
        numbers = [str(number) for number in range(BURST)]
        for number in numbers:
            on.one.send(on.frame(1, 0, number))
            on.two.send(on.frame(0, 1, number))
            on.three.send(on.frame(0, 2, number))  # never promoted: it waits
        for wire in on.one, on.two:
            heard = [wire.receive()[0] for _ in numbers]
            assert texts([frame for frame in heard if b"fastbridge" in frame]) == numbers  # nobody else could speak
        on.go_on()
        mark = on.three.mark()
        assert texts(on.one.heard_before(mark, b"fastbridge ")) == numbers
        on.two.heard_before(mark)
        ports = on.ends()
        assert min(ports["pod1"]["fast"], ports["pod2"]["fast"]) >= BURST
        assert ports["pod3"]["fast"] == 0 and ports["pod3"]["rx_frames"] >= BURST
        assert not any(port["rx_missed"] for port in ports.values())


@HANDS
def test_what_its_ring_has_no_room_for_is_missed_and_counted(hand: str) -> None:
    with stage(hand) as on:
        on.stop()
        for number in range(12_000):
            on.three.send(ethernet(X, on.macs[2]))
            if number % 100 == 0:
                on.one.send(on.frame(1, 0, "beside it"))
        on.go_on()

        def all_read() -> bool:
            port = say(on.process)["counters"]["ports"]["pod3"]
            return bool(port["rx_frames"] + port["rx_missed"] == on.lab["pod3"].counters().tx_frames)

        eventually(all_read, "the core's reading of what its ring held")
        ports = on.ends()
        assert ports["pod3"]["rx_missed"] > 0 and ports["pod3"]["flooded"] > 0
        assert ports["pod1"]["fast"] >= 120 and ports["pod1"]["rx_missed"] == ports["pod2"]["rx_missed"] == 0


@HANDS
def test_a_station_that_moved_while_it_was_stopped_is_found_and_all_is_counted(hand: str) -> None:
    """Until the core goes on, the kernel sends to the old port what is promoted; then to the new one."""
    with stage(hand) as on:
        on.stop()
        on.three.send(ethernet(on.macs[0], on.macs[1], payload=b"fastbridge moved"))
        on.one.send(on.frame(1, 0, "to the old port"))
        while b"fastbridge to the old port" not in on.two.receive()[0]:
            pass
        on.go_on()

        def found() -> bool:
            on.one.send(on.frame(1, 0, "to the new port"))
            return any(b"to the new port" in frame for frame in heard_by_a_mark(on.one, on.three))

        eventually(found, "the station at its new port")
        on.two.heard_before(on.three.mark())
        on.ends()
