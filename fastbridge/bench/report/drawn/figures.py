"""Figures, from results.

Which records each chart is drawn from. A figure is None, or missing from the list, where the run has nothing for it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from statistics import median
from typing import Any

from fastbridge.bench.methods.latency import PERCENTILES, percentiles_of
from fastbridge.bench.report import wording
from fastbridge.bench.report.evidence import LoadedRun, Record, Report, curve, single_trials
from fastbridge.bench.report.parts import Figure
from fastbridge.bench.report.rows import Row
from fastbridge.bench.report.tables import LOADS
from fastbridge.bench.tester.trial import Samples, Trial

from . import charts

_STEPS_A_DECADE = 10  # of a latency curve's percentiles


def verdict(report: Report) -> Iterator[Figure]:
    """Ratios with intervals; those of which more is better, and those of which less is, apart."""
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
            spec = charts.verdict(records, report.baseline)
            title = "Rates: higher is better" if higher else "Latency and times: lower is better"
            yield Figure(f"verdict-{better}", title, spec, "Bars behind: the noise floor. Lines: 95 % intervals.")


def throughput(report: Report) -> Iterator[Figure]:
    """Forwarding rates against frame size, in frames/s and in Gb/s."""
    for name, unit, title in (
        ("throughput", "frames_per_second", "forwarding rate, frames/s"),
        ("throughput-gbps", "gigabits_per_second", "forwarding rate, Gb/s (without FCS)"),
    ):
        trials, medians = _rates(report, "forwarding-rate", unit)
        if medians:
            spec = charts.against_size(trials, medians, unit, title)
            shown = "Gb/s" if unit.startswith("giga") else "frames/s"
            yield Figure(name, f"Forwarding rate at maximum offered load, {shown}", spec)


def throughput_ratios(report: Report) -> Iterator[Figure]:
    """The same of unlike machines."""
    records = [
        _claim(loaded, row)
        for loaded in report.runs
        for task in loaded.tasks("forwarding-rate")
        for row in loaded.rows_of(task.name)
        if row.ratio and row.engine not in loaded.ceilings
    ]
    if records:
        spec = charts.ratio_against_size(records, report.baseline)
        yield Figure("throughput", "Forwarding rate at maximum offered load, as ratio", spec, wide=True)


def search_bounds(report: Report) -> Iterator[Figure]:
    """NDR and PDR against frame size."""
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
        spec = charts.search_bounds(ordered)
        caption = "Points: highest load without loss (NDR); lines go up to that with 0.5 % loss (PDR)."
        yield Figure("ndr-pdr", "Throughput by RFC 2544, frames/s", spec, caption)


def tcp(report: Report) -> Iterator[Figure]:
    """TCP bulk transfer, a chart a task."""
    yield from _strips(report, "tcp-bulk", "throughput", "TCP bulk transfer, Gb/s", "TCP payload, Gb/s")


def requests(report: Report) -> Iterator[Figure]:
    """Requests and responses, a chart a task."""
    title = "Requests answered a second"
    yield from _strips(report, "request-response", "transactions", title, "transactions/s")


def loss(report: Report) -> Iterator[Figure]:
    """A loss curve a task."""
    yield from _of_tasks(
        report,
        "frame-loss",
        "loss",
        "Frame loss against offered load",
        lambda records: charts.loss_curve(records),
    )


def forwarding(report: Report) -> Iterator[Figure]:
    """RFC 2889 §5.6's curve, a task each."""
    title = "Forwarding rate against offered load"
    yield from _of_tasks(report, "max-forwarding-rate", "forwarding_rate", title, charts.forwarding_curve)


def latency(report: Report) -> Iterator[Figure]:
    """A distribution a task and load."""
    number = 0
    for name in _tasks(report, "latency-at-load", "ping", "latency"):
        own = [loaded for loaded in report.runs if name in loaded.methods]
        for at, load in LOADS.items():
            lines, trials = _latencies(own, name, at)
            if lines:
                number += 1
                title = f"{name}, {load}" if own[0].methods[name].name == "latency" else name
                yield Figure(f"latency-{number}", title[0].upper() + title[1:], charts.latency(lines, trials))


def cpu(report: Report) -> Iterator[Figure]:
    """CPU time a frame at maximum offered load."""
    records = [
        _cost(loaded, row)
        for loaded in report.runs
        for task in loaded.tasks("forwarding-rate")
        for row in loaded.rows_of(task.name)
        if row.cpu_added_ns is not None and row.engine not in loaded.ceilings
    ]
    if records:
        spec = charts.cpu(records, "CPU ns per forwarded frame, beyond the direct pair's")
        caption = (
            "Bars: busy time of all CPUs, less what a direct veth pair takes for the frames offered. Black or white "
            "ticks: the part that the engine's own processes used. Both are sums over all trials."
        )
        yield Figure("cpu", "CPU time for each forwarded frame", spec, caption, wide=True)


