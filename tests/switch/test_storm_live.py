"""One pod storms: the others do not notice, and it is heard again once it is done."""

from __future__ import annotations

import contextlib
import time
from contextlib import AbstractContextManager

import arp_nd_frames as make
import pytest
from accounts import check_fates
from frames import ethernet
from live import Wire, check_accounts, eventually, in_the_end, wires
from meanwhile import meanwhile

from fastbridge import Lab, MacAddress, StormControl, Switch, Topology
from fastbridge.core.tester.traffic import Generator, Lane

pytestmark = pytest.mark.live

REPLY = b"\0\2"


def arp(wire: Wire, ip: str, target: str) -> bytes:
    return bytes(make.arp(1, str(MacAddress(wire.mac)), ip, target))


def storm(wire: Wire, frames: list[bytes]) -> AbstractContextManager[None]:
    """Sends as fast as it can, from another thread, for as long as the block lasts."""
    generator = Generator([Lane(wire.socket.fileno(), [bytes(10) + frame for frame in frames])])
    return meanwhile(lambda: generator.send([(0.01, None, None)]))


def ask(wire: Wire, ip: str, target: str) -> None:
    """Ask until the answer is there: the first may find the socket full of what was flooded before."""
    owner = bytes(map(int, target.split(".")))

    def answered() -> bool:
        wire.send(arp(wire, ip, target))
        deadline = time.monotonic() + 0.5
        with contextlib.suppress(TimeoutError):
            while time.monotonic() < deadline:
                frame = wire.receive()[0]
                if frame[12:14] == b"\x08\x06" and frame[20:22] == REPLY and frame[28:32] == owner:
                    return True
        return False

    wire.socket.settimeout(0.5)
    eventually(answered, f"an answer of {target}")


def reach(sender: Wire, hearer: Wire) -> None:
    """Send until it is heard: a ring that a storm has filled takes no more."""

    def heard() -> bool:
        sender.send(private := ethernet(hearer.mac, sender.mac, payload=b"private %d" % next(Wire.numbers)))
        deadline = time.monotonic() + 0.5
        with contextlib.suppress(TimeoutError):
            while time.monotonic() < deadline:
                if hearer.receive()[0] == private:
                    return True
        return False

    hearer.socket.settimeout(0.5)
    eventually(heard, "a frame of the storming pod")


@pytest.mark.parametrize("policy", ["guard,ratelimit=20,suppress", "ratelimit=1000,direct", "guard,suppress", "flood"])
def test_questions_are_answered_while_a_pod_storms(policy: str) -> None:
    with Lab(Topology.of(4, ipv6=None)) as lab, Switch(lab.ports, policy=policy) as switch, wires(lab) as ends:
        one, _, three, four = ends
        if policy == "flood":
            switch.set_storm_control(StormControl(broadcast=20), "pod1")
        questions = [arp(one, "10.9.0.1", f"10.0.0.{2 + n % 3}") for n in range(64)]
        with storm(one, questions):
            eventually(lambda: sum(switch.counters().ports["pod1"].dropped.values()) > 1_000, "a storm cut off")
            for _ in range(10):
                ask(three, "10.9.0.3", "10.0.0.2")
                ask(four, "10.9.0.4", "10.0.0.3")
        check_fates(switch.counters())


def test_a_pod_is_heard_again_after_its_storm() -> None:
    with Lab(Topology.of(3, ipv6=None)) as lab, Switch(lab.ports) as switch, wires(lab) as (one, two, three):
        switch.set_storm_control(StormControl(broadcast=20), "pod1")
        two.mark()
        three.heard_before(two.mark())
        with storm(one, [ethernet(0xFFFF_FFFF_FFFF, one.mac, payload=b"storm")]):
            eventually(lambda: switch.counters().ports["pod1"].dropped["storm_broadcast"] > 1_000, "a storm cut off")
            for _ in range(10):
                reach(one, two)
        reach(one, two)
        in_the_end(check_accounts, switch)
