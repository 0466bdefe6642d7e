"""`fastbridge port`, the ports of a running switch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import rich_click as click
from click.shell_completion import CompletionItem

from fastbridge.console import make_console, make_table

from .operate import Remote, Row, complete_port, in_order, operate

_FLAGS = (
    "learning", "broadcast_flood", "multicast_flood", "unicast_flood", "isolated", "hairpin", "locked", "coalesce",
)  # fmt: skip
_USUAL = _FLAGS[:4]  # on, unless somebody sets them
_LIMITS = {f"storm_{kind}": kind for kind in ("broadcast", "multicast", "unknown_unicast")}
_SWITCHED = {"on": True, "off": False}


def _complete_setting(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    settings = [f"{flag}={state}" for flag in _FLAGS for state in _SWITCHED] + [f"{limit}=" for limit in _LIMITS]
    return [CompletionItem(setting) for setting in settings if setting.startswith(incomplete)]


@in_order()
def port() -> None:
    """List, add, remove or change the ports of a running switch."""


@port.command("list", epilog="Example: fastbridge port list")
@operate
@click.argument("port", required=False, shell_complete=complete_port)
def list_(remote: Remote, port: str | None) -> None:
    """List all ports, or show one."""
    remote.show(remote.call("port.list", port=port), _table)


@port.command(epilog="Example: fastbridge port add veth4")
@operate
@click.argument("interface")
def add(remote: Remote, interface: str) -> None:
    """Make an interface a port."""
    remote.change("port.add", port=interface)


@port.command(epilog="Example: fastbridge port remove veth4")
@operate
@click.argument("port", shell_complete=complete_port)
def remove(remote: Remote, port: str) -> None:
    """Take a port out of the switch. The interface stays as it is."""
    remote.change("port.remove", port=port)


@port.command("set", epilog="Example: fastbridge port set veth4 isolated=on storm_broadcast=1000")
@operate
@click.argument("port", shell_complete=complete_port)
@click.argument("settings", metavar="KEY=VALUE...", nargs=-1, required=True, shell_complete=_complete_setting)
def set_(remote: Remote, port: str, settings: tuple[str, ...]) -> None:
    """Change a port's flags and limits; those not named stay.

    Flags are on or off: learning, broadcast_flood, multicast_flood, unicast_flood, isolated, hairpin, locked, coalesce.
    Limits are frames a second that the port may have flooded, or none: storm_broadcast, storm_multicast,
    storm_unknown_unicast.
    """
    flags: dict[str, bool] = {}
    limits: dict[str, float | None] = {}
    for setting in settings:
        key, _, value = setting.partition("=")
        if key in _LIMITS:
            limits[_LIMITS[key]] = _limit(key, value)
        elif value in _SWITCHED:
            flags[key] = _SWITCHED[value]
        else:
            known = (
                f"flags are on or off: {', '.join(_FLAGS)}; limits are frames a second, or none: {', '.join(_LIMITS)}"
            )
            raise click.UsageError(f"{setting!r} is not KEY=VALUE, such as isolated=on; {known}")
    remote.change("port.set", port=port, flags=flags or None, storm_control=limits or None)


@port.command(epilog="Example: fastbridge port mirror veth1 veth2 ids0")
@operate
@click.argument("ports", metavar="[PORT...] [DESTINATION]", nargs=-1, shell_complete=complete_port)
@click.option("--off", is_flag=True, help="Copy no more to the destination.")
def mirror(remote: Remote, ports: tuple[str, ...], off: bool) -> None:
    """Copy each frame from or to some ports to another port; without ports list what is copied where.

    Nothing else goes in or out of that port meanwhile, and the core forwards every frame.
    """
    if len(ports) == 1 and not off:
        raise click.UsageError("name the ports to copy from, then the one to copy to; or add --off")
    if off and len(ports) != 1:
        raise click.UsageError("--off takes the one port that is copied to")
    *sources, to = ports or (None,)
    rows = remote.call("mirror", to=to, ports=list(sources) or None)
    remote.show(rows, lambda rows: None if ports else _mirrors(rows))


def _mirrors(rows: Sequence[Row]) -> None:
    table = make_table("", "port", "copies of", "frames", "lost", right=("frames", "lost"))
    for row in rows:
        table.add_row(row["to"], ", ".join(row["ports"]), f"{row['frames']:,}", f"{row['lost']:,}")
    make_console().print(table)


def _limit(key: str, value: str) -> float | None:
    if value == "none":
        return None
    try:
        rate = float(value)
    except ValueError:
        rate = math.nan
    if not math.isfinite(rate):
        raise click.UsageError(f"{key} is a number of frames a second, or none, not {value!r}")
    return rate


def _table(rows: Sequence[Row]) -> None:
    table = make_table("", "port", "state", "MACs", "policy", "set", right=("MACs",))
    for row in rows:
        table.add_row(row["ifname"], row["state"], f"{row['stations']:,}", row["policy"], ", ".join(_unusual(row)))
    make_console().print(table)


def _unusual(row: Row) -> list[str]:
    """What somebody has set, as `port set` takes it."""
    flags = row["flags"]
    found = [f"{flag}=off" for flag in _USUAL if flag not in flags]
    found += [f"{flag}=on" for flag in flags if flag not in (*_USUAL, "coalesce")]
    limits: dict[str, Any] = row["storm_control"]
    return found + [f"storm_{kind}={rate:g}" for kind, rate in limits.items()]
