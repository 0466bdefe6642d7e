"""The fast path under traffic: TCP by hash while pairs come and go, and every frame accounted for."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from accounts import check_fates
from fast import HANDS, fast, forwarded, know_each_other, need, pairs
from frames import GROUP, ethernet
from live import Wire, eventually, heard_by_a_mark, in_the_end, next_own, settled, state, wires
from streams import Stream

from fastbridge import Lab, Switch, Topology
from fastbridge.switch.fast_path.lane import FastLane, Stats

pytestmark = pytest.mark.live

X = 0x02_00_00_00_FF_01
SO_RCVBUFFORCE = 33


@contextmanager
def meanwhile(action: Callable[[], Any], pause: float = 0.0) -> Iterator[list[int]]:
    """Do something again and again on a thread; its count so far is the list's one item."""
    done, ended, failed = [0], threading.Event(), list[BaseException]()

    def work() -> None:
        try:
            while not ended.is_set():
                action()
                done[0] += 1
                time.sleep(pause)
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield done
    finally:
        ended.set()
        thread.join()
    if failed:
        raise failed[0]


def exchange(lab: Lab, megabytes: int = 60) -> None:
    with Stream(lab["pod1"], lab["pod2"], 4) as stream:
        stream.exchange(megabytes)


@pytest.mark.parametrize("change", ["flush", "flags", "moves"])
@HANDS
def test_tcp_while_its_pairs_are_revoked_and_promoted(hand: str, change: str) -> None:
    with fast(hand) as (lab, switch), wires(lab) as (_, two, three):
        hello = ethernet(GROUP, int(lab["pod2"].mac), payload=b"fastbridge")
        changes = {
            "flush": switch.fdb.flush,
            "flags": lambda: switch.set_flags("pod2", isolated=not switch.flags("pod2").isolated),
            "moves": lambda: (three.send(hello), time.sleep(0.001), two.send(hello)),  # away, and back
        }

        def back() -> bool:
            """Of two ports read late, the move back may have come before the move away."""
            two.send(hello)
            entry = switch.fdb.lookup(lab["pod2"].mac)
            return entry is not None and entry.port == "pod2"

        know_each_other(lab, switch)
        assert switch._fast.lane is not None and switch._fast.lane.head is not None
        before = switch._fast.lane.head.revoked
        with meanwhile(changes[change], pause=0.02) as done:
            exchange(lab)
        assert done[0] > 0 and switch._fast.lane.head.revoked > before
        heard_by_a_mark(three, two)  # the last of port 3
        eventually(back, "the station to be back")
        settled(switch)
        know_each_other(lab, switch)


@HANDS
def test_tcp_beside_a_station_that_moves_all_the_time(hand: str) -> None:
    """Another one, a thousand times a second; somebody talks to it, so that it is promoted and revoked, too."""
    with fast(hand, 4) as (lab, switch), wires(lab) as (one, _, three, four):
        know_each_other(lab, switch)

        def move() -> None:
            for wire in (three, four):
                wire.send(ethernet(one.mac, X))
                one.send(ethernet(X, one.mac))
                time.sleep(0.001)

        one.mark()
        with meanwhile(move) as done:
            exchange(lab, 100)
            # Of frames that wait in two rings, one ring's come first: it may move less often than it speaks.
            eventually(lambda: exchange(lab, 1) or done[0] > 100 < switch.counters().moved, "a hundred moves")
        last_move, hello = ethernet(GROUP, X), ethernet(X, one.mac, payload=b"fastbridge at last")
        with wires(lab) as (_, _, third, fourth):  # the others' buffers are full

            def reached() -> bool:
                """Of two ports read late, the move away may come after the move back."""
                four.send(last_move)
                settled(switch)
                one.send(hello)
                heard = heard_by_a_mark(one, fourth), [f for f in heard_by_a_mark(one, third) if f != last_move]
                return heard == ([hello], [])

            eventually(reached, "a frame at the port of the last move, and there alone")


