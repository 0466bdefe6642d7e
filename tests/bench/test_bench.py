"""The bench: statistics against known data, results there and back, engines that fail, one tiny real run."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jsonschema
import pytest
from effort import few_rows
from live import PATIENCE, eventually
from made_results import every_method
from made_runs import METHOD, TASK, OneTrial, make_results, make_run

import fastbridge
from fastbridge.bench import Engine, Findings, Offer, Profile, Ratio, Results, Stream, Task, compare, rows
from fastbridge.bench.engines import ENGINES, CommandEngine, LinuxBridge, Programs, PythonSockets, Running
from fastbridge.bench.machine import disturbance, fingerprint
from fastbridge.bench.machine.disturbance import Watch, _family, _processes, survey
from fastbridge.bench.machine.fingerprint import take_fingerprint
from fastbridge.bench.methods.forwarding_rate import ForwardingRate
from fastbridge.bench.methods.measurer import Measurer, Replay
from fastbridge.bench.methods.port_scaling import PortScaling
from fastbridge.bench.methods.registry import METHODS
from fastbridge.bench.methods.tcp_bulk import TcpBulk
from fastbridge.bench.profiles import PROFILES, chosen
from fastbridge.bench.report import wording
from fastbridge.bench.report.rows import flags_of
from fastbridge.bench.report.statistics import interleave, ratio, verdict
from fastbridge.bench.results.results import Run, Unfit, results_schema
from fastbridge.bench.results.shapes import decode
from fastbridge.bench.tester.offer import IMIX, Phase, steady
from fastbridge.bench.tester.trial import Disturbance
from fastbridge.console import make_console, make_table, print_lines
from fastbridge.errors import BenchError, ConfigError, LabError
from fastbridge.lab.topology import Lab, Topology

# -- statistics ----------------------------------------------------------------------------------


def test_drift_common_to_a_block_cancels() -> None:
    drift = [1.0, 0.5, 2.0, 0.1, 3.0]
    measured = ratio(
        {block: 2e5 * factor for block, factor in enumerate(drift)},
        {block: 1e5 * factor for block, factor in enumerate(drift)},
        seed=1,
    )
    assert measured is not None
    assert (measured.mean, measured.low, measured.high) == pytest.approx((2.0, 2.0, 2.0))
    assert measured.blocks == 5


def test_mean_is_geometric_and_the_interval_brackets_it() -> None:
    measured = ratio(dict(enumerate([2.0, 8.0, 4.0, 2.0, 8.0])), dict.fromkeys(range(5), 1.0), seed=1)
    assert measured is not None
    assert measured.mean == pytest.approx(4.0)
    assert 2.0 <= measured.low < 4.0 < measured.high <= 8.0


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    import numpy as np

    generator = np.random.default_rng(7)
    hits = 0
    for seed in range(200):
        logs = generator.normal(math.log(1.3), 0.1, 20)
        measured = ratio(dict(enumerate(np.exp(logs).tolist())), dict.fromkeys(range(20), 1.0), seed=seed)
        assert measured is not None
        hits += measured.low <= 1.3 <= measured.high
    assert 0.86 <= hits / 200 <= 0.99


def test_the_same_seed_gives_the_same_interval() -> None:
    values, base = {i: 1.0 + i % 3 for i in range(10)}, dict.fromkeys(range(10), 1.0)
    assert ratio(values, base, seed=5) == ratio(values, base, seed=5)


def test_only_blocks_with_both_sides_count() -> None:
    values, base = dict.fromkeys(range(7), 2.0) | {7: 9.0, 8: 0.0}, dict.fromkeys((*range(7), 8, 9), 1.0)
    measured = ratio(values, base, seed=1)
    assert measured is not None and measured.blocks == 7 and measured.mean == pytest.approx(2.0)


def test_few_blocks_have_no_interval() -> None:
    four, five = dict.fromkeys(range(4), 2.0), dict.fromkeys(range(5), 2.0)
    assert ratio(four, five, seed=1) is None
    assert ratio(five, five, seed=1) is not None


@pytest.mark.parametrize(
    ("interval", "word"),
    [((1.06, 1.2), "win"), ((1.04, 1.2), "cannot tell"), ((0.8, 0.94), "loss"), ((0.96, 1.02), "no difference")],
)
def test_a_claim_needs_the_whole_interval_outside_the_noise(interval: tuple[float, float], word: str) -> None:
    assert verdict(Ratio(1.0, *interval, blocks=10), 0.05) == word


@pytest.mark.parametrize(
    ("interval", "floor", "word"),
    [
        ((0.10, 1.05), 0.14, "cannot tell"),
        ((0.30, 0.65), 0.40, "cannot tell"),
        ((0.97, 1.04), 0.01, "no difference"),  # of more than five hundredths
        ((0.93, 1.04), 0.01, "cannot tell"),
        ((0.93, 1.04), 0.08, "no difference"),  # of more than the noise
        ((0.99, 1.01), 0.30, "cannot tell"),  # such noise hides a third
        ((0.99, 1.01), 12.6, "cannot tell"),
    ],
)
def test_that_there_is_no_difference_is_a_claim_too(interval: tuple[float, float], floor: float, word: str) -> None:
    assert verdict(Ratio(1.0, *interval, blocks=10), floor) == word


def loaded(foreign: float, throttled: float = 0.0) -> dict[str, Any]:
    return {"disturbance": Disturbance(1.0, foreign, throttled)}


def test_beside_other_programs_no_verdict_is_given() -> None:
    def found(disturbance: dict[str, Any], blocks: int) -> Any:
        runs = [
            make_run(engine, block, rate, **(disturbance if block < blocks else loaded(0.01)))
            for block in range(10)
            for engine, rate in (("base", 100_000), ("base (control)", 100_000), ("mine", 50_000))
        ]
        return rows(make_results(runs))[-1]

    assert found(loaded(0.01), 10).verdict == "loss"
    for much in (loaded(1.4), loaded(0.0, 0.5)):
        row = found(much, 10)
        assert row.verdict == "withheld" and row.ratio.mean == pytest.approx(0.5)
        assert row.flags == {"disturbed by other programs or a quota": 10}
        some = found(much, 3)  # seven blocks are left
        assert (some.verdict, some.dropped, some.ratio.blocks) == ("loss", 3, 7)


@pytest.mark.slow
def test_the_direct_pair_is_a_ceiling_of_rates_and_a_floor_of_latency() -> None:
    found = {row.task: row for row in rows(every_method()) if row.is_direct}
    assert found["forwarding rate, 64 B"].verdict == "ceiling"
    assert found["latency at load, 64 B, 4,000 frames/s"].verdict == "floor"


@pytest.mark.parametrize(
    ("interval", "text"),
    [((543.2, 208.0, 1423.0), "543 [208…1,423]"), ((9.6, 8.0, 11.5), "9.60 [8.00…11.5]")],
)
def test_a_ratio_has_no_exponent(interval: tuple[float, float, float], text: str) -> None:
    assert wording.ratio(Ratio(*interval, blocks=10)) == text


def test_a_run_that_failed_is_said_and_does_not_cost_an_engine_its_part() -> None:
    runs = [make_run("base", block, 1000) for block in range(3)]
    runs.append(Run("base", TASK.name, 3, 0, (), "no trial was valid"))
    (row,) = rows(make_results(runs))
    assert (row.runs, row.unfit) == (3, None)
    assert row.remarks == ("a run did not come to its end: no trial was valid",)


# -- what else goes on ---------------------------------------------------------------------------


def test_another_program_is_seen_and_one_of_ours_is_not() -> None:
    # In a session of another parent the burner is a stranger: a child of a child that has ended.
    spin = "import time; end = time.monotonic() + 20\nwhile time.monotonic() < end: pass"
    start = (
        f"import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', {spin!r}], stdout=-3, stderr=-3).pid)"
    )
    stranger = int(subprocess.run([sys.executable, "-c", start], capture_output=True, text=True, check=True).stdout)
    try:
        eventually(lambda: cpu_of(stranger) > 0.1)
        watch, before = Watch(), cpu_of(stranger)
        eventually(lambda: cpu_of(stranger) > before + 0.3)
        name = Path(f"/proc/{stranger}/comm").read_text().strip()
        assert watch.foreign()[name] >= 0.25
        assert watch.disturbance().foreign_seconds >= 0.25
        (line, *_) = survey(1, seconds=0.3)
        assert "of 1 CPUs" in line and "verdicts will be withheld" in line
    finally:
        os.kill(stranger, signal.SIGKILL)
    with subprocess.Popen([sys.executable, "-c", spin]) as ours:
        try:
            watch, before = Watch(), cpu_of(ours.pid)
            eventually(lambda: cpu_of(ours.pid) > before + 0.3)
            seen = {key[0] for key in _processes()} - _family(_processes())
            assert ours.pid not in seen and os.getpid() not in seen and 1 in seen
        finally:
            ours.kill()


def cpu_of(pid: int) -> float:
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) * 1e-9


@pytest.mark.parametrize("version", [1, 2])
def test_a_quota_is_found_through_all_groups(version: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    for group, quota, throttled in ((tmp_path / "a", 60_000, 3), (inner, 150_000, 1)):
        if version == 2:
            (group / "cpu.max").write_text(f"{quota} 100000\n")
            (group / "cpu.stat").write_text(f"usage_usec 5\nthrottled_usec {throttled * 10**6}\n")
        else:
            (group / "cpu.cfs_quota_us").write_text(f"{quota}\n")
            (group / "cpu.cfs_period_us").write_text("100000\n")
            (group / "cpu.stat").write_text(f"nr_periods 5\nthrottled_time {throttled * 10**9}\n")
    mount = {
        1: f"33 30 0:28 / {tmp_path} rw - cgroup cgroup rw,cpu,cpuacct",
        2: f"34 30 0:29 / {tmp_path} rw - cgroup2 cgroup2 rw",
    }
    files = {
        "/proc/self/mountinfo": f"22 1 0:5 / /proc rw - proc proc rw\n{mount[version]}\n",
        "/proc/self/cgroup": {1: "4:memory:/x\n3:cpu,cpuacct:/a/b\n", 2: "0::/a/b\n"}[version],
    }
    real = Path.read_text
    monkeypatch.setattr(Path, "read_text", lambda self, *a, **k: files.get(str(self)) or real(self, *a, **k))
    assert disturbance.cpu_quota() == pytest.approx(0.6)
    assert disturbance._throttled() == pytest.approx(4.0)
    assert take_fingerprint({}, {}).quota == "0.6 CPUs"
    assert any("a CPU quota of 0.6 CPUs" in line for line in survey(2, seconds=0.0))


@pytest.mark.parametrize(
    ("flags", "lscpu", "name"),
    [
        ("fpu", "echo Hypervisor vendor: Bochs", "none seen"),
        ("fpu hypervisor", "echo Flags: hypervisor; echo Hypervisor vendor:  Bochs", "Bochs"),
        ("fpu hypervisor", "echo Flags: hypervisor", fingerprint.NAMELESS),
        ("fpu hypervisor", None, fingerprint.NAMELESS),
    ],
)
def test_a_hypervisor_is_named_where_it_has_a_name(
    flags: str, lscpu: str | None, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fingerprint, "_cpuinfo", lambda: {"flags": flags})
    read = fingerprint._read
    monkeypatch.setattr(fingerprint, "_read", lambda path: fingerprint.UNKNOWN if "/dmi/" in str(path) else read(path))
    if lscpu is not None:
        (tmp_path / "lscpu").write_text(f"#!/bin/sh\n{lscpu}\n")
        (tmp_path / "lscpu").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert fingerprint.take_fingerprint({}, {}).hypervisor == name


def test_the_kernel_s_command_line_stays_here(monkeypatch: pytest.MonkeyPatch) -> None:
    secret = "root=UUID=1111 ip=192.0.2.7::office systemd.set_credential=token:s3cret nosmt isolcpus=1 quiet"
    real = Path.read_text
    monkeypatch.setattr(
        Path, "read_text", lambda self, *a, **k: secret if str(self) == "/proc/cmdline" else real(self, *a, **k)
    )
    assert take_fingerprint({}, {}).boot == "isolcpus=1 nosmt"
    old = json.loads(make_results([make_run("base", 0, 1000)]).to_json())
    old["schema"], old["fingerprint"]["boot"] = 2, secret
    for name in ("load", "quota", "siblings", "tcp"):
        del old["fingerprint"][name]
    assert Results.from_json(json.dumps(old)).fingerprint.boot == "isolcpus=1 nosmt"  # of an older file, too


def test_every_block_has_everyone_once_in_changing_order() -> None:
    orders = interleave(["a", "b", "c"], 20, seed=3)
    assert all(sorted(order) == ["a", "b", "c"] for order in orders)
    assert len({tuple(order) for order in orders}) > 1
    assert orders == interleave(["a", "b", "c"], 20, seed=3)


# -- rows ----------------------------------------------------------------------------------------


def test_rows_are_computed_from_the_trials() -> None:
    runs = []
    for block in range(10):
        wobble = 1.01 if block % 2 else 0.99
        runs += [
            make_run("base", block, 100_000),
            make_run("base (control)", block, 100_000 * wobble),
            make_run("fast", block, 150_000, offered=200_000),
        ]
    base, control, fast = rows(make_results(runs))
    assert (base.verdict, control.verdict, fast.verdict) == ("baseline", "control", "win")
    assert fast.ratio is not None and fast.ratio.mean == pytest.approx(1.5)
    assert fast.noise_floor is not None and 0 < fast.noise_floor < 0.02
    assert fast.frames_per_second == 150_000
    assert fast.gigabits_per_second == pytest.approx(150_000 * 60 * 8e-9)
    assert fast.loss_ratio == pytest.approx(0.25)
    assert fast.cpu_machine_ns == pytest.approx(1e9 / 150_000)
    assert fast.cpu_switch_ns == pytest.approx(0.5e9 / 150_000)


def test_what_comes_out_of_buffers_after_the_load_is_lost_in_every_table() -> None:
    (row,) = rows(make_results([make_run("base", 0, 25_000, offered=100_000, received=(0, 100_000))]))
    assert row.loss_ratio == row.values["loss"] == pytest.approx(0.75)


def test_stolen_runs_are_flagged_and_left_out() -> None:
    runs = [make_run("base", block, 100_000) for block in range(6)]
    runs += [make_run("slow", block, 50_000) for block in range(5)]
    runs += [make_run("slow", 5, 1, steal_seconds=1.0)]
    row = rows(make_results(runs))[-1]
    assert row.dropped == 1 and row.flags == {"steal": 1}
    assert row.ratio is not None and row.ratio.mean == pytest.approx(0.5)
    assert row.verdict == "not measured"  # there was no control


def test_what_the_direct_pair_takes_is_taken_off() -> None:
    # Alone it takes 2 us a frame; the engine forwards a half of what is offered, and all of it took the sender's time.
    runs = [make_run("nothing", block, 500_000) for block in range(2)]
    runs += [make_run("base", block, 200_000, offered=400_000) for block in range(2)]
    made = {row.engine: row for row in rows(make_results(runs))}
    assert made["base"].cpu_machine_ns == pytest.approx(5000)
    assert made["base"].cpu_added_ns == pytest.approx(1000)
    assert made["nothing"].cpu_added_ns == pytest.approx(0)
    assert rows(make_results(runs[2:]))[0].cpu_added_ns is None


def test_under_offered_trials_are_flagged() -> None:
    """Paced ones only: an unpaced sender intends what it can."""
    made = make_run("base", 0, 1000)
    paced = Offer((Stream(0, (1,)),), (Phase(1.0, 2000.0),))
    assert flags_of([replace(made.trials[0], offer=paced, intended=2000)], 2) == {"offered < intended": 1}
    assert rows(make_results([made]))[0].flags == {}


def test_coalesced_datagrams_are_no_loss_without_a_remark() -> None:
    method = ForwardingRate((128,), kind="udp", seconds=1.0)
    plain, coalesced = OneTrial(1000, {"window_bytes": 124_000}), OneTrial(1000, {"window_bytes": 300_000})
    assert method.run(plain).remarks == ()
    (remark,) = method.run(coalesced).remarks
    assert "compare Gb/s" in remark


def test_one_run_gives_no_verdict() -> None:
    made = [make_run("base", 0, 100), make_run("fast", 0, 200)]
    row = rows(make_results(made, tasks=(replace(TASK, blocks=1),)))[-1]
    assert row.verdict == "single run" and row.ratio is None and row.frames_per_second == 200


def test_without_a_baseline_it_is_that_and_not_the_blocks_that_is_missing() -> None:
    runs = [make_run(engine, block, 1000) for engine in ("mine", "base (control)") for block in range(10)]
    results = make_results(runs, unfit=(Unfit("base", "64 B", "it died"),))
    found = rows(results)
    assert [row.verdict for row in found] == ["unfit", "control", "no baseline"]
    assert "no ratio, because base has no result to divide by: mine, in every task" in list(
        wording.irregularities(results, found)
    )


def test_an_unfit_engine_has_a_row_with_the_reason() -> None:
    results = make_results([make_run("base", 0, 1000)], unfit=(Unfit("base (control)", "64 B", "it died"),))
    row = rows(results)[1]
    assert (row.verdict, row.unfit, row.runs, row.frames_per_second) == ("unfit", "it died", 0, None)


def test_an_unfinished_run_is_kept_but_not_counted() -> None:
    runs = [make_run("base", 0, 1000), replace(make_run("base", 1, 9000), unfinished="interrupted")]
    (row,) = rows(make_results(runs))
    assert row.runs == 1 and row.frames_per_second == 1000


def test_a_record_its_method_did_not_ask_for_spoils_its_own_row_only() -> None:
    good, run = make_run("base", 0, 1000), make_run("other", 0, 1000)
    other = replace(run.trials[0], offer=replace(run.trials[0].offer, sample=7))
    for trials, reason in (
        ((other,), "trial 0 of the record is not the one its method asks for"),
        ((), "the record ends before the method does"),
        (run.trials * 2, "1 trials are on record that the method does not ask for"),
    ):
        base, _, spoilt = rows(make_results([good, make_run("base (control)", 0, 1), replace(run, trials=trials)]))
        assert base.frames_per_second == 1000 and base.unreadable is None
        assert (spoilt.verdict, spoilt.unfit) == ("not readable", None)
        assert spoilt.unreadable is not None and reason in spoilt.unreadable


def test_a_load_that_another_machine_computes_a_little_differently_replays() -> None:
    offer = Offer((Stream(0, (1,)),), (Phase(1.0, 123456.789),))
    trial = replace(make_run("base", 0, 1000).trials[0], offer=offer)
    near = replace(offer, phases=(Phase(1.0, 123456.789 * (1 + 1e-14)),))
    assert Replay([trial], 2).trial(near) == trial
    with pytest.raises(BenchError):
        Replay([trial], 2).trial(replace(offer, phases=(Phase(1.0, 123457.0),)))


# -- results as JSON -----------------------------------------------------------------------------


def test_results_survive_the_file(tmp_path: Path) -> None:
    results = make_results([make_run("base", block, 1000.5) for block in range(3)])
    results.save(tmp_path / "results.json")
    again = Results.load(tmp_path / "results.json")
    assert again == results
    assert rows(again) == rows(results)


def test_the_schema_describes_the_file() -> None:
    document = json.loads(make_results([make_run("base", block, 1000.5) for block in range(3)]).to_json())
    schema = results_schema()
    jsonschema.validate(document, schema)
    assert "intended load" in schema["$defs"]["Phase"]["properties"]["rate"]["description"]
    document["runs"][0]["trials"][0]["intended"] = "many"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, schema)


def broken(path: list[str | int], value: Any) -> str:
    document = json.loads(make_results([make_run("base", 0, 1000)]).to_json())
    *way, last = path
    place = document
    for step in way:
        place = place[step]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return json.dumps(document)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["runs", 0, "trials", 0, "intended"], "many", r"^runs\[0\]\.trials\[0\]\.intended: a whole number is needed"),
        (["runs", 0, "trials", 0, "intended"], True, r"^runs\[0\]\.trials\[0\]\.intended: a whole number"),
        (["runs", 0, "trials", 0, "seconds"], ..., r"^runs\[0\]\.trials\[0\]\.seconds: the field is missing$"),
        (["runs", 0, "trials", 0, "extra"], 1, r"^runs\[0\]\.trials\[0\]\.extra: no such field$"),
        (["runs", 0, "trials", 0, "received"], [1], r"^runs\[0\]\.trials\[0\]\.received: needs a number for each of 2"),
        (["runs", 0, "trials", 0, "window_frames"], -5, r"window_frames: must be 0 or more, not -5"),
        (["runs", 0, "trials", 0, "window_frames"], None, r"window_frames: frames must be counted"),
        (["runs", 0, "trials", 0, "sent"], [-5, 0], r"sent: must be 0 or more each"),
        (["runs", 0, "trials", 0, "seconds"], math.nan, r"seconds: a number is needed, not nan"),
        (["runs", 0, "trials", 0, "seconds"], 10**400, r"seconds: a number is needed, not 1000"),
        (["runs", 0, "trials", 0, "window_seconds"], math.inf, r"window_seconds: a number is needed, not inf"),
        (["runs", 0, "trials", 0, "offer", "sample"], 5, r"samples: the offer asks for samples"),
        (["engines", 1, "name"], "base", r"^engines\[1\]: a second 'base'$"),
        (["baseline"], "nobody", r"^baseline: 'nobody' is not in engines$"),
        (["seed"], -1, r"^seed: must be 0 or more$"),
        (["fingerprint", "cpus"], 0, r"^fingerprint\.cpus: must be greater than 0$"),
        (["unfit"], [{"engine": "x", "task": None, "reason": "y"}], r"^unfit\[0\]\.engine: 'x' is not in engines$"),
        (["runs", 0, "trials", 0, "window_seconds"], 0, r"^runs\[0\]\.trials\[0\]\.window_seconds: must be greater"),
        (["runs", 0, "trials", 0, "offer", "restart"], "now", r"offer\.restart: one of 'graceful', 'killed' is needed"),
        (
            ["runs", 0, "trials", 0, "offer", "phases", 0, "seconds"],
            -1,
            r"offer\.phases\[0\]: length and rate of a phase",
        ),
        (["runs", 0, "engine"], "nobody", r"^runs\[0\]\.engine: 'nobody' is not in engines$"),
        (["runs", 0, "task"], "65 B", r"^runs\[0\]\.task: '65 B' is not in tasks$"),
        (["runs"], {}, r"^runs: a list is needed"),
        (["fingerprint", "versions", "python"], 3, r"^fingerprint\.versions\.python: text is needed, not 3$"),
        (["interrupted"], 0, r"^interrupted: true or false is needed, not 0$"),
        (["schema"], 99, r"^schema: version 99 is not known here; this fastbridge reads version 2, 3 and 4\. Measure"),
        (["schema"], ..., r"^schema: the field is missing$"),
    ],
)
def test_a_broken_file_names_the_field(path: list[str | int], value: Any, message: str) -> None:
    with pytest.raises(BenchError, match=message):
        Results.from_json(broken(path, value))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["tasks", 0, "method"], "guess", r"^task '64 B': no method 'guess' here; known are .*throughput"),
        (["tasks", 0, "parameters", "seconds"], "long", r"^parameters of '64 B'\.seconds: a number is needed"),
    ],
)
def test_a_task_nobody_knows_is_named(path: list[str | int], value: Any, message: str) -> None:
    with pytest.raises(BenchError, match=message):
        rows(Results.from_json(broken(path, value)))


@pytest.mark.parametrize("text", ["", "{", "[]", "7", "[" * 100_000, '{"benchmarks": []}'])
def test_what_is_no_results_document_is_refused(text: str) -> None:
    with pytest.raises(BenchError):
        Results.from_json(text)


def test_the_file_is_named_in_the_error(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    with pytest.raises(BenchError, match=r"mine\.json"):
        Results.load(path)
    path.write_text("{}")
    with pytest.raises(BenchError, match=r"mine\.json: schema"):
        Results.load(path)


def test_what_a_file_says_is_no_markup_and_figures_are_whole_at_80_columns(tmp_path: Path) -> None:
    runs = [make_run(engine, block, 1_234_567) for engine in ("base", "base (control)") for block in range(10)]
    reason = "pip install 'fastbridge[bench]' \x1b[31m[/x]"
    results = make_results(runs, profile="[/nope]", unfit=(Unfit("base (control)", "64 B", reason),))
    results.save(tmp_path / "results.json")
    shown = subprocess.run(
        [sys.executable, "-m", "fastbridge", "report", str(tmp_path / "results.json")],
        capture_output=True, text=True, check=True, cwd=Path(fastbridge.__file__).parents[1],
        env=os.environ | {"COLUMNS": "80"},
    ).stdout  # fmt: skip
    assert "profile [/nope]" in shown and "pip install 'fastbridge[bench]'  [31m[/x]" in shown
    assert "1,234,567" in shown and "1.00 [1.00…1.00]" in shown
    assert max(len(line.rstrip()) for line in shown.splitlines() if "1,234,567" in line) <= 80


@pytest.mark.parametrize("width", [40, 60, 80])
def test_no_digit_is_cut_and_no_name_is_markup_at_any_width(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    heads = ("received", "forwarded", "flooded", "dropped", "sent", "not sent")
    table = make_table("Frames", "port", *heads, right=heads)
    table.add_row("p[b]1", *["60,480,000,000"] * 6)
    table.add_row("q[red]2", *["1"] * 6)
    console = make_console()
    with console.capture() as capture:
        console.print(table)
        print_lines(console, ["testpmd: dpdk-testpmd --vdev=net_af_packet0,iface=pod1 [x] :smile:"])
    shown = capture.get()
    assert shown.count("60,480,000,000") == 6 and "…" not in shown
    for name in ("p[b]1", "q[red]2", "--vdev=net_af_packet0,iface=pod1", "[x]", ":smile:"):
        assert name in shown
    assert max(len(line.rstrip()) for line in shown.splitlines()) <= width


def test_notes_that_differ_in_numbers_alone_are_one() -> None:
    texts = [f"at 1,000 frames/s only {count} samples arrived: p99.9 is the maximum" for count in (412, 398, 400)]
    assert set(wording.merge_numbers([*texts, "other 5"]).values()) == {
        "at 1,000 frames/s only 398 to 412 samples arrived: p99.9 is the maximum",
        "other 5",
    }


@pytest.mark.slow
def test_the_finding_is_a_sentence() -> None:
    found = wording.finding(every_method(), rows(every_method()))["fastbridge"]
    assert found.startswith(
        "1.25 times linux-bridge's forwarding rate (64 B; 1518 B), 0.99 times its latency (64 B, 4,000"
    )
    assert ", 0.50 times its TCP rate (1 connection" in found
    faster = [
        replace(row, ratio=Ratio(1.5, 1.4, 1.6, 5)) if row.task.endswith("1518 B") else row
        for row in rows(every_method())
    ]
    assert "1.25 to 1.50 times linux-bridge's" in wording.finding(every_method(), faster)["fastbridge"]


# -- requests ------------------------------------------------------------------------------------


def test_a_comparison_needs_its_baseline_and_distinct_names() -> None:
    with pytest.raises(ConfigError, match=r"'linux-bridge' is not among the engines \(python\)"):
        compare((PythonSockets(),))
    with pytest.raises(ConfigError, match="same name"):
        compare((LinuxBridge(), LinuxBridge()))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Stream(0, (0,)), "cannot send to itself"),
        (lambda: Stream(0, (1,), sizes=()), "at least one"),
        (lambda: Stream(0, (1,), sizes=(17,)), "18 bytes or more"),
        (lambda: Stream(0, (1,), sources=1 << 25), "no more than"),
        (lambda: Phase(), "in seconds or in frames"),
        (lambda: Phase(1.0, 0.0), "greater than 0"),
        (lambda: Offer((), (Phase(1.0),)), "needs a stream"),
        (lambda: Offer((Stream(0, (1,)), Stream(1)), (Phase(1.0),)), "cannot be counted apart"),
        (lambda: Offer((Stream(0, (1,), kind="tcp"), Stream(1, (0,))), (Phase(1.0),)), "a trial of its own"),
    ],
)
def test_an_offer_that_cannot_be_is_refused(make: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


def test_every_task_of_every_profile_can_be_written_down_and_read_back() -> None:
    for profile in PROFILES.values():
        assert len({task.name for task in profile.tasks}) == len(profile.tasks)
        for task in profile.tasks:
            parameters = json.loads(json.dumps(asdict(task.method)))  # type: ignore[call-overload]
            assert decode(METHODS[task.method.name], parameters) == task.method
            assert task.method.primary in task.method.units


def test_a_profile_of_one_s_own() -> None:
    quick = PROFILES["quick"]
    made = chosen(quick, methods=["forwarding-rate"], sizes=[(512,), IMIX], pattern="bidirectional", blocks=7)
    names = [task.name for task in made.tasks]
    assert names == ["forwarding rate, 512 B, bidirectional", "forwarding rate, IMIX, bidirectional"]
    assert {task.blocks for task in made.tasks} == {7}
    assert [task.method.name for task in chosen(quick, methods=["frame-loss"]).tasks] == ["frame-loss"]
    assert "tcp bulk, 1 connection" in [task.name for task in chosen(quick, sizes=[(512,)]).tasks]
    for request, words in (
        ({"methods": ["guess"]}, "there is no method guess; there are forwarding-rate"),
        ({"methods": ["tcp-bulk"], "sizes": [(64,)]}, "frame sizes: not for tcp-bulk; for forwarding-rate"),
        ({"methods": ["latency-at-load"], "pattern": "busy"}, "pattern 'busy': not for latency-at-load"),
    ):
        with pytest.raises(ConfigError, match=words):
            chosen(quick, **request)  # type: ignore[arg-type]


def test_pods_that_are_busy_on_every_cpu_are_in_the_usual_profiles() -> None:
    for name in ("quick", "standard"):
        assert "forwarding rate, 64 B, busy pods" in [task.name for task in PROFILES[name].tasks]


@pytest.mark.live
def test_busy_pods_send_both_ways_from_two_cpus() -> None:
    task = Task(ForwardingRate((64,), "busy", seconds=0.3))
    results = compare((LinuxBridge(),), profile=Profile("busy", (task,)))
    (run,) = [run for run in results.runs if run.engine == "linux-bridge"]
    (trial,) = run.trials
    assert trial.offer.senders == [0, 1] and all(trial.sent) and all(trial.received)
    assert trial.disturbance is not None and trial.disturbance.seconds > 0.3


def test_a_missing_command_is_found_before_anything_is_measured() -> None:
    with pytest.raises(BenchError, match=r"there is no program '\./nosuch'"):
        compare((LinuxBridge(), CommandEngine("./nosuch {ports}")))


def test_a_replay_wants_the_record_s_own_trials() -> None:
    run = make_run("base", 0, 1000)
    assert METHOD.run(Replay(run.trials, 2)).values["frmol"] == 1000


# -- live ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Faulty(Engine):
    """An engine made of one line of Python."""

    name: str
    program: str
    most_ports: int | None = None
    lacks: str | None = None

    def version(self) -> str:
        return "0"

    def missing(self) -> str | None:
        return self.lacks

    @contextmanager
    def attach(self, lab: Lab, cpu: int) -> Iterator[Running]:
        def start(programs: Programs) -> None:
            programs.command = "faulty"
            programs.run([sys.executable, "-I", "-S", "-c", self.program]).line(10.0)

        with Programs(self.name, lab, cpu, start) as running:
            yield running


DEAF = Faulty("deaf", "print('ready', flush=True); import time; time.sleep(600)")
MORTAL = Faulty("mortal", "print('ready', flush=True); raise SystemExit('it was too much')")
STILLBORN = Faulty("stillborn", "raise SystemExit('no such device')")
# Forwards nine of ten frames, by a filter a Linux bridge would not have.
LOSSY = Faulty(
    "lossy",
    """
