"""Traces keep the rates and delays that were recorded."""

import random
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastbridge import ConfigError, Link, MemorySwitch
from fastbridge.links.stages import Stages
from fastbridge.links.traces import OPPORTUNITY, read_trace

SECOND = 10**9


def write(path, text):
    path.write_text(text)
    return str(path)


def bits_between(trace, begin, end):
    """How many bits may leave in a time, in ns."""
    total = 0
    edges = [at for at, _, _ in trace.steps] + [trace.period_ns]
    for turn in range(begin // trace.period_ns, end // trace.period_ns + 1):
        for (at, rate, _), (low, high) in zip(trace.steps, pairwise(edges), strict=True):
            assert at == low
            low, high = (turn * trace.period_ns + edge for edge in (low, high))
            total += rate * max(0, min(high, end) - max(low, begin))
    return total / SECOND


@given(st.lists(st.integers(1, 60_000), min_size=1, max_size=400).map(sorted), st.integers(0, 3))
def test_each_millisecond_has_its_opportunities(tmp_path_factory, stamps, turn):
    trace = read_trace(write(tmp_path_factory.mktemp("trace") / "a", "\n".join(map(str, stamps))))
    Stages(steps=trace.steps, period_ns=trace.period_ns)
    begin = turn * trace.period_ns
    assert bits_between(trace, begin, begin + trace.period_ns) == pytest.approx(len(stamps) * OPPORTUNITY * 8)
    for stamp in stamps[:3]:
        here = bits_between(trace, begin + (stamp - 1) * 10**6, begin + stamp * 10**6)
        assert here == pytest.approx(stamps.count(stamp) * OPPORTUNITY * 8)


def test_a_cellular_trace_keeps_its_rate_of_each_second(tmp_path):
    numbers, stamps = random.Random(7), []
    for second in range(20):  # 0.1 … 20 Mb/s, with a pause
        chances = 0 if second == 11 else round(10 ** numbers.uniform(1, 3.2))
        stamps += [second * 1000 + numbers.randrange(1, 1001) for _ in range(chances)]
    stamps.sort()
    trace = read_trace(write(tmp_path / "cell", "\n".join(map(str, stamps))))
    for second in range(19):
        wanted = sum(second * 1000 < stamp <= second * 1000 + 1000 for stamp in stamps) * OPPORTUNITY * 8
        assert bits_between(trace, second * SECOND, (second + 1) * SECOND) == pytest.approx(wanted, rel=0.02)
    assert trace.rate == round(len(stamps) * OPPORTUNITY * 8000 / stamps[-1])


def test_a_constant_trace_is_one_step(tmp_path):
    trace = read_trace(write(tmp_path / "12mbit", "1\n"))
    assert trace.steps == ((0, 12_032_000, -1),)
    assert trace.period_ns == 10**6
    assert read_trace(write(tmp_path / "12mbit-too", "1\n2\n3\n")).steps == trace.steps


def test_an_opportunity_at_0_is_that_of_the_end(tmp_path):
    assert read_trace(write(tmp_path / "a", "0\n5\n")).steps == ((0, 0, -1), (4 * 10**6, 24_064_000, -1))


def test_csv(tmp_path):
    trace = read_trace(write(tmp_path / "a", "# mine\nt,rate,delay\n0,10mbit,20ms\n1.5,0,80ms\n1600ms,500kbit,0\n"))
    assert trace.steps == (
        (0, 10_000_000, 20_000_000),
        (1_500_000_000, 0, 80_000_000),
        (1_600_000_000, 500_000, 0),
    )
    assert (trace.period_ns, trace.rate, trace.has_delay) == (0, 10_000_000, True)


def test_csv_with_units_in_its_header(tmp_path):
    trace = read_trace(write(tmp_path / "a", '"T [ms]", Rate (mbit) ,delay [ms]\r\n0, 10, 20\r\n500,0.5,80us\r\n'))
    assert trace.steps == ((0, 10_000_000, 20_000_000), (500_000_000, 500_000, 80_000))


def test_csv_of_one_column(tmp_path):
    delays = read_trace(write(tmp_path / "delays", "t,delay\n0,20ms\n1,30ms"))
    assert (delays.steps, delays.rate) == (((0, -1, 20_000_000), (SECOND, -1, 30_000_000)), 0)
    rates = read_trace(write(tmp_path / "rates", "rate,t\n9600,0"))
    assert (rates.steps, rates.has_delay) == (((0, 9600, -1),), False)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is empty"),
        ("\n \n", "is empty"),
        ("0\n0\n", "no time"),
        ("5\n3\n", ":2: earlier than the line before"),
        ("5\nx\n", ":2: not a whole number of milliseconds"),
        ("5\n-6\n", ":2: not a whole number"),
        ("1\n" * 100_000, "too many lines say the same millisecond"),
        ("hello", "t,rate,delay"),
        ("# only a comment", "t,rate,delay"),
        ("t\n0", "t,rate,delay"),
        ("rate,delay\n1,2ms", "t,rate,delay"),
        ("t,rate,rate\n0,1,1", "t,rate,delay"),
        ("t,rate,loss\n0,1,1", "t,rate,delay"),
        ("t,rate", "no rows"),
        ("t,rate\n0,0\n1,0", "no rate above 0"),
        ("t,rate\n0,5mbit\n1,0", "ends with a rate of 0"),
        ("t,rate\n1,5mbit", ":2: the first t must be 0"),
        ("t,rate\n0,5mbit\n0,6mbit", ":3: t is not later"),
        ("t,rate\n0,5mbit,7", ":2: 3 values, not 2: t, rate"),
        ("t,rate\n0,fast", ":2: rate must be"),
        ("t,delay\n0,20", ":2: delay must be a time such as 20ms, 0 … 3600s"),
        ("t [parsec],delay\n0,20ms", ":2: t must be a time"),
        ("t,rate\n0," + "1" * 200_000, ":2: not a row of a CSV"),
        ("1\n3600001\n", "is too long: its last line must be at most 3600000 ms"),
        ("9999999999\n", "is too long"),
    ],
)
def test_what_is_no_trace_is_named(tmp_path, text, says):
    with pytest.raises(ConfigError, match=r"\Atrace: [^\n]*\Z") as error:
        read_trace(write(tmp_path / "a", text))
    assert says in str(error.value)


