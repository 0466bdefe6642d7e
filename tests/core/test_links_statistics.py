"""What links do at random has the distribution that was asked for. With fixed seeds: always the same result."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from statistics import NormalDist

import pytest
from frames import ethernet

from fastbridge import Link, MemorySwitch

SENDER, RECEIVER = 0x02_00_00_00_00_01, 0x02_00_00_00_00_02
MILLION = 1_000_000
DELAYS = 10_000
#: Kolmogorov-Smirnov, 99 %: of so many delays the distance stays below this (Smirnov's limit).
KS_99 = 1.6276 / math.sqrt(DELAYS)
#: Chi-square, 99 %, of 20 classes: 19 degrees of freedom.
CHI_SQUARE_99 = 36.19


def linked(link: str) -> MemorySwitch:
    """Two ports that know each other's stations; the second one has a link."""
    switch = MemorySwitch(["sender", "receiver"], clock=None, ageing=None)
    switch.fdb.add(RECEIVER, "receiver")
    switch.fdb.add(SENDER, "sender")
    switch.set_link("receiver", Link.parse(link))
    return switch


def numbered(count: int, size: int = 64) -> list[bytes]:
    head = ethernet(RECEIVER, SENDER, payload=b"")
    return [(head + number.to_bytes(4, "big")).ljust(size, b"\0") for number in range(count)]


def heard(switch: MemorySwitch, count: int) -> list[int]:
    """The numbers of the frames that come through, of so many sent."""
    return [int.from_bytes(egress.frame[14:18], "big") for egress in switch.process("sender", numbered(count))]


def interval(chance: float, count: int) -> float:
    """Half of the 99 % interval of how many of `count` it happens to."""
    return NormalDist().inv_cdf(0.995) * math.sqrt(count * chance * (1 - chance))


