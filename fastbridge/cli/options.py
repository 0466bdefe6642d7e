"""Options, shared.

Options of more than one command. They are checked before anything is opened.
"""

from __future__ import annotations

import rich_click as click

from fastbridge.errors import ConfigError


def read_policy(context: click.Context, parameter: click.Parameter, text: str | None) -> str | None:
    """An option's callback. Checks a policy's text, so that the error names the option."""
    from fastbridge.policy.builtin import parse_policy  # `--help` of a command must not wait for it

    try:
        return None if text is None else str(parse_policy(text))
    except ConfigError as error:
        raise click.BadParameter(str(error)) from None


def read_port_policies(context: click.Context, parameter: click.Parameter, texts: tuple[str, ...]) -> dict[str, str]:
    """Read each IFACE=POLICY. The command checks whether the interfaces are among its own."""
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
    """As read_policy, for commands that do not know the pods' addresses."""
    text = read_policy(context, parameter, text)
    if text is not None and "guard=strict" in text.split(","):
        raise click.BadParameter(
            "guard=strict drops every address that is not in the table, and a command enters none; use guard, "
            "or Switch(…, policy='guard=strict', trusted=True) from Python"
        )
    return text