import socket, sys
ports = [socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 3) for _ in range(2)]
for port, name in zip(ports, ("pod1", "pod2")):
    port.bind((name, 3))
    port.setsockopt(263, 23, 1)
print('ready', flush=True)
count = 0
while True:
    frame = ports[0].recv(65536)
    count += 1
    if count % 10:
        ports[1].send(frame)
""",
)
ABSENT = Faulty("absent", "", lacks="there is no program absent: install it")
RATE = Task(ForwardingRate((64,), seconds=0.2), 2, ceiling=True)
TINY = Profile("tiny", (RATE, Task(TcpBulk(seconds=0.1), 2)))


@pytest.mark.live
@pytest.mark.slow
def test_a_tiny_comparison_measures_and_leaves_faulty_engines_behind() -> None:
    steps: list[tuple[float, float, str]] = []
    engines = (LinuxBridge(), PythonSockets(), DEAF, MORTAL, STILLBORN, ABSENT, LOSSY)
    results = compare(engines, profile=TINY, seed=1, progress=lambda *step: steps.append(step))
    assert Results.from_json(results.to_json()) == results
    jsonschema.validate(json.loads(results.to_json()), results_schema())
    assert not results.interrupted
    made = {(row.task, row.engine): row for row in rows(results)}
    for task in TINY.tasks:
        for engine in ("linux-bridge", "linux-bridge (control)", "python"):
            row = made[task.name, engine]
            assert row.unfit is None and row.runs == 2 and row.gigabits_per_second
        for engine in ("deaf", "mortal", "stillborn", "absent", "lossy"):
            assert made[task.name, engine].verdict == "unfit"
    assert made[RATE.name, "direct"].verdict == "ceiling"
    assert (TINY.tasks[1].name, "direct") not in made
    deaf = made[RATE.name, "deaf"].unfit
    assert deaf is not None and "forwarded nothing" in deaf
    assert made[RATE.name, "mortal"].unfit == "mortal ended with status 1: it was too much"
    assert made[TINY.tasks[1].name, "stillborn"].unfit == "stillborn ended with status 1: no such device"
    assert made[RATE.name, "absent"].unfit == "not available: there is no program absent: install it"
    lossy = made[RATE.name, "lossy"].unfit
    assert lossy is not None and "at a low load of" in lossy
    shares = [share for share, _, _ in steps]
    assert shares[0] == 0.0 and shares[-1] > 0.8 and all(left >= 0 for _, left, _ in steps)


@pytest.mark.slow
@pytest.mark.live
def test_results_say_which_path_frames_took(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastbridge.bench.machine.child.STOP_SECONDS", PATIENCE)  # its last word says it
    engines = (LinuxBridge(), ENGINES["fastbridge/nft"], ENGINES["fastbridge/af-packet"])
    results = compare(engines, profile=Profile("tiny", (replace(RATE, blocks=1),)))
    shares = {record.name: record.kernel_share for record in results.engines}
    assert shares["linux-bridge"] is shares["direct"] is None
    assert shares["fastbridge/af-packet"] == 0
    share = shares["fastbridge/nft"]
    assert share is not None and 0.9 < share < 1  # the first frames came to the core


@pytest.mark.live
@pytest.mark.parametrize(
    ("told", "blocks"),
    few_rows(
        1,
        [
            ([(0.2, "cannot tell"), (0.09, "win"), (0.04, "win")], 4),
            ([(0.2, "win"), (0.3, "withheld")], 3),
            ([(0.2, "win")] * 3, 5),
            ([(None, "not measured")], 2),
            ([(0.03, "loss")], 2),
        ],
    ),
)
def test_a_noisy_task_goes_on(
    told: list[tuple[float | None, str]], blocks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until its noise floor is fine, or nothing will be claimed, or there are as many blocks as it may have."""
    left = iter(told)

    def measured(results: Results) -> list[Any]:
        assert [task.name for task in results.tasks] == [noisy.name]  # no other is asked about
        floor, verdict = next(left)
        return [SimpleNamespace(noise_floor=floor, verdict=verdict)]

    monkeypatch.setattr(sys.modules["fastbridge.bench.compare"], "rows", measured)
    noisy = Task(ForwardingRate((128,), seconds=0.05), 2, most=5)
    quiet = Task(ForwardingRate((64,), seconds=0.05), 2)
    steps: list[float] = []
    results = compare(
        (LinuxBridge(),), profile=Profile("tiny", (noisy, quiet)), progress=lambda share, *_: steps.append(share)
    )
    assert not list(left)
    assert {task.name: task.blocks for task in results.tasks} == {noisy.name: blocks, quiet.name: 2}
    assert {run.block for run in results.runs if run.task == noisy.name} == set(range(blocks))
    assert all(0 <= share <= 1 for share in steps)


