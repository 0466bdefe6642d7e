"""Figures, from results.

Which charts there are, and the records that each shows. A figure is missing where the run has nothing for it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from statistics import median
from typing import Any

from fastbridge.bench.methods.latency import PERCENTILES, percentiles_of
from fastbridge.bench.tester.trial import Samples, Trial

from . import wording
from .emulation import distributions
from .evidence import LoadedRun, Record, Report, curve, single_trials
from .parts import Figure
from .rows import Row
from .tables import LOADS

PICTURES = (
    "verdict",
    "throughput",
    "ndr-pdr",
    "tcp",
    "requests",
    "loss",
    "latency",
    "emulation",
    "cpu",
    "scaling",
    "forwarding-rate",
)
_DOTS = "Dots: trials. Lines: medians over the blocks."
_STEPS_A_DECADE = 10  # of a latency curve's percentiles


def verdict(report: Report) -> Iterator[Figure]:
    """Ratios with intervals: one figure where higher is better, one where lower is."""
    for higher, better in ((True, "more"), (False, "less")):
        records = [
            _claim(loaded, row)
            for task in dict.fromkeys(task for loaded in report.runs for task in loaded.methods)
            for loaded in report.runs
            for row in loaded.rows
            if row.task == task
            and row.ratio
            and loaded.methods[task].higher_is_better == higher
            and row.engine != loaded.results.control
        ]
        if records:
            title = "Rates: higher is better" if higher else "Latency and times: lower is better"
            shown = {"records": records, "baseline": report.baseline}
            caption = "Bars behind: the noise floor. Lines: 95 % intervals."
            yield Figure(f"verdict-{better}", title, "verdict", shown, caption, "verdict")


def throughput(report: Report) -> Iterator[Figure]:
    """Forwarding rates against the frame size, in frames/s and in Gb/s."""
    for name, field, unit, axis in (
        ("throughput", "frames_per_second", "frames/s", "forwarding rate, frames/s"),
        ("throughput-gbps", "gigabits_per_second", "Gb/s", "forwarding rate, Gb/s (without FCS)"),
    ):
        trials, medians = _rates(report, "forwarding-rate", field)
        if medians:
            shown = {"trials": trials, "medians": medians, "field": field, "title": axis}
            title = f"Forwarding rate at maximum offered load, {unit}"
            yield Figure(name, title, "against_size", shown, _DOTS, "throughput")


def throughput_ratios(report: Report) -> Iterator[Figure]:
    """Ratios of forwarding rates, of unlike machines."""
    records = [
        _claim(loaded, row)
        for loaded in report.runs
        for task in loaded.tasks("forwarding-rate")
        for row in loaded.rows_of(task.name)
        if row.ratio and row.engine not in loaded.ceilings
    ]
    if records:
        title = "Forwarding rate at maximum offered load, as ratio"
        shown = {"records": records, "baseline": report.baseline}
        yield Figure("throughput", title, "ratio_against_size", shown, picture="throughput", wide=True)


def search_bounds(report: Report) -> Iterator[Figure]:
    """NDR and PDR against the frame size."""
    records: dict[tuple[Any, ...], Record] = {}
    for loaded in report.runs:
        for task in loaded.tasks("throughput", "latency"):
            for run in loaded.runs_of(task.name):
                values = loaded.found[task.name, run.engine, run.block].values
                if "ndr" in values:
                    record = _bounds(loaded, task.name, values) | loaded.who(run.engine)
                    record["block"] = f"{run.block + 1}, position {run.position + 1}, {len(run.trials)} trials"
                    record["remarks"] = "; ".join(loaded.found[task.name, run.engine, run.block].remarks) or "none"
                    records.setdefault((loaded.label, run.engine, run.block, record["size"]), record)
    if records:
        ordered = _in_order(report.runs, sorted(records.values(), key=lambda record: _size_order(record["size"])))
        caption = "Points: highest load without loss (NDR); lines go up to that with 0.5 % loss (PDR)."
        title = "Throughput by RFC 2544, frames/s"
        yield Figure("ndr-pdr", title, "search_bounds", {"records": ordered}, caption, "ndr-pdr")


def tcp(report: Report) -> Iterator[Figure]:
    """TCP bulk transfer: a figure for each task."""
    yield from _strips(report, "tcp-bulk", "throughput", "TCP bulk transfer, Gb/s", "TCP payload, Gb/s", "tcp")


def requests(report: Report) -> Iterator[Figure]:
    """Requests and responses: a figure for each task."""
    title = "Requests answered per second"
    yield from _strips(report, "request-response", "transactions", title, "transactions/s", "requests")


def loss(report: Report) -> Iterator[Figure]:
    """A loss curve for each task."""
    yield from _of_tasks(report, "frame-loss", "loss", "Frame loss against offered load", "loss_curve", "loss")


def forwarding(report: Report) -> Iterator[Figure]:
    """The curve of RFC 2889 §5.6 for each task."""
    title = "Forwarding rate against offered load"
    yield from _of_tasks(report, "max-forwarding-rate", "forwarding_rate", title, "forwarding_curve", "forwarding-rate")


def latency(report: Report) -> Iterator[Figure]:
    """A distribution for each task and load."""
    caption = f"{_DOTS} The further to the right, the rarer the delay."
    number = 0
    for name in _tasks(report, "latency-at-load", "ping", "latency"):
        own = [loaded for loaded in report.runs if name in loaded.methods]
        for at, load in LOADS.items():
            lines, trials = _latencies(own, name, at)
            if lines:
                number += 1
                title = f"{name}, {load}" if own[0].methods[name].name == "latency" else name
                shown = {"lines": lines, "trials": trials}
                yield Figure(f"latency-{number}", title[0].upper() + title[1:], "latency", shown, caption, "latency")


def emulation(report: Report) -> Iterator[Figure]:
    """The distribution of delays with jitter: a figure for each task that lets frames overtake each other."""
    for number, name in enumerate(_tasks(report, "emulation"), 1):
        own = [loaded for loaded in report.runs if name in loaded.methods]
        got = [record for loaded in own for record in distributions(loaded, name)]
        if got:
            wanted = next(row.series["wanted"] for loaded in own for row in loaded.rows_of(name) if row.series)
            shown = {"got": got, "wanted": [{"x": x, "y": y} for x, y in wanted]}
            title = f"Share of frames within a delay: {own[0].methods[name].subject}"
            yield Figure(f"emulation-{number}", title, "distribution", shown, "Grey: as wanted.", "emulation")


def cpu(report: Report) -> Iterator[Figure]:
    """CPU time per frame at maximum offered load."""
    records = [
        _cost(loaded, row)
        for loaded in report.runs
        for task in loaded.tasks("forwarding-rate")
        for row in loaded.rows_of(task.name)
        if row.cpu_added_ns is not None and row.engine not in loaded.ceilings
    ]
    if records:
        caption = (
            "Bars: the whole machine. Black or white ticks: the part that the engine's own processes used. Both are "
            "sums over all trials."
        )
        shown = {"records": records, "title": "CPU ns per forwarded frame, beyond the direct pair's"}
        yield Figure("cpu", "CPU time for each forwarded frame", "cpu", shown, caption, "cpu", wide=True)


def scaling(report: Report) -> Iterator[Figure]:
    """The forwarding rate against stations, and against ports."""
    title = "Forwarding rate with the FDB filled"
    yield from _of_tasks(report, "fdb-scaling", "rate", title, "fdb_scaling", "scaling")
    trials, medians = [], []
    for loaded in report.runs:
        for task in loaded.tasks("port-scaling"):
            for row in loaded.rows_of(task.name):
                if "rate" in row.values:
                    medians.append({**loaded.who(row.engine), "ports": task.ports, "rate": row.values["rate"]})
            for run, _ in single_trials(loaded, task.name):
                rate = loaded.found[task.name, run.engine, run.block].values["rate"]
                trials.append({**loaded.trial(run), "ports": task.ports, "rate": rate})
    if len({record["ports"] for record in medians}) > 1:
        shown = {"trials": trials, "medians": medians}
        yield Figure("port-scaling", "Forwarding rate with more ports", "port_scaling", shown, picture="scaling")


def _strips(report: Report, method: str, value: str, title: str, axis: str, picture: str) -> Iterator[Figure]:
    """The trials of a method's tasks, with their medians: a figure for each task."""
    for number, name in enumerate(_tasks(report, method), 1):
        own = [loaded for loaded in report.runs if name in loaded.methods]
        trials = [
            {**loaded.trial(run), value: loaded.found[name, run.engine, run.block].values[value]}
            for loaded in own
            for run in loaded.runs_of(name)
        ]
        medians = [
            {**loaded.who(row.engine), value: row.values[value], "median": wording.number(row.values[value], unit)}
            for loaded in own
            for row in loaded.rows_of(name)
            if value in row.values
            for unit in (loaded.methods[name].units[value],)
        ]
        if medians:
            titled = f"{title}: {own[0].methods[name].subject}"
            shown = {"trials": trials, "medians": medians, "field": value, "title": axis}
            yield Figure(f"{method}-{number}", titled, "strip", shown, "Dots: trials. Bars: medians.", picture)


