"""Options, shared.

What more than one command takes, checked before anything is opened.
"""

from __future__ import annotations

import rich_click as click

from fastbridge.errors import ConfigError


def read_policy(context: click.Context, parameter: click.Parameter, text: str | None) -> str | None:
    """Check a policy's text, so that the complaint names the option; as a callback of an option."""
    from fastbridge.policies import parse_policy  # `--help` of a command shall not wait for it

    try:
        return None if text is None else str(parse_policy(text))
    except ConfigError as error:
        raise click.BadParameter(str(error)) from None
