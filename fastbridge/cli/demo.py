"""`fastbridge demo`, the story.

Tells frame by frame how pods find each other: real pods, real kernels, and a real switch whose trace is read aloud.
Every line tells of something that has just happened.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Mapping
from typing import Literal, NamedTuple

import rich_click as click
from rich.columns import Columns
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fastbridge.arp_nd import Message
from fastbridge.cli.counter_table import counter_table
from fastbridge.console import make_console, make_table
from fastbridge.dissect import dissect, header
from fastbridge.lab.topology import Lab, Topology, kernel_has_ipv6
from fastbridge.links.link import Link
from fastbridge.links.places import Place
from fastbridge.links.scenario import Scenario
from fastbridge.policy.base import Answer, Drop, Policy, SendTo, Verdict
from fastbridge.policy.builtin import parse_policy
from fastbridge.policy.neighbours import Neighbours
from fastbridge.switch.live import Switch
from fastbridge.switch.trace import Trace, TraceEvent

from .options import link_option, read_links, read_policy, scenario_option

_MOST_PODS = 32  # the most egress ports that a trace event names
_NAMED = 6  # of a flooded frame's ports so many are named
_PAUSE = 2.0
_BOX = 21  # width of a pod in the drawing: a MAC address and the box around it
_ACTION_STYLES = {"flooded": "yellow", "forwarded": "green", "dropped": "red", "consumed": "cyan"}


@click.command(epilog="Example: fastbridge demo --arp suppress")
@click.option(
    "--pods", metavar="N", type=click.IntRange(2, _MOST_PODS), default=3, show_default=True, help="How many pods."
)
@click.option(
    "--pause",
    metavar="SECONDS",
    type=click.FloatRange(0, 60),
    help=f"Time to read after each step.  [default: {_PAUSE:g} on a terminal, else 0]",
)
@click.option(
    "--arp",
    metavar="POLICY",
    default="flood",
    callback=read_policy,
    show_default=True,
    help="What happens to ARP and IPv6 ND, as for `fastbridge run --arp`. With suppress the switch itself answers.",
)
@link_option
@scenario_option
def demo(pods: int, pause: float | None, arp: str, links: dict[str, str], scenario: Scenario | None) -> None:
    """Show how pods find each other, frame by frame.

    Makes pods, joins them by a switch, lets them ping, and tells what the switch saw and did. Needs no
    root where user namespaces are allowed. Leaves nothing behind: everything ends with this process.
    """
    console = make_console(markup=True)
    logging.getLogger("fastbridge").setLevel(logging.ERROR)  # the story itself tells of a policy's drops
    logging.getLogger("fastbridge.switch.player").setLevel(logging.INFO)  # it does not of a scenario's steps
    story = _Story(console, pause if pause is not None else _PAUSE if sys.stdout.isatty() else 0.0)
    # A lab each for IPv4 and IPv6: with IPv6, kernels send by themselves, and the switch would learn too early.
    plan = Topology.of(pods, ipv6=None)
    wires = _Wires(read_links(links, [pod.name for pod in plan.pods]), scenario)
    wires.check(plan)
    with _make_lab(plan) as lab:
        story.introduce(plan)
        _tell_arp(story, lab, _Witness(parse_policy(arp)), wires)
    if kernel_has_ipv6():
        with _make_lab(Topology.of(pods, ipv4=None)) as lab:
            _tell_discovery(story, lab, _Witness(parse_policy(arp)), wires)
    else:
        story.say("This kernel has no IPv6, so the story ends here.")
    story.end()


def _make_lab(plan: Topology) -> Lab:
    """Make a lab, and only then heed Ctrl-C: libraries that it interrupts may swallow it, or complain later."""
    came: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: came.append(number))
    try:
        lab = Lab(plan)
    finally:
        signal.signal(signal.SIGINT, before)
    if came and before != signal.SIG_IGN:  # a script's background ignores it
        lab.close()
        raise KeyboardInterrupt
    return lab


class _Wires(NamedTuple):
    """What the pods' links do, and what happens to them."""

    links: Mapping[Place, Link]
    scenario: Scenario | None

    def check(self, plan: Topology) -> None:
        """Raise ConfigError for a scenario that these pods cannot have."""
        if self.scenario is not None:
            self.scenario.bound([pod.name for pod in plan.pods], self.links)

    def put_on(self, switch: Switch) -> None:
        """Have a switch's links do it, from now on."""
        switch.set_links(self.links)
        if self.scenario is not None:
            switch.play(self.scenario)


