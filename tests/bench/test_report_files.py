"""The files of a report: all there, all read by whom they are for; what is wrong with them is said in one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from command import ROOT, complaint, run
from made_results import every_method
from made_runs import make_results, make_run
from pytest_benchmark.stats import Stats

from fastbridge.bench import Results
from fastbridge.bench.machine.likeness import described, differences
from fastbridge.bench.report.evidence import Report
from fastbridge.bench.report.pytest_benchmark import FRAMES, to_pytest_benchmark
from fastbridge.bench.results.files import writable_directory, writable_file, write_whole
from fastbridge.bench.results.results import EngineRecord, Unfit
from fastbridge.bench.trend.storage import read_run
from fastbridge.cli.report import report
from fastbridge.errors import BenchError
from fastbridge.extras import way_to

SPEEDS = {"base": 100_000, "base (control)": 101_000, "mine": 80_000}
ALL = {"results.json", "report.html", "report.md", "pytest-benchmark.json", "pictures"}


def some_results(**changes: Any) -> Results:
    runs = [
        make_run(engine, block, speed * (1 + block / 100)) for engine, speed in SPEEDS.items() for block in range(10)
    ]
    return make_results(runs, **changes)


def drawn(results: Results) -> str:
    return to_pytest_benchmark(Report.of([("", results)]))


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., Path]:
    def save(name: str = "results.json", **changes: Any) -> Path:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        some_results(**changes).save(path)
        return path

    return save


# -- for pytest-benchmark --------------------------------------------------------------------------


def test_a_round_is_a_block_and_takes_as_long_as_its_speed_says() -> None:
    value = json.loads(drawn(some_results()))
    by_name = {each["fullname"]: each for each in value["benchmarks"]}
    assert list(by_name) == [f"fastbridge compare::64 B[{engine}]" for engine in SPEEDS]
    mine = by_name["fastbridge compare::64 B[mine]"]
    assert mine["stats"]["data"] == pytest.approx([FRAMES / (80_000 * (1 + block / 100)) for block in range(10)])
    assert (mine["group"], mine["params"]) == ("64 B", {"engine": "mine"})
    assert mine["extra_info"]["mega_per_second"] == pytest.approx(0.08 * 1.045)
    assert mine["extra_info"]["figures"]["ratio to the baseline"][0] == pytest.approx(0.8, abs=0.001)
    assert value["commit_info"]["id"] == "unversioned" and value["machine_info"]["fastbridge"]["release"] == "6.1"


def test_statistics_have_the_fields_of_pytest_benchmark_s() -> None:
    (base, *_) = json.loads(drawn(some_results()))["benchmarks"]
    theirs = Stats()
    for each in base["stats"]["data"]:
        theirs.update(each)
    assert theirs.as_dict().keys() | {"data", "iterations"} == base["stats"].keys()
    for name in ("min", "max", "mean", "stddev", "rounds", "median", "ops", "total", "stddev_outliers"):
        assert base["stats"][name] == pytest.approx(getattr(theirs, name)), name


def test_pytest_benchmark_compares_it(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / f"{name}.json").write_text(drawn(some_results()))
    command = [sys.executable, "-m", "pytest_benchmark", "compare", "--group-by=group", "one.json", "two.json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, cwd=tmp_path)
    assert done.returncode == 0 and "WARNING" not in done.stderr, done.stderr
    assert "benchmark '64 B': 6 tests" in done.stdout and "64 B[mine]" in done.stdout


def test_it_can_be_tracked(tmp_path: Path) -> None:
    path = tmp_path / "0001.json"
    versions = {"python": "3.11.2", "commit": "abc1234-dirty"}
    results = some_results()
    path.write_text(drawn(replace(results, fingerprint=replace(results.fingerprint, versions=versions))))
    saved = read_run(path)
    assert (saved.commit, len(saved.seconds)) == ("abc1234-dirty", 3)
    assert "CPU cpu, number of CPUs 2" in str(saved.machine) and "CPython 3.11" in str(saved.machine)


def test_what_has_no_speed_is_not_in_it() -> None:
    results = some_results(unfit=(Unfit("mine", "64 B", "it died"),))
    names = [each["name"] for each in json.loads(drawn(results))["benchmarks"]]
    assert names == ["64 B[base]", "64 B[base (control)]"]
    single = make_results([make_run("base", 0, 100_000)])
    (only,) = json.loads(drawn(single))["benchmarks"]
    assert (only["stats"]["rounds"], only["stats"]["stddev"], only["stats"]["iqr"]) == (1, 0.0, 0.0)


# -- likeness -------------------------------------------------------------------------------------


def test_machines_differ_in_what_decides_and_nothing_else() -> None:
    here = {"cpu": "a", "cpus": 2, "hypervisor": "h", "kernel": "6.1 #1", "layout": {"sender": "CPU 0"}, "microcode": 1}
    there = here | {"kernel": "6.1 #2", "microcode": 2}
    assert differences(described(here), described(there)) == {}
    there = here | {"kernel": "6.2 #1", "layout": {"sender": "CPU 1"}}
    assert differences(described(here), described(there)) == {
        "kernel": ("6.1", "6.2"),
        "CPU layout": ("sender CPU 0", "sender CPU 1"),
    }


def test_machines_differ_in_how_they_are_set() -> None:
    guarded = {"meltdown": "Mitigation: PTI", "spectre_v1": "Mitigation: barriers"}
    here = {"kernel": "6.1", "governor": "performance", "mitigations": guarded, "boot": "root=/dev/vda quiet"}
    there = here | {"governor": "powersave", "mitigations": guarded | {"meltdown": "Vulnerable"}}
    there["boot"] = "root=/dev/sda nohz_full=1 isolcpus=1 mitigations=off"
    here, there = here | {"tcp": "cubic"}, there | {"tcp": "bbr"}
    assert differences(described(here), described(there)) == {
        "governor": ("performance", "powersave"),
        "mitigations": ("meltdown Mitigation: PTI", "meltdown Vulnerable"),
        "TCP congestion control": ("cubic", "bbr"),
        "boot parameters": ("none that matters", "isolcpus=1 mitigations=off nohz_full=1"),
    }
    del there["tcp"]  # of an older file
    assert "TCP congestion control" not in differences(described(here), described(there))
    assert differences(described(here), described(here | {"boot": "root=/dev/sda"})) == {}


# -- places ---------------------------------------------------------------------------------------


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x"
    write_whole(path, "old")
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space"):
        write_whole(path, b"new")
    assert [each.name for each in tmp_path.iterdir()] == ["x"] and path.read_text() == "old"


@pytest.fixture
def others_directory(tmp_path: Path) -> Path:
    """One that everybody may write to, as a hostile user's is for root."""
    place = tmp_path / "others"
    place.mkdir()
    place.chmod(0o777)
    return place