def _of_tasks(report: Report, method: str, series: str, title: str, chart: str, picture: str) -> Iterator[Figure]:
    for number, name in enumerate(_tasks(report, method), 1):
        own = [loaded for loaded in report.runs if name in loaded.methods]
        records = [record for loaded in own for record in curve(loaded, name, series, _load)]
        if records:
            titled = f"{title}, {own[0].methods[name].subject}"
            shown = {"records": _in_order(own, records)}
            yield Figure(f"{method}-{number}", titled, chart, shown, picture=picture)


def _in_order(runs: Sequence[LoadedRun], records: Iterable[Record]) -> list[Record]:
    """Engines in the order of the tables: each block runs them in another one."""
    order = {engine.name: i for loaded in reversed(runs) for i, engine in enumerate(loaded.results.engines)}
    return sorted(records, key=lambda record: order[record["engine"]])


def _load(trial: Trial) -> float | None:
    return trial.offered_rate


def _tasks(report: Report, *methods: str) -> list[str]:
    return list(dict.fromkeys(task.name for loaded in report.runs for task in loaded.tasks(*methods)))


def _rates(report: Report, method: str, field: str) -> tuple[list[Record], list[Record]]:
    """Records of all trials, and of the rows' medians."""
    trials, medians = [], []
    for loaded in report.runs:
        for task in loaded.tasks(method):
            size = loaded.methods[task.name].subject
            for row in loaded.rows_of(task.name):
                value = getattr(row, field)
                if value is not None:
                    shown = f"{row.gigabits_per_second:.2f} Gb/s"
                    who = {**loaded.who(row.engine), "task": task.name, "median": shown}
                    medians.append({**who, "size": size, field: value})
            for run, trial in single_trials(loaded, task.name):
                trials.append({**loaded.trial(run), "size": size, field: getattr(trial, field)})
    return trials, medians


