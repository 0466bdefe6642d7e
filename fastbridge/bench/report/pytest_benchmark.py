"""Results for pytest-benchmark.

The comparison as a file that `pytest-benchmark compare` and `fastbridge track` read. They know times of rounds and
nothing else. So a round is one block, and its time is the time that a fixed amount of work takes at the speed found.
Tasks that find no speed (how many addresses, which frames) are left out.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from statistics import fmean, median, quantiles, stdev
from typing import Any

from fastbridge.bench.machine.likeness import described

from .evidence import LoadedRun, Report
from .rows import Row
from .wording import unreadable

FRAMES = 100_000
WORK: Mapping[str, Callable[[float], float]] = {  # the unit of a method's value → how long the work takes, in seconds
    "frames/s": lambda rate: FRAMES / rate,
    "addresses/s": lambda rate: FRAMES / rate,
    "transactions/s": lambda rate: FRAMES / rate,
    "Gb/s": lambda rate: 8.0 / rate,
    "µs": lambda latency: latency * 1e-6,
    "s": lambda outage: outage,
}
WHAT: Mapping[str, str] = {
    "frames/s": "frame",
    "addresses/s": "address",
    "transactions/s": "transaction",
    "Gb/s": "TCP payload",
    "µs": "latency",
    "s": "outage",
}
_FORMAT = "5.1.0"  # the version of pytest-benchmark whose files have these fields


def to_pytest_benchmark(report: Report) -> str:
    """A single run as a JSON document of pytest-benchmark: one benchmark for each engine and task."""
    (run,) = report.runs
    results = run.results
    benchmarks = []
    for row in run.rows:
        method = run.methods[row.task]
        rounds = _rounds(run, row)
        if rounds and row.unfit is None and row.unreadable is None:
            about = {"what": WHAT[method.units[method.primary]], **_figures(row, method.units)}
            benchmarks.append(_benchmark(row, rounds, about))
    fingerprint = described(asdict(results.fingerprint))
    del fingerprint["offloads"]  # as in the benchmark suite's files: offloads belong to veth pairs
    versions = dict(fingerprint["versions"])
    commit = versions.pop("commit", "unversioned")
    fingerprint["versions"] = versions
    value = {
        "machine_info": {
            "python_implementation": "CPython",
            "python_version": versions.get("python", "unknown"),
            "release": fingerprint["release"],
            "system": "Linux",
            "cpu": {"brand_raw": fingerprint["cpu"], "count": fingerprint["cpus"]},
            "fastbridge": fingerprint,
        },
        "commit_info": {"id": commit.removesuffix("-dirty"), "time": None, "dirty": commit.endswith("-dirty")},
        "benchmarks": benchmarks,
        "datetime": results.started,
        "version": _FORMAT,
    }
    return json.dumps(value, indent=1) + "\n"


def left_out(report: Report) -> Iterator[str]:
    """The benchmarks that the file lacks because they cannot be read here, with the reason. The file cannot say so."""
    (run,) = report.runs
    speeds = {name for name, method in run.methods.items() if method.units[method.primary] in WORK}
    return unreadable(run.results, [row for row in run.rows if row.task in speeds])


def _rounds(run: LoadedRun, row: Row) -> list[float]:
    method = run.methods[row.task]
    seconds = WORK.get(method.units[method.primary])
    if seconds is None:
        return []
    values = [
        findings.values.get(method.primary, 0.0)
        for (task, engine, _), findings in run.found.items()
        if (task, engine) == (row.task, row.engine)
    ]
    return [seconds(value) for value in values if value > 0]


def _figures(row: Row, units: Mapping[str, str]) -> dict[str, Any]:
    figures: dict[str, Any] = {f"{name} {units[name]}": value for name, value in row.values.items()}
    if row.ratio:
        figures["ratio to the baseline"] = [row.ratio.mean, row.ratio.low, row.ratio.high]
    return {
        "mega_per_second": None if row.frames_per_second is None else row.frames_per_second * 1e-6,
        "gigabits_per_second": row.gigabits_per_second,
        "loss_ratio": row.loss_ratio,
        "cpu_machine_ns": row.cpu_machine_ns,
        "cpu_switch_ns": row.cpu_switch_ns,
        "verdict": row.verdict,
        "figures": figures,
    }


def _benchmark(row: Row, rounds: Sequence[float], about: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "group": row.task,
        "name": f"{row.task}[{row.engine}]",
        "fullname": f"fastbridge compare::{row.task}[{row.engine}]",
        "params": {"engine": row.engine},
        "param": row.engine,
        "extra_info": about,
        "options": {},
        "stats": _statistics(rounds),
    }


def _statistics(rounds: Sequence[float]) -> dict[str, Any]:
    ordered, mean = sorted(rounds), fmean(rounds)
    several = len(rounds) > 1
    deviation = stdev(rounds) if several else 0.0
    q1, _, q3 = quantiles(rounds, n=4, method="inclusive") if several else ordered * 3
    near = [x for x in ordered if q1 - 1.5 * (q3 - q1) <= x <= q3 + 1.5 * (q3 - q1)]
    outliers = sum(abs(x - mean) > deviation for x in rounds), len(rounds) - len(near)
    return {
        "min": ordered[0],
        "max": ordered[-1],
        "mean": mean,
        "stddev": deviation,
        "rounds": len(rounds),
        "median": median(rounds),
        "iqr": q3 - q1,
        "q1": q1,
        "q3": q3,
        "iqr_outliers": outliers[1],
        "stddev_outliers": outliers[0],
        "outliers": f"{outliers[0]};{outliers[1]}",
        "ld15iqr": near[0],
        "hd15iqr": near[-1],
        "ops": 1.0 / mean,
        "total": sum(rounds),
        "iterations": 1,
        "data": list(rounds),
    }