def scaling(report: Report) -> Iterator[Figure]:
    """Forwarding rate against stations and against ports."""
    title = "Forwarding rate with the FDB filled"
    yield from _of_tasks(report, "fdb-scaling", "rate", title, charts.fdb_scaling)
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
        yield Figure("port-scaling", "Forwarding rate with more ports", charts.port_scaling(trials, medians))


def _strips(report: Report, method: str, value: str, title: str, axis: str) -> Iterator[Figure]:
    """Every trial of a method's tasks, the medians marked."""
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
            spec = charts.strip(trials, medians, value, axis)
            titled = f"{title}: {own[0].methods[name].subject}"
            yield Figure(f"{method}-{number}", titled, spec, "Dots: trials. Bars: medians.")


def _of_tasks(report: Report, method: str, series: str, title: str, draw: Any) -> Iterator[Figure]:
    for number, name in enumerate(_tasks(report, method), 1):
        own = [loaded for loaded in report.runs if name in loaded.methods]
        records = [record for loaded in own for record in curve(loaded, name, series, _load)]
        if records:
            titled = f"{title}, {own[0].methods[name].subject}"
            yield Figure(f"{method}-{number}", titled, draw(_in_order(own, records)))


def _in_order(runs: Sequence[LoadedRun], records: Iterable[Record]) -> list[Record]:
    """Engines as in tables: a block runs them in another order."""
    order = {engine.name: i for loaded in reversed(runs) for i, engine in enumerate(loaded.results.engines)}
    return sorted(records, key=lambda record: order[record["engine"]])


def _load(trial: Trial) -> float | None:
    return trial.offered_rate


def _tasks(report: Report, *methods: str) -> list[str]:
    return list(dict.fromkeys(task.name for loaded in report.runs for task in loaded.tasks(*methods)))


def _rates(report: Report, method: str, unit: str) -> tuple[list[Record], list[Record]]:
    """Every trial, and the medians of rows."""
    trials, medians = [], []
    for loaded in report.runs:
        for task in loaded.tasks(method):
            size = loaded.methods[task.name].subject
            for row in loaded.rows_of(task.name):
                value = getattr(row, unit)
                if value is not None:
                    shown = f"{row.gigabits_per_second:.2f} Gb/s"
                    who = {**loaded.who(row.engine), "task": task.name, "median": shown}
                    medians.append({**who, "size": size, unit: value})
            for run, trial in single_trials(loaded, task.name):
                trials.append({**loaded.trial(run), "size": size, unit: getattr(trial, unit)})
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
    """Of every engine at one load: a line, and the trials' dots."""
    lines: list[Record] = []
    trials: list[Record] = []
    for loaded in runs:
        for engine in (row.engine for row in loaded.rows_of(task)):
            samples = [(record, each) for record, each in _sampled(loaded, task, engine, at) if _is_drawable(each)]
            lines += _distribution(loaded.who(engine), [each for _, each in samples])
            trials += [point for record, each in samples for point in _percentiles(record, each)]
    return lines, trials


def _sampled(loaded: LoadedRun, task: str, engine: str, at: str) -> Iterator[tuple[Record, Samples]]:
    """The trials of one load: of a latency task the last ones, of latency at a load its only one."""
    for run in (run for run in loaded.runs_of(task) if run.engine == engine):
        values = loaded.found[task, engine, run.block].values
        loads = [load for load in LOADS if f"{load}_p50" in values] or ["idle"]
        if at in loads:
            number = len(run.trials) - len(loads) + loads.index(at)
            if (samples := run.trials[number].samples) is not None:
                yield loaded.trial(run, number), samples


def _is_drawable(samples: Samples) -> bool:
    """A logarithmic axis has no place for nothing, which a broken histogram may have."""
    return samples.percentiles([0.0]).get(0.0, 0.0) > 0.0


def _distribution(who: Record, samples: Sequence[Samples]) -> Iterator[Record]:
    """Medians over the blocks, percentile by percentile, as far as the samples go."""
    fewest = min((each.received for each in samples), default=1)
    steps = int(math.log10(fewest) * _STEPS_A_DECADE) + 1
    rarities = {100 - 100 / rarity: rarity for rarity in (10 ** (step / _STEPS_A_DECADE) for step in range(steps))}
    found = [each.percentiles(rarities) for each in samples]
    for percent, rarity in rarities.items():
        if samples:
            yield {**who, "rarity": rarity, "us": median(each[percent] for each in found) / 1000}


def _percentiles(record: Record, samples: Samples) -> Iterator[Record]:
    """The percentiles that are in tables, of one trial."""
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