class _Witness(Policy):
    """Asks a policy, and remembers its verdicts."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self.wants, self.fallback = policy.wants, policy.fallback
        # A strict guard drops every address that is not in the table.
        self.trusting = "guard=strict" in str(policy).split(",")
        self.verdicts: dict[bytes, Verdict | None] = {}  # by frame

    @property
    def parts(self) -> tuple[Policy, ...]:
        return self._policy.parts

    def decide(self, message: Message, neighbours: Neighbours) -> Verdict | None:
        verdict = self.verdicts[message.frame] = self._policy.decide(message, neighbours)
        return verdict

    def __str__(self) -> str:
        return str(self._policy)


def _tell_arp(story: _Story, lab: Lab, policy: _Witness, wires: _Wires) -> None:
    with Switch(lab.ports, policy=policy, trusted=policy.trusting) as switch, switch.trace() as trace:
        wires.put_on(switch)
        story.scene = (lab, switch, trace, policy)
        story.ping(
            "pod1",
            "pod2",
            4,
            "The first ping",
            "pod1 has an IP address to reach, but frames go to MAC addresses. Its kernel asks everybody, by ARP.",
        )
        story.ping(
            "pod1",
            "pod2",
            4,
            "The second ping",
            "Now the kernels know each other's MAC addresses, and the switch knows their ports: nobody else hears it.",
        )
        if len(lab) > 2:
            story.ping(
                "pod3",
                "pod1",
                4,
                "A third pod",
                f"The switch has heard pod1. What becomes of a question is now up to the policy, {policy}."
                if any(policy.wants)
                else "A question by ARP goes to everybody. The answer does not: the switch has learned who asked.",
            )
        counters = switch.counters()
    story.table(counter_table(counters, "What the switch counted"))
    story.say(counters.story)


def _tell_discovery(story: _Story, lab: Lab, policy: _Witness, wires: _Wires) -> None:
    with Switch(lab.ports, policy=policy, trusted=policy.trusting) as switch, switch.trace() as trace:
        wires.put_on(switch)
        story.scene = (lab, switch, trace, policy)
        story.ping(
            "pod1",
            "pod2",
            6,
            "The same by IPv6, in a new lab",
            "Instead of ARP: neighbour discovery. The question goes to a group of which only the owner is a member, "
            "but a learning switch floods groups all the same.",
        )


class _Story:
    """Tells a lab's life on a console, with time to read."""

    scene: tuple[Lab, Switch, Trace, _Witness]

    def __init__(self, console: Console, pause: float) -> None:
        self.console = console
        self._pause = pause
        self._steps = 0

    def say(self, text: str) -> None:
        """A sentence between the pictures."""
        self.console.print(text)

    def table(self, table: Table) -> None:
        """A table, on its own."""
        self.console.print()
        self.console.print(table)

    def introduce(self, plan: Topology) -> None:
        """The pods, and the switch between them."""
        who = "root" if os.geteuid() == 0 else f"user {os.geteuid()}, without any privilege"
        self.console.print("[bold]How pods find each other[/]", f"[dim](running as {who})[/]")
        self.console.print(
            f"\n{len(plan.pods)} pods: network namespaces, each with a network stack of its own. A veth pair leads "
            "out of each, its pod end is eth0; fastbridge joins the host ends.\n"
        )
        for line in _drawing(plan, self.console.width):
            self.console.print(line)
        self._rest()

    def ping(self, source: str, target: str, family: Literal[4, 6], title: str, why: str) -> None:
        """One step: a ping, all its frames, and what everybody knows afterwards."""
        lab, switch, trace, _ = self.scene
        between = trace.read()
        wanted = lab[target].ipv4 if family == 4 else lab[target].ipv6
        result = lab[source].ping(target, family=family, timeout=5)
        events = trace.read()
        knowledge = _knowledge(lab, switch)
        self._steps += 1
        self.console.print()
        self.console.rule(f"[bold]{self._steps}  {title}", align="left", style="dim")
        self.console.print(f"[bold cyan]$ {source}: ping {wanted.ip if wanted else target}[/]   [dim]({target})[/]")
        self.console.print(why + "\n")
        self._rest()
        for event in (own := [event for event in events if not _is_chatter(event)]):
            self._frame(event)
            self._rest(0.4)
        if rest := [*between, *(event for event in events if event not in own)]:
            self.console.print(f"  [dim]Besides, by themselves, the kernels said: {_chatter(rest)}[/]\n")
        answer = f"answered in {result.rtts[0] * 1e3:.2f} ms" if result else "[red]no answer[/]"
        self.console.print(f"  [bold]{answer}[/], {len(own)} frames\n")
        self.console.print(knowledge)
        self._rest()

    def end(self) -> None:
        """The last words."""
        self.console.print()
        self.console.rule(style="dim")
        self.console.print(
            "The pods lived in namespaces without a name, held by this process alone: they are gone.\n"
            "Next: `fastbridge lab up` makes pods that stay; `fastbridge run IFACE IFACE` joins any interfaces."
        )

    def _frame(self, event: TraceEvent) -> None:
        ends, about = header(event.frame), dissect(event.frame)
        style = _ACTION_STYLES[event.action]
        what = f"{event.action} to {_names(event.egress)}" if event.egress else f"{event.action} to nobody"
        why = _why(event, ends.kind)
        if event.action == "consumed":
            what, why = self._verdict(event)
        lines = [
            Text.assemble("  ", (f"{event.ingress:>6} → ", "bold"), (about.protocol, "bold magenta"), f" {about.text}"),
            Text(f"{'':11}{ends.source} > {ends.destination}, {event.length} bytes", style="dim"),
            Text.assemble(f"{'':11}", (what, style), f": {why}"),
        ]
        if event.learned:
            verb = {"new": "learned", "moved": "moved", "refused": "not learned, FDB full"}[event.learned]
            lines.append(Text.assemble(f"{'':11}", (verb, "cyan"), f": {ends.source} is behind {event.ingress}"))
        self.console.print(Text("\n").join(lines), "\n", sep="", end="\n")

    def _verdict(self, event: TraceEvent) -> tuple[str, str]:
        """What the policy did with a frame that it took, and why."""
        _, switch, _, policy = self.scene
        verdict = policy.verdicts.get(event.frame)
        if isinstance(verdict, Answer):
            answer = dissect(verdict.frame)
            return "answered by the switch, for the owner", f"{answer.protocol} {answer.text}"
        if isinstance(verdict, SendTo):
            return f"sent to {switch.ports[verdict.port].name} alone", "the policy knows the owner, who answers itself"
        if isinstance(verdict, Drop):
            return "dropped by the policy", verdict.reason
        return "taken, and sent on as by a plain bridge", "the policy has nothing to say"

    def _rest(self, share: float = 1.0) -> None:
        if self._pause:
            time.sleep(self._pause * share)


