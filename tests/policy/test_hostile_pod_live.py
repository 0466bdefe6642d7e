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
from attacks import HOSTILE, PEER, VICTIM, attack_frames, attacks, claims
from effort import few
from fast import HANDS, need, pairs
from hostile import Net, SimulatedPod, vlan
from live import PATIENCE, Wire, eventually, wires

from fastbridge import Lab, MacAddress, Switch
from fastbridge.lab.pods import Pod

pytestmark = pytest.mark.live

SECRET = b"for one pod alone"
GUARDS = ["guard", "guard=strict", "guard,ratelimit=50,suppress"]


class Stage:
    """Three pods and a switch."""

    def __init__(self, lab: Lab, switch: Switch, ears: Wire) -> None:
        self.lab, self.switch, self.ears = lab, switch, ears
        self.pods = list(lab)
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

        def seen() -> int:
            counted = self.switch.counters().ports[port]
            return counted.rx_frames + counted.fast

        before = seen()
        for frame in frames:
            self.ears.send(frame)
        eventually(lambda: seen() >= before + len(frames), "the frames")

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
        shown = pod.run(["ip", "neigh", "show", ip, "dev", "eth0"]).stdout.split()
        return [shown[at + 1] for at, word in enumerate(shown) if word == "lladdr"]

    def forget(self) -> None:
        """The pods ask anew."""
        for pod in self.pods[VICTIM], self.pods[PEER]:
            pod.run(["ip", "neigh", "flush", "dev", "eth0"])

    def settled(self) -> bool:
        """Nobody is asked any more whether he is still there."""
        return not self.switch._policing._doubts


@contextmanager
def stage(policy: str, fast_path: str = "off") -> Iterator[Stage]:
    if fast_path != "off":
        need(fast_path)
    with (
        Lab(3) as lab,
        Switch(
            lab.ports, policy=policy, trusted="strict" in policy, loop_detection=False, fast_path=fast_path
        ) as switch,
        wires(lab) as ears,
    ):
        on = Stage(lab, switch, ears[HOSTILE])
        for family in 4, 6:
            for sender, receiver in (PEER, VICTIM), (VICTIM, PEER):
                eventually(lambda s=sender, r=receiver, f=family: on.gets_through(s, r, f), "the first words")  # type: ignore[misc]
        on.listen()
        on.overheard.clear()  # before anybody was learned
        yield on


@pytest.mark.parametrize("fast_path", few(1, ["nft", "off", "bpf"]))
@pytest.mark.parametrize("policy", few(2, GUARDS))
def test_the_victim_gets_through_and_the_hostile_pod_hears_nothing(policy: str, fast_path: str) -> None:
    with stage(policy, fast_path) as on:
        for family in 4, 6:
            for attack in attacks(family):
                on.send(attack_frames(family, attack, ()))
                on.victim_is_well(f"IPv{family}: {attack}")
        on.forget()
        on.victim_is_well("when asked anew")
        eventually(on.settled, "the end of all doubts")
        on.forget()
        on.victim_is_well("when all is over")
        found = on.switch.fdb.lookup(A)
        assert found is not None
        assert found.port == "pod1"
        fast = on.switch.counters().ports
        assert (fast["pod1"].fast > 0) == (fast["pod2"].fast > 0) == (fast_path != "off")


