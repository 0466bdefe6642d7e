"""Options, shared.

What more than one command takes, checked before anything is opened.
"""

from __future__ import annotations

import rich_click as click

from fastbridge.errors import ConfigError


def read_policy(context: click.Context, parameter: click.Parameter, text: str | None) -> str | None:
    """Check a policy's text, so that the complaint names the option; as a callback of an option."""
    from fastbridge.policy.builtin import parse_policy  # `--help` of a command must not wait for it

    try:
        return None if text is None else str(parse_policy(text))
    except ConfigError as error:
        raise click.BadParameter(str(error)) from None


def read_port_policies(context: click.Context, parameter: click.Parameter, texts: tuple[str, ...]) -> dict[str, str]:
    """IFACE=POLICY, as often as given; which interfaces there are is the command's to check."""
    policies: dict[str, str] = {}
    for text in texts:
        port, equals, policy = text.partition("=")
        if not port or not equals:
            raise click.BadParameter(f"{text!r} is not IFACE=POLICY, such as veth3=guard=router")
        if port in policies:
            raise click.BadParameter(f"{port} has two policies; give it one, such as {port}=guard,suppress")
        policies[port] = read_policy_of_strangers(context, parameter, policy) or ""
    return policies


def read_policy_of_strangers(context: click.Context, parameter: click.Parameter, text: str | None) -> str | None:
    """As read_policy, where nobody enters the pods' addresses."""
    text = read_policy(context, parameter, text)
    if text is not None and "guard=strict" in text.split(","):
        raise click.BadParameter(
            "guard=strict drops every address that nobody has entered, and commands enter none; use guard, "
            "or Switch(…, policy='guard=strict', trusted=True) from Python"
        )
    return text