@pytest.mark.live
def test_ctrl_c_keeps_what_was_measured() -> None:
    def interrupt(share: float, left: float, text: str) -> None:
        if "block 2" in text:
            raise KeyboardInterrupt

    results = compare((LinuxBridge(),), profile=replace(TINY, tasks=TINY.tasks[:1]), progress=interrupt)
    assert results.interrupted
    assert sorted(run.engine for run in results.runs) == ["direct", "linux-bridge", "linux-bridge (control)"]
    assert all(run.block == 0 and run.unfinished is None for run in results.runs)


@pytest.mark.live
@pytest.mark.slow
def test_an_engine_that_joins_too_few_ports_and_a_lab_that_fails_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def lab(topology: Topology) -> Lab:
        if len(topology.pods) > 3:
            raise LabError("no more pods to be had")
        return Lab(topology)

    monkeypatch.setattr(sys.modules["fastbridge.bench.testbed"], "Lab", lab)
    few = Faulty("few", "print('ready', flush=True); import time; time.sleep(600)", most_ports=2)
    tasks = (replace(RATE, blocks=1), Task(PortScaling(3, seconds=0.2)), Task(PortScaling(4, seconds=0.2)))
    kept: list[Results] = []
    results = compare((LinuxBridge(), few), profile=Profile("ports", tasks), keep=kept.append)
    made = {(row.task, row.engine): row for row in rows(results)}
    assert made[tasks[0].name, "linux-bridge"].frames_per_second and made[tasks[1].name, "linux-bridge"].values
    assert made[tasks[2].name, "linux-bridge"].unfit == "no more pods to be had"
    assert made[tasks[1].name, "few"].unfit == "joins 2 ports, and 3 are needed"
    assert [len(it.runs) for it in kept] == [2, 3, 3] and all(it.interrupted for it in kept)


