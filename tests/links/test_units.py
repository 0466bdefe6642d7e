"""Numbers with units, and back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastbridge import ConfigError
from fastbridge.links.stages import MOST_RATE, MOST_TIME
from fastbridge.links.units import (
    Limit,
    read_limit,
    read_probability,
    read_rate,
    read_switch,
    read_time,
    read_whole,
    show_limit,
    show_probability,
    show_rate,
    show_time,
)


@pytest.mark.parametrize(
    ("value", "ns"),
    [
        ("20ms", 20_000_000),
        ("20 ms", 20_000_000),
        ("1.5s", 1_500_000_000),
        ("2sec", 2_000_000_000),
        ("100us", 100_000),
        ("100usecs", 100_000),
        ("7ns", 7),
        ("0.25MS", 250_000),
        ("1e-3s", 1_000_000),
        ("0", 0),
        ("0.0", 0),
        ("0ms", 0),
        (0.02, 20_000_000),
        (1, 1_000_000_000),
        (0, 0),
    ],
)
def test_times(value, ns):
    assert read_time("delay", value) == ns


@pytest.mark.parametrize(
    ("value", "rate"),
    [
        ("10mbit", 10_000_000),
        ("10Mbit", 10_000_000),
        ("1.5gbit", 1_500_000_000),
        ("64kbit", 64_000),
        ("1kibit", 1024),
        ("1bps", 8),
        ("100kbps", 800_000),
        ("1mbps", 8_000_000),
        ("1kibps", 8192),
        ("9600bit", 9600),
        ("9600", 9600),
        (9600, 9600),
        (1e6, 1_000_000),
        (0, 0),
        ("0", 0),
    ],
)
def test_rates(value, rate):
    assert read_rate("rate", value) == rate


@pytest.mark.parametrize(
    ("value", "share"),
    [("1%", 0.01), ("0.05%", 0.0005), ("100%", 1.0), (0.01, 0.01), (0, 0.0), ("0", 0.0), ("0%", 0.0)],
)
def test_shares(value, share):
    assert read_probability("loss", value) == share


@pytest.mark.parametrize(
    ("value", "limit"),
    [
        ("100kB", Limit(bytes=102_400)),
        ("100KB", Limit(bytes=102_400)),
        ("100k", Limit(bytes=102_400)),
        ("2MB", Limit(bytes=2 << 20)),
        ("1500b", Limit(bytes=1500)),
        ("8kbit", Limit(bytes=1024)),
        ("50ms", Limit(ns=50_000_000)),
        ("100p", Limit(frames=100)),
    ],
)
def test_limits(value, limit):
    assert read_limit("limit", value) == limit


@given(st.integers(0, MOST_TIME))
def test_a_time_as_text_is_the_same_time(ns):
    assert read_time("delay", show_time(ns)) == ns


@given(st.integers(0, MOST_RATE))
def test_a_rate_as_text_is_the_same_rate(rate):
    assert read_rate("rate", show_rate(rate)) == rate


@given(st.floats(0, 1))
def test_a_share_as_text_is_the_same_share(share):
    assert read_probability("loss", show_probability(share)) == share


@given(st.sampled_from(["bytes", "ns", "frames"]), st.integers(1, MOST_TIME))
def test_a_limit_as_text_is_the_same_limit(kind, size):
    limit = Limit(**{kind: size})
    assert read_limit("limit", show_limit(limit)) == limit


@pytest.mark.parametrize(
    ("read", "value", "says"),
    [
        (read_time, "20", "'20': a unit is missing"),
        (read_time, "20min", "the unit 'min' is not known"),
        (read_time, "-1ms", "negative"),
        (read_time, -0.5, "negative"),
        (read_time, "fast", "20ms"),
        (read_time, "", "20ms"),
        (read_time, float("nan"), "20ms"),
        (read_time, float("inf"), "20ms"),
        (read_time, True, "20ms"),
        (read_time, None, "20ms"),
        (read_time, "2e9s", "at most 3600s"),
        (read_time, "0.1ns", "shorter than 1ns"),
        (read_time, "20ms\n30ms", "20ms"),
        (read_rate, "10Mb", "the unit 'Mb' is not known"),
        (read_rate, "10mbit/s", "the unit 'mbit/s' is not known"),
        (read_rate, "-1mbit", "negative"),
        (read_rate, "2tbit", "at most 1tbit"),
        (read_rate, 0.1, "less than 1bit"),
        (read_probability, "1", "a unit is missing"),
        (read_probability, "0.01", "a unit is missing"),
        (read_probability, 1, "x=1%"),
        (read_probability, 5, "x=5%"),
        (read_probability, True, "1%"),
        (read_probability, "101%", "at most 100%"),
        (read_probability, "-1%", "negative"),
        (read_limit, "100", "100p"),
        (read_limit, 100, "100p"),
        (read_limit, "1e300ms", "x '1e300ms' is more than any queue holds"),
        (read_limit, "1e999p", "is more than any queue holds"),
        (read_limit, "0p", "holds no frame"),
        (read_limit, "0", "100kB"),
        (read_limit, "-5p", "negative"),
        (read_switch, "maybe", "true or false"),
    ],
)
def test_what_is_not_understood_is_named_in_one_line(read, value, says):
    with pytest.raises(ConfigError, match=r"\Ax [^\n]*\Z") as error:
        read("x", value)
    assert says in str(error.value)


@pytest.mark.parametrize("value", ["", "1.5", "-1", "11", 11, True, 1.0, None])
def test_whole_numbers_have_bounds(value):
    with pytest.raises(ConfigError, match=r"x must be a whole number, 0 … 10"):
        read_whole("x", value, 10)


def test_numbers_of_numpy_are_numbers():
    numpy = pytest.importorskip("numpy")
    assert read_time("delay", numpy.float64(0.02)) == 20_000_000