def _bounds(loaded: LoadedRun, task: str, values: Any) -> Record:
    method = loaded.methods[task]
    texts = {
        f"{name}_text": f"{wording.number(values[key], method.units[key])} frames/s"
        for name, key in (("ndr", "ndr"), ("pdr", "pdr"), ("offered", "max_offered"))
        if key in values
    }
    return {"task": task, "size": method.subject, "ndr": values["ndr"], "pdr": values.get("pdr"), **texts}


def _size_order(size: str) -> tuple[bool, int]:
    number = re.match(r"\d+", size)
    return (number is None, int(number.group()) if number else 0)


def _claim(loaded: LoadedRun, row: Row) -> Record:
    assert row.ratio is not None
    return {
        **loaded.who(row.engine),
        "task": row.task,
        "test": row.task + (f", {loaded.label}" if loaded.label else ""),
        "size": loaded.methods[row.task].subject,
        "mean": row.ratio.mean,
        "low": row.ratio.low,
        "high": row.ratio.high,
        "floor": row.noise_floor,
        "ratio": wording.ratio(row.ratio),
        "verdict": row.verdict,
        "blocks": row.ratio.blocks,
        "floor_text": "not measured" if row.noise_floor is None else f"± {row.noise_floor:.1%}",
    }


def _cost(loaded: LoadedRun, row: Row) -> Record:
    switch = "has none" if row.cpu_switch_ns is None else f"{row.cpu_switch_ns:,.0f} ns/frame"
    return {
        **loaded.who(row.engine),
        "task": row.task,
        "size": loaded.methods[row.task].subject,
        "machine_ns": row.cpu_added_ns,
        "switch_ns": row.cpu_switch_ns,
        "machine": f"{row.cpu_added_ns:,.0f} ns/frame",
        "switch": switch,
        "trials": row.trials,
    }


