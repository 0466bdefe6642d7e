"""The receive ring: small and large frames in order, tags, losses, ports that fail; and kernels that refuse a ring."""

from __future__ import annotations

import errno
import logging
from contextlib import AbstractContextManager, suppress
from functools import partial

import pytest
from accounts import check_fates
from frames import GROUP, ethernet, tag
from gso import gso_frame
from live import (
    PATIENCE,
    Wire,
    bursts_keep_their_order,
    check_accounts,
    eventually,
    hear_each_other,
    next_own,
    seen,
    stage,
    state,
    wires,
)
from meanwhile import meanwhile
from streams import Stream

import fastbridge.switch.opening
from fastbridge import Lab, LabError, PortError, Switch, Topology
from fastbridge.core import af_packet
from fastbridge.lab.links import Links
from fastbridge.switch.ring_size import FEWEST, MOST, RING_BYTES, RING_SLOT, ring_slots, smaller_ring

X = 0x02_00_00_00_FF_01
SILENT = Topology.of(2, ipv6=None)  # without IPv6 no kernel says a word of its own
live = pytest.mark.live
pytestmark = pytest.mark.core_path


@live
def test_pods_talk() -> None:
    with stage(3) as (lab, switch):
        with Stream(lab["pod1"], lab["pod2"], 4) as stream:
            stream.exchange(megabytes=4)  # what a socket's buffer holds, however late it is read
        for family in (4, 6):
            for one, two in (("pod1", "pod2"), ("pod2", "pod3"), ("pod3", "pod1")):
                ping = partial(lab[one].ping, lab[two], count=3, interval=0.01, family=family)
                eventually(ping, "three answers")  # a neighbour solicitation at the start may go unanswered for 1 s
        total = switch.counters().total
        assert total.rx_bytes / total.rx_frames > 1514  # GSO frames were carried whole
        assert not total.dropped["truncated"]


@live
@pytest.mark.parametrize("size", [0, 60_000])
@pytest.mark.parametrize(
    "tags", [b"", tag(5, priority=2), tag(5, tpid=0x88A8), tag(100, tpid=0x88A8) + tag(7)], ids=bytes.hex
)
def test_tags_and_checksums_are_carried(tags: bytes, size: int) -> None:
    with stage(2) as (lab, _), wires(lab) as (one, two):
        if not size:
            sent = ethernet(GROUP, one.mac, tags)
            one.send(sent)
            assert next_own(two)[0] == sent
            return
        sent, header = gso_frame(GROUP, one.mac, tags, 4, size)
        one.send(sent, header)
        got, got_header = next_own(two)
        assert got == sent
        assert got_header.csum_start == header.csum_start - (4 if tags else 0)  # the socket does not count the tag
        assert (got_header.flags, got_header.gso_type, got_header.gso_size) == (1, header.gso_type, header.gso_size)


def small_and_large(burst: int, source: int) -> list[tuple[bytes, ...]]:
    """64 KB frames between small ones, some with a tag, no two alike."""
    sends = []
    for n, size in enumerate([0, 60_000, 0, 55_000, 0]):
        tags = tag(5) if (burst + n) % 3 == 0 else b""
        if size:
            sends.append(gso_frame(GROUP, source, tags, 4, size + burst))
        else:
            sends.append((ethernet(GROUP, source, tags, payload=b"fastbridge %d %d" % (burst, n)),))
    return sends


@live
def test_small_and_large_frames_keep_their_order() -> None:
    with Lab(SILENT) as lab, wires(lab) as (one, two):
        switch = Switch(lab.ports, loop_detection=False)

        def send(burst: int) -> tuple[list[bytes], bytes]:
            sends = small_and_large(burst, one.mac)
            for each in sends:
                one.send(*each)
            return [frame for frame, *_ in sends], one.mark()

        sent, mark = send(0)  # the switch does not run yet: they will be one batch
        with switch:
            for burst in range(1, 50):
                assert two.heard_before(mark) == sent
                sent, mark = send(burst)
            assert two.heard_before(mark) == sent
            check_accounts(switch)


@live
def test_long_bursts_keep_their_order() -> None:
    with stage(3) as (lab, _), wires(lab) as ends:
        hear_each_other(ends)
        bursts_keep_their_order(ends, 10, one_path=True)


@live
@pytest.mark.parametrize(("size", "count"), [(0, 10_000), (60_000, 1_500)])
def test_every_lost_frame_is_counted(size: int, count: int) -> None:
    """A switch that does not run yet lets its ring, or receive buffer, run full."""
    with Lab(SILENT) as lab, wires(lab) as (one, _):
        switch = Switch(lab.ports)
        large = gso_frame(GROUP, one.mac, b"", 4, size)
        small = ethernet(GROUP, one.mac, payload=b"fastbridge".ljust(1_400))
        for _ in range(count):
            one.send(*(large if size else (small,)))
        with switch:
            eventually(lambda: seen(switch, "pod1") >= count, "the account of every frame")
            pod1 = switch.counters().ports["pod1"]
            assert seen(switch, "pod1") == count
            assert pod1.rx_missed + pod1.dropped["truncated"] > 0
            assert pod1.flooded > 0
            assert lab["pod2"].ping("pod1", timeout=PATIENCE)
            check_accounts(switch)