@dataclass(frozen=True)
class Endless:
    """A method that is interrupted in its second trial."""

    name = "forwarding-rate"
    section = "none"
    units = RATE.method.units
    primary = RATE.method.primary
    higher_is_better = True
    ports = 2
    subject = "endless"
    link = None

    def run(self, measurer: Measurer) -> Findings:
        measurer.trial(steady(Stream(0, (1,)), 0.2, 1000.0))
        raise KeyboardInterrupt


@pytest.mark.slow
@pytest.mark.live
def test_ctrl_c_within_a_search_keeps_its_trials() -> None:
    results = compare((LinuxBridge(),), profile=Profile("endless", (Task(Endless(), 2),)))
    (run,) = results.runs
    assert results.interrupted and run.unfinished == "interrupted"
    assert len(run.trials) == 1 and run.trials[0].forwarded


@pytest.mark.live
@pytest.mark.slow
def test_a_comparison_is_the_same_when_read_again_elsewhere(tmp_path: Path) -> None:
    results = compare((LinuxBridge(), PythonSockets()), profile=replace(TINY, tasks=(RATE,)), seed=5)
    results.save(tmp_path / "results.json")
    assert rows(Results.load(tmp_path / "results.json")) == rows(results)
    shown = subprocess.run(
        [sys.executable, "-m", "fastbridge", "report", str(tmp_path / "results.json")],
        capture_output=True, text=True, check=True, cwd=Path(fastbridge.__file__).parents[1],
    )  # fmt: skip
    for row in rows(results):
        if row.frames_per_second is not None:
            assert f"{row.frames_per_second:,.0f}" in shown.stdout
