"""`fastbridge status`, a running switch on one page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import rich_click as click

from fastbridge.console import make_console, make_table

from .operate import Remote, Row, operate


@click.command(epilog="Example: fastbridge status")
@operate
def status(remote: Remote) -> None:
    """Show what a running switch is and how it does."""
    remote.show(remote.call("status"), _table)


def _table(rows: Sequence[Row]) -> None:
    for row in rows:
        table = make_table("", "switch", row["name"])
        for what, value in _facts(row):
            table.add_row(what, value)
        make_console().print(table)


def _facts(row: Row) -> Iterator[tuple[str, str]]:
    yield "process", f"{row['pid']}, fastbridge {row['version']}"
    yield "running for", _span(row["uptime"]) if row["running"] else "it does not run"
    ports = [f"{count:,} {state}" for state, count in row["ports"].items() if count]
    yield "ports", ", ".join(ports) or "none"
    yield "fast path", row["fast_path"]
    cpus = f", on CPU {', '.join(map(str, row['cpus']))}" if row["cpus"] else ""
    yield "workers", f"{row['workers']}{cpus}"
    yield "policy", row["policy"]
    yield "MAC addresses", _fill(row["fdb"])
    yield "neighbours", _fill(row["neighbours"])
    if any(row["links"].values()):
        links = row["links"]
        yield (
            "links",
            f"{links['links']:,} emulated; in flight: {links['in_flight']:,} frames, {links['bytes']:,} bytes",
        )
    yield "shield", row["shield"]
    yield "capabilities", ", ".join(row["capabilities"]) or "none"
    yield "dropped", ", ".join(f"{reason} {count:,}" for reason, count in row["lost"].items()) or "nothing"


def _fill(table: Mapping[str, Any]) -> str:
    ageing = "never forgotten" if table["ageing"] is None else f"forgotten after {table['ageing']:g} s"
    return f"{table['entries']:,} of {table['capacity']:,}, {ageing}"


def _span(seconds: float) -> str:
    """Days, hours, minutes and seconds, the two highest of them."""
    rest = round(seconds)
    parts: list[str] = []
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        count, rest = divmod(rest, size)
        if count or (unit == "s" and not parts):
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2])
