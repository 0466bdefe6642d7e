"""A lab, drawn: for notebooks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fastbridge.notebook import Station, drawing, lines

from .pods import Port

_MOST_SWITCHES = 16


def draw(switches: Mapping[str, Sequence[Port]]) -> str:
    """A drawing of each switch, with what is at its ports: pods and trunks."""
    shown = list(switches.items())[:_MOST_SWITCHES]
    pairs = sum(isinstance(place, tuple) for ports in switches.values() for port in ports for place in port.links)
    texts = [
        f"… and {len(switches) - len(shown):,} more switches" if len(switches) > len(shown) else "",
        f"{pairs:,} pair{'s' if pairs > 1 else ''} of ports with a link of {'their' if pairs > 1 else 'its'} own"
        if pairs
        else "",
    ]
    return "".join(_draw_switch(*of_one) for of_one in shown) + lines(texts)


def _draw_switch(name: str, ports: Sequence[Port]) -> str:
    return drawing(
        map(_station, ports), len(ports), f"switch {name}: {len(ports)} port{'s' if len(ports) != 1 else ''}"
    )


def _station(port: Port) -> Station:
    """How the far end of a port is drawn."""
    end, link = port._pod_end, port.links.get(port.name)
    addresses = ["trunk"] if end is None else [str(address) for address in (end.ipv4, end.ipv6) if address is not None]
    words = [word for word in str(link).split(",") if not word.startswith("seed=")] if link else []
    about = [port.name, *([] if end is None else [f"{end.interface} {end.mac}"]), *addresses]
    return Station(port.name, addresses, words, ", ".join([*about, *([f"link {link}"] if link else [])]))
