"""Workers, at the same time: what one thread would do, whatever the threads do meanwhile.

The stress tests need no privileges: each thread replays frames as another worker of one data plane, without the GIL, so
that they really run at the same time. CI runs them under ASan and ThreadSanitizer, too.
"""

import contextlib
import gc
import os
import socket
import threading
from collections.abc import Callable
from functools import partial

import live
import numpy as np
import pytest
from exported import exported
from frames import ethernet
from meanwhile import meanwhile

from fastbridge import ConfigError, PortFlags, Switch
from fastbridge.core.dataplane import Dataplane
from fastbridge.core.fdb import FdbAccess
from fastbridge.core.mac_table import MacTable
from fastbridge.core.memory_ports import MemoryPorts
from fastbridge.core.port_rules import PortRules
from fastbridge.core.queues import Queues
from fastbridge.core.tapping import Tap

WORKERS = 4  # threads, also where there are fewer CPUs: then the kernel interrupts them where it likes
OPEN = PortFlags().names  # learns, and is flooded to
LOCAL = 0x02 << 40


def mac(number: int) -> bytes:
    return (LOCAL | number).to_bytes(6, "big")


def frame(destination: int, source: int) -> bytes:
    return (mac(destination) + mac(source) + b"\x88\xb5").ljust(60, b"\0")


def make_dataplane(ports: int, capacity: int = 1 << 20, ageing: int | None = None) -> Dataplane:
    dataplane = Dataplane(MacTable(capacity, ageing), workers=WORKERS)
    for _ in range(ports):
        index = dataplane.add_port()
        PortRules(dataplane).set_flags(index, OPEN)
        dataplane.set_blocked(index, False)
    return dataplane


def at_once(*jobs: Callable[[], None]) -> None:
    """Run each in a thread of its own, begun together; raise what any of them raised."""
    barrier, errors = threading.Barrier(len(jobs)), []

    def go(job: Callable[[], None]) -> None:
        barrier.wait()
        try:
            job()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=go, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for error in errors:
        raise error


def total(dataplane: Dataplane) -> tuple[int, ...]:
    """rx, forwarded + flooded + consumed + dropped, and copies sent or dropped, over all ports."""
    tallies = dataplane.snapshot()[0].values()
    rx = sum(each["rx_frames"] for each in tallies)
    ways = "forwarded", "flooded", "consumed"
    decided = sum(sum(each[way] for way in ways) + sum(each["dropped"].values()) for each in tallies)
    sent = sum(each["tx_frames"] + sum(each["tx_dropped"].values()) for each in tallies)
    return rx, decided, sent


def test_counters_and_queues_are_read_while_ports_come() -> None:
    """ThreadSanitizer is the judge: both ask how many ports there are before they hold a lock."""
    dataplane = make_dataplane(0)
    queues = Queues(dataplane)

    def come() -> None:
        for _ in range(100):
            dataplane.add_port()

    def look() -> None:
        ports = 0
        for _ in range(300):
            before, ports = ports, len(dataplane.snapshot()[0])
            assert before <= ports <= len(queues.waiting()[0])

    at_once(come, come, look, look)
    assert len(dataplane.snapshot()[0]) == len(queues.waiting()[0]) == 200


def test_the_same_stations_learned_and_moved_by_all_workers() -> None:
    dataplane = make_dataplane(WORKERS)
    stations, rounds = 200, 300
    batch = [frame((i + 1) % stations, i) for i in range(stations)]

    def worker(number: int) -> None:
        for _ in range(rounds):
            MemoryPorts(dataplane).replay(number, batch, 1, 1, number)

    at_once(*(lambda n=n: worker(n) for n in range(WORKERS)))
    rx, decided, _ = total(dataplane)
    assert rx == decided == WORKERS * rounds * stations
    _, (learned, moved, aged, evicted, refused) = dataplane.snapshot()
    assert (learned, aged, evicted, refused) == (stations, 0, 0, 0)
    assert moved >= stations  # each was heard from every port
    rows = exported(FdbAccess(dataplane))
    assert sorted(rows["mac"]) == [LOCAL | i for i in range(stations)]  # each once
    # The table's own count agrees with what is in it: a port's entries are found and removed to the last.
    assert sum(FdbAccess(dataplane).flush(port) for port in range(WORKERS)) == stations
    assert len(exported(FdbAccess(dataplane))) == 0


