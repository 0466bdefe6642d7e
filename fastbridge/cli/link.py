"""`fastbridge link`, the emulated wires of a running switch."""

from __future__ import annotations

from collections.abc import Sequence

import rich_click as click
from click.shell_completion import CompletionItem

from fastbridge.console import make_console, make_table

from .operate import Remote, Row, complete_port, in_order, operate

_ports = click.argument("ports", metavar="PORT...", nargs=-1, required=True, shell_complete=complete_port)
_places = click.argument("places", metavar="PORT...", nargs=-1, required=True, shell_complete=complete_port)


def _complete_words(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Ports, and after them words; after a comma words again."""
    from fastbridge.links.link import DIRECTIONS, WORDS  # `--help` must not wait for it

    before, comma, last = incomplete.rpartition(",")
    words = [
        CompletionItem(f"{before}{comma}{word}=") for word in WORDS if word.startswith(last) and word not in DIRECTIONS
    ]
    return words if comma else [*complete_port(context, parameter, incomplete), *words]


_said = click.argument("said", metavar="PORT... WORDS", nargs=-1, required=True, shell_complete=_complete_words)


@in_order()
def link() -> None:
    """Show or change the emulated links of a running switch: delay, loss, rate, failures.

    PORT is a port, a pair 'veth1>veth2' (frames from the first to the second; quote it), or '*' for all ports.
    WORDS are such as delay=20ms,loss=1%, or a preset such as 4g. One way, per direction; the RTT is the sum.
    """


@link.command("set", epilog="Example: fastbridge link set veth1 veth2 delay=20ms,jitter=5ms,loss=1%")
@operate
@_said
def set_(remote: Remote, said: tuple[str, ...]) -> None:
    """Replace links. What WORDS do not name is perfect."""
    places, words = _split(said)
    remote.change("link.set", places=places, link=words)


@link.command(epilog="Example: fastbridge link change veth1 to_pod.rate=1mbit")
@operate
@_said
def change(remote: Remote, said: tuple[str, ...]) -> None:
    """Change some words of links. What WORDS do not name stays."""
    places, words = _split(said)
    remote.change("link.change", places=places, link=words)


@link.command(epilog="Example: fastbridge link show veth1")
@operate
@click.argument("places", metavar="[PORT...]", nargs=-1, shell_complete=complete_port)
def show(remote: Remote, places: tuple[str, ...]) -> None:
    """Show the links that are not perfect, or some, and what is in flight and lost on them."""
    remote.show(remote.call("link.show", places=list(places) or None), _table)


@link.command(epilog="Example: fastbridge link reset veth1")
@operate
@click.argument("places", metavar="[PORT...]", nargs=-1, shell_complete=complete_port)
def reset(remote: Remote, places: tuple[str, ...]) -> None:
    """Make links perfect again, with what was cut; without PORT all of them, and end the partition."""
    remote.change("link.reset", places=list(places) or None)


@link.command(epilog="Example: fastbridge link cut veth1 --direction to_pod")
@operate
@_places
@click.option(
    "--direction",
    type=click.Choice(("both", "to_pod", "from_pod")),
    default="both",
    show_default=True,
    help="What is cut: frames to the pod, from it, or both.",
)
def cut(remote: Remote, places: tuple[str, ...], direction: str) -> None:
    """Let links drop all frames, silently: the pods keep their carrier."""
    remote.change("link.cut", places=list(places), direction=direction)


@link.command(epilog="Example: fastbridge link mend veth1")
@operate
@_places
def mend(remote: Remote, places: tuple[str, ...]) -> None:
    """End a cut. The links are what they were."""
    remote.change("link.mend", places=list(places))


@link.command(epilog="Example: fastbridge link down veth1")
@operate
@_ports
def down(remote: Remote, ports: tuple[str, ...]) -> None:
    """Take the carrier from ports' pods: their `ip link` shows NO-CARRIER until `link up`, or the switch's end."""
    remote.change("link.down", ports=list(ports))


@link.command(epilog="Example: fastbridge link up veth1")
@operate
@_ports
def up(remote: Remote, ports: tuple[str, ...]) -> None:
    """Give ports' pods the carrier back that `link down` took."""
    remote.change("link.up", ports=list(ports))


@link.command(epilog="Example: fastbridge link flap veth1 10s/2s")
@operate
@_places
@click.argument("schedule", metavar="UP/DOWN")
@click.option("--cut", is_flag=True, help="Cut the links, silently. By default their pods lose the carrier.")
def flap(remote: Remote, places: tuple[str, ...], schedule: str, cut: bool) -> None:
    """Let links fail again and again: 10s/2s is 10 s up, then 2 s down. `scenario stop` ends it."""
    remote.change("link.flap", places=list(places), schedule=f"{schedule} cut" if cut else schedule)


@link.command(epilog="Example: fastbridge link partition veth1,veth2 veth3")
@operate
@click.argument("groups", metavar="PORT[,PORT...]...", nargs=-1, required=True, shell_complete=complete_port)
def partition(remote: Remote, groups: tuple[str, ...]) -> None:
    """Let no frame pass between ports of different groups. Ports that no group names are one more group."""
    remote.change("link.partition", groups=[group.split(",") for group in groups])


@link.command(epilog="Example: fastbridge link heal")
@operate
def heal(remote: Remote) -> None:
    """End the partition. The links are what they were."""
    remote.change("link.heal")


def _split(said: Sequence[str]) -> tuple[list[str], str]:
    """The places, and the words: from the first argument with an = on, or the last one, a preset."""
    first = next((place for place, text in enumerate(said) if "=" in text), len(said) - 1)
    if first == 0:
        raise click.UsageError("name a port and its words, such as veth1 delay=20ms,loss=1%")
    return list(said[:first]), ",".join(said[first:])


def _table(rows: Sequence[Row]) -> None:
    apart = any(row["group"] is not None for row in rows)
    columns = ("port", "link", "in flight", "lost", "queue full", "cut off", *(["group"] if apart else []))
    table = make_table("", *columns, right=columns[2:6])
    for row in rows:
        ways = [row[way] for way in ("to_pod", "from_pod") if way in row]
        counts = [f"{sum(way[what] for way in ways):,}" for what in ("waiting", "lost", "queue_full", "cut")]
        group = "" if row["group"] is None else str(row["group"])
        table.add_row(row["ifname"], _spoken(row), *counts, *([group] if apart else []))
    make_console().print(table)


def _spoken(row: Row) -> str:
    """The link in one text, and what is cut: a pair has one direction."""
    cut = row["cut"] and (f"cut {row['cut'][0]}" if len(row["cut"]) == 1 and ">" not in row["ifname"] else "cut")
    return "; ".join(part for part in (row["link"], cut) if part) or "perfect"
