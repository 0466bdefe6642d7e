"""The drawing of a lab in a notebook: a bar for each switch, with what is at its ports."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from fastbridge.links.link import Link
from fastbridge.links.places import Place
from fastbridge.notebook import Station, drawing, lines

from .plans import trunk_ends

if TYPE_CHECKING:
    from .topology import Topology

_MOST_SWITCHES = 8


def draw(topology: Topology, links_to: Mapping[str, Mapping[Place, Link]]) -> str:
    """links_to: by port, as `Lab` has them."""
    found: dict[str, list[Station]] = {switch: [] for switch in topology.switches}
    for pod in topology.pods:
        for port, end in pod.ports.items():
            name = pod.name if port == pod.name else f"{pod.name}.{end.name}"
            addresses = [str(address) for address in (end.ipv4, end.ipv6) if address is not None]
            found[end.switch].append(_station(name, addresses, [str(end.mac)], links_to.get(port, {}).get(port)))
    for trunk in topology.trunks:
        ends = trunk_ends(trunk)
        for (port, switch), far in zip(ends.items(), reversed(ends.values()), strict=True):
            found[switch].append(_station(far, ["another switch"], [], links_to.get(port, {}).get(port)))
    bars = [
        drawing(stations, len(stations), f"{switch}: {len(stations)} port{'' if len(stations) == 1 else 's'}")
        for switch, stations in list(found.items())[:_MOST_SWITCHES]
    ]
    pairs = sum(isinstance(place, tuple) for links in links_to.values() for place in links)
    return "".join(bars) + lines(
        [
            f"… and {len(found) - len(bars):,} more switches" if len(found) > len(bars) else "",
            f"{pairs:,} pair{'' if pairs == 1 else 's'} of pods with a link of their own" if pairs else "",
        ]
    )


def _station(name: str, addresses: list[str], more: list[str], link: Link | None) -> Station:
    words = [word for word in str(link).split(",") if not word.startswith("seed=")] if link else []
    return Station(name, addresses, words, ", ".join([name, *more, *addresses, *([f"link {link}"] if link else [])]))