def test_the_longest_trace_has_a_rate(tmp_path):
    trace = read_trace(write(tmp_path / "a", "3600000\n"))
    assert (trace.period_ns, trace.rate) == (3600 * SECOND, 3)


SECRET = "hunter2"


@pytest.mark.parametrize(
    "text",
    [
        f"{SECRET}:x:0",
        f"1\n{SECRET}",
        f"t,rate\n{SECRET},1",
        f"t,rate\n0,{SECRET}",
        f"t,delay\n0,1{SECRET}",
        f"t [{SECRET}],rate\n0,1",
        f"t [hunter],{SECRET}\n0,1",
        f"t,rate\n0,1\n{SECRET}",
    ],
)
def test_errors_quote_nothing_of_the_file(tmp_path, text):
    with pytest.raises(ConfigError) as error:
        Link(trace=write(tmp_path / "a", text))
    assert "hunter" not in str(error.value)


def test_what_cannot_be_read_is_named(tmp_path):
    with pytest.raises(ConfigError, match="none cannot be read: No such file"):
        read_trace(str(tmp_path / "none"))
    with pytest.raises(ConfigError, match="is not a file"):
        read_trace("/dev/zero")
    for path, why in [("a\0b", "null"), ("a\ud800b", "surrogates")]:
        with pytest.raises(ConfigError, match=f"cannot be read: .*{why}"):
            read_trace(path)


def test_frames_leave_at_the_rate_of_each_second(tmp_path):
    numbers, stamps = random.Random(3), []
    for second in range(8):
        stamps += [second * 1000 + numbers.randrange(1, 1001) for _ in range(round(10 ** numbers.uniform(2, 3)))]
    path = write(tmp_path / "cell", "\n".join(map(str, sorted(stamps))))
    frame = bytes.fromhex("ffffffffffff 020000000001 88b5").ljust(OPPORTUNITY, b"\0")
    switch = MemorySwitch(ports=2, clock=None)
    switch.set_link(1, Link(trace=path, limit="50MB"))
    switch.process(ingress=0, frames=[frame] * len(stamps))
    left = Counter(int(arrival.time) for arrival in switch.advance(8))
    for second in range(7):
        chances = sum(second * 1000 < stamp <= second * 1000 + 1000 for stamp in stamps)
        assert left[second] == pytest.approx(chances, rel=0.02, abs=1)
