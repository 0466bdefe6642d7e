"""The kernel's fast path: what it takes to promote pairs of stations, and to revoke them.

One at a time, as when two pods begin to talk, and many at once, as when a port with many stations goes down. What the
path then forwards is in test_speed_live.py, by the engine fastbridge/nft.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from fastbridge import Lab, PrivilegeError, Switch, Topology
from fastbridge.switch.fast_path.hand import Hand, Pair

pytestmark = [pytest.mark.live, pytest.mark.benchmark(group="fast path: pairs of stations")]

IPV4 = 0x0800
ROUNDS = 10
AMOUNTS = pytest.mark.parametrize("amount", [1, 32, 10_000], ids="{} at once".format)


@pytest.fixture(scope="module", params=["nft", "bpf"])
def hand(request: pytest.FixtureRequest) -> Iterator[Hand]:
    """Of a switch with two ports that has nothing to do."""
    try:
        lab = Lab(Topology.of(2, ipv6=None))
    except PrivilegeError as error:
        pytest.skip(str(error))
    with lab, Switch(lab.ports, fast_path=request.param) as switch:
        if switch._lane is None or switch._lane.hand.name != request.param:
            pytest.skip(f"no fast path by {request.param} here: see the log")
        head = switch._lane.head
        assert head is not None
        with head._lock:  # a hand does one thing at a time
            promote_and_revoke(head.hand, pairs(1))  # the first of a port attaches a program to it
            yield head.hand


def pairs(amount: int, first: int = 0) -> dict[Pair, int]:
    return {Pair(0, 0x02_01_00_00_00_00 + n, 0x02_02_00_00_00_00 + n, IPV4): 1 for n in range(first, first + amount)}


def promote_and_revoke(hand: Hand, promoted: dict[Pair, int]) -> None:
    hand.promote(promoted)
    hand.revoke(promoted)


def note(benchmark: Any, what: str, each: int) -> None:
    if benchmark.stats:
        benchmark.extra_info.update(what=what, ns=1e9 * benchmark.stats.stats.median / each)


@AMOUNTS
def test_promote(benchmark: Any, hand: Hand, amount: int) -> None:
    calls = max(1, 100 // amount)
    numbers = iter(range(1 << 30))
    done: list[dict[Pair, int]] = []

    def setup() -> tuple[tuple[list[dict[Pair, int]]], dict[str, Any]]:
        while done:
            hand.revoke(done.pop())
        fresh = [pairs(amount, next(numbers) * amount) for _ in range(calls)]
        done.extend(fresh)
        return (fresh,), {}

    def promote(fresh: list[dict[Pair, int]]) -> None:
        for each in fresh:
            hand.promote(each)

    benchmark.pedantic(promote, setup=setup, rounds=ROUNDS, warmup_rounds=1)
    while done:
        hand.revoke(done.pop())
    note(benchmark, "pair promoted", amount * calls)


@AMOUNTS
def test_revoke(benchmark: Any, hand: Hand, amount: int) -> None:
    calls = max(1, 100 // amount)
    several = [pairs(amount, n * amount) for n in range(calls)]

    def setup() -> None:
        for each in several:
            hand.promote(each)

    def revoke() -> None:
        for each in several:
            hand.revoke(each)

    benchmark.pedantic(revoke, setup=setup, rounds=ROUNDS, warmup_rounds=1)
    note(benchmark, "pair revoked", amount * calls)


@pytest.mark.parametrize("amount", [10_000], ids="{} promoted".format)
def test_ask_which_were_used(benchmark: Any, hand: Hand, amount: int) -> None:
    """Once a second, of all pairs: what ageing goes by."""
    several = pairs(amount)
    hand.promote(several)
    benchmark.pedantic(hand.idle, rounds=ROUNDS, warmup_rounds=1)
    hand.revoke(several)
    note(benchmark, "pair asked about", amount)
