"""The README is true: its Python runs as written, its demo is what the demo says."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import fastbridge

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
    assert "02:00:00:00:00:02 → pod2" in printed and re.search(r"^total +\d+ ", printed, re.M)
    assert printed.count("Egress(port=") == 3


@pytest.mark.live
def test_the_policy_runs_as_written() -> None:
    assert "10.0.0.2 → 02:00:00:00:00:02 on pod2" in example("NoGossip")


@pytest.mark.live
def test_the_bench_as_a_library_runs_as_written() -> None:
    assert re.search(r"'frmol': \d{4,}", example("METHODS"))


def test_all_python_is_tried() -> None:
    assert len(blocks("python")) == 3


@pytest.mark.skipif(importlib.util.find_spec("mypy") is None, reason="mypy comes with the extra `dev`")
def test_all_python_passes_mypy_strict(tmp_path: Path) -> None:
    paths = [tmp_path / f"block{n}.py" for n in range(len(blocks("python")))]
    for path, block in zip(paths, blocks("python"), strict=True):
        path.write_text(block, encoding="utf-8")
    # As a user has it: without the clone's settings. An editable install is found by its path alone.
    home = str(Path(fastbridge.__file__).parents[1])
    options = ["--strict", "--follow-imports=silent", "--config-file=", f"--cache-dir={tmp_path}"]
    environment = os.environ | ({} if home in sysconfig.get_paths().values() else {"MYPYPATH": home})
    command = [sys.executable, "-m", "mypy", *options, *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr


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
