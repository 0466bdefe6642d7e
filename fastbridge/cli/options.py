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


def read_policy_of_strangers(context: click.Context, parameter: click.Parameter, text: str | None) -> str | None:
    """As read_policy, where nobody enters the pods' addresses."""
    text = read_policy(context, parameter, text)
    if text is not None and "guard=strict" in text.split(","):
        raise click.BadParameter(
            "guard=strict drops what claims an address that nobody has entered, and no command enters any; use guard, "
            "or Switch(…, policy='guard=strict', trusted=True) from Python"
        )
    return text