class TaggedStage(Net):
    """Pods that this process plays, behind the tags of a VLAN, which not every kernel has an interface for."""

    def __init__(self, switch: Switch, ears: list[Wire], family: int, vids: tuple[int, ...], *, static: bool) -> None:
        ips = IPV4 if family == 4 else IPV6
        self.switch, self.ears = switch, ears
        self.pods = [SimulatedPod(mac, ip, vids) for mac, ip in zip(make.MACS, ips, strict=True)]
        for n, pod in enumerate(self.pods):
            if static:
                switch.neighbours.add(pod.ip, pod.mac, n, vlan(vids))
            self.send(n, pod.announcement())
        eventually(lambda: all(str(n) in self.learned(vids[0]) for n in range(3)), "the announcements")

    def learned(self, vid: int) -> set[str]:
        ports = [f"pod{n + 1}" for n in range(3)]
        found = [self.switch.fdb.lookup(pod.mac, vlan=vid) for pod in self.pods]
        return {str(ports.index(entry.port)) for entry in found if entry}

    def send(self, port: int, *frames: bytes) -> None:
        for frame in frames:
            self.ears[port].send(frame)
        self.play()

    def play(self) -> None:
        """Hear what has come, and say what a pod says to it."""
        for pod, wire in zip(self.pods, self.ears, strict=True):
            wire.socket.setblocking(False)
            while True:
                try:
                    frame = wire.receive()[0]
                except BlockingIOError:
                    break
                for answer in pod.receive(frame):
                    wire.send(answer)

    def reaches(self, one: int, two: int) -> bool:
        """Whether data arrives, at last."""
        sender, receiver = self.pods[one], self.pods[two]

        def knows() -> bool:
            self.send(one, sender.question(receiver.ip))
            return receiver.ip in sender.believes

        if receiver.ip not in sender.believes:
            eventually(knows, "an answer")
        frame = sender.data(sender.believes[receiver.ip], receiver.ip)
        self.send(one, frame)

        def arrived() -> bool:
            self.play()
            return frame in receiver.heard

        eventually(arrived, f"data from {one} to {two}")
        return True


@pytest.mark.slow
@HANDS
@pytest.mark.parametrize("vids", [(5,), pytest.param((100, 7), marks=pytest.mark.slow)], ids=str)
@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("policy", GUARDS)
def test_tagged_attacks_change_nothing_for_pods_whose_frames_the_kernel_forwards(
    policy: str, family: int, vids: tuple[int, ...], hand: str
) -> None:
    """The victim and its peer talk without tags. The hostile pod plays them behind tags; none of it passes the core."""
    with stage(policy, hand) as on:
        for attack in attacks(family):
            on.send(attack_frames(family, attack, vids))
            on.victim_is_well(f"IPv{family} in VLAN {vids}: {attack}")
        eventually(on.settled, "the end of all doubts")
        on.forget()
        on.victim_is_well("when all is over")
        found = on.switch.fdb.lookup(A)
        assert found is not None and found.port == "pod1"
        eventually(lambda: {0, 1} == set(pairs(on.switch).values()), "pairs of the victim and its peer")
        ports = on.switch.counters().ports
        assert ports["pod1"].fast and ports["pod2"].fast and not ports["pod3"].fast


@pytest.mark.parametrize("fast_path", ["nft", *(pytest.param(path, marks=pytest.mark.slow) for path in ("off", "bpf"))])
@pytest.mark.parametrize("vids", few(1, [(100, 7), (5,)]), ids=str)
@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("policy", few(2, GUARDS))
def test_so_it_is_behind_tags(policy: str, family: int, vids: tuple[int, ...], fast_path: str) -> None:
    if fast_path != "off":
        need(fast_path)
    with (
        Lab(3) as lab,
        Switch(lab.ports, policy=policy, loop_detection=False, fast_path=fast_path) as switch,
        wires(lab) as ears,
    ):
        on = TaggedStage(switch, ears, family, vids, static="strict" in policy)
        assert on.reaches(PEER, VICTIM)
        assert on.reaches(VICTIM, PEER)
        frames = {attack: attack_frames(family, attack, vids) for attack in attacks(family)}  # which takes a while
        for attack in attacks(family):
            on.send(HOSTILE, *frames[attack])
            assert on.reaches(PEER, VICTIM), attack
            assert on.reaches(VICTIM, PEER), attack
        on.pods[PEER].believes.clear()

        def settled() -> bool:
            on.play()
            return not switch._policing._doubts

        eventually(settled, "the end of all doubts")
        assert on.reaches(PEER, VICTIM)
        assert on.reaches(VICTIM, PEER)
        assert on.overheard(HOSTILE) == []


@pytest.mark.parametrize("family", [4, 6])
def test_without_guard_the_hostile_pod_hears_what_is_for_the_victim(family: int) -> None:
    """As on any learning switch: the attacks above are real."""
    with stage("flood") as on:
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