def test_known_stations_are_never_missed_while_others_make_the_table_grow() -> None:
    """A look-up that misses an entry being carried over would flood a frame that has one destination."""
    dataplane = make_dataplane(WORKERS)
    known, new = 256, 60_000
    for i in range(known):
        FdbAccess(dataplane).add(LOCAL | i, 0, i % 2)
    ours = [frame(i, 1 << 30) for i in range(1, known, 2)]  # from port 0, to what is behind port 1
    replayed = 0

    def grow(number: int) -> None:
        first = number * new + 1000
        for start in range(first, first + new, 200):
            MemoryPorts(dataplane).replay(number, [frame(0, i) for i in range(start, start + 200)], 1, 1, number)

    def look() -> None:
        nonlocal replayed
        MemoryPorts(dataplane).replay(0, ours, 1, 20, 0)
        replayed += 20

    with meanwhile(look):
        at_once(*(lambda n=n: grow(n) for n in range(1, WORKERS)))
    counts = dataplane.snapshot()[0][0]
    assert counts["rx_frames"] == counts["forwarded"] == replayed * len(ours) > 0
    assert counts["flooded"] == 0
    assert len(exported(FdbAccess(dataplane))) == known + 1 + (WORKERS - 1) * new
    first, second, third = total(dataplane)
    assert first == second <= third  # (to port 0, some are filtered; all others leave)


def test_slots_used_again_never_show_another_stations_port() -> None:
    """Stations 2i are always behind port 1, others come and go in the same buckets behind port 2."""
    dataplane = make_dataplane(3)
    stations, rounds = 400, 150
    fixed = np.array([LOCAL | 2 * i for i in range(stations)], np.uint64)
    other = np.array([LOCAL | (2 * i + 1) for i in range(8 * stations)], np.uint64)
    FdbAccess(dataplane).learn_many(fixed, np.full(stations, 1, np.uint16), 1)
    seen: set[int] = set()

    def come_and_go() -> None:
        for _ in range(rounds):
            FdbAccess(dataplane).learn_many(other, np.full(len(other), 2, np.uint16), 1)
            FdbAccess(dataplane).flush(2)

    def read() -> None:
        seen.update(FdbAccess(dataplane).lookup_many(fixed, 1).tolist())

    with meanwhile(read), meanwhile(read):
        come_and_go()
    assert seen == {1}


def test_ports_come_and_go_while_all_workers_forward() -> None:
    dataplane = make_dataplane(2)
    rounds, batch = 400, [frame(i + 1, i) for i in range(64)]
    gone: list[int] = []

    def change() -> None:
        index = dataplane.add_port()
        PortRules(dataplane).set_flags(index, OPEN)
        dataplane.set_blocked(index, False)
        FdbAccess(dataplane).add(LOCAL | 1, 0, index)
        counts = dataplane.remove_port(index)
        gone.append(counts["tx_frames"] + sum(counts["tx_dropped"].values()))

    with meanwhile(change):
        at_once(
            *(
                lambda n=n: [MemoryPorts(dataplane).replay(n % 2, batch, 1, 1, n) for _ in range(rounds)]  # type: ignore[misc]
                for n in range(WORKERS)
            )
        )
        live.eventually(lambda: len(gone) > 1)
    rx, decided, _ = total(dataplane)
    assert rx == decided == WORKERS * rounds * len(batch)
    assert set(exported(FdbAccess(dataplane))["port"]) <= {0, 1}  # nothing points to a port that is gone


