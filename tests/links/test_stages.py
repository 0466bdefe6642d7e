"""The numbers that the core takes are checked in one place."""

import subprocess
import sys

import pytest

from fastbridge import ConfigError
from fastbridge.core import links
from fastbridge.links.stages import POOL_BYTES, TABLE_STEPS, Stages

TABLE = tuple(range(TABLE_STEPS + 1))


def test_the_figures_are_those_of_the_core():
    assert (POOL_BYTES, TABLE_STEPS) == (links.MEMORY, links.TABLE_STEPS)


def test_words_are_read_without_the_core():
    code = "import sys, fastbridge.links.link; print(sorted({'numpy', 'fastbridge.core.links'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_stages_do_nothing_by_default():
    assert Stages() == Stages(loss=0, delay_ns=0, steps=(), keeps_order=True)


@pytest.mark.parametrize(
    "wrong",
    [
        {"seed": 1 << 64},
        {"seed": -1},
        {"loss": 1.1},
        {"loss": float("nan")},
        {"duplicate": -0.1},
        {"corrupt": 2},
        {"reorder": 2},
        {"bursts": (0.1, 0.2, 0.0, 1.5)},
        {"rate": -1},
        {"rate": 10**12 + 1},
        {"overhead": 65536},
        {"delay_ns": -1},
        {"delay_ns": 3601 * 10**9},
        {"limit_bytes": -1},
        {"lose_frames": (0,)},
        {"lose_frames": (3, 3)},
        {"lose_frames": (3, 2)},
        {"jitter_ns": 1},
        {"table": (0, 1)},
        {"table": TABLE[::-1]},
        {"table": (*TABLE[:-1], 1 << 31)},
        {"table": (*TABLE[:-1], 1 << 30), "jitter_ns": 1 << 33},
        {"period_ns": 5},
        {"steps": ((1, 5, 5),)},
        {"steps": ((0, 5, 5), (0, 6, 5))},
        {"steps": ((0, -2, 0),)},
        {"steps": ((0, 5, -2),)},
        {"steps": ((0, 0, 5), (9, 0, 6))},
        {"steps": ((0, 5, -1), (9, -1, -1))},
        {"steps": ((0, 5, -1), (9, 6, -1)), "period_ns": 9},
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused(wrong):
    with pytest.raises(ConfigError):
        Stages(**wrong)


def test_a_step_may_leave_the_rate_to_the_link():
    assert Stages(steps=((0, 5, -1), (9, -1, -1)), rate=7).rate == 7