def _knowledge(lab: Lab, switch: Switch) -> Columns:
    """The MAC addresses that the switch and the pods' kernels know."""
    fdb = make_table("The switch's FDB", "MAC", "port", "age", right=("age",))
    for entry in switch.fdb:
        fdb.add_row(str(entry.mac), entry.port, f"{entry.age or 0:.1f} s")
    known = make_table("What the pods' kernels know", "pod", "IP", "MAC", "state")
    for pod in lab:
        for neighbour in pod.neighbours():
            if neighbour.mac is not None and neighbour.state != "noarp":
                known.add_row(pod.name, str(neighbour.ip), str(neighbour.mac), neighbour.state)
    return Columns([fdb, known], padding=(0, 4, 1, 0))


def _names(ports: tuple[str, ...]) -> str:
    shown = ports if len(ports) <= _NAMED else ports[: _NAMED - 1]
    return ", ".join(shown) + (f" and {len(ports) - len(shown)} more" if shown != ports else "")


def _why(event: TraceEvent, kind: str) -> str:
    if event.action == "flooded":
        return f"{kind}, so every other port" if kind != "unicast" else "nobody knows this MAC address yet"
    if event.action == "forwarded":
        return "the FDB knows this MAC address"
    return event.reason or ""


def _is_chatter(event: TraceEvent) -> bool:
    return dissect(event.frame).chatter


def _chatter(events: list[TraceEvent]) -> str:
    said = Counter(f"{found.protocol} {found.text}" for found in (dissect(event.frame) for event in events))
    return "; ".join(f"{count} times {text}" if count > 1 else text for text, count in said.items())


def _drawing(plan: Topology, width: int) -> list[Text]:
    """As many pods as fit, their veth pairs, and the switch below."""
    fit = max(1, (width - 2) // (_BOX + 2))
    shown = plan.pods if len(plan.pods) <= fit else plan.pods[: fit - 1] if fit > 1 else plan.pods[:1]
    inner, middle = _BOX - 2, _BOX // 2
    more = f"  … and {len(plan.pods) - len(shown)} more" if len(shown) < len(plan.pods) else ""

    def row(left: str, contents: list[str], right: str, tail: str = "") -> str:
        return "  " + "  ".join(f"{left}{text}{right}" for text in contents) + tail

    boxes = [
        row("┌", [f"─ {pod.name} ".ljust(inner, "─") for pod in shown], "┐"),
        row("│", [f" {pod.ipv4.ip if pod.ipv4 else ''}".ljust(inner) for pod in shown], "│", more),
        row("│", [f" {pod.mac}".ljust(inner) for pod in shown], "│"),
        row("└", [" eth0 ".center(inner, "─") for _ in shown], "┘"),
    ]
    wire = row("", ["║ veth pair".rjust(_BOX) for _ in shown], "")
    span = len(shown) * (_BOX + 2) - 2
    top = list("┌" + "─" * (span - 2) + "┐")
    for n, pod in enumerate(shown):
        label = f" {pod.name} "
        start = n * (_BOX + 2) + middle - len(label) // 2
        top[start : start + len(label)] = label
    switch = ["  " + "".join(top), f"  │{'fastbridge'.center(span - 2)}│", f"  └{'─' * (span - 2)}┘"]
    return [
        *(Text(line, style="cyan") for line in boxes),
        Text(wire, style="dim"),
        *(Text(line, style="green") for line in switch),
    ]