def test_an_index_is_given_away_only_when_nothing_points_to_it() -> None:
    dataplane = make_dataplane(2)
    stations = np.arange(LOCAL, LOCAL + 500_000, dtype=np.uint64)
    index = dataplane.add_port()
    for now in range(5):
        FdbAccess(dataplane).learn_many(stations, np.full(len(stations), index, np.uint16), now)
        removal = threading.Thread(target=dataplane.remove_port, args=[index])
        removal.start()
        while (taken := dataplane.add_port()) != index:
            dataplane.remove_port(taken)
        assert index not in FdbAccess(dataplane).lookup_many(stations[::1000].copy(), now)
        removal.join()


def test_a_storm_limit_holds_for_all_workers_together() -> None:
    dataplane = make_dataplane(2)
    PortRules(dataplane).set_storm_control(0, "broadcast", 100.0, 50.0)
    broadcasts = [(b"\xff" * 6 + mac(i) + b"\x88\xb5").ljust(60, b"\0") for i in range(64)]
    at_once(*(lambda n=n: MemoryPorts(dataplane).replay(0, broadcasts, 5000, 10, n) for n in range(WORKERS)))
    counts = dataplane.snapshot()[0][0]
    assert (counts["rx_frames"], counts["flooded"]) == (WORKERS * 640, 50)  # no time has passed: the burst, and no more


def test_what_ages_is_forgotten_once() -> None:
    dataplane = make_dataplane(WORKERS, ageing=10)
    batch = [frame(i + 1, i) for i in range(100)]

    def worker(number: int) -> None:
        for now in range(0, 2000, 20):
            MemoryPorts(dataplane).replay(0, batch, now, 1, number)
            FdbAccess(dataplane).age(now)

    at_once(*(lambda n=n: worker(n) for n in range(WORKERS)))
    _, (learned, _, aged, _, _) = dataplane.snapshot()
    assert learned - aged == len(exported(FdbAccess(dataplane)))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"workers": 0}, "workers must be 1 … "),
        ({"workers": 4096}, "workers must be 1 … "),
        ({"fanout": True}, "add workers=2 or more"),
        ({"cpu": [0, 0, 0]}, "one CPU for each worker, 1 in all, not 0, 0, 0"),
        ({"cpu": 4096}, "CPU 4096 is not one this process may run on"),
    ],
)
def test_what_makes_no_sense_is_said(options: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Switch([], **options)  # type: ignore[arg-type]


two_cpus = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="two workers need two CPUs")


def costly(switch: Switch, port: str) -> int:
    """Copies that were not sent because a busy machine took too long for others."""
    return switch.counters().ports[port].tx_dropped["costly"]


@pytest.mark.live
@pytest.mark.core_path
@two_cpus
@pytest.mark.parametrize("fanout", [False, True])
def test_two_workers_deliver_every_frame_in_order_from_all_ports_at_once(fanout: bool) -> None:
    cpus = sorted(os.sched_getaffinity(0))[:2]
    rounds, count = 40, 20  # no more on their way at a time than the taker's receive buffer holds
    with live.stage(4, workers=2, fanout=fanout, cpu=cpus) as (lab, switch), live.wires(lab) as wires:
        live.hear_each_other(wires)
        *senders, taker = wires
        heard: dict[bytes, list[int]] = {wire.mac.to_bytes(6, "big"): [] for wire in senders}

        def send(wire: live.Wire, first: int) -> None:
            for number in range(first, first + count):
                wire.send(ethernet(taker.mac, wire.mac, payload=b"fastbridge %d " % number))

        def came(sent: int) -> bool:
            with contextlib.suppress(TimeoutError):
                while sum(map(len, heard.values())) < sent:
                    frame, _ = taker.receive()
                    if b"fastbridge" in frame and live.MARK not in frame:
                        heard[frame[6:12]].append(int(frame.split(b"fastbridge ")[1].split()[0]))
            return sum(map(len, heard.values())) + costly(switch, lab.ports[3].name) >= sent

        taker.socket.settimeout(0.2)
        for turn in range(rounds):
            at_once(*(lambda wire=wire, first=turn * count: send(wire, first) for wire in senders))
            live.eventually(partial(came, (turn + 1) * count * len(senders)), "what was sent")
        assert all(numbers == sorted(set(numbers)) for numbers in heard.values())
        assert switch.counters().total.rx_missed == 0


