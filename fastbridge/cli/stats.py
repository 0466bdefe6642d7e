"""`fastbridge stats`, what a running switch counts."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import rich_click as click

from fastbridge.console import make_console, make_table, print_lines
from fastbridge.switch.counters import CELLS, PortCounters, per_second

from .operate import Remote, Row, complete_port, operate


@click.command(epilog="Example: fastbridge stats --interval 1")
@operate
@click.argument("port", required=False, shell_complete=complete_port)
@click.option(
    "--interval", metavar="SECONDS", type=click.FloatRange(min=0.1), help="Show what happens per second in this time."
)
def stats(remote: Remote, port: str | None, interval: float | None) -> None:
    """Show the counters of all ports, or of one, and every drop with its reason."""
    rows = remote.call("stats", port=port)
    if interval is not None:
        time.sleep(interval)
        rows = _rates(remote.call("stats", port=port), rows)
    remote.show(rows, _table)


def _rates(rows: Sequence[Row], before: Sequence[Row]) -> list[Row]:
    """Each port's counters per second between two answers."""
    earlier = {row["ifname"]: row for row in before}
    seconds = rows[0]["time"] - before[0]["time"]
    return [
        {
            "ifname": row["ifname"],
            "seconds": seconds,
            **per_second(_counts(row), _counts(earlier.get(row["ifname"], {})), seconds),
        }
        for row in rows
    ]


def _counts(row: Row) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in ("ifname", "time", "seconds")}


def _table(rows: Sequence[Row]) -> None:
    console = make_console()
    table = make_table("Frames a second" if "seconds" in rows[0] else "Frames", "port", *CELLS, right=CELLS)
    reasons = []
    for row in rows:
        name = row["ifname"] or "total"
        counters = PortCounters(**{what: _whole(count) for what, count in _counts(row).items()})
        table.add_row(name, *counters.cells, style="" if row["ifname"] else "bold")
        if counters.reasons:
            reasons.append(f"{name}: {'; '.join(counters.reasons)}")
    console.print(table)
    if reasons:
        console.print()
        print_lines(console, reasons, indent="")


def _whole(count: Any) -> Any:
    return {reason: round(each) for reason, each in count.items()} if isinstance(count, Mapping) else round(count)
