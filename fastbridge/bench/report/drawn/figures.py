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
from fastbridge.bench.report.evidence import Record, Source, curve, single_trials
from fastbridge.bench.report.parts import Figure
from fastbridge.bench.report.rows import Row
from fastbridge.bench.report.tables import LOADS
from fastbridge.bench.tester.trial import Samples, Trial

from . import charts

_STEPS_A_DECADE = 10  # of a latency curve's percentiles


def verdict(sources: Sequence[Source]) -> Iterator[Figure]:
    """Ratios with intervals; those of which more is better, and those of which less is, apart."""
    for higher, better in ((True, "more"), (False, "less")):
        records = [
            _claim(source, row)
            for task in dict.fromkeys(task for source in sources for task in source.methods)
            for source in sources
            for row in source.rows
            if row.task == task
            and row.ratio
            and source.methods[task].higher_is_better == higher
            and row.engine != source.results.control
        ]
        if records:
            spec = charts.verdict(records, sources[0].results.baseline)
            title = "Rates: higher is better" if higher else "Latency and times: lower is better"
            yield Figure(f"verdict-{better}", title, spec, "Bars behind: the noise floor. Lines: 95 % intervals.")


def throughput(sources: Sequence[Source]) -> Iterator[Figure]:
    """Forwarding rates against frame size, in frames/s and in Gb/s."""
    for name, unit, title in (
        ("throughput", "frames_per_second", "forwarding rate, frames/s"),
        ("throughput-gbps", "gigabits_per_second", "forwarding rate, Gb/s (without FCS)"),
    ):
        trials, medians = _rates(sources, "forwarding-rate", unit)
        if medians:
            spec = charts.against_size(trials, medians, unit, title)
            shown = "Gb/s" if unit.startswith("giga") else "frames/s"
            yield Figure(name, f"Forwarding rate at maximum offered load, {shown}", spec)


def throughput_ratios(sources: Sequence[Source]) -> Iterator[Figure]:
    """The same of unlike machines."""
    records = [
        _claim(source, row)
        for source in sources
        for task in source.tasks("forwarding-rate")
        for row in source.rows_of(task.name)
        if row.ratio and row.engine not in source.ceilings
    ]
    if records:
        spec = charts.ratio_against_size(records, sources[0].results.baseline)
        yield Figure("throughput", "Forwarding rate at maximum offered load, as ratio", spec, wide=True)


def search_bounds(sources: Sequence[Source]) -> Iterator[Figure]:
    """NDR and PDR against frame size."""
    records: dict[tuple[Any, ...], Record] = {}
    for source in sources:
        for task in source.tasks("throughput", "latency"):
            for run in source.runs_of(task.name):
                values = source.found[task.name, run.engine, run.block].values
                if "ndr" in values:
                    record = _bounds(source, task.name, values) | source.who(run.engine)
                    record["block"] = f"{run.block + 1}, position {run.position + 1}, {len(run.trials)} trials"
                    record["remarks"] = "; ".join(source.found[task.name, run.engine, run.block].remarks) or "none"
                    records.setdefault((source.label, run.engine, run.block, record["size"]), record)
    if records:
        ordered = _in_order(sources, sorted(records.values(), key=lambda record: _size_order(record["size"])))
        spec = charts.search_bounds(ordered)
        caption = "Points: highest load without loss (NDR); lines go up to that with 0.5 % loss (PDR)."
        yield Figure("ndr-pdr", "Throughput by RFC 2544, frames/s", spec, caption)


def tcp(sources: Sequence[Source]) -> Iterator[Figure]:
    """TCP bulk transfer."""
    trials, medians = _rates(sources, "tcp-bulk", "gigabits_per_second")
    if medians:
        spec = charts.strip(trials, medians, "gigabits_per_second", "TCP payload, Gb/s")
        yield Figure("tcp", "TCP bulk transfer, Gb/s", spec, "Dots: trials. Bars: medians.")


def loss(sources: Sequence[Source]) -> Iterator[Figure]:
    """A loss curve a task."""
    yield from _of_tasks(
        sources,
        "frame-loss",
        "loss",
        "Frame loss against offered load",
        lambda records: charts.loss_curve(records),
    )


def forwarding(sources: Sequence[Source]) -> Iterator[Figure]:
    """RFC 2889 §5.6's curve, a task each."""
    title = "Forwarding rate against offered load"
    yield from _of_tasks(sources, "max-forwarding-rate", "forwarding_rate", title, charts.forwarding_curve)


def latency(sources: Sequence[Source]) -> Iterator[Figure]:
    """A distribution a task and load."""
    number = 0
    for name in _tasks(sources, "latency-at-load", "latency"):
        own = [source for source in sources if name in source.methods]
        for at, load in LOADS.items():
            lines, trials = _latencies(own, name, at)
            if lines:
                number += 1
                title = f"{name}, {load}" if own[0].methods[name].name == "latency" else name
                yield Figure(f"latency-{number}", title[0].upper() + title[1:], charts.latency(lines, trials))


def cpu(sources: Sequence[Source]) -> Iterator[Figure]:
    """CPU time a frame at maximum offered load."""
    records = [
        _cost(source, row)
        for source in sources
        for task in source.tasks("forwarding-rate")
        for row in source.rows_of(task.name)
        if row.cpu_added_ns is not None and row.engine not in source.ceilings
    ]
    if records:
        spec = charts.cpu(records, "CPU ns per forwarded frame, beyond the direct pair's")
        caption = (
            "Bars: busy time of all CPUs, less what a direct veth pair takes for the frames offered. Black or white "
            "ticks: the part that the engine's own processes used. Both are sums over all trials."
        )
        yield Figure("cpu", "CPU time for each forwarded frame", spec, caption, wide=True)


