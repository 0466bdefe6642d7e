"""The README is true: its Python runs as written, its demo is what the demo says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"
pytestmark = pytest.mark.skipif(not README.exists(), reason="the tests were copied without the README")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README.read_text(encoding="utf-8"), re.M | re.S)


def example(word: str) -> str:
    """What the one example with this word prints."""
    (code,) = (block for block in blocks("python") if word in block)
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.live
def test_embedding_runs_as_written() -> None:
    printed = example("in_memory")
    assert "02:00:00:00:00:02 → pod2" in printed and "PortCounters(" in printed
    assert printed.count("Egress(port=") == 3


@pytest.mark.live
def test_the_policy_runs_as_written() -> None:
    assert "10.0.0.2 → 02:00:00:00:00:02 on pod2" in example("NoGossip")


@pytest.mark.live
def test_the_bench_as_a_library_runs_as_written() -> None:
    assert re.search(r"'frmol': \d{4,}", example("METHODS"))


def test_all_python_is_tried() -> None:
    assert len(blocks("python")) == 3


@pytest.mark.live
def test_the_demo_says_what_is_shown() -> None:
    demo = [sys.executable, "-m", "fastbridge", "demo"]
    done = subprocess.run(demo, capture_output=True, text=True, timeout=60)
    said = iter([changing(line) for line in done.stdout.splitlines()])
    shown = next(block for block in blocks("text") if "The first ping" in block)
    for line in shown.splitlines():
        if line != "…":
            assert changing(line) in said, f"not said, or not in this order: {line}"


def changing(line: str) -> str:
    """A line without what differs between runs: times, and what a kernel makes of a neighbour."""
    return re.sub(r"[\d.]+ m?s\b|reachable|delay|stale", "*", line).rstrip()