@pytest.mark.slow
def test_links_that_others_put_there_are_not_written_through(
    saved: Callable[..., Path], tmp_path: Path, others_directory: Path
) -> None:
    path, precious = saved(), tmp_path / "precious"
    precious.write_text("mine")
    names = ["report.md", ".report.md.partial", "results.json", "report.html", "pytest-benchmark.json", "new"]
    for name in names:
        (others_directory / name).symlink_to(precious if name != "new" else tmp_path / "made")
    assert run("report", str(path), "-o", str(others_directory)).returncode == 0
    assert run("report", str(path), "-o", str(others_directory / "new.md")).returncode == 0
    with writable_file(others_directory / "new", "?"):
        pass
    assert precious.read_text() == "mine" and not (tmp_path / "made").exists()
    assert not (others_directory / "report.md").is_symlink()


def test_a_directory_that_is_others_link_is_refused(
    saved: Callable[..., Path], tmp_path: Path, others_directory: Path
) -> None:
    (tmp_path / "mine").mkdir()
    (others_directory / "pictures").symlink_to(tmp_path / "mine")
    line = complaint(run("report", str(saved()), "-o", str(others_directory)), 1)
    assert str(others_directory / "pictures") in line and "link" in line
    assert list((tmp_path / "mine").iterdir()) == []