def accounts(lab: Lab, switch: Switch) -> dict[str, tuple[int, int]]:
    """Of each port: frames that its pod sent, and those that the switch says came in."""
    said = {}
    counters = switch.counters()
    for name, port in counters.ports.items():
        said[name] = lab[name].port.counters().rx_frames, port.rx_frames + port.fast + port.rx_missed
    return said


def check_what_left(lab: Lab, switch: Switch) -> None:
    """What the ports' interfaces were given to send has arrived or was lost there, and the switch says so.

    A loss within the core's send is told at once, as `no_buffer`; where sendmmsg hides it, the core tries once more.
    """
    given = sum(pod.counters().rx_frames + pod.port.counters().tx_dropped for pod in lab)
    told_at_once = sum(tally["shed"] for tally in switch._dataplane.snapshot()[0].values())
    total = switch.counters().total
    assert given == total.tx_frames + total.fast_sent + total.tx_dropped["device"] + told_at_once


def sender(wire: Wire, frame: bytes) -> Callable[[], None]:
    """Sends bursts."""

    def burst() -> None:
        for _ in range(50):
            wire.send(frame)

    return burst


@HANDS
def test_every_frame_is_counted_while_pairs_come_and_go(hand: str) -> None:
    """What each pod sent came in, and what came in went out: by pod 2's kernel, too."""
    with fast(hand) as (lab, switch), wires(lab) as (one, two, three):
        for wire in (one, two, three):
            wire.mark()
        frames = {wire: ethernet(other.mac, wire.mac) for wire, other in ((one, two), (two, one), (three, two))}
        with (
            meanwhile(sender(one, frames[one])),
            meanwhile(sender(two, frames[two])),
            meanwhile(sender(three, frames[three])),
        ):
            last = rounds = 0
            while rounds < 30 or (not last and rounds < 3000):  # a promotion takes a while beside other work
                rounds += 1
                time.sleep(0.02)
                switch.fdb.flush(0)
                fast_now = switch.counters().ports["pod1"].fast
                assert fast_now >= last  # a count never shrinks
                last = fast_now
        eventually(lambda: all(a == b for a, b in accounts(lab, switch).values()), str(accounts(lab, switch)))
        total = switch.counters().total
        assert total.fast > 0 and total.forwarded > 0
        in_the_end(check_what_left, lab, switch)


