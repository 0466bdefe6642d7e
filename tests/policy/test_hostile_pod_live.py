"""A hostile pod among real kernels: does the victim get through, both ways, and does the hostile pod hear nothing?

The attacks are those that are tried in memory, one after the other; between them, and when all is over.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import arp_nd_frames as make
import pytest
from arp_nd_frames import IPV4, IPV6, A
from live import PATIENCE, Wire, eventually, wires
from test_hostile_pod import HOSTILE, PEER, VICTIM, attack_frames, attacks, claims

from fastbridge import Lab, MacAddress, Switch
from fastbridge.lab.pods import Pod

pytestmark = pytest.mark.live

SECRET = b"for one pod alone"
GUARDS = ["guard", "guard=strict", "guard,ratelimit=50,suppress"]


class Stage:
    """Three pods and a switch; the addresses are on eth0, or on a VLAN interface over it."""

    def __init__(self, lab: Lab, switch: Switch, ears: Wire, vids: tuple[int, ...]) -> None:
        self.lab, self.switch, self.ears = lab, switch, ears
        self.pods = list(lab)
        self.vlan = vids[0] if vids else 0
        self.interface = f"eth0.{self.vlan}" if vids else "eth0"
        self.overheard: list[bytes] = []
        self.said = 0

    def listen(self) -> None:
        """Keep what the hostile pod has heard of the others' talk."""
        self.ears.socket.setblocking(False)
        try:
            while True:
                frame = self.ears.receive()[0]
                if SECRET in frame:
                    self.overheard.append(frame)
        except BlockingIOError:
            pass
        finally:
            self.ears.socket.settimeout(PATIENCE)

    def send(self, frames: list[bytes]) -> None:
        """From the hostile pod; returns when the switch has them all."""
        port = self.lab["pod3"].port.name
        before = self.switch.counters().ports[port].rx_frames
        for frame in frames:
            self.ears.send(frame)
        eventually(lambda: self.switch.counters().ports[port].rx_frames >= before + len(frames), "the frames")

    def gets_through(self, sender: int, receiver: int, family: int) -> bool:
        """Whether data that is sent now arrives."""
        ip = (IPV4 if family == 4 else IPV6)[receiver]
        kind = socket.AF_INET if family == 4 else socket.AF_INET6
        self.said += 1
        words = SECRET + b" %d" % self.said
        with (
            self.pods[receiver].socket(kind, socket.SOCK_DGRAM) as ear,
            self.pods[sender].socket(kind, socket.SOCK_DGRAM) as mouth,
        ):
            ear.bind((ip, 0))
            ear.settimeout(0.5)
            mouth.sendto(words, ear.getsockname()[:2])
            try:
                return ear.recv(100) == words
            except TimeoutError:
                return False

    def victim_is_well(self, what: str) -> None:
        for family in 4, 6:
            for sender, receiver in (PEER, VICTIM), (VICTIM, PEER):
                eventually(lambda s=sender, r=receiver, f=family: self.gets_through(s, r, f), what)  # type: ignore[misc]
            assert self.believes(self.pods[PEER], (IPV4 if family == 4 else IPV6)[VICTIM]) == [A], what
        self.listen()
        assert self.overheard == [], what

    def believes(self, pod: Pod, ip: str) -> list[str]:
        shown = pod.run(["ip", "neigh", "show", ip, "dev", self.interface]).stdout.split()
        return [shown[at + 1] for at, word in enumerate(shown) if word == "lladdr"]

    def forget(self) -> None:
        """The pods ask anew."""
        for pod in self.pods[VICTIM], self.pods[PEER]:
            pod.run(["ip", "neigh", "flush", "dev", self.interface])

    def settled(self) -> bool:
        """Nobody is asked any more whether he is still there."""
        return not self.switch._policing._doubts


@contextmanager
def stage(policy: str, vids: tuple[int, ...]) -> Iterator[Stage]:
    with (
        Lab(3) as lab,
        Switch(lab.ports, policy=policy, trusted="strict" in policy, loop_detection=False) as switch,
        wires(lab) as ears,
    ):
        on = Stage(lab, switch, ears[HOSTILE], vids)
        for n, pod in enumerate(lab if vids else []):
            for port_address in IPV4[n], IPV6[n]:
                if "strict" in policy:
                    switch.neighbours.add(port_address, pod.mac, n, on.vlan, source="plan")
            pod.run(["ip", "addr", "flush", "dev", "eth0", "scope", "global"])
            made = pod.run(f"ip link add link eth0 name {on.interface} type vlan id {on.vlan}".split(), check=False)
            if made.returncode:
                pytest.skip(f"no VLAN interface on this machine ({made.stderr.strip()}); in memory all is tried tagged")
            pod.run(["ip", "link", "set", on.interface, "up"])
            pod.run(["ip", "addr", "add", f"{IPV4[n]}/16", "dev", on.interface])
            pod.run(["ip", "addr", "add", f"{IPV6[n]}/64", "dev", on.interface, "nodad"])
        for family in 4, 6:
            for sender, receiver in (PEER, VICTIM), (VICTIM, PEER):
                eventually(lambda s=sender, r=receiver, f=family: on.gets_through(s, r, f), "the first words")  # type: ignore[misc]
        on.listen()
        on.overheard.clear()  # before anybody was learned
        yield on


@pytest.mark.parametrize("vids", [(), pytest.param((5,), marks=pytest.mark.slow)], ids=["untagged", "tagged"])
@pytest.mark.parametrize("policy", GUARDS)
def test_the_victim_gets_through_and_the_hostile_pod_hears_nothing(policy: str, vids: tuple[int, ...]) -> None:
    with stage(policy, vids) as on:
        for family in 4, 6:
            for attack in attacks(family):
                on.send(attack_frames(family, attack, vids))
                on.victim_is_well(f"IPv{family}: {attack}")
        on.forget()
        on.victim_is_well("when asked anew")
        eventually(on.settled, "the end of all doubts")
        on.forget()
        on.victim_is_well("when all is over")
        found = on.switch.fdb.lookup(A, vlan=on.vlan)
        assert found is not None
        assert found.port == "pod1"


@pytest.mark.parametrize("family", [4, 6])
def test_without_guard_the_hostile_pod_hears_what_is_for_the_victim(family: int) -> None:
    """As on any learning switch: the attacks above are real."""
    with stage("flood", ()) as on:
        free = "10.0.0.200" if family == 4 else "fd00::c8"
        lies = [make.tagged(packet) for packet in claims(A, free)]

        def stolen() -> bool:
            on.send(lies)
            on.gets_through(PEER, VICTIM, family)
            on.listen()
            return bool(on.overheard)

        eventually(stolen, "the theft")


def test_the_macs_of_the_lab_are_those_of_the_attacks() -> None:
    with Lab(3) as lab:
        assert [pod.mac for pod in lab] == [MacAddress(mac) for mac in make.MACS]
