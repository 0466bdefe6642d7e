"""`fastbridge scenario`, what happens to the links of a running switch, and when."""

from __future__ import annotations

from collections.abc import Sequence

import rich_click as click

from fastbridge.console import make_console, make_table

from .operate import Remote, Row, in_order, operate


@in_order()
def scenario() -> None:
    """Play files that say what happens to links, and when: failures, partitions, delays."""


@scenario.command(epilog="Example: fastbridge scenario play outage.toml")
@operate
@click.argument("file")
def play(remote: Remote, file: str) -> None:
    """Play a scenario on a running switch, from now on. All of the file is checked before."""
    from fastbridge.links.scenario import Scenario  # `--help` must not wait for it

    text = Scenario.read(file)
    Scenario.parse(text, file)
    remote.change("scenario.play", toml=text, name=file)


@scenario.command(epilog="Example: fastbridge scenario show")
@operate
def show(remote: Remote) -> None:
    """Show the scenarios and flaps that are played, and what comes next."""
    remote.show(remote.call("scenario.show"), _table)


@scenario.command(epilog="Example: fastbridge scenario stop")
@operate
@click.argument("name", required=False)
def stop(remote: Remote, name: str | None) -> None:
    """End a scenario, or all. Links stay as they are, but those that flap are there again."""
    remote.change("scenario.stop", name=name)


def _table(rows: Sequence[Row]) -> None:
    table = make_table("", "scenario", "next at", "next", right=("next at",))
    for row in rows:
        table.add_row(row["scenario"], "" if row["at"] is None else f"{row['at']:g} s", row["next"] or "")
    make_console().print(table)
