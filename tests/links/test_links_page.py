"""The page of links says what the code does."""

import re
from pathlib import Path

import pytest

from fastbridge import Link
from fastbridge.links.distributions import NAMES
from fastbridge.links.link import WORDS
from fastbridge.links.presets import PRESETS

PAGE = Path(__file__).parents[2] / "docs/links.md"
pytestmark = pytest.mark.skipif(not PAGE.exists(), reason="the tests were copied without docs/")
SIZES = {"µs": 1e-6, "ms": 1e-3, "kb/s": 1e3, "Mb/s": 1e6, "Gb/s": 1e9}


def rows(heading):
    """The rows of the first table below a heading."""
    text = PAGE.read_text(encoding="utf-8").partition(f"{heading}\n")[2]
    table = re.search(r"(?:^\|.*\n)+", text, re.M)[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]


def number(cell):
    value, unit = cell.split()
    return float(value) * SIZES[unit]


def test_all_words_are_there():
    assert [row[0].strip("`") for row in rows("## The words")] == [word for word in WORDS if "pod" not in word]


def test_the_presets_are_those_of_the_code():
    assert [row[0].strip("`") for row in rows("### Presets")] == list(PRESETS)
    for name, delay, to_pod, from_pod, _ in rows("### Presets"):
        link = Link.parse(name.strip("`"))
        for direction, rate in (("to_pod", to_pod), ("from_pod", from_pod)):
            stages = link.stages(direction)
            assert stages.delay_ns == pytest.approx(number(delay) * 1e9)
            assert stages.rate == pytest.approx(number(rate))


def test_the_distributions_are_those_of_the_code():
    names = [row[0].strip("`") for row in rows("### Distributions")]
    assert tuple(names[: len(NAMES)]) == NAMES


def test_what_other_tools_call_it_is_a_link():
    text = PAGE.read_text(encoding="utf-8")
    table = re.search(r"^\| Elsewhere .*\n((?:\|.*\n)+)", text, re.M)[1]
    found = [link for row in table.splitlines() for link in re.findall(r"`(\w+=[^`]*)`", row.split("|")[2])]
    assert len(found) >= 5
    for link in found:
        Link.parse("rate=1mbit,delay=9ms,jitter=1ms").change(link)