@live
@pytest.mark.both_paths
def test_frames_beyond_64_kilobytes_pass_in_pieces_or_are_counted() -> None:
    """What a pod sends whose gso_max_size somebody has raised (BIG TCP).

    They leave as GSO frames that an IP header has a length for.
    """
    with stage(2) as (lab, switch), wires(lab) as (one, two):
        try:
            with Links(lab["pod1"].namespace) as links:
                links.set("eth0", gso_max_size=500_000)
        except LabError as error:
            pytest.skip(f"this kernel has none: {error}")
        passed = 0
        for size in (66_000, 100_000, 140_000) * 10:  # more than the receiver has room for would be lost there
            frame, header = gso_frame(GROUP, one.mac, b"", 6, 60_000)
            frame += bytes(n % 251 for n in range(size - len(frame)))
            one.send(frame, header)
            mark = one.mark()
            pieces = two.heard_before(mark, containing=one.mac.to_bytes(6, "big"))
            at = header.header_length
            if pieces:
                passed += 1
                assert b"".join(piece[at:] for piece in pieces) == frame[at:]
                first, *starts = [int.from_bytes(piece[58:62], "big") for piece in pieces]
                for piece, start in zip(pieces, starts, strict=False):
                    assert int.from_bytes(piece[18:20], "big") == len(piece) - 54
                    first += len(piece) - at
                    assert start == first
        pod1 = switch.counters().ports["pod1"]
        assert pod1.dropped["truncated"] == 30 - passed
        assert passed == 30
        assert (pod1.rx_missed, pod1.dropped["runt"]) == (0, 0)


@live
def test_port_goes_down_and_comes_back() -> None:
    with stage(3, ports_fail=True) as (lab, switch):
        assert lab["pod1"].ping("pod3", timeout=PATIENCE)
        lab["pod3"].port.set_down()
        eventually(lambda: state(switch, "pod3") == "down", "pod3 down")
        assert lab["pod1"].ping("pod2", count=3, timeout=PATIENCE)
        lab["pod3"].port.set_up()
        eventually(lambda: state(switch, "pod3") == "up", "pod3 up")
        eventually(lambda: lab["pod1"].ping("pod3", timeout=0.2), "pod3 answering again")


def sending(wire: Wire) -> AbstractContextManager[None]:
    """Small frames and 64 KB ones, as fast as one thread can."""
    sends = small_and_large(0, wire.mac)

    def send_all() -> None:
        for send in sends:
            with suppress(OSError):  # its port is down, or gone
                wire.send(*send)

    return meanwhile(send_all)


@live
def test_ports_come_go_and_fail_under_load() -> None:
    with Lab(3) as lab, Switch(lab.ports) as switch, wires(lab) as (one, two, _):
        with sending(one), sending(two):
            for name in ("pod1", "pod3", "pod2", "pod1") * 2:
                before = switch.counters().total.rx_frames
                switch.remove_port(name)
                switch.add_port(lab[name].port)
                eventually(lambda before=before: switch.counters().total.rx_frames > before + 100, "frames")
            lab["pod1"].port.set_down()
            eventually(lambda: state(switch, "pod1") == "down", "pod1 down")
        lab["pod1"].port.set_up()
        eventually(lambda: state(switch, "pod1") == "up", "pod1 up")
        with sending(two):
            lab["pod2"].port.delete()
            eventually(lambda: state(switch, "pod2") == "gone", "pod2 gone")
        eventually(lambda: lab["pod1"].ping("pod3", timeout=0.2), "pod3 answering")
        check_fates(switch.counters())


# -- bad input ------------------------------------------------------------------------------------


def test_rings_fill_whole_blocks_within_their_memory() -> None:
    assert FEWEST > 64  # a breath must not come round to a slot that it has taken
    before = MOST
    for ports in (0, 1, 2, 7, 64, 100, 128, 250, 1500, 65_000):
        slots = ring_slots(ports)
        assert FEWEST <= slots <= before <= MOST
        assert slots * RING_SLOT % 65_536 == 0
        assert slots == FEWEST or slots * RING_SLOT * ports <= RING_BYTES
        before = slots
    while before > FEWEST:
        before = smaller_ring(before)
    assert smaller_ring(0) == before == FEWEST


@live
def test_a_kernel_without_such_rings_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(af_packet, "TPACKET_V2", 99)
    with Lab(2) as lab, pytest.raises(PortError, match="this kernel lacks TPACKET_V2 receive rings"):
        Switch(lab.ports)


@live
def test_a_smaller_ring_where_the_kernel_has_no_memory(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    open_ring = fastbridge.switch.opening.open_ring

    def refuse(fd: int, slots: int) -> None:
        if slots > FEWEST:
            raise OSError(errno.ENOMEM, "Cannot allocate memory")
        open_ring(fd, slots)

    monkeypatch.setattr(fastbridge.switch.opening, "open_ring", refuse)
    with caplog.at_level(logging.WARNING), stage(3) as (lab, _):
        assert lab["pod1"].ping("pod2", timeout=PATIENCE)
    assert [record.message for record in caplog.records if "ring" in record.message] == [
        f"the kernel refused a larger ring: pod1 has {FEWEST} slots"
    ]


@live
@pytest.mark.parametrize(
    ("number", "text"),
    [(errno.ENOMEM, "free some memory"), (errno.EINVAL, "no; fastbridge needs AF_PACKET with TPACKET_V2")],
)
def test_no_ring_at_all(number: int, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, "no")

    monkeypatch.setattr(fastbridge.switch.opening, "open_ring", refuse)
    with Lab(2) as lab, pytest.raises(PortError, match=text):
        Switch(lab.ports)
