"""`fastbridge config`, a switch's file."""

from __future__ import annotations

import json

import rich_click as click


@click.group(cls=click.RichGroup)
def config() -> None:
    """Check a switch's configuration file, or say what one may hold."""


@config.command(epilog="Example: fastbridge config check /etc/fastbridge/lab.toml")
@click.argument("file")
def check(file: str) -> None:
    """Say whether `run -c FILE` would take the file, without looking at the interfaces.

    Prints nothing when it would, and otherwise one line with the file's line, and exits with 2.
    """
    from fastbridge.switch.config import ConfigFile
    from fastbridge.switch.config import check as check_config

    read = ConfigFile.read(file)
    check_config(read.config, read)


@config.command()
def schema() -> None:
    """Print the JSON Schema of the file."""
    from fastbridge.switch.config import schema as config_schema

    click.echo(json.dumps(config_schema(), indent=2))
