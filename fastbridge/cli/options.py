"""Options, shared.

Options of more than one command. They are checked before anything is opened.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import rich_click as click

from fastbridge.errors import ConfigError, FastbridgeError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from fastbridge.links.link import Link
    from fastbridge.links.places import Place
    from fastbridge.links.scenario import Scenario


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


def complete_lab(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The labs that stay."""
    from fastbridge.lab.persistent import list_labs  # `--help` of a command must not wait for it

    return beginning(incomplete, lambda: [lab.name for lab in list_labs()])


def beginning(start: str, names: Callable[[], Iterable[str]]) -> list[CompletionItem]:
    """What the Tab key offers of these names."""
    from click.shell_completion import CompletionItem

    try:
        return [CompletionItem(name) for name in names() if name.startswith(start)]
    except FastbridgeError:  # a shell's Tab key has no place for errors
        return []


def link_option(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command --link, as a dict: the texts of links by port, pair or `*`."""
    option = click.option(
        "--link",
        "links",
        metavar="PORT:WORDS",
        multiple=True,
        callback=_read_links,
        help="Emulate a port's link: delay=20ms,loss=1%, or a preset such as 4g. PORT may be a pair 'A>B', for frames "
        "from A to B, or '*': all others. One way, per direction; the RTT is the sum. Repeatable.",
    )
    return option(command)


def _read_links(context: click.Context, parameter: click.Parameter, texts: tuple[str, ...]) -> dict[str, str]:
    """Read each PORT:WORDS. The command checks whether the ports are among its own."""
    links: dict[str, str] = {}
    for text in texts:
        place, colon, words = text.partition(":")
        if not place or not colon:
            raise click.BadParameter(f"{text!r} is not PORT:WORDS, such as veth1:delay=20ms,loss=1%")
        if place in links:
            raise click.BadParameter(f"{place} has two links; give it one, with all its words")
        links[place] = words
    if links:
        from fastbridge.links.link import Link  # `--help` of a command must not wait for it

        for words in links.values():
            try:
                Link.parse(words)
            except ConfigError as error:
                raise click.BadParameter(str(error)) from None
    return links


def read_links(texts: Mapping[str, str], ports: Sequence[str]) -> dict[Place, Link]:
    """The links that --link has given to these ports. Raises UsageError for another port."""
    from fastbridge.links.places import links_of

    links = links_of(texts, ports)
    for port in (port for place in links for port in ((place,) if isinstance(place, str) else place)):
        if port not in ports:
            raise click.UsageError(f"--link names {port}, and there are: {', '.join(ports)}")
    return links


def scenario_option(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command --scenario, as a Scenario: what happens to links, and when. The whole file is checked."""
    option = click.option(
        "--scenario",
        metavar="FILE",
        callback=_read_scenario,
        help="Play this scenario from the start on: what happens to links, and when (docs/links.md).",
    )
    return option(command)


def _read_scenario(context: click.Context, parameter: click.Parameter, path: str | None) -> Scenario | None:
    if path is None:
        return None
    from fastbridge.links.scenario import Scenario  # `--help` of a command must not wait for it

    return Scenario.load(path)


def read_policy_of_strangers(context: click.Context, parameter: click.Parameter, text: str | None) -> str | None:
    """As read_policy, for commands that do not know the pods' addresses."""
    text = read_policy(context, parameter, text)
    if text is not None and "guard=strict" in text.split(","):
        raise click.BadParameter(
            "guard=strict drops every address that is not in the table, which is empty at first; name the static "
            "neighbours in a file ([[neigh]], fastbridge run -c FILE), or use guard"
        )
    return text