def _latencies(runs: Sequence[LoadedRun], task: str, at: str) -> tuple[list[Record], list[Record]]:
    """A line and the trials' dots for each engine at one load."""
    lines: list[Record] = []
    trials: list[Record] = []
    for loaded in runs:
        for engine in (row.engine for row in loaded.rows_of(task)):
            samples = [(record, each) for record, each in _sampled(loaded, task, engine, at) if _is_drawable(each)]
            lines += _distribution(loaded.who(engine), [each for _, each in samples])
            trials += [point for record, each in samples for point in _percentiles(record, each)]
    return lines, trials


def _sampled(loaded: LoadedRun, task: str, engine: str, at: str) -> Iterator[tuple[Record, Samples]]:
    """The trials at one load. A latency task measures its loads last; latency at a load has one trial."""
    for run in (run for run in loaded.runs_of(task) if run.engine == engine):
        values = loaded.found[task, engine, run.block].values
        loads = [load for load in LOADS if f"{load}_p50" in values] or ["idle"]
        if at in loads:
            number = len(run.trials) - len(loads) + loads.index(at)
            if (samples := run.trials[number].samples) is not None:
                yield loaded.trial(run, number), samples


def _is_drawable(samples: Samples) -> bool:
    """A logarithmic axis has no place for 0, which a broken histogram may hold."""
    return samples.percentiles([0.0]).get(0.0, 0.0) > 0.0


def _distribution(who: Record, samples: Sequence[Samples]) -> Iterator[Record]:
    """Medians over the blocks, percentile by percentile, as far as the samples reach."""
    fewest = min((each.received for each in samples), default=1)
    steps = int(math.log10(fewest) * _STEPS_A_DECADE) + 1
    rarities = {100 - 100 / rarity: rarity for rarity in (10 ** (step / _STEPS_A_DECADE) for step in range(steps))}
    found = [each.percentiles(rarities) for each in samples]
    for percent, rarity in rarities.items():
        if samples:
            yield {**who, "rarity": rarity, "us": median(each[percent] for each in found) / 1000}


def _percentiles(record: Record, samples: Samples) -> Iterator[Record]:
    """The percentiles of one trial that the tables have."""
    for name, value in percentiles_of(samples).items():
        percent = PERCENTILES[name]
        rarity = 100 / (100 - percent) if percent < 100 else float(samples.received)
        if rarity <= samples.received:
            text = f"{wording.number(value, 'µs')} µs"
            yield {
                **record,
                "rarity": rarity,
                "us": value,
                "percentile": wording.words(name),
                "latency": text,
                "samples": f"{samples.received:,}",
            }
