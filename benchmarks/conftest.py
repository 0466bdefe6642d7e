"""Benchmarks, their own table.

pytest-benchmark times rounds; what a switch is judged by (frames/s, Gb/s, loss, ns a frame) goes into
`extra_info`, is saved with the rest, and is printed here. Rounds of one benchmark run one after the other:
good for tracking one engine over commits. Claims between engines need `fastbridge compare`.
"""

from __future__ import annotations

from itertools import starmap
from typing import Any

import pytest

from fastbridge.bench.fingerprint import take_fingerprint
from fastbridge.bench.machine import Layout

COLUMNS = {
    "ns": ("ns each", "{:,.1f}"),
    "mega_per_second": ("M each/s", "{:,.3f}"),
    "gigabits_per_second": ("Gb/s", "{:,.3f}"),
    "loss_ratio": ("loss", "{:.2%}"),
    "megabytes": ("MB each", "{:,.2f}"),
    "cpu_machine_ns": ("CPU ns each, machine", "{:,.0f}"),
    "cpu_switch_ns": ("CPU ns each, switch", "{:,.0f}"),
}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--storm-seconds", type=float, default=5.0, help="length of each ARP storm (default: 5)")


def pytest_ignore_collect(config: pytest.Config) -> bool | None:
    """A bare `pytest` is for the tests; `pytest --benchmark-only` and `pytest benchmarks` are for these."""
    bare = config.args_source is not pytest.Config.ArgsSource.ARGS
    return (bare and not config.getoption("benchmark_only")) or None


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    fingerprint = take_fingerprint(Layout.of_machine().described(), {})
    machine_info["fastbridge"] = {
        "kernel": fingerprint.kernel,
        "microcode": fingerprint.microcode,
        "hypervisor": fingerprint.hypervisor,
        "governor": fingerprint.governor,
        "boot": fingerprint.boot,
        "mitigations": dict(fingerprint.mitigations),
        "versions": dict(fingerprint.versions),
        "layout": dict(fingerprint.layout),
    }


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    session = getattr(config, "_benchmarksession", None)
    measured = [bench for bench in getattr(session, "benchmarks", ()) if bench.extra_info.get("what")]
    measured.sort(key=lambda bench: bench.group)
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
