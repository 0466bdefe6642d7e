"""Benchmarks, their own table.

pytest-benchmark times rounds; what a switch is judged by (frames/s, Gb/s, loss, ns a frame) goes into
`extra_info`, is saved with the rest, and is printed here. Rounds of one benchmark run one after the other:
good for tracking one engine over commits, on one machine: a comparison with another one is refused. Claims
between engines need `fastbridge compare`.
"""

from __future__ import annotations

import argparse
import faulthandler
import textwrap
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from itertools import starmap
from pathlib import Path
from typing import Any

import pytest
from pytest_benchmark.logger import PytestBenchmarkWarning
from pytest_benchmark.session import PerformanceRegression

from fastbridge.bench import Engine
from fastbridge.bench.engines import parse_engines
from fastbridge.bench.machine.cpus import Layout
from fastbridge.bench.machine.fingerprint import take_fingerprint
from fastbridge.bench.machine.likeness import DECISIVE, described, differences
from fastbridge.errors import ConfigError

COLUMNS = {
    "ns": ("ns each", "{:,.1f}"),
    "mega_per_second": ("M each/s", "{:,.3f}"),
    "gigabits_per_second": ("Gb/s", "{:,.3f}"),
    "loss_ratio": ("loss", "{:.2%}"),
    "megabytes": ("MB each", "{:,.2f}"),
    "cpu_machine_ns": ("CPU ns each, machine", "{:,.0f}"),
    "cpu_switch_ns": ("CPU ns each, switch", "{:,.0f}"),
}

# Each path by itself, as `fastbridge run` takes the one that the machine allows.
ENGINES = parse_engines("fastbridge/nft,fastbridge/af-packet,linux-bridge,direct")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--storm-seconds", type=float, default=5.0, help="length of each ARP storm (default: 5)")
    parser.addoption("--link-seconds", type=float, default=5.0, help="length of each test of test_links (default: 5)")
    parser.addoption("--blocks", type=int, default=6, help="of test_limit, interleaved (default: 6)")
    names = ",".join(engine.name for engine in ENGINES)
    parser.addoption("--engines", type=engines, default=ENGINES, help=f"measured from veth to veth (default: {names})")


def engines(text: str) -> tuple[Engine, ...]:
    """Those of a command line."""
    try:
        return parse_engines(text)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def pytest_configure(config: pytest.Config) -> None:
    # pytest-benchmark warns by Python's warnings, and those are errors here: a traceback would be all one sees.
    config.addinivalue_line("filterwarnings", f"default::{PytestBenchmarkWarning.__module__}.PytestBenchmarkWarning")
    warnings.filterwarnings("default", category=PytestBenchmarkWarning)


def pytest_sessionstart(session: pytest.Session) -> None:
    benchmarks = getattr(session.config, "_benchmarksession", None)
    if benchmarks is not None and benchmarks.compare and not benchmarks.compared_mapping:
        raise pytest.UsageError(f"there is no saved benchmark in {benchmarks.storage} to compare with")


@pytest.fixture(autouse=True)
def undisturbed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A trial that other programs have spoiled is none: it is made again, more often than a comparison does."""
    monkeypatch.setattr("fastbridge.bench.tester.tester.ATTEMPTS", 20)


@pytest.fixture(autouse=True)
def takes_its_time(request: pytest.FixtureRequest) -> None:
    """A benchmark takes as long as its blocks; the tests' limit for one that hangs is not for it."""
    if request.config.getoption("benchmark_only"):
        faulthandler.cancel_dump_traceback_later()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "engine" in metafunc.fixturenames:
        chosen = metafunc.config.getoption("engines", ENGINES)  # of `pytest .` this file comes too late for options
        metafunc.parametrize("engine", chosen, ids=lambda engine: engine.name, scope="module")


