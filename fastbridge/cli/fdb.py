"""`fastbridge fdb`, which port a MAC address is behind."""

from __future__ import annotations

from collections.abc import Sequence

import rich_click as click

from fastbridge.console import make_console, make_table

from .operate import Remote, Row, complete_port, in_order, operate

_port = click.option("--port", metavar="PORT", shell_complete=complete_port, help="Only what is behind this port.")
_vlan = click.option("--vlan", metavar="ID", type=int, default=0, show_default=True, help="The VLAN; 0: untagged.")


@in_order()
def fdb() -> None:
    """Show or change which port of a running switch a MAC address is behind."""


@fdb.command(epilog="Example: fastbridge fdb show 02:00:00:00:00:01")
@operate
@click.argument("mac", required=False)
@_port
@click.option("--vlan", metavar="ID", type=int, help="Only this VLAN; 0: untagged.")
def show(remote: Remote, mac: str | None, port: str | None, vlan: int | None) -> None:
    """Show all entries, or those of a MAC address."""
    remote.show(remote.call("fdb.show", mac=mac, port=port, vlan=vlan), _table)


@fdb.command(epilog="Example: fastbridge fdb add 02:00:00:00:00:01 veth1")
@operate
@click.argument("mac")
@click.argument("port", shell_complete=complete_port)
@_vlan
def add(remote: Remote, mac: str, port: str, vlan: int) -> None:
    """Add a static entry: no frame changes it, and it does not age."""
    remote.change("fdb.add", mac=mac, port=port, vlan=vlan)


@fdb.command(epilog="Example: fastbridge fdb delete 02:00:00:00:00:01")
@operate
@click.argument("mac")
@_vlan
def delete(remote: Remote, mac: str, vlan: int) -> None:
    """Remove an entry, static or learned."""
    remote.change("fdb.delete", mac=mac, vlan=vlan)


@fdb.command(epilog="Example: fastbridge fdb flush --port veth1")
@operate
@_port
def flush(remote: Remote, port: str | None) -> None:
    """Forget all learned entries. Static ones stay."""
    remote.change("fdb.flush", port=port)


def _table(rows: Sequence[Row]) -> None:
    table = make_table("", "MAC", "VLAN", "port", "heard", right=("VLAN", "heard"))
    for row in rows:
        heard = row["state"] or f"{row['age']:,.1f} s ago"
        table.add_row(row["mac"], str(row.get("vlan", "")), row["ifname"], heard)
    make_console().print(table)
