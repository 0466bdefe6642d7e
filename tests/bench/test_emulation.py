"""Emulated links: the method finds what an emulator does, right or wrong, and engines emulate what they say."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
from fake_dut import FakeDut
from fake_link import FakeLink
from live import eventually
from made_results import every_method
from methods import found

from fastbridge.bench import Profile, Results, Task, Trial, compare
from fastbridge.bench.engines import EMULATORS, ENGINES, Engine, LinuxBridge
from fastbridge.bench.methods.emulation import Emulation
from fastbridge.bench.methods.measurer import Recorder, Replay
from fastbridge.bench.profiles import PROFILES, chosen
from fastbridge.bench.report.emulation import emulation_table
from fastbridge.bench.report.evidence import Report
from fastbridge.bench.report.rows import rows
from fastbridge.bench.results.results import SCHEMA
from fastbridge.bench.testbed import Testbed
from fastbridge.bench.tester.offer import Stream, steady
from fastbridge.bench.tester.samples import keep, loss_runs
from fastbridge.bench.wanted_link import WantedLink
from fastbridge.errors import BenchError, ConfigError

DELAY = WantedLink(delay=0.02)
JITTER = WantedLink(delay=0.02, jitter=0.005, distribution="normal", overtakes=True)
ORDER = replace(JITTER, overtakes=False)
LOSS = WantedLink(loss=0.01)
BURSTS = WantedLink(loss=0.05, burst=5)
RATE = WantedLink(rate=10_000_000, limit=62_500)
EVERY = (DELAY, JITTER, replace(JITTER, distribution="uniform"), ORDER, LOSS, BURSTS, RATE)


def measured(link: WantedLink, seconds: float = 5.0, load: float = 2000.0, **faults: Any) -> Any:
    return found(Emulation(link, seconds, load), FakeLink(**faults))


# -- what the method finds -------------------------------------------------------------------------


@pytest.mark.parametrize("link", EVERY, ids=str)
def test_a_true_emulator_has_no_error_and_is_asked_without_the_link_first(link: WantedLink) -> None:
    dut = FakeLink()
    findings = found(Emulation(link, 10.0, 5000.0), dut)
    assert dut.links == [None, link]
    values = findings.values
    for name in ("distance", "lost", "burst"):
        if f"chance_{name}" in values:
            assert abs(values[name] - values[f"wanted_{name}"]) < values[f"chance_{name}"]
    assert values["error"] < 0.1 and findings.remarks == ()
    assert "distance" not in values or bool(findings.series["got"])


def test_parameters_are_plain_data() -> None:
    assert json.loads(json.dumps(asdict(Emulation(JITTER))))["link"]["distribution"] == "normal"


@pytest.mark.parametrize(("factor", "error"), [(1.1, 0.1), (0.9, 0.1), (1.0, 0.001)])
def test_a_delay_that_is_off_is_found(factor: float, error: float) -> None:
    values = measured(DELAY, delay=lambda seconds: factor * seconds).values
    assert values["error"] == pytest.approx(error, abs=1.1e-3)  # and the floor
    assert values["p50"] == values["p99"] == pytest.approx(20 * factor + 0.02, abs=1e-5)
    assert values["bare_p50"] == pytest.approx(0.02, abs=1e-5)


def test_the_floor_is_stated_and_not_taken_off() -> None:
    values = measured(DELAY, floor=1e-3).values
    assert (values["bare_p50"], values["p50"]) == pytest.approx((1.0, 21.0))


@pytest.mark.parametrize(
    "fault",
    [
        {"distribution": lambda kind: "uniform"},
        {"jitter": lambda seconds: 1.1 * seconds},
        {"delay": lambda seconds: seconds + 0.0005 if seconds else 0.0},
        {"overtakes": lambda may: False},
    ],
)
def test_a_wrong_distribution_is_further_off_than_chance_allows(fault: dict[str, Any]) -> None:
    right, wrong = measured(JITTER).values, measured(JITTER, **fault).values
    assert right["distance"] < right["chance_distance"] == pytest.approx(1.6276 / 100, abs=1e-4)
    assert wrong["distance"] > wrong["chance_distance"]


def test_the_distance_is_kolmogorov_s() -> None:
    # By hand: two delays at the quarters of a uniform distribution are 1/4 off at every step.
    link = WantedLink(delay=0.02, jitter=0.01, overtakes=True)

    class Two:
        ports = 2

        def trial(self, offer: Any) -> Trial:
            made = FakeLink().trial(offer)
            assert made.samples is not None
            delays = keep(np.array([15_000_000, 25_000_000]))
            return replace(made, samples=replace(made.samples, sent=2, received=2, delays=delays))

        def restart(self) -> None: ...

    assert Emulation(link, 0.001, 2000.0).run(Two()).values["distance"] == pytest.approx(0.25)


def test_the_order_that_jitter_must_not_break() -> None:
    assert measured(ORDER).values["reordered"] == 0.0
    values = measured(ORDER, overtakes=lambda may: True).values
    assert values["error"] == values["reordered"] > 0.1 and values["bare_reordered"] == 0.0


@pytest.mark.parametrize(("link", "factor"), [(LOSS, 1.2), (LOSS, 0.8), (BURSTS, 1.3), (BURSTS, 0.7)])
def test_a_loss_that_is_off_is_further_off_than_chance_allows(link: WantedLink, factor: float) -> None:
    values = measured(link, 10.0, 10_000.0, loss=lambda ratio: factor * ratio).values
    assert abs(values["lost"] - link.loss) > values["chance_lost"]
    assert values["error"] == pytest.approx(abs(factor - 1), abs=0.15)


def test_chance_is_that_of_99_links_in_100() -> None:
    for link, name in ((LOSS, "lost"), (BURSTS, "lost"), (BURSTS, "burst")):
        off = []
        for seed in range(100):
            values = Emulation(link, 2.0, 10_000.0).run(FakeLink(seed=seed)).values
            off.append((values[name] - values[f"wanted_{name}"]) / values[f"chance_{name}"])
        assert 2 <= sum(abs(each) > 0.65 for each in off) <= 20  # of a normal distribution, 9 of 100
        assert sum(abs(each) > 1 for each in off) <= 5


@pytest.mark.parametrize("length", [1.0, 3.0, 8.0])
def test_bursts_of_another_length_are_found(length: float) -> None:
    values = measured(BURSTS, 10.0, 10_000.0, burst=lambda mean: mean and length).values
    assert values["burst"] == pytest.approx(length, rel=0.1)
    assert abs(values["burst"] - 5) > values["chance_burst"]


def test_what_the_engine_loses_by_itself_is_told() -> None:
    values = measured(LOSS, 10.0, 10_000.0, own_loss=0.05).values
    assert values["bare_lost"] == pytest.approx(0.05, rel=0.2)
    assert values["lost"] == pytest.approx(0.06, rel=0.1)


@pytest.mark.parametrize("factor", [0.9, 1.0, 1.05])
def test_a_rate_that_is_off_is_found_and_so_is_the_queue(factor: float) -> None:
    values = measured(RATE, rate=lambda bits: round(factor * bits)).values
    assert values["rate"] == pytest.approx(10 * factor, rel=1e-4)
    assert values["error"] == pytest.approx(abs(factor - 1), abs=1e-3)
    assert values["wanted_waiting"] == 50.0 and values["waiting"] == pytest.approx(50 / factor, rel=2e-3)
    assert values["bare_rate"] == pytest.approx(15, rel=1e-3)


def test_an_engine_too_slow_for_the_rate_is_not_judged_by_it() -> None:
    class Slow(FakeLink):
        def trial(self, offer: Any) -> Trial:
            made = super().trial(offer)
            return made if offer.link else replace(made, window_bytes=made.window_bytes // 2)

    (remark,) = Emulation(RATE, 2.0).run(Slow()).remarks
    assert "without a link the engine forwards 8 Mb/s: too little" in remark


def test_nothing_that_comes_through_is_said() -> None:
    with pytest.raises(BenchError, match="not a frame came through the engine without a link"):
        measured(DELAY, own_loss=1.0)


@pytest.mark.parametrize(
    "words",
    [
        {"delay": -1.0},
        {"delay": float("nan")},
        {"loss": 1.0},
        {"loss": 0.1, "burst": 0.5},
        {"burst": 5.0},
        {"rate": 1000},
        {"limit": 1000},
    ],
)
def test_a_link_that_cannot_be_is_refused(words: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="link"):
        WantedLink(**words)


def test_a_link_that_does_nothing_is_not_measured() -> None:
    with pytest.raises(BenchError, match="does nothing"):
        Emulation(WantedLink())


@pytest.mark.parametrize("came", [[], [1], [0], [0, 0, 1, 0], [1, 0, 0, 0, 1, 1, 0], [0, 1, 0, 1, 0]])
def test_runs_of_lost_samples(came: list[int]) -> None:
    runs = [len(run) for run in "".join(map(str, came)).split("1") if run]
    assert loss_runs(np.array(came, np.bool_)) == tuple((n, runs.count(n)) for n in sorted(set(runs)))


# -- records and reports ---------------------------------------------------------------------------


def test_a_record_of_another_link_is_not_replayed() -> None:
    recorder = Recorder(FakeLink())
    Emulation(DELAY, 0.5).run(recorder)
    with pytest.raises(BenchError, match="not the one its method asks for"):
        Emulation(replace(DELAY, delay=0.03), 0.5).run(Replay(recorder.trials, 2))


@pytest.mark.parametrize("delays", ["?", "AAAA", "eNpjZAAAAAIAAQ=="])
def test_broken_delays_are_named(delays: str) -> None:
    recorder = Recorder(FakeLink())
    Emulation(DELAY, 0.5).run(recorder)
    broken = [replace(each, samples=replace(each.samples, delays=delays)) for each in recorder.trials if each.samples]
    with pytest.raises(BenchError, match=r"samples\.delays"):
        Emulation(DELAY, 0.5).run(Replay(broken, 2))


@pytest.mark.slow
@pytest.mark.parametrize("schema", [2, 3])
def test_results_from_before_links_are_read(schema: int) -> None:
    document = json.loads(every_method().to_json())
    document["schema"] = schema
    document["runs"] = [run for run in document["runs"] if not run["task"].startswith("emulation")]
    document["tasks"] = [task for task in document["tasks"] if task["method"] != "emulation"]
    for trial in (trial for run in document["runs"] for trial in run["trials"]):
        del trial["offer"]["link"], trial["offer"]["delays"]
        for field in ("loss_runs", "delays"):
            (trial["samples"] or {}).pop(field, None)
    read = Results.from_json(json.dumps(document))
    assert read.schema == SCHEMA
    assert {row.unreadable for row in rows(read)} == {None}


def test_the_table_has_a_row_for_each_quantity_and_marks_what_is_off() -> None:
    table = emulation_table(Report.of([("", every_method())]))
    assert table is not None
    assert [column.name for column in table.columns] == [
        *("test", "engine", "value", "wanted", "got", "error", "chance", "no link")
    ]
    lines = {(line[0].text, line[1].text, line[2].text): line for line in table.rows}
    jitter = "delay 20 ± 5 ms, normal, overtaking"
    assert lines[jitter, "fastbridge", "KS distance"][5].style == ""
    assert lines[jitter, "linux-bridge", "KS distance"][5].style == "loss"
    assert lines["delay 20 ms", "fastbridge", "p50, ms"][3].text == "20.000"
    assert lines["delay 20 ms", "linux-bridge", "p50, ms"][5].text.startswith("+2.0")


# -- who is asked for what -------------------------------------------------------------------------


def test_links_are_measured_where_they_are_asked_for() -> None:
    for profile in PROFILES.values():
        assert not any(task.method.link for task in profile.tasks)
        asked = chosen(profile, methods=["emulation"])
        assert asked.tasks and all(task.method.link for task in asked.tasks)
    assert sum(task.seconds for task in chosen(PROFILES["quick"], methods=["emulation"]).tasks) < 75


def test_engines_say_what_they_cannot_emulate() -> None:
    can = {
        engine.name: [link for link in EVERY if engine.refuses(link) is None] for engine in (*EMULATORS, LinuxBridge())
    }
    assert can.pop("linux-bridge") == []
    assert can.pop("linux-bridge/tbf") == can.pop("linux-bridge/htb") == [RATE]
    assert can.pop("linux-bridge/netem") == [link for link in EVERY if link != ORDER]
    assert can == {"fastbridge": [*EVERY], "vde/wirefilter": [*EVERY]}
    assert ENGINES["vde/wirefilter"].refuses(WantedLink(delay=0.0001)) == "delays by whole milliseconds"


# -- live ------------------------------------------------------------------------------------------

SHORT = (
    (replace(DELAY, delay=0.01), 0.3, 500.0),
    (replace(JITTER, delay=0.01, jitter=0.002), 0.3, 500.0),
    (LOSS, 0.5, 2000.0),
    (BURSTS, 0.5, 2000.0),
    (replace(RATE, limit=20_000), 0.5, 1000.0),
)


@pytest.mark.live
@pytest.mark.slow
@pytest.mark.parametrize("engine", EMULATORS, ids=lambda engine: engine.name)
def test_engines_emulate_what_they_say(engine: Engine) -> None:
    if reason := engine.missing():
        pytest.skip(reason)
    with Testbed(engine, 2) as bed:
        for link, seconds, load in SHORT:
            method = Emulation(link, seconds, load)
            if engine.refuses(link):
                with pytest.raises(BenchError, match=f"^{engine.name}: {link}: "):
                    method.run(bed)
                continue
            eventually(lambda m=method: emulates(m.run(bed).values), str(link))  # type: ignore[misc]
        assert bed.running.link is not None
        bed.trial(steady(Stream(0, (1,)), 0.3, 500.0))
        assert bed.running.link is None


def emulates(values: Mapping[str, float]) -> bool:
    """False: the machine was too busy to say. It makes delays longer, and nothing makes them shorter."""
    if "p50" in values:
        assert values["p99"] >= values["p50"] > 0.75 * values["wanted_p50"]
    if "rate" in values:
        assert values["waiting"] > 0.5 * values["wanted_waiting"]
    return (
        0.75 * values.get("wanted_p50", 1) > values.get("bare_p50", 0)
        and values.get("lost", 1) > values.get("bare_lost", 0)
        and ("rate" not in values or values["rate"] < 1.1 * values["wanted_rate"] < values["bare_rate"])
    )


@pytest.mark.live
def test_a_comparison_of_links_skips_those_who_cannot_and_says_why() -> None:
    tasks = (Task(Emulation(replace(RATE, limit=20_000), 0.4)), Task(Emulation(DELAY, 0.4)))
    engines = (ENGINES["linux-bridge/tbf"], LinuxBridge())
    if reason := engines[0].missing():
        pytest.skip(reason)
    results = compare(engines, baseline="linux-bridge/tbf", profile=Profile("short", tasks))
    assert Results.from_json(results.to_json()) == results
    assert {(run.engine, run.task, run.unfinished) for run in results.runs} == {
        ("linux-bridge/tbf", tasks[0].name, None)
    }
    assert {(each.engine, each.task, each.reason) for each in results.unfit} == {
        ("linux-bridge/tbf", tasks[1].name, "has a rate and nothing else"),
        *(("linux-bridge", task.name, "emulates no links") for task in tasks),
        ("linux-bridge/tbf (control)", tasks[1].name, "has a rate and nothing else"),
    }


def test_the_loss_of_a_switch_without_links_is_that_without_a_link() -> None:
    values = Emulation(LOSS, 0.5, 2000.0).run(FakeDut(loss=0.02)).values
    assert values["bare_lost"] == pytest.approx(0.02, abs=0.002)