@pytest.mark.parametrize("loss", [0.01, 0.0005])
def test_loss(loss: float) -> None:
    switch = linked(f"to_pod.loss={loss:%},seed=1")
    switch._memory.replay(0, numbered(250), 0, MILLION // 250)
    port = switch.counters().ports["receiver"]
    assert port.tx_frames + port.tx_dropped["link_loss"] == MILLION
    assert abs(port.tx_dropped["link_loss"] - MILLION * loss) < interval(loss, MILLION)


def test_losses_come_one_by_one() -> None:
    """The gaps between them are geometric: in 20 classes that are about as likely."""
    loss, count = 0.05, 400_000
    lost = sorted(set(range(count)) - set(heard(linked(f"to_pod.loss={loss:%},seed=2"), count)))
    gaps = Counter(after - before for before, after in pairwise(lost))
    edges = [0, *(round(math.log(1 - n / 20) / math.log(1 - loss)) for n in range(1, 20))]
    chi_square = 0.0
    for low, high in [*pairwise(edges), (edges[-1], math.inf)]:
        wanted = ((1 - loss) ** low - (0.0 if high == math.inf else (1 - loss) ** high)) * (len(lost) - 1)
        got = sum(n for gap, n in gaps.items() if low < gap <= high)
        chi_square += (got - wanted) ** 2 / wanted
    assert chi_square < CHI_SQUARE_99


@pytest.mark.slow
def test_bursts() -> None:
    """Gilbert: 1 % of the good frames begin a burst, which ends with a chance of 25 %."""
    count = 400_000
    got = set(heard(linked("to_pod.loss_model=gilbert(1%,25%),seed=3"), count))
    bursts, length = list[int](), 0
    for number in range(count):
        if number not in got:
            length += 1
        elif length:
            bursts.append(length)
            length = 0
    assert sum(bursts) / count == pytest.approx(0.01 / (0.01 + 0.25), rel=0.05)
    assert sum(bursts) / len(bursts) == pytest.approx(4, rel=0.05)
    singles = sum(length == 1 for length in bursts)
    assert abs(singles - len(bursts) * 0.25) < interval(0.25, len(bursts))


@pytest.mark.slow
def test_elliott_loses_in_both_states() -> None:
    count = 400_000
    got = heard(linked("to_pod.loss_model=gilbert(20%,5%,70%,1%),seed=4"), count)
    assert (count - len(got)) / count == pytest.approx((0.2 * 0.7 + 0.05 * 0.01) / 0.25, rel=0.02)


@pytest.mark.slow
def test_duplicates() -> None:
    count = 200_000
    got = Counter(heard(linked("to_pod.duplicate=2%,seed=5"), count))
    assert len(got) == count
    assert set(got.values()) == {1, 2}
    assert abs(got.total() - count - count * 0.02) < interval(0.02, count)


def test_corruption() -> None:
    """One bit, anywhere."""
    count, sent = 100_000, numbered(1)[0]
    switch = linked("to_pod.corrupt=10%,seed=6")
    flips = Counter[int]()
    for egress in switch.process("sender", [sent] * count):
        changed = int.from_bytes(egress.frame, "little") ^ int.from_bytes(sent, "little")
        if changed:
            assert changed.bit_count() == 1
            flips[changed.bit_length() - 1] += 1
    assert abs(flips.total() - count * 0.1) < interval(0.1, count)
    assert flips.keys() == set(range(8 * len(sent)))
    wanted = flips.total() / (8 * len(sent))
    chi_square = sum((n - wanted) ** 2 / wanted for n in flips.values())
    freedom = 8 * len(sent) - 1
    assert chi_square < freedom * (1 - 2 / (9 * freedom) + 2.326 * math.sqrt(2 / (9 * freedom))) ** 3  # Wilson-Hilferty


# -- delays, in ms -------------------------------------------------------------------------------------


def delays(link: str) -> list[float]:
    """How long each of DELAYS frames takes, sent one by one."""
    switch, taken = linked(link), list[float]()
    frame = numbered(1)
    for second in range(DELAYS):
        assert not switch.process("sender", frame)
        (arrival,) = switch.advance(1)
        taken.append((arrival.time - second) * 1000)
    return taken


def distance(values: list[float], cdf: Callable[[float], float]) -> float:
    """Between what was got and what was wanted, by Kolmogorov and Smirnov."""
    values, n = sorted(values), len(values)
    return max(max((i + 1) / n - cdf(value), cdf(value) - i / n) for i, value in enumerate(values))


def pareto(value: float) -> float:
    """Shape 3, moved and scaled to a mean of 60 and a standard deviation of 5."""
    drawn = 1.5 + (value - 60) / 5 * math.sqrt(0.75)
    return 1 - drawn**-3 if drawn >= 1 else 0.0


def test_uniform_jitter() -> None:
    got = delays("to_pod.delay=20ms,to_pod.jitter=5ms,seed=7")
    assert distance(got, lambda value: min(max((value - 15) / 10, 0), 1)) < KS_99


def test_normal_jitter() -> None:
    got = delays("to_pod.delay=20ms,to_pod.jitter=5ms,to_pod.distribution=normal,seed=8")
    assert distance(got, NormalDist(20, 5).cdf) < KS_99


def test_pareto_jitter() -> None:
    assert distance(delays("to_pod.delay=60ms,to_pod.jitter=5ms,to_pod.distribution=pareto,seed=9"), pareto) < KS_99


def test_jitter_by_a_table(tmp_path: Path) -> None:
    """Samples with two humps: mean 0 and deviation 1 once they are read."""
    path = tmp_path / "humps.txt"
    path.write_text(" ".join(f"{value}" for value in [*range(-130, -69), *range(70, 131)]), encoding="utf-8")
    got = delays(f"to_pod.delay=20ms,to_pod.jitter=5ms,to_pod.distribution={path},seed=10")
    values = sorted([*range(-130, -69), *range(70, 131)])
    unit = 5 / math.sqrt(sum(value * value for value in values) / len(values))

    def cdf(value: float) -> float:
        place = (value - 20) / unit
        if place <= values[0] or place >= values[-1]:
            return float(place > 0)
        below = max(n for n, each in enumerate(values) if each <= place)
        share = (place - values[below]) / (values[below + 1] - values[below])
        return (below + share) / (len(values) - 1)

    assert distance(got, cdf) < KS_99


def test_a_wrong_distribution_is_found() -> None:
    """The control: these judges can say no."""
    got = delays("to_pod.delay=20ms,to_pod.jitter=5ms,to_pod.distribution=normal,seed=8")
    assert distance(got, NormalDist(20.3, 5).cdf) > KS_99
    assert distance(got, lambda value: min(max((value - 15) / 10, 0), 1)) > KS_99


# -- rate ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("megabits", [1, 10, 100, 1_000])
@pytest.mark.parametrize("size", [64, 1_514])
def test_rate(megabits: int, size: int) -> None:
    switch = linked(f"to_pod.rate={megabits}mbit,to_pod.limit=10000p")
    switch.process("sender", numbered(2_000, size))
    times = [arrival.time for arrival in switch.advance(60)]
    assert len(times) == 2_000
    assert 8 * size * 1_999 / (times[-1] - times[0]) == pytest.approx(megabits * 1e6, rel=1e-4)
    assert times[0] == pytest.approx(8 * size / megabits / 1e6, rel=1e-4)


@pytest.mark.parametrize(
    ("limit", "wait"), [("100kB", 102_400 * 8 / 1e7), ("50ms", 0.05), ("20p", 20 * 1_514 * 8 / 1e7)]
)
def test_queueing_delay_is_the_limit(limit: str, wait: float) -> None:
    """Overloaded twofold, a 10 Mb/s queue is full: a frame waits limit / rate, more or less one frame."""
    switch = linked(f"to_pod.rate=10mbit,to_pod.limit={limit}")
    one, sent, taken = 1_514 * 8 / 1e7, list[float](), list[float]()
    frames, now = numbered(2_000, 1_514), 0.0
    for frame in frames:
        sent.append(now)
        switch.process("sender", [frame])
        for arrival in switch.advance(one / 2):
            taken.append(arrival.time - sent[int.from_bytes(arrival.frame[14:18], "big")])
        now += one / 2
    assert all(abs(each - wait) <= one + 1e-6 for each in taken[-500:])
    assert switch.counters().ports["receiver"].tx_dropped["link_queue"] == pytest.approx(1_000, rel=0.1)
