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


@pytest.mark.live
@pytest.mark.parametrize("number", range(1))
def test_python_runs_as_written(number: int) -> None:
    command = [sys.executable, "-W", "error", "-c", blocks("python")[number]]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert "02:00:00:00:00:02 → pod2" in done.stdout and "PortCounters(" in done.stdout
    assert done.stdout.count("Egress(port=") == 3


def test_all_python_is_tried() -> None:
    assert len(blocks("python")) == 1


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
