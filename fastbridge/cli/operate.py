"""A running switch, asked.

What the commands that ask a running switch have in common: which one, how they ask it, how they print.
"""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Callable, Sequence
from typing import Any

import rich_click as click
from click import get_current_context
from click.shell_completion import CompletionItem

from fastbridge.control.client import Client
from fastbridge.control.directory import running
from fastbridge.errors import FastbridgeError

from .batch import PATIENCE, Line

Row = dict[str, Any]


class Remote:
    """The switch that a command asks, and how it prints the answers."""

    def __init__(self, client: Client, as_json: bool) -> None:
        self.client, self.as_json = client, as_json

    def call(self, verb: str, **params: Any) -> list[Row]:
        """Ask. Parameters that are None are left out. Raises RpcError."""
        rows: list[Row] = self.client.call(verb, **{name: value for name, value in params.items() if value is not None})
        return rows

    def show(self, rows: Sequence[Row], in_words: Callable[[Sequence[Row]], None]) -> None:
        """Print rows, as one JSON array or in words."""
        if self.as_json:
            click.echo(json.dumps(rows))
        else:
            in_words(rows)

    def change(self, verb: str, **params: Any) -> None:
        """Ask for a change. JSON says what has changed; in words no answer is a good one."""
        self.show(self.call(verb, **params), lambda rows: None)


def _operating(json_help: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    def operating(function: Callable[..., None]) -> Callable[..., None]:
        @click.option("--switch", metavar="NAME", shell_complete=complete_switch, help="The switch, if several run.")
        @click.option("--json", "as_json", is_flag=True, help=json_help)
        @functools.wraps(function)
        def command(switch: str | None, as_json: bool, **params: Any) -> None:
            line = get_current_context().find_object(Line)
            known = contextlib.nullcontext(line.connection(switch)) if line else None
            with known or Client(switch, timeout=PATIENCE) as client:
                function(Remote(client, as_json), **params)

        return command

    return operating


#: Give a command the options --switch and --json, and a Remote as its first argument.
operate = _operating("Print one JSON array.")
#: The same for a command that prints events as they come.
operate_events = _operating("Print JSON: one object a line.")


def in_order(name: str | None = None) -> Callable[[Callable[..., Any]], click.Group]:
    """A command group that lists its commands in the order of their use."""
    return click.group(name, cls=_InOrder)


class _InOrder(click.RichGroup):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


def complete_switch(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The running switches."""
    try:
        return _beginning(incomplete, running())
    except FastbridgeError:  # a shell's Tab key has no place for errors
        return []


def complete_port(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The ports of the switch."""
    try:
        with Client(context.params.get("switch"), timeout=5.0) as client:
            return _beginning(incomplete, [row["ifname"] for row in client.call("port.list")])
    except FastbridgeError:
        return []


def _beginning(start: str, names: Sequence[str]) -> list[CompletionItem]:
    return [CompletionItem(name) for name in names if name.startswith(start)]
