"""`fastbridge stats`, what a running switch counts."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import rich_click as click

from fastbridge.console import make_console, print_lines
from fastbridge.switch.counters import Counters, PortCounters, rates

from .counter_table import counter_table
from .operate import Remote, Row, complete_port, operate


@click.command(epilog="Example: fastbridge stats --interval 1")
@operate
@click.argument("port", required=False, shell_complete=complete_port)
@click.option(
    "--interval", metavar="SECONDS", type=click.FloatRange(min=0.1), help="Show what happens per second in this time."
)
def stats(remote: Remote, port: str | None, interval: float | None) -> None:
    """Show what the ports of a running switch have received, sent and dropped.

    Below the table stand the reasons of all drops.
    """
    rows = remote.call("stats", port=port)
    if interval is not None:
        time.sleep(interval)
        rows = rates(remote.call("stats", port=port), rows)
    remote.show(rows, _table)


def _table(rows: Sequence[Row]) -> None:
    counters = _counters(rows)
    console = make_console()
    console.print(counter_table(counters, "Frames a second" if "seconds" in rows[0] else "Frames"))
    console.print()
    reasons = [f"{name}: {'; '.join(port.reasons)}" for name, port in counters.ports.items() if port.reasons]
    print_lines(console, [*reasons, counters.story] if rows[-1]["ifname"] is None else reasons, indent="")


def _counters(rows: Sequence[Row]) -> Counters:
    """The snapshot that rows tell of, in whole numbers. Of one port alone the sum is its own."""
    *ports, last = [{name: _whole(value) for name, value in row.items()} for row in rows]
    if last["ifname"] is not None:
        ports.append(last)
    found = {row["ifname"]: PortCounters(**_fields(PortCounters, row)) for row in ports}
    total = PortCounters(**_fields(PortCounters, last))
    return Counters(found, total, **_fields(Counters, last))


def _fields(of: type, row: Row) -> Row:
    return {field.name: row[field.name] for field in fields(of) if field.name in row}


def _whole(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {reason: round(count) for reason, count in value.items()}
    return round(value) if isinstance(value, float) else value
