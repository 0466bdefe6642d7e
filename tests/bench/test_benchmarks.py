"""The benchmark suite: that it runs, and what it refuses to compare.

Each test is a pytest of its own, as a user starts it. Only in-memory benchmarks, so that an ordinary user may.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
TINY = "test_speed_memory.py", "-k", "learn_known"
COMPARE = "--benchmark-only", "--benchmark-compare", "--benchmark-compare-fail=median:100%"
PATIENCE = 180.0

Pytest = Callable[..., "subprocess.CompletedProcess[str]"]
Saved = dict[str, Any]


@pytest.fixture
def run(tmp_path: Path) -> Pytest:
    return lambda *options: run_in(tmp_path, *options)


def run_in(directory: Path, file: str, *options: str) -> subprocess.CompletedProcess[str]:
    """pytest on a file of the benchmarks, with its storage in this directory."""
    spec = importlib.util.find_spec("fastbridge")
    assert spec and spec.origin
    # A run of its own, whether or not the tests run in parallel: those would measure nothing.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_XDIST")}
    environment |= {"PYTHONPATH": str(Path(spec.origin).parents[1]), "COLUMNS": "200"}
    argv = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", str(BENCHMARKS / file), *options]
    return subprocess.run(
        argv, cwd=directory, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False
    )


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A benchmark saved on this machine."""
    directory = tmp_path_factory.mktemp("once")
    done = run_in(directory, *TINY, "--benchmark-only", "--benchmark-autosave")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "known source" in done.stdout  # the table of our own
    (path,) = directory.glob(".benchmarks/*/0001_*.json")
    return path


@pytest.fixture
def saved(once: Path, tmp_path: Path) -> Path:
    """A copy, where a run finds it."""
    (tmp_path / ".benchmarks" / once.parent.name).mkdir(parents=True)
    return Path(shutil.copy(once, tmp_path / ".benchmarks" / once.parent.name))


def change(path: Path, alter: Callable[[Saved], object]) -> None:
    saved = json.loads(path.read_text())
    alter(saved)
    path.write_text(json.dumps(saved))


@pytest.mark.slow
def test_in_memory_benchmarks_run(run: Pytest) -> None:
    done = run("test_speed_memory.py", "--benchmark-disable", "-k", "not 1000000")
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout and "skipped" not in done.stdout


@pytest.mark.slow
def test_figures_and_machine_are_saved(once: Path) -> None:
    saved = json.loads(once.read_text())
    (row,) = saved["benchmarks"]
    assert row["group"] == "FDB: learn"
    assert row["extra_info"]["ns"] == pytest.approx(row["stats"]["median"] * 1e9 / 1000)
    assert row["extra_info"]["mega_per_second"] == pytest.approx(1e3 / row["extra_info"]["ns"])
    about = saved["machine_info"]["fastbridge"]
    assert about["cpus"] == os.cpu_count()
    assert {"sender", "switch"} <= set(about["layout"]) and about["mitigations"] and about["versions"]["cython"]


@pytest.mark.slow
def test_same_machine_is_compared(run: Pytest, saved: Path) -> None:
    def alter(saved: Saved) -> None:
        saved["machine_info"]["fastbridge"]["microcode"] = "0xdead"  # worth a line, no obstacle
        saved["benchmarks"][0]["stats"]["median"] = 3600.0

    change(saved, alter)
    done = run(*TINY, *COMPARE)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "test_learn_known (NOW)" in done.stdout and "test_learn_known (0001" in done.stdout
    assert "microcode 0xdead there" in done.stderr


@pytest.mark.slow
def test_regression_fails(run: Pytest, saved: Path) -> None:
    change(saved, lambda saved: saved["benchmarks"][0]["stats"].update(median=1e-9))
    done = run(*TINY, *COMPARE)
    assert done.returncode == 1, done.stdout
    assert "Performance has regressed" in done.stderr and "Traceback" not in done.stderr


OTHER = {
    "cpu": ("Z80", "CPU Z80 there, "),
    "cpus": (4711, "number of CPUs 4711 there, "),
    "hypervisor": ("Bochs", "hypervisor Bochs there, "),
    "release": ("2.0.36", "kernel 2.0.36 there, "),
    "layout": ({"sender": "CPU 9"}, "CPU layout sender CPU 9 there, "),
}


@pytest.mark.slow
def test_another_machine_is_refused(run: Pytest, saved: Path) -> None:
    about = {key: value for key, (value, _) in OTHER.items()}
    change(saved, lambda saved: saved["machine_info"]["fastbridge"].update(about))
    line = refusal(run(*TINY, *COMPARE))
    assert [reason for _, reason in OTHER.values() if reason not in line] == []


@pytest.mark.slow
def test_unknown_machine_is_refused(run: Pytest, saved: Path) -> None:
    change(
        saved, lambda saved: saved["machine_info"].pop("fastbridge")
    )  # by an earlier version, or for another project
    assert "number of CPUs unknown there, " in refusal(run(*TINY, *COMPARE))


@pytest.mark.slow
def test_nothing_to_compare_with_is_said_before_measuring(run: Pytest) -> None:
    done = run(*TINY, *COMPARE)
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "ERROR: there is no saved benchmark in " in done.stderr and "Traceback" not in done.stderr
    assert "passed" not in done.stdout


def test_unknown_engine_is_named(run: Pytest) -> None:
    done = run("test_speed_live.py", "--engines=bridge,direct")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "there is no engine 'bridge'; choose from fastbridge" in done.stderr


def refusal(done: subprocess.CompletedProcess[str]) -> str:
    """The one line on stderr; nothing was measured before it."""
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("ERROR: ") and "of another machine" in line
    assert "passed" not in done.stdout
    return line
