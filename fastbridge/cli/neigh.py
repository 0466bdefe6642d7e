"""`fastbridge neigh`, which MAC address an IP address has."""

from __future__ import annotations

from collections.abc import Sequence

import rich_click as click

from fastbridge.console import make_console, make_table

from .operate import Remote, Row, complete_port, in_order, operate

_vlan = click.option("--vlan", metavar="ID", type=int, default=0, show_default=True, help="The VLAN; 0: untagged.")


@in_order()
def neigh() -> None:
    """Show or change which MAC address of a running switch an IP address has.

    The switch learns neighbours while a policy looks at ARP and ND: suppress, direct or guard.
    """


@neigh.command(epilog="Example: fastbridge neigh show 10.0.0.1")
@operate
@click.argument("ip", required=False)
@click.option("--port", metavar="PORT", shell_complete=complete_port, help="Only what is behind this port.")
def show(remote: Remote, ip: str | None, port: str | None) -> None:
    """Show all neighbours, or those of an IP address."""
    remote.show(remote.call("neigh.show", ip=ip, port=port), _table)


@neigh.command(epilog="Example: fastbridge neigh add 10.0.0.1 02:00:00:00:00:01 veth1")
@operate
@click.argument("ip")
@click.argument("mac")
@click.argument("port", shell_complete=complete_port)
@_vlan
def add(remote: Remote, ip: str, mac: str, port: str, vlan: int) -> None:
    """Enter a static neighbour: no message changes it, and the policy guard binds to it."""
    remote.change("neigh.add", ip=ip, mac=mac, port=port, vlan=vlan)


@neigh.command(epilog="Example: fastbridge neigh delete 10.0.0.1")
@operate
@click.argument("ip")
@_vlan
def delete(remote: Remote, ip: str, vlan: int) -> None:
    """Forget a neighbour, static or learned."""
    remote.change("neigh.delete", ip=ip, vlan=vlan)


def _table(rows: Sequence[Row]) -> None:
    table = make_table("", "IP", "MAC", "VLAN", "port", "heard", "by", right=("VLAN", "heard"))
    for row in rows:
        heard = "static" if row["state"] == ["PERMANENT"] else f"{row['age']:,.1f} s ago"
        by = "" if row["source"] == "static" else row["source"]
        table.add_row(row["dst"], row["lladdr"], str(row.get("vlan", "")), row["dev"], heard, by)
    make_console().print(table)
