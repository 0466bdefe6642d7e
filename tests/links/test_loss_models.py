"""Which frames are lost, in words."""

import random
from itertools import groupby

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastbridge import ConfigError, Gilbert, gilbert
from fastbridge.links.loss import Lose, read_lose, read_model

SHARES = st.floats(0.001, 0.999)


def test_the_defaults_are_those_of_tc():
    assert gilbert("1%") == Gilbert(0.01, 0.99, 1.0, 0.0)
    assert gilbert(0.07).r == 0.93
    assert gilbert("1%", "30%") == gilbert(0.01, r=0.3, loss_bad=1, loss_good=0)


def test_the_simple_model_by_hand():
    model = gilbert("1%", r="25%")
    assert model.mean_loss == pytest.approx(0.01 / 0.26)
    assert model.mean_burst == pytest.approx(4)


def test_a_model_that_loses_nothing_has_no_bursts():
    assert gilbert(0, 0).mean_loss == gilbert(0, 0).mean_burst == 0
    assert gilbert("1%", "10%", loss_bad=0).mean_burst == 0


def test_a_model_that_loses_all_has_one_burst():
    assert gilbert("1%", "10%", 1, 1).mean_burst == float("inf")


@pytest.mark.parametrize("values", [(0.05, 0.3, 1, 0), (0.1, 0.2, 0.7, 0.05), (0.02, 0.5, 0.9, 0.2)])
def test_means_are_those_of_a_simulation(values):
    model, numbers, bad, lost = gilbert(*values), random.Random(7), False, []
    for _ in range(300_000):
        lost.append(numbers.random() < (model.loss_bad if bad else model.loss_good))
        bad ^= numbers.random() < (model.r if bad else model.p)
    bursts = [len(list(run)) for is_lost, run in groupby(lost) if is_lost]
    assert sum(lost) / len(lost) == pytest.approx(model.mean_loss, rel=0.03)
    assert sum(bursts) / len(bursts) == pytest.approx(model.mean_burst, rel=0.03)


@given(SHARES, SHARES, st.floats(0, 1), st.floats(0, 1))
def test_a_model_as_text_is_the_same_model(p, r, loss_bad, loss_good):
    model = gilbert(p, r, loss_bad, loss_good)
    assert read_model(str(model)) == model


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("gilbert(1%)", "gilbert(1%,99%)"),
        ("Gilbert( 1% , 30% )", "gilbert(1%,30%)"),
        ("gilbert(1%,30%,100%,0)", "gilbert(1%,30%)"),
        ("gilbert(1%,30%,100%,2%)", "gilbert(1%,30%,100%,2%)"),
        ("gilbert(1%,30%,50%)", "gilbert(1%,30%,50%)"),
    ],
)
def test_models_from_text(text, canonical):
    assert str(read_model(text)) == canonical


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("gilbert()", "gilbert(p, r"),
        ("gilbert(1%,2%,3%,4%,5%)", "gilbert(p, r"),
        ("gilbert(1%,)", "gilbert(p, r"),
        ("gilbert(1%,0)", "stays bad"),
        ("gilbert(1,2)", "gilbert's p"),
        ("gemodel 1% 30%", "tc calls this gemodel"),
        ("markov", "gilbert(p, r"),
        (7, "gilbert(p, r"),
    ],
)
def test_what_is_no_model_is_named(text, says):
    with pytest.raises(ConfigError, match=r"\A[^\n]*\Z") as error:
        read_model(text)
    assert says in str(error.value)


def test_frames_by_number():
    assert read_lose("every 10") == Lose(every=10)
    assert read_lose("frames 9, 3 7,3") == Lose(frames=(3, 7, 9))
    assert str(read_lose("FRAMES 9,3")) == "frames 3,9"
    assert str(read_lose("every  10")) == "every 10"


@pytest.mark.parametrize("text", ["every", "every 0", "every 3,4", "frames", "frames 0,3", "frames -1", "10", "", 10])
def test_frames_are_counted_from_1(text):
    with pytest.raises(ConfigError, match="every 10"):
        read_lose(text)
