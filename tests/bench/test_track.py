"""Trends: what pytest-benchmark saved, read, judged and shown."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from made_runs import make_results, make_run

import fastbridge
from fastbridge.bench.report.evidence import Report
from fastbridge.bench.report.pytest_benchmark import to_pytest_benchmark
from fastbridge.bench.trend.storage import Machine, SavedRun, read_run, read_storage
from fastbridge.bench.trend.track import FEWEST, RECENT, Trend, trends
from fastbridge.bench.trend.words import duration, short_names, step_lines
from fastbridge.errors import BenchError

ROOT = Path(fastbridge.__file__).parents[1]
DAY = datetime(2026, 1, 1, tzinfo=timezone.utc)
HERE = Machine((("CPU", "here"),))


def make_runs(
    speeds: Sequence[float | None], machine: Machine = HERE, name: str = "b", **changes: Any
) -> list[SavedRun]:
    """One run a day; None: the benchmark was not in it."""
    runs = []
    for i, speed in enumerate(speeds):
        day = DAY + timedelta(days=i)
        seconds = {"other": 1.0} if speed is None else {"other": 1.0, name: 1.0 / speed}
        about = {"commit": f"c{i}", "committed": day, "measured": day} | changes
        runs.append(
            SavedRun(Path(f"{i:04}.json"), machine, seconds=seconds, scatter=dict.fromkeys(seconds, 0.0), **about)
        )
    return runs


def trend_of(speeds: Sequence[float | None], **options: Any) -> Trend:
    (found,) = (trend for trend in trends(make_runs(speeds), **options) if trend.name == "b")
    return found


def noisy(level: float, count: int, noise: float, generator: random.Random) -> list[float]:
    return [generator.gauss(level, noise * level) for _ in range(count)]


# -- judgement ------------------------------------------------------------------------------------

STEADY = [100.0, 101.0, 99.5, 100.5, 99.0, 100.2, 100.9, 99.3]


def test_a_trend_without_a_step_is_steady() -> None:
    trend = trend_of(STEADY)
    assert (trend.verdict, trend.steps, trend.is_regressed) == ("steady", (), False)
    assert trend.noise == pytest.approx(0.01, rel=0.6)


def test_a_regression_is_seen_in_its_first_run_and_measured() -> None:
    trend = trend_of([*STEADY, 80.0])
    assert trend.verdict == "regression" and trend.is_regressed
    (step,) = trend.steps
    assert (step.index, step.after) == (8, pytest.approx(1 / 80))
    assert step.change == pytest.approx(-0.2, abs=0.01)


def test_getting_faster_is_no_regression() -> None:
    trend = trend_of([*STEADY, 125.0, 126.0])
    assert (trend.verdict, trend.is_regressed) == ("progression", False)
    assert trend.steps[0].change == pytest.approx(0.25, abs=0.02)


def test_a_regression_is_news_for_some_runs_only() -> None:
    assert trend_of([*STEADY, *[80.0] * RECENT]).is_regressed
    old = trend_of([*STEADY, *[80.0] * (RECENT + 1)])
    assert (old.verdict, old.is_regressed, len(old.steps)) == ("steady", False, 1)
    assert trend_of([*STEADY, *[80.0] * (RECENT + 1)], recent=RECENT + 1).is_regressed


def test_what_is_mended_is_no_regression_any_more() -> None:
    trend = trend_of([*STEADY, 80.0, 100.0])
    assert not trend.is_regressed


def test_small_steps_are_none() -> None:
    assert trend_of([*[100.0] * 8, *[98.5] * 3]).steps == ()  # though there is no noise at all


def test_a_slow_drift_is_a_regression_and_no_noise() -> None:
    trend = trend_of([100.0 * 0.97**i for i in range(14)])
    assert trend.verdict == "regression" and trend.is_regressed and trend.steps == ()
    assert trend.drift is not None and trend.drift.change == pytest.approx(0.97**9 - 1)
    assert trend.noise == pytest.approx(0, abs=1e-6)
    (line,) = step_lines(trend)
    assert line.startswith("slow regression of -24.0% (") and "since c2," in line
    faster = trend_of([100.0 * 1.03**i for i in range(14)])
    assert (faster.verdict, faster.is_regressed) == ("progression", False)


def test_a_drift_is_told_from_noise_and_from_steps() -> None:
    generator = random.Random(5)
    for noise, fewest in ((0.01, 50), (0.03, 45)):
        drifting = [trend_of([generator.gauss(100, noise * 100) * 0.97**i for i in range(14)]) for _ in range(50)]
        assert sum(trend.is_regressed for trend in drifting) >= fewest
        steady = [trend_of(noisy(100, 14, noise, generator)) for _ in range(50)]
        assert sum(trend.drift is not None for trend in steady) <= 1
        steps = [trend_of([*noisy(100, 10, noise, generator), *noisy(80, 6, noise, generator)]) for _ in range(50)]
        assert sum(trend.drift is not None for trend in steps) <= 1
    assert trend_of([100.0 * 0.99**i for i in range(8)] + [92.0] * 12).verdict == "steady"  # it has come to its end
    assert trend_of([100.0 * 0.999**i for i in range(14)]).drift is None  # too little to speak of


def test_few_runs_say_nothing() -> None:
    trend = trend_of([100.0] * (FEWEST - 2) + [10.0])
    assert (trend.verdict, trend.noise, trend.is_regressed) == ("too few runs", None, False)
    assert trend_of([100.0] * (FEWEST - 1) + [10.0]).is_regressed


def test_noise_is_no_regression_and_hides_what_is_no_larger() -> None:
    generator = random.Random(4)
    for noise, alarms in ((0.01, 1), (0.05, 3), (0.1, 5)):
        found = [trend_of(noisy(100, 8, noise, generator)).is_regressed for _ in range(100)]
        assert sum(found) <= alarms, noise
    seen = [trend_of([*noisy(100, 8, 0.03, generator), *noisy(80, 1, 0.03, generator)]).is_regressed for _ in range(50)]
    assert sum(seen) >= 40


def test_what_is_too_noisy_is_not_called_steady() -> None:
    noisy = trend_of([100.0, 150.0, 70.0, 140.0, 80.0, 120.0, 60.0, 130.0])
    assert noisy.noise is not None and noisy.noise > 0.3
    assert (noisy.verdict, noisy.is_regressed) == ("too noisy", False)
    assert trend_of(STEADY).verdict == "steady" and trend_of(STEADY).can_tell


def test_rounds_that_scatter_are_noise_too() -> None:
    runs = make_runs([100.0] * 8 + [80.0])
    assert trends(runs)[1].is_regressed
    for run in runs:
        run.scatter["b"] = 0.2  # type: ignore[index]
    assert not trends(runs)[1].is_regressed


def test_unlike_machines_are_never_one_trend() -> None:
    there = Machine((("CPU", "there"),))
    runs = make_runs(STEADY) + make_runs([value / 2 for value in STEADY], there)
    found = trends(sorted(runs, key=lambda run: run.committed))
    assert {(trend.machine, trend.name) for trend in found} == {(m, n) for m in (HERE, there) for n in ("b", "other")}
    assert all(len(trend.points) == len(STEADY) and trend.verdict == "steady" for trend in found)


def test_only_what_was_measured_last_is_judged() -> None:
    assert not trend_of([*STEADY, 80.0, None]).is_regressed  # renamed, or skipped: the last run knows nothing of it
    there = Machine((("CPU", "there"),))
    late = {"measured": DAY + timedelta(days=99), "commit": "late"}
    found = trends([*make_runs([*STEADY, 80.0]), *make_runs(STEADY, there, **late)])
    assert not any(trend.is_regressed for trend in found)
    late["commit"] = "c8"  # the same commit, measured on both
    found = trends([*make_runs([*STEADY, 80.0]), *make_runs(STEADY, there, **late)])
    assert [trend.machine for trend in found if trend.is_regressed] == [HERE]


# -- words ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(2.5, "2.5 s"), (1234.0, "1,234 s"), (0.99999, "1 s"), (0.0123, "12.3 ms"), (4.567e-6, "4.57 µs"), (8e-9, "8 ns")],
)
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_names_are_short_but_different() -> None:
    assert short_names(["d/a.py::x[b/c]", "d/a.py::x[b/d]"]) == ["x[b/c]", "x[b/d]"]
    assert short_names(["d/a.py::x", "d/ab.py::x"]) == ["a.py::x", "ab.py::x"]
    assert short_names(["d/a.py::x"]) == ["x"]


def test_a_step_names_its_commit_and_file() -> None:
    (line,) = step_lines(trend_of([*STEADY, 80.0]))
    assert line.startswith("regression of -20.0% (10 ms → 12.5 ms) since c8, 2026-01-09 00:00, 0008.json")


# -- files ----------------------------------------------------------------------------------------


def saved(day: int, speed: float = 100.0, **changes: Any) -> dict[str, Any]:
    """What pytest-benchmark saves, of one benchmark."""
    time = (DAY + timedelta(days=day)).isoformat()
    stats = {"median": 1 / speed, "iqr": 1e-5, "rounds": 25}
    return {
        "machine_info": {"cpu": {"brand_raw": "Z80", "count": 2}, "release": "6.1", "python_version": "3.11.2"},
        "commit_info": {"id": f"{day:040x}", "time": time, "dirty": False},
        "benchmarks": [{"fullname": "t.py::test_b", "stats": stats}],
        "datetime": time,
    } | changes


def store(directory: Path, *values: Any) -> Path:
    (directory / "Linux").mkdir(parents=True, exist_ok=True)
    for i, value in enumerate(values):
        text = value if isinstance(value, str) else json.dumps(value)
        (directory / "Linux" / f"{i + 1:04}_x.json").write_text(text, encoding="utf-8")
    return directory


def track(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-m", "fastbridge", "track", *map(str, arguments)]
    env = os.environ | {"COLUMNS": "80"} | environment
    return subprocess.run(command, capture_output=True, text=True, timeout=180, cwd=ROOT, env=env)


def test_runs_are_in_the_order_of_their_commits(tmp_path: Path) -> None:
    first = saved(1) | {"datetime": (DAY + timedelta(days=5)).isoformat()}  # measured later than the next
    again = saved(2) | {"datetime": (DAY + timedelta(days=6)).isoformat()}
    no_commit = saved(3, commit_info={"id": "unversioned", "time": None})
    runs = read_storage(store(tmp_path, no_commit, again, saved(2), first))
    assert [run.path.name[:4] for run in runs] == ["0004", "0003", "0002", "0001"]
    assert [run.commit for run in runs] == ["000000000", "000000000", "000000000", "unversioned"]
    assert runs[0].scatter["t.py::test_b"] == pytest.approx(1.25 * 1e-5 / 1.35 / 0.01 / 5)


def test_times_with_and_without_a_zone_have_an_order(tmp_path: Path) -> None:
    bare = saved(1, commit_info={}, datetime="2026-01-02T00:00:00")
    zulu = saved(1, commit_info={}, datetime="2026-01-01T23:00:00Z")
    assert [run.path.name[:4] for run in read_storage(store(tmp_path, bare, zulu))] == ["0002", "0001"]


def test_machines_by_the_fingerprint_or_what_else_is_known(tmp_path: Path) -> None:
    ours = {"cpu": "6502", "cpus": 1, "hypervisor": "none seen", "release": "6.1", "layout": {"sender": "CPU 0"}}
    info = {"python_version": "3.11.9", "python_implementation": "CPython", "fastbridge": ours}
    moved = info | {"fastbridge": ours | {"layout": {"sender": "CPU 1"}}}
    patch = info | {"python_version": "3.11.10", "fastbridge": ours | {"microcode": "0x2"}}
    store(tmp_path, saved(1, machine_info=info), saved(2, machine_info=moved), saved(3, machine_info=patch), saved(4))
    one, other, like, foreign = read_storage(tmp_path)
    assert one.machine == like.machine != other.machine
    assert "CPU 6502, number of CPUs 1, hypervisor none seen" in str(one.machine) and "CPython 3.11" in str(one.machine)
    assert str(foreign.machine) == "CPU Z80, number of CPUs 2, kernel 6.1, Python 3.11"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("{", "not a JSON document"),
        ("\0", "not a JSON document"),
        ("[]", "not saved by pytest-benchmark"),
        ({"machine_info": {}}, "move it elsewhere"),
        ({"schema": 2, "runs": []}, "track the pytest-benchmark.json beside it"),
        (saved(1, datetime="yesterday"), "yesterday"),
        (saved(1, benchmarks=[{"fullname": "x"}]), "'stats' is missing"),
        (saved(1, benchmarks=[{"fullname": "x", "stats": {"median": 0}}]), "a median of 0"),
        (saved(1, benchmarks=[{"fullname": "x", "stats": {"median": "fast"}}]), "a median of 'fast'"),
        (saved(1, benchmarks=[{"fullname": "x", "stats": {"median": 1, "rounds": 1e999}}]), "not what pytest"),
        (saved(1, benchmarks=[{"fullname": 5, "stats": {"median": 1}}]), "a fullname of 5"),
        (saved(1, benchmarks=[{"fullname": "x", "stats": {"median": 5e-324}}]), "a median of 5e-324"),
        (saved(1, benchmarks=[{"fullname": "x", "stats": {"median": 1, "rounds": -1}}]), "-1 rounds"),
        (saved(1, benchmarks=[{"fullname": "x", "stats": {"median": 1, "iqr": "wide"}}]), "'wide'"),
        ("[" * 100_000, "nested too deeply"),
        (saved(1, benchmarks=[17]), "not what pytest-benchmark saves"),
        (saved(1, machine_info="here"), "not what pytest-benchmark saves"),
    ],
)
def test_a_file_that_is_no_saved_run_is_named(tmp_path: Path, value: Any, words: str) -> None:
    store(tmp_path, saved(1), value)
    with pytest.raises(BenchError) as caught:
        read_storage(tmp_path)
    assert str(tmp_path / "Linux" / "0002_x.json") in str(caught.value) and words in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_so_it_is_by_the_command(tmp_path: Path) -> None:
    store(tmp_path, saved(1), "{")
    done = track(tmp_path)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (1, "", 1)
    assert "0002_x.json" in done.stderr


def test_a_storage_that_is_none(tmp_path: Path) -> None:
    for directory, words in ((tmp_path / "none", "does not exist"), (tmp_path, "has no saved benchmarks")):
        done = track(directory)
        assert (done.returncode, done.stdout) == (1, "")
        assert f"{directory} {words}" in done.stderr and "--benchmark-autosave" in done.stderr


@pytest.mark.slow
def test_what_compare_leaves_is_followed_over_commits(tmp_path: Path) -> None:
    paths = []
    for day, speed in enumerate([*STEADY, 80.0]):
        runs = [make_run("mine", block, 1000 * speed) for block in range(3)]
        results = make_results(runs, started=(DAY + timedelta(days=day)).isoformat())
        paths.append(tmp_path / f"commit{day}" / "pytest-benchmark.json")
        paths[-1].parent.mkdir()
        paths[-1].write_text(to_pytest_benchmark(Report.of([("", results)])), encoding="utf-8")
    assert len(read_storage(*paths, paths[0], tmp_path)) == len(paths)
    done = track(*reversed(paths))
    assert (done.returncode, done.stderr) == (3, "")
    assert "64 B[mine]: regression of -20.0%" in done.stdout and "commit8/pytest-benchmark.json" in done.stdout
    (tmp_path / "commit8" / "results.json").write_text(results.to_json(), encoding="utf-8")
    refused = track(tmp_path)
    assert refused.returncode == 1 and f"fastbridge report {tmp_path}/commit8/results.json -o" in refused.stderr


# -- the command ----------------------------------------------------------------------------------


def test_exit_status_says_whether_it_became_slower(tmp_path: Path) -> None:
    values = [saved(day, speed) for day, speed in enumerate([*STEADY, 80.0])]
    steady = track(store(tmp_path / "steady", *values[:-1]))
    assert (steady.returncode, steady.stderr) == (0, "")
    assert "steady" in steady.stdout and "slower" not in steady.stdout
    slower = track(store(tmp_path / "slower", *values))
    assert (slower.returncode, slower.stderr) == (3, "")
    assert "slower, outside of the noise: 1 of 1 benchmarks" in slower.stdout
    assert "test_b: regression of -20.0% (10 ms → 12.5 ms) since 000000000, 2026-01-09" in slower.stdout
    rows = [line.split() for line in slower.stdout.splitlines() if line.startswith("test_b ")]
    assert rows[0][1] == "9" and rows[0][-1] == "regression" and rows[0][-3] == "-20.0%"
    assert max(map(len, slower.stdout.splitlines()[:4])) <= 80
    assert track(tmp_path / "slower", "--recent", "0").returncode == 2


@pytest.mark.slow
def test_a_drift_is_shown_and_in_the_exit_status(tmp_path: Path) -> None:
    values = [saved(day, 100.0 * 0.97**day) for day in range(14)]
    done = track(store(tmp_path / "store", *values), "-o", tmp_path / "trend.html")
    assert (done.returncode, done.stderr) == (3, "")
    assert "test_b: slow regression of -24.0%" in done.stdout and " -24.0%" in done.stdout.partition("slow")[0]
    assert "slow regression of -24.0%" in (tmp_path / "trend.html").read_text(encoding="utf-8")


def test_names_do_not_steer_the_terminal(tmp_path: Path) -> None:
    values = [saved(day, machine_info={"cpu": {"brand_raw": "\x1b[31m[/red]"}}) for day in range(3)]
    for value in values:
        value["benchmarks"][0]["fullname"] = "t.py::x\x1b]0;gone\x07[/bold]"
        value["commit_info"]["id"] = "\x1b[2J"
    done = track(store(tmp_path, *values))
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout and "\x07" not in done.stdout and "[/bold]" in done.stdout


@pytest.mark.slow
def test_what_pytest_benchmark_really_saves(tmp_path: Path) -> None:
    (tmp_path / "test_x.py").write_text("def test_x(benchmark):\n    benchmark.pedantic(lambda: None, rounds=3)\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--benchmark-autosave", "test_x.py"]
    alone = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_XDIST")}
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=180, env=alone)
    (path,) = tmp_path.glob(".benchmarks/*/*.json")
    run = read_run(path)
    assert list(run.seconds) == ["test_x.py::test_x"]
    assert abs(run.measured - datetime.now(timezone.utc)) < timedelta(minutes=5)
    assert f"number of CPUs {os.cpu_count()}" in str(run.machine)
    done = track(tmp_path / ".benchmarks")
    assert done.returncode == 0 and "too few runs" in done.stdout


@pytest.mark.slow
def test_the_page_shows_every_trend_and_its_steps(tmp_path: Path) -> None:
    values = [saved(day, speed) for day, speed in enumerate([*STEADY, 80.0])]
    for value in values:
        other = {"fullname": "t.py::test_<b>evil</b></script>", "stats": {"median": 1.0}}
        value["benchmarks"].append(other)
    page = tmp_path / "trend.html"
    done = track(store(tmp_path / "store", *values), "-o", page)
    assert (done.returncode, done.stderr) == (3, "") and f"written to {page}" in done.stdout.replace("\n", "")
    text = page.read_text(encoding="utf-8")
    assert "1 of 2 benchmarks became slower, outside of the noise. 9 runs." in text
    assert "regression of -20.0% (10 ms → 12.5 ms) since 000000000" in text and "1 without a step" in text
    assert "<b>evil" not in text and "&lt;b&gt;evil" in text
    charts = json.loads(text.partition('id="charts">')[2].partition("</script>")[0])
    (runs,) = (each for each in charts["trend-1-0"]["datasets"].values() if len(each) == len(values))
    assert [round(run["time"], 2) for run in runs][-2:] == [10.07, 12.5]
    assert len(charts) == 2
    assert track(store(tmp_path / "steady", *values[:-1]), "-o", page).returncode == 0
    assert "<details" not in page.read_text(encoding="utf-8")  # with nothing to stand out, all charts are in sight


def test_only_a_page_is_drawn(tmp_path: Path) -> None:
    page = tmp_path / "trend.txt"
    done = track(tmp_path, "-o", page)
    assert (done.returncode, done.stdout, page.exists()) == (2, "", False)
    assert "trend.txt: track draws only a page" in done.stderr


@pytest.mark.slow
def test_a_page_that_cannot_be_written(tmp_path: Path) -> None:
    done = track(store(tmp_path, saved(1)), "-o", tmp_path / "none" / "trend.html")
    assert done.returncode == 1 and done.stderr.startswith("fastbridge: cannot write ")
