"""Tables of delays have the distributions that they are named for."""

import random
from itertools import pairwise
from statistics import NormalDist

import pytest

from fastbridge import ConfigError
from fastbridge.links.distributions import table
from fastbridge.links.stages import TABLE_STEPS

FINE = 8  # places looked at in each interval


def value_at(values, place):
    """What the core makes of a place in 0 … 1, in jitters."""
    whole, part = divmod(place * TABLE_STEPS, 1)
    low, high = values[int(whole)], values[int(whole) + 1]
    return (low + (high - low) * part) / 65536


def furthest(values, cdf):
    """The Kolmogorov-Smirnov distance between the table and a distribution."""
    places = [i / (FINE * TABLE_STEPS) for i in range(FINE * TABLE_STEPS)]
    return max(abs(cdf(value_at(values, place)) - place) for place in places)


def moments(values):
    """The mean and the standard deviation of what a table gives, in jitters."""
    parts = [(low / 65536, high / 65536) for low, high in pairwise(values)]
    mean = sum((low + high) / 2 for low, high in parts) / TABLE_STEPS
    square = sum((low * low + low * high + high * high) / 3 for low, high in parts) / TABLE_STEPS
    return mean, (square - mean * mean) ** 0.5


def pareto(x):
    return 1 - (x * 0.75**0.5 + 1.5) ** -3


CDFS = {"uniform": lambda x: (x + 1) / 2, "normal": NormalDist().cdf, "pareto": pareto}


@pytest.mark.parametrize("name", CDFS)
def test_a_table_is_as_near_as_its_steps_allow(name):
    assert len(table(name)) == TABLE_STEPS + 1
    assert furthest(table(name), CDFS[name]) < 1 / TABLE_STEPS


@pytest.mark.parametrize("name", CDFS)
def test_ten_thousand_draws_pass_kolmogorov_smirnov(name):
    numbers, count = random.Random(7), 10_000
    drawn = sorted(value_at(table(name), numbers.random()) for _ in range(count))
    distance = max(
        max(abs(CDFS[name](x) - i / count), abs(CDFS[name](x) - (i + 1) / count)) for i, x in enumerate(drawn)
    )
    assert distance < 1.63 / count**0.5  # 1 %


def test_moments():
    assert moments(table("uniform")) == pytest.approx((0, 3**-0.5), abs=1e-4)
    assert moments(table("normal")) == pytest.approx((0, 1), abs=1e-3)
    mean, deviation = moments(table("pareto"))
    assert mean == pytest.approx(0, abs=2e-3)
    assert deviation == pytest.approx(1, abs=0.03)  # its tail ends


def test_ends():
    assert (table("uniform")[0], table("uniform")[-1]) == (-65536, 65536)
    assert table("normal")[-1] / 65536 == pytest.approx(4, abs=0.1)
    assert table("normal")[0] == -table("normal")[-1]
    assert min(table("pareto")) / 65536 == pytest.approx(-(3**-0.5), abs=1e-4)


def write(path, text):
    path.write_text(text)
    return str(path)


def test_a_table_of_netem(tmp_path):
    values = [round(8192 * NormalDist().inv_cdf((i + 0.5) / 4096)) for i in range(4096)]
    text = "# made like netem's\n" + "\n".join(" ".join(map(str, values[i : i + 8])) for i in range(0, 4096, 8))
    assert furthest(table(write(tmp_path / "mine.dist", text)), NormalDist().cdf) < 2 / TABLE_STEPS


def test_samples_have_the_shape_that_was_measured(tmp_path):
    numbers = random.Random(7)
    text = "\n".join(f"{numbers.gauss(80, 12):.3f}" for _ in range(20_000))
    values = table(write(tmp_path / "rtts.txt", text))
    assert furthest(values, NormalDist().cdf) < 1.63 / 20_000**0.5
    assert moments(values) == pytest.approx((0, 1), abs=0.01)


def test_a_file_that_changes_is_read_again(tmp_path):
    path = write(tmp_path / "a", "1 2")
    before = table(path)
    write(tmp_path / "a", "1 2 2 2 2 2")
    assert table(path) != before


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "two numbers"),
        ("5", "two numbers"),
        ("5 5 5", "no jitter"),
        ("1\n2\n3ms", ":3: a word is not a number"),
        ("1 nan", ":1: a word is not a number"),
        ("1 2e999", "is not a number"),
    ],
)
def test_what_is_no_table_is_named(tmp_path, text, says):
    with pytest.raises(ConfigError, match=r"\A[^\n]*\Z") as error:
        table(write(tmp_path / "a", text))
    assert says in str(error.value)


@pytest.mark.parametrize("text", ["1 2\nhunter2 3", "77077", "77077 77077"])
def test_errors_quote_nothing_of_the_file(tmp_path, text):
    with pytest.raises(ConfigError) as error:
        table(write(tmp_path / "a", text))
    assert "hunter" not in str(error.value) and "77077" not in str(error.value)


def test_a_table_too_wide_for_the_core_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="times the jitter"):
        table(write(tmp_path / "a.dist", "1 1000000000"))


def test_what_is_no_file_is_named(tmp_path):
    for path, says in [(tmp_path / "none", "No such file"), (tmp_path, "is not a file")]:
        with pytest.raises(ConfigError, match=says):
            table(str(path))
    (tmp_path / "raw").write_bytes(b"\xff\xfe\x80")
    with pytest.raises(ConfigError, match="is not text"):
        table(str(tmp_path / "raw"))
