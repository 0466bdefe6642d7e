"""`fastbridge monitor`, what happens in a running switch."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence

import rich_click as click

from fastbridge.console import plain
from fastbridge.feed import EVENTS, Event

from .operate import Remote, operate_events


@click.command(epilog="Example: fastbridge monitor --event learned --event moved")
@operate_events
@click.option(
    "--event",
    "events",
    metavar="NAME",
    multiple=True,
    type=click.Choice(list(EVENTS)),
    help=f"Show these events alone. Repeatable. There are: {', '.join(EVENTS)}.",
)
def monitor(remote: Remote, events: Sequence[str]) -> None:
    """Show what happens in a running switch as it happens.

    It goes on until Ctrl-C. When the switch ends, its status is 1.
    """
    with remote.client.stream("monitor", events=list(events or EVENTS)) as stream:
        for event in stream:
            click.echo(json.dumps(event) if remote.as_json else _line(event))


def _line(event: Event) -> str:
    """When, what, at which port; then the log line's text, or what else is known."""
    seconds = event["time"]
    when = f"{time.strftime('%H:%M:%S', time.localtime(seconds))}.{int(seconds % 1 * 1000):03}"
    about = event.get("text") or ", ".join(
        str(value) if name == "mac" else f"{name} {value}"
        for name, value in event.items()
        if name not in ("event", "time", "ifname") and (name, value) != ("vlan", 0)
    )
    return plain(f"{when}  {event['event']:<12}  {event.get('ifname') or '-':<12}  {about}".rstrip())
