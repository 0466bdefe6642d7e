"""`fastbridge policy`, what becomes of ARP and ND."""

from __future__ import annotations

from collections.abc import Sequence

import rich_click as click

from fastbridge.console import make_console, make_table

from .operate import Remote, Row, complete_port, in_order, operate

_port = click.option("--port", metavar="PORT", shell_complete=complete_port, help="Of this port alone.")


@in_order()
def policy() -> None:
    """Show or change what a running switch does with ARP and ND."""


@policy.command(epilog="Example: fastbridge policy show")
@operate
@_port
def show(remote: Remote, port: str | None) -> None:
    """Show the policy of each port."""
    remote.show(remote.call("policy.show", port=port), _table)


@policy.command("set", epilog="Example: fastbridge policy set guard,ratelimit=50,suppress")
@operate
@click.argument("policy")
@_port
def set_(remote: Remote, policy: str, port: str | None) -> None:
    """Change the policy of one port, or of all ports without their own.

    A policy is one or more of flood, suppress, direct, guard, guard=strict, guard=router, ratelimit=RATE[:BURST],
    separated by commas: see `fastbridge run --help`. With --port, `default` is what all others have.
    """
    if policy == "default" and port is None:
        raise click.UsageError("`default` is for one port: name it by --port")
    remote.change("policy.set", policy=None if policy == "default" else policy, port=port)


def _table(rows: Sequence[Row]) -> None:
    table = make_table("", "port", "policy", "")
    for row in rows:
        table.add_row(row["ifname"] or "all others", row["policy"], "its own" if row["own"] else "")
    make_console().print(table)
