"""A plan as a drawing, in the words of Mermaid (for Markdown) or DOT (for Graphviz).

Switches are boxes, pods rounded, routers hexagons. A line has the name of the pod's interface where it has several,
and the emulated link. The link of a pair of ports is a dotted arrow. Nodes have names of their own, because those of
people may be words of the language.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from fastbridge.links.places import Place

from .plans import PodPlan, trunk_ends
from .topology import Topology

_QUOTE = '"'


@dataclass(frozen=True, slots=True)
class _Line:
    """From one node to another."""

    one: str
    other: str
    words: str
    is_pair: bool = False


def mermaid(plan: Topology) -> str:
    """The plan as a flowchart of Mermaid."""
    drawn = ["flowchart LR"]
    for name, node in _switches(plan).items():
        drawn.append(f'  {node}["{name}"]')
    for pod, node in _pods(plan):
        before, after = ("{{", "}}") if pod.forward else ("([", "])")
        drawn.append(f'  {node}{before}"{"<br>".join(_label(pod))}"{after}')
    for line in _lines(plan):
        stroke = "-.->" if line.is_pair else "---"
        words = f'|"{line.words.replace(_QUOTE, "#quot;")}"|' if line.words else ""
        drawn.append(f"  {line.one} {stroke}{words} {line.other}")
    return "\n".join(drawn)


def dot(plan: Topology) -> str:
    """The plan as an undirected graph of Graphviz."""
    drawn = ["graph lab {"]
    for name, node in _switches(plan).items():
        drawn.append(f'  {node} [label="{name}", shape=box];')
    for pod, node in _pods(plan):
        label = "\\n".join(_label(pod))
        drawn.append(f'  {node} [label="{label}", shape={"hexagon" if pod.forward else "ellipse"}];')
    for line in _lines(plan):
        style = ", style=dotted, dir=forward" if line.is_pair else ""
        words = line.words.replace("\\", r"\\").replace(_QUOTE, r"\"")
        drawn.append(f'  {line.one} -- {line.other} [label="{words}"{style}];')
    return "\n".join([*drawn, "}"])


def _switches(plan: Topology) -> dict[str, str]:
    """The node of each switch, by its name."""
    return {name: f"switch{n}" for n, name in enumerate(plan.switches, 1)}


def _pods(plan: Topology) -> list[tuple[PodPlan, str]]:
    """The pods, each with its node."""
    return [(pod, f"node{n}") for n, pod in enumerate(plan.pods, 1)]


def _label(pod: PodPlan) -> list[str]:
    """The lines that describe a pod: its name, and its addresses of the first family that it has."""
    ends = pod.interfaces
    addresses = [str(end.ipv4) for end in ends if end.ipv4] or [str(end.ipv6) for end in ends if end.ipv6]
    return [pod.name, *addresses]


def _lines(plan: Topology) -> Iterator[_Line]:
    switches, links = _switches(plan), _links(plan)
    at: dict[str, str] = {}  # the node behind each port
    for pod, node in _pods(plan):
        for port, end in pod.ports.items():
            at[port] = node
            words = [end.name] if pod.more else []
            words += [links[port]] if port in links else []
            yield _Line(node, switches[end.switch], " ".join(words))
    for trunk in plan.trunks:
        words = [f"{port}: {links[port]}" for port in trunk_ends(trunk) if port in links]
        yield _Line(switches[trunk[0]], switches[trunk[1]], "; ".join(words))
        at |= {port: switches[far] for port, far in zip(trunk_ends(trunk), reversed(trunk), strict=True)}
    for place, link in links.items():
        if not isinstance(place, str):
            yield _Line(at[place[0]], at[place[1]], link, is_pair=True)


def _links(plan: Topology) -> dict[Place, str]:
    """The links by ports and pairs of ports, in the plan's own words."""
    found: dict[Place, str] = {}
    for place in sorted(plan.link, key=lambda place: place != "*"):  # which gives way to all others
        found |= dict.fromkeys(plan.links_at({place: plan.link[place]}), plan.link[place])
    return found