def test_a_pipe_that_others_link_to_is_not_written_to(tmp_path: Path, others_directory: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (others_directory / "x").symlink_to(tmp_path / "pipe")
    write_whole(others_directory / "x", "text")
    assert (others_directory / "x").read_text() == "text" and not (others_directory / "x").is_symlink()


def test_a_device_is_written_to_as_it_is() -> None:
    write_whole(Path("/dev/null"), "text")
    assert Path("/dev/null").is_char_device()


def test_a_full_disk_is_named_with_the_file() -> None:
    with pytest.raises(OSError, match="No space left") as caught:
        write_whole(Path("/dev/full"), "text")
    assert caught.value.filename == "/dev/full"


def test_permissions_of_a_new_file_are_what_the_umask_leaves(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_whole(tmp_path / "x", "text")
    finally:
        os.umask(before)
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o640


def test_a_name_as_long_as_a_name_may_be(tmp_path: Path) -> None:
    write_whole(tmp_path / ("x" * 255), "text")
    assert (tmp_path / ("x" * 255)).read_text() == "text"


def test_a_place_that_nothing_came_to_is_left_as_it_was(tmp_path: Path) -> None:
    with writable_directory(tmp_path / "a" / "b", "?"), writable_file(tmp_path / "file", "?"):
        assert (tmp_path / "a" / "b").is_dir()
    assert list(tmp_path.iterdir()) == []
    with writable_directory(tmp_path / "a" / "b", "?"):
        (tmp_path / "a" / "b" / "kept").touch()
    assert (tmp_path / "a" / "b" / "kept").exists()


@pytest.mark.parametrize("place", ["file/below", "file"])
def test_a_directory_that_cannot_be(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(BenchError, match=r"cannot write to .*file.*; choose"),
        writable_directory(tmp_path / place, "choose"),
    ):
        raise AssertionError


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pictures", "report.html", "pytest-benchmark.json"])
def test_what_is_in_a_report_s_way_is_found_before_anything_is_measured(
    saved: Callable[..., Path], tmp_path: Path, name: str
) -> None:
    path, place = saved(), tmp_path / "out"
    place.mkdir()
    (place / name).touch() if name == "pictures" else (place / name).mkdir()
    for arguments in (("compare", "--out", str(place)), ("report", str(path), "-o", str(place))):
        line = complaint(run(*arguments), 1)
        assert "cannot write" in line and str(place / name) in line and "choose another place with" in line
    assert [each.name for each in place.iterdir()] == [name]


# -- report ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_report_in_every_form(saved: Callable[..., Path], tmp_path: Path) -> None:
    path = saved()
    done = run("report", str(path), "-o", str(tmp_path / "all"))
    assert (done.returncode, done.stderr, done.stdout) == (0, "", f"written to {tmp_path / 'all'}\n")
    assert {each.name for each in (tmp_path / "all").iterdir()} == ALL
    assert (tmp_path / "all" / "results.json").read_bytes() == path.read_bytes()
    assert (tmp_path / "all" / "pictures" / "throughput.svg").read_text().startswith("<svg")
    assert (tmp_path / "all" / "pictures" / "throughput.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_pictures_of_an_earlier_report_are_gone_and_nothing_else(saved: Callable[..., Path], tmp_path: Path) -> None:
    pictures = tmp_path / "all" / "pictures"
    pictures.mkdir(parents=True)
    for name in ("loss.svg", "loss.png", "throughput.svg", "my-loss.svg", "loss.pdf"):
        (pictures / name).write_text("of another run")
    assert run("report", str(saved()), "-o", str(tmp_path / "all")).returncode == 0
    names = {each.name for each in pictures.iterdir()}
    assert not {"loss.svg", "loss.png"} & names and {"my-loss.svg", "loss.pdf", "throughput.svg"} <= names
    assert (pictures / "throughput.svg").read_text() != "of another run"


@pytest.mark.slow
def test_one_file_by_its_ending(saved: Callable[..., Path], tmp_path: Path) -> None:
    path = saved()
    for name, begins in (("x.html", b"<!DOCTYPE html>"), ("x.md", b"# "), ("x.svg", b"<svg"), ("x.png", b"\x89PNG")):
        done = CliRunner().invoke(report, [str(path), "-o", str(tmp_path / name)])
        assert (done.exit_code, done.output.replace("\n", "")) == (0, f"written to {tmp_path / name}")
        assert (tmp_path / name).read_bytes().startswith(begins)
    assert run("report", str(path), "-o", str(tmp_path / "x.json")).returncode == 0
    assert json.loads((tmp_path / "x.json").read_text())["benchmarks"]


@pytest.mark.slow
def test_several_runs_are_compared_by_their_ratios(saved: Callable[..., Path], tmp_path: Path) -> None:
    one = saved("one/results.json")
    here = some_results().fingerprint
    other = saved("two/results.json", fingerprint=replace(here, cpu="Z80"), engines=engines("base", "mine"))
    done = run("report", str(one), str(other))
    assert (done.returncode, done.stderr) == (0, "")
    assert "in one, Z80 in two" in done.stdout
    assert "0.80 [0.80…0.80]" in done.stdout and "frames/s" not in done.stdout
    done = run("report", str(one), str(other), "-o", str(tmp_path / "both.html"))
    assert (done.returncode, done.stderr) == (0, "")
    assert "Z80" in (tmp_path / "both.html").read_text()


@pytest.mark.slow
def test_an_unfit_control_is_in_the_same_row_as_another_run_s(saved: Callable[..., Path], tmp_path: Path) -> None:
    unfit = (Unfit("base (control)", None, "broken"),)
    files = [str(saved("one/results.json")), str(saved("two/results.json", unfit=unfit))]
    done = run("report", *files)
    rows = [line for line in done.stdout.splitlines() if line.startswith("(control) ")]
    assert "base (control)" not in done.stdout and "two: (control): broken" in done.stdout
    assert [line.split()[1] for line in rows[:2]] == ["one", "two"] and "unfit" in rows[1].split()
    for name in ("both.md", "both.html"):
        assert run("report", *files, "-o", str(tmp_path / name)).returncode == 0
    rows = [line for line in (tmp_path / "both.md").read_text().splitlines() if line.startswith("| 64 B | ")]
    assert sum(line.startswith(r"| 64 B | (control) |") for line in rows) == 2
    assert not any("base (control)" in line for line in rows)
    page = (tmp_path / "both.html").read_text()
    assert ">(control)</td>" in page and ">base (control)</td>" not in page


def engines(*names: str) -> tuple[EngineRecord, ...]:
    return tuple(EngineRecord(name, "1", "-", "-", False, "default") for name in (*names, "base (control)"))


def test_a_wrong_request(saved: Callable[..., Path], tmp_path: Path) -> None:
    one, other = str(saved()), str(saved("other.json"))
    wrong: tuple[tuple[tuple[str, ...], str], ...] = (
        ((one, one), "a file is given twice"),
        ((one, other, "-o", str(tmp_path / "dir")), "several FILES"),
        ((one, other, "-o", str(tmp_path / "x.json")), "several FILES"),
        ((one, "-o", one), "is one of the FILES"),
        ((one, "-o", str(tmp_path / "x.txt")), "cannot draw .txt"),
        ((one, "-o", str(tmp_path / "x.svg"), "--picture", "mine"), "no picture 'mine'; there are verdict, throughput"),
        ((one, "-o", str(tmp_path / "x.md"), "--picture", "throughput"), "--picture is for"),
    )
    for arguments, words in wrong:
        assert words in complaint(run("report", *arguments), 2)
    assert {each.name for each in tmp_path.iterdir()} == {"results.json", "other.json"}


def test_a_right_request_that_fails(saved: Callable[..., Path], tmp_path: Path) -> None:
    one = str(saved())
    other = str(saved("other.json", baseline="mine"))
    failing: tuple[tuple[tuple[str, ...], str], ...] = (
        ((one, "-o", str(tmp_path / "none" / "x.html")), "cannot write"),
        ((one, "-o", "/dev/null/dir"), "cannot write"),
        ((one, other), "different baselines cannot be compared: to base in results, to mine in other;"),
        ((one, "-o", str(tmp_path / "x.svg"), "--picture", "loss"), "no picture 'loss'"),
    )
    for arguments, words in failing:
        assert words in complaint(run("report", *arguments), 1)


def test_an_older_schema_is_refused_with_its_version_and_a_way_out(tmp_path: Path) -> None:
    path = tmp_path / "old.json"
    about = {"schema": 1, "fingerprint": {"versions": {"fastbridge": "0.0.9", "commit": "abc"}}}
    path.write_text(json.dumps(about))
    line = complaint(run("report", str(path)), 1)
    assert "version 1" in line and "Measure again" in line and "fastbridge 0.0.9, commit abc" in line


WITHOUT = """
import sys
sys.modules[MISSING] = None
from fastbridge.cli import main
main()
"""


@pytest.mark.slow
@pytest.mark.parametrize("missing", ["altair", "vl_convert", "jinja2"])
def test_without_the_extra_it_is_said_before_anything_is_done(
    saved: Callable[..., Path], tmp_path: Path, missing: str
) -> None:
    script = WITHOUT.replace("MISSING", repr(missing))
    for arguments in (
        ["compare", "--out", str(tmp_path / "out")],
        ["report", str(saved()), "-o", str(tmp_path / "x.html")],
    ):
        command = [sys.executable, "-W", "error", "-c", script, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=180, cwd=ROOT)
        assert "in a clone of fastbridge, pip install -e '.[report]'" in complaint(done, 1)
    assert {each.name for each in tmp_path.iterdir()} == {"results.json"}


@pytest.mark.slow
def test_without_the_histograms_package_the_engines_are_not_to_blame(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(every_method().to_json())
    command = [sys.executable, "-W", "error", "-c", WITHOUT.replace("MISSING", "'hdrh'"), "report", "results.json"]
    here = {"capture_output": True, "text": True, "timeout": 240, "cwd": tmp_path}
    env = {"env": os.environ | {"PYTHONPATH": str(ROOT)}}
    shown = subprocess.run(command, **here, **env)  # type: ignore[call-overload]
    reason = f"not readable here (latency needs the package hdrhistogram: {way_to('bench')})"
    assert reason in shown.stdout and "unfit: latency needs" not in shown.stdout
    for place in ("x.json", "directory"):
        drawn = subprocess.run([*command, "-o", place], **here, **env)  # type: ignore[call-overload]
        (line,) = drawn.stderr.splitlines()
        assert drawn.returncode == 0 and reason in line
        assert line.startswith("left out for pytest-benchmark") and "latency, 64 B (linux-bridge, fastbridge" in line


@pytest.mark.slow
def test_what_the_methods_need_is_asked_for_before_anything_is_measured(tmp_path: Path) -> None:
    for missing, profile, name in (("hdrh", "quick", "hdrhistogram"), ("MLRsearch", "standard", "MLRsearch")):
        script = WITHOUT.replace("MISSING", repr(missing))
        place = ["--profile", profile, "-o", str(tmp_path / "results.json")]
        command = [sys.executable, "-W", "error", "-c", script, "compare", *place]
        done = subprocess.run(command, capture_output=True, text=True, timeout=180, cwd=ROOT)
        assert f"profile {profile} needs {name}: {way_to('bench')}" in complaint(done, 1)
    assert not [*tmp_path.iterdir()]