@HANDS
def test_frames_that_come_while_a_port_begins_are_counted(hand: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are handed to the core, whatever the interfaces counted when their counts were read."""
    need(hand)
    read, readings = FastLane._stats, [0]
    with Lab(Topology.of(3, ipv6=None)) as lab, wires(lab) as (one, _, _):

        def read_under_traffic(lane: FastLane, ifindex: int = 0) -> Stats:
            readings[0] += 1
            if readings[0] in range(2, 5):
                one.mark()
            return read(lane, ifindex)

        monkeypatch.setattr(FastLane, "_stats", read_under_traffic)
        with Switch(lab.ports, fast_path=hand) as switch:
            monkeypatch.undo()
            assert readings[0] > 5  # as long as frames came
            know_each_other(lab, switch)
            assert lab["pod1"].ping("pod2", count=10, interval=0.01, timeout=60)
            eventually(lambda: all(a == b for a, b in accounts(lab, switch).values()), str(accounts(lab, switch)))


@HANDS
def test_what_a_switch_before_sent_is_its_own(hand: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to its end, which the new one waits for."""
    need(hand)
    with Lab(Topology.of(3, ipv6=None)) as lab, wires(lab) as (one, _, _):

        def send_and_end(_: object) -> None:
            with lab.ports[0].open_socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as before:
                before.bind(("pod1", 0))
                before.send(ethernet(one.mac, X, payload=b"fastbridge before"))
            assert next_own(one)[0].endswith(b"before")

        monkeypatch.setattr("fastbridge.switch.live.take_over", send_and_end)
        with Switch(lab.ports, fast_path=hand, take_over=True) as switch:
            assert switch.counters().ports["pod1"].fast_sent == 0


@HANDS
def test_ports_without_a_fast_pair_never_count_one(hand: str) -> None:
    """Whatever comes in while it is counted: no frame of a flood is taken for one that the kernel forwarded."""
    with fast(hand) as (lab, switch), wires(lab) as (one, _, _), meanwhile(sender(one, ethernet(X, one.mac))) as done:
        eventually(lambda: done[0] > 20)
        for _ in range(100):
            assert switch.counters().total.fast == 0


@HANDS
def test_a_pair_that_is_silent_counts_nothing(hand: str) -> None:
    """A flood comes in by the same port."""
    with fast(hand) as (lab, switch), wires(lab) as (one, two, _):
        two.mark()
        eventually(lambda: one.send(ethernet(two.mac, one.mac)) or (two.arrived() and pairs(switch)), "a pair")
        two.heard_before(one.mark())
        before = forwarded(switch, "pod1")
        with meanwhile(sender(one, ethernet(X, one.mac))) as done:
            eventually(lambda: done[0] > 20)
            for _ in range(100):
                switch.counters()
        assert forwarded(switch, "pod1") == before


@pytest.mark.parametrize("what", ["pod end", "host end", "port"])
@HANDS
def test_every_frame_is_counted_while_the_receiver_flaps(hand: str, what: str) -> None:
    """What came in went somewhere: to a pod, as its kernel counts, or it was lost in an interface, as that counts."""
    need(hand)
    with (
        Lab(Topology.of(3, ipv6=None)) as lab,
        Switch(lab.ports, fast_path=hand, loop_detection=False) as switch,
        wires(lab) as (one, two, _),
    ):
        end = lab["pod2"] if what == "pod end" else lab["pod2"].port

        def promoted() -> bool:
            two.mark()
            return any(pair.destination == two.mac for pair in pairs(switch))

        with meanwhile(sender(one, ethernet(two.mac, one.mac))):
            for _ in range(5):
                eventually(promoted, "a pair to pod 2")
                if what == "port":
                    switch.remove_port("pod2")
                    switch.add_port(lab["pod2"].port)
                else:
                    end.set_down()
                    eventually(lambda: state(switch, "pod2") == "down", "pod2 down")
                    end.set_up()
                    eventually(lambda: state(switch, "pod2") == "up", "pod2 up")
                    two.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)  # reading clears it
        eventually(lambda: accounts(lab, switch)["pod1"][0] == accounts(lab, switch)["pod1"][1], "pod 1's account")
        assert switch.counters().total.fast > 0
        check_fates(switch.counters())
        in_the_end(check_what_left, lab, switch)


def costly(switch: Switch) -> int:
    return switch.counters().ports["pod2"].tx_dropped["costly"]


@HANDS
def test_at_its_promotion_a_pair_is_overtaken_once_at_most(hand: str) -> None:
    """Those that wait for the core, by those that the kernel forwards; among each, frames stay in order."""
    burst = 1_000
    with fast(hand) as (lab, switch), wires(lab) as (one, two, _):
        try:
            two.socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 8 << 20)
        except PermissionError:  # not for an ordinary user, and the usual buffer has room for so many
            burst = 200
        for source in range(X, X + 1000):
            if source >= X + 20 and switch.counters().total.fast:
                break
            two.mark()
            one.send(ethernet(GROUP, source))
            heard_by_a_mark(one, two)
            lost = costly(switch)
            frames = [ethernet(two.mac, source, payload=b"fastbridge%4d" % n) for n in range(burst)]
            one.send_in_order(frames)
            came = [int(frame[-4:]) for frame in heard_by_a_mark(one, two)]
            assert burst - len(set(came)) <= costly(switch) - lost
            first_fast = min((n for at, n in enumerate(came) if min(came[at:]) < n), default=0)
            late = [n for n in came if n >= first_fast], [n for n in came if n < first_fast]
            assert all(part == sorted(set(part)) for part in late)
        assert switch.counters().total.fast > 0
