"""`fastbridge config`, a switch's file."""

from __future__ import annotations

import json

import rich_click as click

from .operate import Remote, in_order, operate


@in_order()
def config() -> None:
    """Check, dump or reload a switch's configuration file."""


@config.command(epilog="Example: fastbridge config check /etc/fastbridge/lab.toml")
@click.argument("file")
def check(file: str) -> None:
    """Say whether `run -c FILE` would take the file, without looking at the interfaces.

    Prints nothing when it would, and otherwise one line with the file's line, and exits with 2.
    """
    from fastbridge.switch.config import load

    load(file)


@config.command(epilog="Example: fastbridge config dump > lab.toml")
@operate
def dump(remote: Remote) -> None:
    """Write a running switch as a file that makes the same switch."""
    remote.show(remote.call("config.dump"), lambda rows: click.echo(rows[0]["toml"], nl=False))


@config.command()
@operate
def reload(remote: Remote) -> None:
    """Let a running switch read its file again, as SIGHUP does. Ports that it says nothing new of go on forwarding.

    Prints what has changed. When the file is wrong, nothing changes.
    """
    remote.show(
        remote.call("config.reload"), lambda rows: click.echo("".join(f"{row['change']}\n" for row in rows), nl=False)
    )


@config.command()
def schema() -> None:
    """Print the JSON Schema of the file."""
    from fastbridge.switch.config import schema as config_schema

    click.echo(json.dumps(config_schema(), indent=2))