@pytest.mark.live
@pytest.mark.core_path
@two_cpus
def test_with_fanout_each_flow_stays_in_order() -> None:
    flows, count = 16, 200
    cpus = sorted(os.sched_getaffinity(0))[:2]
    with live.stage(2, workers=2, fanout=True, cpu=cpus) as (lab, switch), live.on_one_cpu():
        one, two = lab.pods
        groups = {sock.getsockopt(263, 18) for sock in switch._members[0].sockets[:-1]}
        assert len(groups) == 1  # one group, by hash, and no DEFRAG
        assert not groups.pop() >> 16 & 0x80FF
        assert one.ping(two.name, timeout=live.PATIENCE).received
        with two.socket(socket.AF_INET, socket.SOCK_DGRAM) as taker:
            taker.bind(("", 0))
            taker.settimeout(0.2)
            senders = [one.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(flows)]
            try:
                heard: dict[int, list[int]] = {}

                def came(sent: int) -> bool:
                    with contextlib.suppress(TimeoutError):
                        while sum(map(len, heard.values())) < sent:
                            data, (_, port) = taker.recvfrom(64)
                            heard.setdefault(port, []).append(int(data))
                    return sum(map(len, heard.values())) + costly(switch, lab.ports[1].name) >= sent

                for start in range(0, count, 8):  # no more on its way than the receiver's buffer holds
                    for number in range(start, start + 8):
                        for sender in senders:
                            sender.sendto(b"%d" % number, (str(two.ipv4.ip), taker.getsockname()[1]))
                    live.eventually(partial(came, (start + 8) * flows), "what was sent")
            finally:
                for sender in senders:
                    sender.close()
        assert all(numbers == sorted(set(numbers)) for numbers in heard.values())
        assert len(heard) == flows


@pytest.mark.live
@two_cpus
def test_a_link_that_one_worker_finds_lost_is_lost_for_all() -> None:
    with live.stage(4, workers=2, ports_fail=True) as (lab, switch):
        name = lab.ports[2].name
        lab.ports[2].set_down()
        live.eventually(lambda: {p.name: p.state for p in switch.ports}[name] == "down", "down")
        lab.ports[2].set_up()
        live.eventually(lambda: {p.name: p.state for p in switch.ports}[name] == "up", "up")
        first, *_, last = lab
        assert first.ping(last.name, timeout=live.PATIENCE).received


@pytest.mark.parametrize("options", [{"workers": 0}, {"workers": 1 << 20}, {"unknown": 1}])
def test_a_data_plane_that_cannot_be_made_closes_nobodys_files(options: dict[str, int]) -> None:
    gc.collect()  # what earlier tests have left closes its files now, and not between the two looks
    before = sorted(os.listdir("/proc/self/fd"))  # noqa: PTH208 - its own entry comes and goes
    with pytest.raises((ValueError, TypeError)):
        Dataplane(MacTable(16, None), **options)  # type: ignore[arg-type]
    assert sorted(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_a_trace_of_several_workers_is_in_order_of_time() -> None:
    dataplane = make_dataplane(2)
    tap = Tap(dataplane, snap=64, room=1 << 20)
    tap.start()
    at_once(
        *(lambda n=n: MemoryPorts(dataplane).replay(n % 2, [frame(1, 2 + n)] * 16, 1, 4, n) for n in range(WORKERS))
    )
    records = tap.read()
    tap.stop()
    assert (len(records), tap.counts) == (WORKERS * 64, (WORKERS * 64, 0))
    assert [record[0] for record in records] == sorted(record[0] for record in records)
