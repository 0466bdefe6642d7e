"""The bench: statistics against known data, results there and back, engines that fail, one tiny real run."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from fastbridge.bench import (
    QUICK,
    EngineRecord,
    Fingerprint,
    Ratio,
    Results,
    Running,
    Scenario,
    Trial,
    Unfit,
    compare,
    rows,
)
from fastbridge.bench.child import Child
from fastbridge.bench.engines.direct import Direct
from fastbridge.bench.engines.linux_bridge import LinuxBridge
from fastbridge.bench.engines.python_sockets import PythonSockets
from fastbridge.bench.machine import Layout
from fastbridge.bench.statistics import interleave, ratio, verdict
from fastbridge.bench.tester import Tester as BenchTester  # pytest would collect a name that starts with Test
from fastbridge.bench.tester import frame
from fastbridge.errors import BenchError, ConfigError
from fastbridge.topology import Lab, Topology

FINGERPRINT = Fingerprint(
    "cpu", 2, "0x1", "none seen", "6.1", "quiet", "unknown", {}, {"python": "3"}, {"sender": "CPU 0"}, {}
)


def make_trial(engine: str, block: int, rate: float, **changes: Any) -> Trial:
    """A 64 B trial of one second at `rate` frames/s without loss."""
    frames = int(rate)
    made = Trial(
        engine=engine,
        scenario="64 B",
        block=block,
        position=0,
        seconds=1.0,
        window_seconds=1.0,
        window_bytes=60 * frames,
        cpu_machine_seconds=1.0,
        steal_seconds=0.0,
        cpu_switch_seconds=0.5,
        intended=frames,
        offered=frames,
        forwarded=frames,
        window_frames=frames,
        involuntary_switches=0,
    )
    return replace(made, **changes)


def make_results(trials: list[Trial], **changes: Any) -> Results:
    names = ["base", "base (control)", *sorted({trial.engine for trial in trials} - {"base", "base (control)"})]
    made = Results(
        schema=1,
        profile="quick",
        started="2026-01-01T00:00:00+00:00",
        seed=1,
        blocks=10,
        baseline="base",
        control="base (control)",
        interrupted=False,
        fingerprint=FINGERPRINT,
        scenarios=(Scenario("64 B", 64),),
        engines=tuple(EngineRecord(name, "1", "-", "-", name != "nothing") for name in names),
        unfit=(),
        trials=tuple(trials),
    )
    return replace(made, **changes)


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
    measured = ratio({0: 2.0, 1: 8.0, 2: 4.0}, {0: 1.0, 1: 1.0, 2: 1.0}, seed=1)
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
    measured = ratio({0: 2.0, 1: 2.0, 2: 9.0}, {0: 1.0, 1: 1.0}, seed=1)
    assert measured is not None and measured.blocks == 2 and measured.mean == pytest.approx(2.0)
    assert ratio({0: 2.0}, {0: 1.0}, seed=1) is None


@pytest.mark.parametrize(
    ("interval", "word"),
    [((1.06, 1.2), "win"), ((1.04, 1.2), "no difference"), ((0.8, 0.94), "loss"), ((0.96, 1.02), "no difference")],
)
def test_a_claim_needs_the_whole_interval_outside_the_noise(interval: tuple[float, float], word: str) -> None:
    assert verdict(Ratio(1.0, *interval, blocks=10), 0.05) == word


def test_every_block_has_everyone_once_in_changing_order() -> None:
    orders = interleave(["a", "b", "c"], 20, seed=3)
    assert all(sorted(order) == ["a", "b", "c"] for order in orders)
    assert len({tuple(order) for order in orders}) > 1
    assert orders == interleave(["a", "b", "c"], 20, seed=3)


# -- rows ----------------------------------------------------------------------------------------


def test_rows_are_computed_from_the_trials() -> None:
    trials = []
    for block in range(10):
        wobble = 1.01 if block % 2 else 0.99
        trials += [
            make_trial("base", block, 100_000),
            make_trial("base (control)", block, 100_000 * wobble),
            make_trial("fast", block, 150_000, offered=200_000),
        ]
    base, control, fast = rows(make_results(trials))
    assert (base.verdict, control.verdict, fast.verdict) == ("baseline", "control", "win")
    assert fast.ratio is not None and fast.ratio.mean == pytest.approx(1.5)
    assert fast.noise_floor is not None and 0 < fast.noise_floor < 0.02
    assert fast.frames_per_second == 150_000
    assert fast.gigabits_per_second == pytest.approx(150_000 * 60 * 8e-9)
    assert fast.loss_ratio == pytest.approx(0.25)
    assert fast.cpu_machine_ns == pytest.approx(1e9 / 150_000)
    assert fast.cpu_switch_ns == pytest.approx(0.5e9 / 150_000)


def test_stolen_trials_are_flagged_and_left_out() -> None:
    trials = [make_trial("base", block, 100_000) for block in range(4)]
    trials += [make_trial("slow", block, 50_000) for block in range(4)]
    trials += [make_trial("slow", 4, 1, steal_seconds=1.0), make_trial("base", 4, 100_000)]
    row = rows(make_results(trials))[-1]
    assert row.dropped == 1 and row.flags == ("steal in 1 of 5 trials",)
    assert row.ratio is not None and row.ratio.mean == pytest.approx(0.5)
    assert row.verdict == "not measured"  # there was no control


def test_the_senders_own_time_is_taken_off() -> None:
    # Alone it takes 2 us a frame; the engine forwards a half of what is offered, and all of it took the sender's time.
    trials = [make_trial("nothing", block, 500_000) for block in range(2)]
    trials += [make_trial("base", block, 200_000, offered=400_000) for block in range(2)]
    made = {row.engine: row for row in rows(make_results(trials))}
    assert made["base"].cpu_machine_ns == pytest.approx(5000)
    assert made["base"].cpu_added_ns == pytest.approx(1000)
    assert made["nothing"].cpu_added_ns == pytest.approx(0)
    assert rows(make_results(trials[2:]))[0].cpu_added_ns is None


def test_under_offered_trials_are_flagged() -> None:
    row = rows(make_results([make_trial("base", 0, 1000, intended=2000)]))[0]
    assert row.flags == ("offered < intended in 1 of 1 trials",)


def test_an_unfit_engine_has_a_row_with_the_reason() -> None:
    results = make_results([make_trial("base", 0, 1000)], unfit=(Unfit("base (control)", "64 B", "it died"),))
    row = rows(results)[1]
    assert (row.verdict, row.unfit, row.trials, row.frames_per_second) == ("unfit", "it died", 0, None)


# -- results as JSON -----------------------------------------------------------------------------


def test_results_survive_the_file(tmp_path: Path) -> None:
    results = make_results([make_trial("base", block, 1000.5) for block in range(3)])
    results.save(tmp_path / "results.json")
    assert Results.load(tmp_path / "results.json") == results


def broken(path: list[str | int], value: Any) -> str:
    document = json.loads(make_results([make_trial("base", 0, 1000)]).to_json())
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
        (["trials", 0, "offered"], "many", r"^trials\[0\]\.offered: a whole number is needed, not 'many'$"),
        (["trials", 0, "offered"], True, r"^trials\[0\]\.offered: a whole number"),
        (["trials", 0, "seconds"], ..., r"^trials\[0\]\.seconds: the field is missing$"),
        (["trials", 0, "extra"], 1, r"^trials\[0\]\.extra: no such field$"),
        (["trials", 0, "engine"], "nobody", r"^trials\[0\]\.engine: 'nobody' is not in engines$"),
        (["trials", 0, "scenario"], "65 B", r"^trials\[0\]\.scenario: '65 B' is not in scenarios$"),
        (["trials", 0, "window_seconds"], 0, r"^trials\[0\]\.window_seconds: must be greater than 0"),
        (["trials"], {}, r"^trials: a list is needed"),
        (["fingerprint", "versions", "python"], 3, r"^fingerprint\.versions\.python: text is needed, not 3$"),
        (["interrupted"], 0, r"^interrupted: true or false is needed, not 0$"),
        (["schema"], 99, r"^schema: version 99 is not known here; this fastbridge reads version 1$"),
        (["schema"], ..., r"^schema: the field is missing$"),
    ],
)
def test_a_broken_file_names_the_field(path: list[str | int], value: Any, message: str) -> None:
    with pytest.raises(BenchError, match=message):
        Results.from_json(broken(path, value))


@pytest.mark.parametrize("text", ["", "{", "[]", "7"])
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


# -- requests ------------------------------------------------------------------------------------


def test_sizes_include_the_fcs() -> None:
    assert len(frame(b"\2" * 6, b"\4" * 6, 64)) == 60


def test_a_comparison_needs_its_baseline_and_distinct_names() -> None:
    with pytest.raises(ConfigError, match="'linux-bridge' is not among the engines: python"):
        compare((PythonSockets(),))
    with pytest.raises(ConfigError, match="same name"):
        compare((LinuxBridge(), LinuxBridge()))


# -- live ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Faulty:
    """An engine made of one line of Python."""

    name: str
    program: str
    joins: bool = True

    def version(self) -> str:
        return "0"

    @contextmanager
    def attach(self, lab: Lab, cpu: int) -> Iterator[Running]:
        child = Child(lab.popen_host, [sys.executable, "-I", "-S", "-c", self.program], name=self.name, cpu=cpu)
        try:
            child.line(10.0)
            yield Running("faulty", "-", child)
        finally:
            child.stop()


DEAF = Faulty("deaf", "print('ready', flush=True); import time; time.sleep(600)")
MORTAL = Faulty("mortal", "print('ready', flush=True); raise SystemExit('it was too much')")
STILLBORN = Faulty("stillborn", "raise SystemExit('no such device')")
TINY = replace(
    QUICK, name="tiny", blocks=2, scenarios=tuple(replace(scenario, seconds=0.1) for scenario in QUICK.scenarios[::2])
)


@pytest.mark.live
def test_a_tiny_comparison_measures_and_leaves_faulty_engines_behind() -> None:
    steps: list[tuple[int, int, str]] = []
    engines = (LinuxBridge(), PythonSockets(), Direct(), DEAF, MORTAL, STILLBORN)
    results = compare(engines, profile=TINY, seed=1, progress=lambda *step: steps.append(step))
    assert Results.from_json(results.to_json()) == results
    assert not results.interrupted
    made = {(row.scenario, row.engine): row for row in rows(results)}
    for scenario in TINY.scenarios:
        for engine in ("linux-bridge", "linux-bridge (control)", "python"):
            row = made[scenario.name, engine]
            assert row.unfit is None and row.trials == 2 and row.gigabits_per_second
        for engine in ("deaf", "mortal", "stillborn"):
            assert made[scenario.name, engine].verdict == "unfit"
    assert made["64 B", "deaf"].unfit is not None and "forwarded nothing" in made["64 B", "deaf"].unfit
    assert made["64 B", "mortal"].unfit == "mortal ended with status 1: it was too much"
    assert made["TCP bulk", "stillborn"].unfit == "stillborn ended with status 1: no such device"
    assert ("TCP bulk", "no switch") not in made
    assert [done for done, _, _ in steps] == list(range(steps[0][1]))


@pytest.mark.live
def test_ctrl_c_keeps_what_was_measured() -> None:
    def interrupt(done: int, total: int, text: str) -> None:
        if text.startswith("block 2"):
            raise KeyboardInterrupt

    profile = replace(TINY, scenarios=TINY.scenarios[:1])
    results = compare((LinuxBridge(),), profile=profile, progress=interrupt)
    assert results.interrupted
    assert [trial.block for trial in results.trials] == [0, 0]


@pytest.mark.live
def test_a_paced_trial_counts_every_frame() -> None:
    engine = LinuxBridge()
    with (
        Lab(Topology.of(3, ipv6=None)) as lab,
        engine.attach(lab, 0) as running,
        BenchTester(lab, running, name=engine.name, layout=Layout.of_machine()) as tester,
    ):
        trial = tester.run(Scenario("paced", 128, rate=5000.0, seconds=0.2))
    # Two receivers in turn, 0.05 s before the window and 0.03 s after it. What a busy machine could not send in
    # that time is not offered, and not lost; the bridge adds IGMP reports of its own, flooded to both.
    assert trial.intended == 1400
    assert trial.offered is not None and 0 < trial.offered <= trial.intended
    assert trial.forwarded is not None and 0 <= trial.forwarded - trial.offered <= 8
    assert trial.loss_ratio == 0
    assert trial.cpu_switch_seconds is None


@pytest.mark.live
def test_a_tester_that_dies_is_named_and_started_again() -> None:
    scenario = Scenario("64 B", 64, seconds=0.1)
    with (
        Lab(Topology.of(2, ipv6=None)) as lab,
        LinuxBridge().attach(lab, 0) as running,
        BenchTester(lab, running, name="bridge", layout=Layout.of_machine()) as tester,
    ):
        tester.run(scenario)
        child = tester._source._child
        assert child is not None
        child.process.kill()
        with pytest.raises(BenchError, match="the tester in pod1 was killed by signal 9"):
            tester.run(scenario)
        assert tester.run(scenario).forwarded