# What decides between ways to build the switch, and 1,500 pods: run by name, so that the rest takes some 6 minutes.
BY_NAME = "decisions"


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """A bare `pytest` is for the tests; `pytest --benchmark-only` and `pytest benchmarks` are for these."""
    bare = config.args_source is not pytest.Config.ArgsSource.ARGS
    return (bare and (not config.getoption("benchmark_only") or collection_path.name == BY_NAME)) or None


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    fingerprint = asdict(take_fingerprint(Layout.of_machine().described(), {}))
    del fingerprint["offloads"]  # of veth pairs; each lab has its own
    fingerprint["versions"].pop("commit")  # pytest-benchmark has it elsewhere, and would say that the machine differs
    machine_info["fastbridge"] = described(fingerprint)


def pytest_benchmark_compare_machine_info(
    config: pytest.Config, benchmarksession: Any, machine_info: dict[str, Any], compared_benchmark: dict[str, Any]
) -> None:
    """Refuse to compare unlike machines; called before anything is measured."""
    saved = compared_benchmark.get("machine_info", {}).get("fastbridge", {})
    here = machine_info["fastbridge"]
    differing = in_phrases(differences(here, saved))
    when = compared_benchmark.get("datetime", "an unknown time")
    if differing:
        raise pytest.UsageError(
            f"the benchmark saved at {when} is not comparable, it is of another machine: {'; '.join(differing)}. "
            "Save one here (--benchmark-autosave) and compare with that"
        )
    others = in_phrases(differences(here, saved, {key: key for key in here if key not in DECISIVE}))
    if others:
        benchmarksession.logger.info(f"Not quite what was saved at {when}: {'; '.join(others)}")
    # pytest-benchmark's own check comes next. It would warn of any difference, the clock rate's too, in kilobytes.
    compared_benchmark["machine_info"] = machine_info


def in_phrases(differing: Mapping[str, tuple[str, str]]) -> list[str]:
    """One phrase each."""
    return [f"{name} {there} there, {here} here" for name, (here, there) in differing.items()]


@pytest.hookimpl(wrapper=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> Iterator[None]:
    write_table(terminalreporter, config)
    try:
        yield
    except PerformanceRegression as regression:  # what has regressed is said already; not by a traceback as well
        pytest.exit(str(regression), returncode=1)


def write_table(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    session = getattr(config, "_benchmarksession", None)
    measured = [bench for bench in getattr(session, "benchmarks", ()) if bench.extra_info.get("what")]
    measured.sort(key=lambda bench: bench.group or "")
    if not measured:
        return
    heads = ["", "what", *(head for head, _ in COLUMNS.values())]
    table = [heads, *(line(bench) for bench in measured)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    terminalreporter.section("fastbridge: medians; frames without FCS in Gb/s")
    group = None
    for bench, cells in zip([None, *measured], table, strict=True):
        if bench is not None and bench.group != group:
            group = bench.group
            terminalreporter.write_line(f"{group}", bold=True)
        first, second, *rest = cells
        numbers = "  ".join(cell.rjust(width) for cell, width in zip(rest, widths[2:], strict=True))
        terminalreporter.write_line(f"  {first.ljust(widths[0])}  {second.ljust(widths[1])}  {numbers}".rstrip())
        if bench is not None and "figures" in bench.extra_info:
            text = "; ".join(starmap(figure, bench.extra_info["figures"].items()))
            for part in textwrap.wrap(text, 114, initial_indent=" " * 6, subsequent_indent=" " * 6):
                terminalreporter.write_line(part)


def figure(label: str, value: float | list[float]) -> str:
    """One of the figures that have no column."""
    if isinstance(value, list):
        mean, low, high = value
        return f"{label} {mean:.2f} [{low:.2f} … {high:.2f}]"
    return f"{label} {value:,}" if isinstance(value, int) else f"{label} {value:,.2f}"


def line(bench: Any) -> list[str]:
    """One benchmark's cells, as text."""
    values = (bench.extra_info.get(key) for key in COLUMNS)
    formats = (form for _, form in COLUMNS.values())
    cells = ["" if value is None else form.format(value) for value, form in zip(values, formats, strict=True)]
    return [bench.name, bench.extra_info["what"], *cells]
