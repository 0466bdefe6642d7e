"""One pod is expensive to send to: the others do not notice, and it gets its frames again once it is not."""

from __future__ import annotations

import logging

import pytest
from costly import broadcasting, costly
from frames import ethernet
from live import PATIENCE, check_accounts, eventually, in_the_end, wires
from meanwhile import meanwhile

from fastbridge import Lab, Switch, Topology
from fastbridge.core.tester.traffic import Generator, Lane

pytestmark = pytest.mark.live

SOCKETS = 200


def count(switch: Switch, port: str) -> int:
    return lost(switch)[port]


def lost(switch: Switch) -> dict[str, int]:
    return {name: port.tx_dropped["costly"] for name, port in switch.counters().ports.items()}


def test_others_are_reached_beside_a_costly_pod(caplog: pytest.LogCaptureFixture) -> None:
    with Lab(Topology.of(4, ipv6=None)) as lab, Switch(lab.ports) as switch:
        one, two, honest, dear = lab
        assert one.ping(two, timeout=PATIENCE) and honest.ping(dear, timeout=PATIENCE)
        with costly(dear, SOCKETS), broadcasting(honest, 1000):
            eventually(lambda: count(switch, "pod4") > 100, "frames dropped as costly")
            eventually(lambda: len(one.ping(two, count=40, interval=0.01, timeout=3).rtts) == 40, "every answer")
            eventually(lambda: "port pod4 takes" in caplog.text, "the word of it")
        eventually(lambda: honest.ping(dear), "the way back to it")
        others = lost(switch)
        assert others.pop("pod4") > 100
        # A busy machine may make another send slow, too, for a moment.
        assert sum(others.values()) < switch.counters().ports["pod1"].tx_frames // 4
        assert {r.levelno for r in caplog.records if "costly" in r.getMessage()} == {logging.WARNING}
        with broadcasting(honest, 200):  # it is sent all there is again
            eventually(lambda: not is_short(switch), "every frame for it")
        in_the_end(check_accounts, switch)


@pytest.mark.slow
def test_costly_pods_share_the_time() -> None:
    """The one that is flooded to first does not take all."""
    with Lab(Topology.of(4, ipv6=None)) as lab, Switch(lab.ports) as switch:
        one, _, dear, too = lab
        with costly(dear, 2 * SOCKETS), costly(too, 2 * SOCKETS), broadcasting(one, 1000):
            eventually(lambda: min(count(switch, "pod3"), count(switch, "pod4")) > 100, "frames dropped as costly")
            first = sent(switch)
            eventually(lambda: min(sent_since(first, switch)) > 30, "frames for both")
            assert max(sent_since(first, switch)) < 3 * min(sent_since(first, switch))


def sent_since(before: tuple[int, ...], switch: Switch) -> tuple[int, ...]:
    """Frames for the costly pods."""
    return tuple(now - then for now, then in zip(sent(switch), before, strict=True))


def sent(switch: Switch) -> tuple[int, ...]:
    ports = switch.counters().ports
    return ports["pod3"].tx_frames, ports["pod4"].tx_frames


def is_short(switch: Switch) -> bool:
    """Whether frames are dropped as costly while 20 are sent."""
    before, sent = count(switch, "pod4"), switch.counters().ports["pod4"].tx_frames
    eventually(lambda: switch.counters().ports["pod4"].tx_frames > sent + 20, "frames for it")
    return count(switch, "pod4") > before


@pytest.mark.slow
def test_a_pod_that_is_sent_much_is_not_costly() -> None:
    """Breaths are long, so that sends are timed, and the one port takes nearly all of the time; other threads that
    interrupt sends change nothing.
    """
    with Lab(Topology.of(3, ipv6=None)) as lab, Switch(lab.ports) as switch, wires(lab) as (one, two, _):
        two.mark()
        frame = ethernet(int(lab["pod2"].mac), one.mac, payload=bytes(1400))
        generator = Generator([Lane(one.socket.fileno(), [bytes(10) + frame])])
        with meanwhile(lambda: None):
            eventually(lambda: bool(generator.send([(0.05, None, None)])) and received(switch) > 200_000, "a long run")
        assert {port.tx_dropped["costly"] for port in switch.counters().ports.values()} == {0}


def received(switch: Switch) -> int:
    return switch.counters().ports["pod1"].rx_frames
