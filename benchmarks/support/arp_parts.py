"""What the ARP benchmarks share: questions made by hand, a lab with its switch, stations that send."""

from __future__ import annotations

import socket
from contextlib import ExitStack

from places import enter

from fastbridge import Lab, Topology
from fastbridge.bench import Testbed
from fastbridge.bench.engines.fastbridge import Fastbridge
from fastbridge.bench.tester.agent_process import AgentProcess
from fastbridge.lab.pods import POD_END, Pod
from fastbridge.lab.topology import PodPlan

BROADCAST = b"\xff" * 6
_ARP_REQUEST = bytes.fromhex("0806 0001 0800 0604 0001")


def arp_request(asker: Pod | PodPlan, target: Pod | PodPlan) -> bytes:
    """Who has the target's address? Of oneself: an announcement."""
    assert asker.ipv4 and target.ipv4
    sender = asker.mac.packed
    return b"".join((BROADCAST, sender, _ARP_REQUEST, sender, asker.ipv4.ip.packed, bytes(6), target.ipv4.ip.packed))


def percentile(samples: list[float], share: float) -> float:
    """By nearest rank."""
    return sorted(samples)[min(len(samples) - 1, int(share * len(samples)))]


class Sender:
    """A station that sends frames from a pod."""

    def __init__(self, stack: ExitStack, pod: Pod, cpu: int) -> None:
        def wire() -> list[socket.socket]:
            sock = pod.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            sock.bind((POD_END, 0))
            return [sock]

        self._agent = AgentProcess(pod.popen, cpu, f"the sender in {pod.name}", wire)
        stack.callback(self._agent.stop)

    def begin(self, frames: list[bytes], seconds: float, rate: float | None) -> None:
        """Send these in turn; returns when it begins."""
        lane = {
            "socket": self._agent.sockets()[0],
            "frames": [(frame.hex(), len(frame)) for frame in frames],
            "sources": None,
            "targets": [],
        }
        self._agent.ask(do="send", lanes=[lane], phases=[(seconds, rate, None)])

    def end(self, patience: float) -> float:
        """Wait until it has sent for so long; returns the frames offered a second."""
        sent = self._agent.answer(patience)
        return float(sum(sent["sent"]) / sent["seconds"])


def switched(stack: ExitStack, topology: Topology, policy: str) -> Lab:
    """A lab whose host ends `fastbridge run --arp POLICY` joins, a process on a CPU of its own."""
    return enter(stack, Testbed(Fastbridge(options=("--arp", policy)), topology=topology)).lab