def scaling(sources: Sequence[Source]) -> Iterator[Figure]:
    """Forwarding rate against stations and against ports."""
    title = "Forwarding rate with the FDB filled"
    yield from _of_tasks(sources, "fdb-scaling", "rate", title, charts.fdb_scaling)
    trials, medians = [], []
    for source in sources:
        for task in source.tasks("port-scaling"):
            for row in source.rows_of(task.name):
                if "rate" in row.values:
                    medians.append({**source.who(row.engine), "ports": task.ports, "rate": row.values["rate"]})
            for run, _ in single_trials(source, task.name):
                rate = source.found[task.name, run.engine, run.block].values["rate"]
                trials.append({**source.trial(run), "ports": task.ports, "rate": rate})
    if len({record["ports"] for record in medians}) > 1:
        yield Figure("port-scaling", "Forwarding rate with more ports", charts.port_scaling(trials, medians))


def _of_tasks(sources: Sequence[Source], method: str, series: str, title: str, draw: Any) -> Iterator[Figure]:
    for number, name in enumerate(_tasks(sources, method), 1):
        own = [source for source in sources if name in source.methods]
        records = [record for source in own for record in curve(source, name, series, _load)]
        if records:
            titled = f"{title}, {own[0].methods[name].subject}"
            yield Figure(f"{method}-{number}", titled, draw(_in_order(own, records)))


def _in_order(sources: Sequence[Source], records: Iterable[Record]) -> list[Record]:
    """Engines as in tables: a block runs them in another order."""
    order = {engine.name: i for source in reversed(sources) for i, engine in enumerate(source.results.engines)}
    return sorted(records, key=lambda record: order[record["engine"]])


def _load(trial: Trial) -> float | None:
    return trial.offered_rate


def _tasks(sources: Sequence[Source], *methods: str) -> list[str]:
    return list(dict.fromkeys(task.name for source in sources for task in source.tasks(*methods)))


def _rates(sources: Sequence[Source], method: str, unit: str) -> tuple[list[Record], list[Record]]:
    """Every trial, and the medians of rows."""
    trials, medians = [], []
    for source in sources:
        for task in source.tasks(method):
            size = source.methods[task.name].subject
            for row in source.rows_of(task.name):
                value = getattr(row, unit)
                if value is not None:
                    shown = f"{row.gigabits_per_second:.2f} Gb/s"
                    who = {**source.who(row.engine), "task": task.name, "median": shown}
                    medians.append({**who, "size": size, unit: value})
            for run, trial in single_trials(source, task.name):
                trials.append({**source.trial(run), "size": size, unit: getattr(trial, unit)})
    return trials, medians


def _bounds(source: Source, task: str, values: Any) -> Record:
    method = source.methods[task]
    texts = {
        f"{name}_text": f"{wording.number(values[key], method.units[key])} frames/s"
        for name, key in (("ndr", "ndr"), ("pdr", "pdr"), ("offered", "max_offered"))
        if key in values
    }
    return {"task": task, "size": method.subject, "ndr": values["ndr"], "pdr": values.get("pdr"), **texts}


def _size_order(size: str) -> tuple[bool, int]:
    number = re.match(r"\d+", size)
    return (number is None, int(number.group()) if number else 0)


def _claim(source: Source, row: Row) -> Record:
    assert row.ratio is not None
    return {
        **source.who(row.engine),
        "task": row.task,
        "test": row.task + (f", {source.label}" if source.label else ""),
        "size": source.methods[row.task].subject,
        "mean": row.ratio.mean,
        "low": row.ratio.low,
        "high": row.ratio.high,
        "floor": row.noise_floor,
        "ratio": wording.ratio(row.ratio),
        "verdict": row.verdict,
        "blocks": row.ratio.blocks,
        "floor_text": "not measured" if row.noise_floor is None else f"± {row.noise_floor:.1%}",
    }


def _cost(source: Source, row: Row) -> Record:
    switch = "has none" if row.cpu_switch_ns is None else f"{row.cpu_switch_ns:,.0f} ns/frame"
    return {
        **source.who(row.engine),
        "task": row.task,
        "size": source.methods[row.task].subject,
        "machine_ns": row.cpu_added_ns,
        "switch_ns": row.cpu_switch_ns,
        "machine": f"{row.cpu_added_ns:,.0f} ns/frame",
        "switch": switch,
        "trials": row.trials,
    }


def _latencies(sources: Sequence[Source], task: str, at: str) -> tuple[list[Record], list[Record]]:
    """Of every engine at one load: a line, and the trials' dots."""
    lines: list[Record] = []
    trials: list[Record] = []
    for source in sources:
        for engine in (row.engine for row in source.rows_of(task)):
            samples = [(record, each) for record, each in _sampled(source, task, engine, at) if _is_drawable(each)]
            lines += _distribution(source.who(engine), [each for _, each in samples])
            trials += [point for record, each in samples for point in _percentiles(record, each)]
    return lines, trials


def _sampled(source: Source, task: str, engine: str, at: str) -> Iterator[tuple[Record, Samples]]:
    """The trials of one load: of a latency task the last ones, of latency at a load its only one."""
    for run in (run for run in source.runs_of(task) if run.engine == engine):
        values = source.found[task, engine, run.block].values
        loads = [load for load in LOADS if f"{load}_p50" in values] or ["idle"]
        if at in loads:
            number = len(run.trials) - len(loads) + loads.index(at)
            if (samples := run.trials[number].samples) is not None:
                yield source.trial(run, number), samples


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
