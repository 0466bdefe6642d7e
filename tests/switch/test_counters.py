"""Counters: adding up, and leaving as plain JSON."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, fields

import pytest

from fastbridge.switch.counters import Counters, PortCounters

ONE = PortCounters(
    rx_frames=6, rx_bytes=600, forwarded=1, flooded=1, consumed=1, dropped={"runt": 2, "filtered": 1}, rx_missed=4
)
TWO = PortCounters(rx_frames=1, rx_bytes=60, dropped={"runt": 1}, tx_frames=2, tx_bytes=160, tx_dropped={"full": 3})


def test_sum() -> None:
    total = ONE + TWO
    assert total == PortCounters(
        rx_frames=7,
        rx_bytes=660,
        forwarded=1,
        flooded=1,
        consumed=1,
        dropped={"runt": 3, "filtered": 1},
        rx_missed=4,
        tx_frames=2,
        tx_bytes=160,
        tx_dropped={"full": 3},
    )
    assert total == TWO + ONE
    assert sum([ONE, TWO], PortCounters()) == total
    assert dict(ONE.dropped) == {"runt": 2, "filtered": 1}  # adding changes neither


def test_every_counter_starts_at_nothing() -> None:
    assert ONE + PortCounters() == ONE
    assert not any(PortCounters().as_dict().values())


def test_snapshots_do_not_change() -> None:
    with pytest.raises(FrozenInstanceError):
        ONE.rx_frames = 7  # type: ignore[misc]


def test_as_dict_is_plain_json_and_complete() -> None:
    counters = Counters(ports={"pod1": ONE, "pod2": TWO}, total=ONE + TWO, learned=3, moved=2, aged=1, refused=4)
    plain = json.loads(json.dumps(counters.as_dict()))
    assert set(plain) == {field.name for field in fields(Counters)}
    assert set(plain["ports"]) == {"pod1", "pod2"}
    assert set(plain["total"]) == {field.name for field in fields(PortCounters)}
    assert PortCounters(**plain["ports"]["pod1"]) == ONE
    assert PortCounters(**plain["total"]) == ONE + TWO
    assert [plain[name] for name in ("learned", "moved", "aged", "refused")] == [3, 2, 1, 4]


def test_a_table_has_what_policies_took_where_they_took_any() -> None:
    table = str(Counters(ports={"pod1": ONE, "pod2": TWO}, total=ONE + TWO))
    assert table.splitlines()[0].split()[:6] == ["port", "received", "forwarded", "flooded", "consumed", "dropped"]
    assert table.splitlines()[1].split()[:6] == ["pod1", "6", "1", "1", "1", "3"]
    assert "consumed" not in str(Counters(ports={"pod2": TWO}, total=TWO))


def test_a_table_counts_what_the_kernel_forwards_too() -> None:
    port = PortCounters(rx_frames=2, forwarded=1, flooded=1, tx_frames=1, fast=10, fast_sent=20)
    assert port.cells == ("12", "11", "1", "0", "21", "0")
    assert str(port).endswith("; forwarded by the kernel: 10")
