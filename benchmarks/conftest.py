"""Benchmarks, their own table.

pytest-benchmark times rounds; what a switch is judged by (frames/s, Gb/s, loss, ns a frame) goes into
`extra_info`, is saved with the rest, and is printed here. Rounds of one benchmark run one after the other:
good for tracking one engine over commits. Claims between engines need `fastbridge compare`.
"""

from __future__ import annotations

import argparse
import platform
from collections.abc import Mapping
from dataclasses import asdict
from itertools import starmap
from typing import Any

import pytest

from fastbridge.bench import DEFAULT_ENGINES, Engine, Layout, parse_engines
from fastbridge.bench.engines import Direct
from fastbridge.bench.fingerprint import take_fingerprint
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


# Where these differ a ratio is one of machines, or of the tester's own interference.
DECISIVE = {
    "cpu": "CPU",
    "cpus": "number of CPUs",
    "hypervisor": "hypervisor",
    "release": "kernel",
    "layout": "CPU layout",
}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--storm-seconds", type=float, default=5.0, help="length of each ARP storm (default: 5)")
    names = ",".join(engine.name for engine in (*DEFAULT_ENGINES, Direct()))
    parser.addoption("--engines", type=engines, default=names, help=f"measured from veth to veth (default: {names})")


def engines(text: str) -> tuple[Engine, ...]:
    """Those of a command line."""
    try:
        return parse_engines(text)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "engine" in metafunc.fixturenames:
        chosen = metafunc.config.getoption("engines")
        metafunc.parametrize("engine", chosen, ids=lambda engine: engine.name, scope="module")


def pytest_ignore_collect(config: pytest.Config) -> bool | None:
    """A bare `pytest` is for the tests; `pytest --benchmark-only` and `pytest benchmarks` are for these."""
    bare = config.args_source is not pytest.Config.ArgsSource.ARGS
    return (bare and not config.getoption("benchmark_only")) or None


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    fingerprint = asdict(take_fingerprint(Layout.of_machine().described(), {}))
    del fingerprint["offloads"]  # of veth pairs; each lab has its own
    fingerprint["versions"].pop("commit")  # pytest-benchmark has it elsewhere, and would say that the machine differs
    machine_info["fastbridge"] = {**fingerprint, "release": platform.release()}


def pytest_benchmark_compare_machine_info(
    config: pytest.Config, benchmarksession: Any, machine_info: dict[str, Any], compared_benchmark: dict[str, Any]
) -> None:
    """Refuse to compare unlike machines; called before anything is measured."""
    saved = compared_benchmark.get("machine_info", {}).get("fastbridge", {})
    differing = list(differences(machine_info["fastbridge"], saved))
    if differing:
        when = compared_benchmark.get("datetime", "an unknown time")
        raise pytest.UsageError(
            f"the benchmark saved at {when} is not comparable, it is of another machine: {'; '.join(differing)}. "
            "Save one here (--benchmark-autosave) and compare with that"
        )


def differences(here: Mapping[str, Any], saved: Mapping[str, Any]) -> list[str]:
    """What distinguishes two machines, one phrase each."""
    return [
        f"{what} {text(saved.get(key))} there, {text(here[key])} here"
        for key, what in DECISIVE.items()
        if saved.get(key) != here[key]
    ]


def text(value: Any) -> str:
    """A fingerprint's entry, in one line."""
    if isinstance(value, Mapping):
        return ", ".join(f"{role} on {cpu}" for role, cpu in value.items())
    return "unknown" if value is None else str(value)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
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
            terminalreporter.write_line("      " + ", ".join(starmap(figure, bench.extra_info["figures"].items())))


def figure(label: str, value: float) -> str:
    """One of the figures that have no column."""
    return f"{label} {value:,}" if isinstance(value, int) else f"{label} {value:,.2f}"


def line(bench: Any) -> list[str]:
    """One benchmark's cells, as text."""
    values = (bench.extra_info.get(key) for key in COLUMNS)
    formats = (form for _, form in COLUMNS.values())
    cells = ["" if value is None else form.format(value) for value, form in zip(values, formats, strict=True)]
    return [bench.name, bench.extra_info["what"], *cells]
