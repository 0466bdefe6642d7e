"""`fastbridge schema`, all that a running switch can be asked."""

from __future__ import annotations

import json

import rich_click as click


@click.command(epilog="Example: fastbridge schema | jq '.verbs | keys'")
def schema() -> None:
    """Print the JSON Schema of all that a running switch can be asked.

    It has the verbs, their parameters and their results. No switch needs to run.
    """
    from fastbridge.switch.memory import MemorySwitch  # `--help` must not wait for it
    from fastbridge.switch.verbs import switch_verbs

    click.echo(json.dumps(switch_verbs(MemorySwitch(0)).schema(), indent=2))
