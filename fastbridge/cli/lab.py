"""`fastbridge lab`, pods that stay.

Named namespaces and host ends that outlive the command, until `lab down` removes them again. `graph`, `pingall` and
`iperf` also take a file with a topology: the last two make a lab of it, with its switches, for as long as they need it.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NoReturn

import rich_click as click
from click.shell_completion import CompletionItem
from rich.progress import Progress

from fastbridge.console import make_console, make_table
from fastbridge.errors import LabError
from fastbridge.lab import persistent as lab_store
from fastbridge.lab.persistent import StoredLab
from fastbridge.lab.topology import Topology, kernel_has_ipv6
from fastbridge.programs import find_program, search_path

from .options import beginning, complete_lab, link_option

if TYPE_CHECKING:
    from fastbridge.lab.pods import Pod
    from fastbridge.lab.trials import Reach
    from fastbridge.named import NamedList

_LAB = "fb"  # the lab that is meant when none is named
_SHOWN = 8  # pods of a big lab that are listed one by one


def _complete_pod(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    name, file = context.params.get("name"), context.params.get("file")
    return beginning(incomplete, lambda: [plan.name for plan in _plan(name, file).pods])


_name = click.option("--name", default=_LAB, show_default=True, shell_complete=complete_lab, help="The lab's name.")
_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


def _lab_or_file(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command --name and -f, of which one at most may be given."""
    name = click.option("--name", shell_complete=complete_lab, help=f"The lab's name.  [default: {_LAB}]")
    file = click.option(
        "-f", "--file", metavar="FILE", help="A topology in TOML (docs/topologies.md), in place of a lab that stays."
    )
    return name(file(command))


_BASHRC = """[ -f ~/.bashrc ] && . ~/.bashrc
PS1="[{pod}] $PS1"
exec {file}<&-
"""


class _InOrder(click.RichGroup):
    """Lists its commands in the order of their use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(cls=_InOrder, epilog="Example: fastbridge lab up --pods 3")
def lab() -> None:
    """Make pods that stay, in named network namespaces.

    Needs root, except for a file's lab in `graph`, `pingall` and `iperf`. The namespaces are seen by `ip netns`, the
    host ends by `ip link` and `fastbridge run`.
    """


@lab.command(epilog="Example: fastbridge lab up --pods 3 --name test")
@click.option("--pods", metavar="N", type=click.IntRange(1), help="How many pods.  [default: 2]")
@click.option("--mtu", metavar="BYTES", type=int, help="MTU of their links.  [default: 1500]")
@click.option(
    "-f",
    "--file",
    metavar="FILE",
    help="A topology in TOML (docs/topologies.md) in place of a star: several switches, routers, links.",
)
@_name
@link_option
def up(pods: int | None, mtu: int | None, file: str | None, name: str, links: dict[str, str]) -> None:
    """Make a lab: namespaces NAME-pod1 …, host ends of the same names.

    --link takes pods for ports. Switches emulate links: `fastbridge run --lab` reads those of the lab.
    """
    if file and (pods or mtu):
        raise click.UsageError(f"{file} says which pods there are, and their MTU; leave out --pods and --mtu")
    plan = Topology.read(file) if file else _star(pods or 2, mtu or 1500)
    made = _make(name, replace(plan, link={**plan.link, **links}))
    console = make_console()
    table = make_table(f"Lab {name}", "pod", "interface", "switch", "host end", "MAC", "IPv4", "IPv6")
    for pod in made.topology.pods[:_SHOWN]:
        for port, end in pod.ports.items():
            addresses = str(end.mac), str(end.ipv4 or ""), str(end.ipv6 or "")
            table.add_row(pod.name, end.name, end.switch, made.port(port), *addresses)
    console.print(table)
    if (more := len(made.topology.pods) - _SHOWN) > 0:
        console.print(f"  … and {more} more, up to {made.topology.pods[-1].name}")
    console.print(f"\nThe namespaces are {made.namespace('POD')}.")
    option = "" if name == _LAB else f" --name {name}"
    first = made.topology.pods[0].name
    console.print("join them:    ", f"fastbridge run --lab {name}", soft_wrap=True)
    console.print("use a pod:    ", f"fastbridge lab shell{option} {first}", soft_wrap=True)
    console.print("remove it all:", f"fastbridge lab down{option}", soft_wrap=True)


@lab.command("list", epilog="Example: fastbridge lab list")
def list_() -> None:
    """List the labs, and which of their pods somebody else removed."""
    labs = lab_store.list_labs()
    if not labs:
        unreadable = lab_store.has_files()
        click.echo("no lab can be read" if unreadable else "there is no lab; make one: fastbridge lab up")
        return
    table = make_table("", "lab", "pods", "host ends", "MTU", "state", right=("pods", "MTU"))
    for found in labs:
        ends = found.ports[0] if len(found.ports) == 1 else f"{found.ports[0]} … {found.ports[-1]}"
        table.add_row(found.name, str(len(found.topology.pods)), ends, str(found.topology.mtu), _state(found))
    make_console().print(table)


@lab.command(
    "exec",
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    epilog="Example: fastbridge lab exec pod1 ip neighbour",
)
@_name
@click.argument("pod", metavar="POD", shell_complete=_complete_pod)
@click.argument("command", metavar="CMD...", nargs=-1, required=True, type=click.UNPROCESSED)
def exec_(name: str, pod: str, command: tuple[str, ...]) -> None:
    """Run a command in a pod; its exit status is the one you get."""
    words = command[1:] if command[0] == "--" else command
    if not words:
        raise click.UsageError("there is no command after --")
    _become(lab_store.get(name).command(pod, words))


@lab.command(epilog="Example: fastbridge lab shell pod1")
@_name
@click.argument("pod", metavar="POD", shell_complete=_complete_pod)
def shell(name: str, pod: str) -> None:
    """Open a shell in a pod: bash, or sh where there is no bash. Its prompt begins with [POD].

    For another shell: fastbridge lab exec pod1 zsh
    """
    stored = lab_store.get(name)
    if find_program("bash") is None:
        _become(stored.command(pod, ["sh", "-i"]), PS1=f"[{pod}] # ")
    file = os.memfd_create("fastbridge-shell", 0)  # bash reads it, and closes it by its last line
    os.write(file, _BASHRC.format(pod=pod, file=file).encode())
    _become(stored.command(pod, ["bash", "--rcfile", f"/proc/self/fd/{file}", "-i"]))


@lab.command(epilog="Example: fastbridge lab graph -f lab.toml --format dot | dot -Tsvg > lab.svg")
@_lab_or_file
@click.option(
    "--format", "how", type=click.Choice(["mermaid", "dot"]), default="mermaid", show_default=True, help="The language."
)
def graph(name: str | None, file: str | None, how: str) -> None:
    """Print a lab as a drawing: Mermaid for Markdown, DOT for Graphviz."""
    from fastbridge.lab.graph import dot, mermaid

    click.echo((dot if how == "dot" else mermaid)(_plan(name, file)))


@lab.command(epilog="Example: fastbridge lab pingall --name test")
@_lab_or_file
@click.option(
    "--timeout",
    metavar="SECONDS",
    type=click.FloatRange(min=0, min_open=True),
    default=1.0,
    show_default=True,
    help="How long each answer may take.",
)
@_json
def pingall(name: str | None, file: str | None, timeout: float, as_json: bool) -> int:
    """Let each pod ping each other one; the exit status is 1 when an answer is missing.

    X stands for a pod that does not answer. A lab of a file is made for it, with its switches, and removed.
    """
    from fastbridge.lab.trials import ping_all

    with _pods(name, file) as pods:
        reached = ping_all(pods, timeout)
    _print_pings(reached, as_json)
    if not file and not any(reach.result for reach in reached):
        click.echo(f"no switch joins them? Start one: fastbridge run --lab {name or _LAB}", err=True)
    return 0 if all(reach.result for reach in reached) else 1


@lab.command(epilog="Example: fastbridge lab iperf pod1 pod2")
@_lab_or_file
@click.option("--seconds", metavar="N", type=click.IntRange(1), default=5, show_default=True, help="How long to send.")
@_json
@click.argument("client", metavar="POD", shell_complete=_complete_pod)
@click.argument("server", metavar="POD", shell_complete=_complete_pod)
def iperf(name: str | None, file: str | None, seconds: int, as_json: bool, client: str, server: str) -> None:
    """Measure TCP from one pod to another, by iperf3.

    A lab of a file is made for it, with its switches, and removed.
    """
    from fastbridge.lab.trials import iperf as measure

    with _pods(name, file) as pods:
        one, other = (_find(pods, pod) for pod in (client, server))
        found = measure(one, other, seconds)
    if as_json:
        rate = {"bits_per_second": found.bits_per_second, "retransmits": found.retransmits, "seconds": found.seconds}
        click.echo(json.dumps({"from": client, "to": server, **rate}))
    else:
        gigabits = found.bits_per_second / 1e9
        click.echo(f"{client} → {server}: {gigabits:.3g} Gbit/s over {found.seconds:.1f} s, {found.retransmits} resent")


@lab.command(epilog="Example: fastbridge lab down --name test")
@_name
def down(name: str) -> None:
    """Remove a lab, with the programs in its pods, and nothing else.

    Also works after a crash of `lab up`.
    """
    removed = lab_store.down(name)
    click.echo(f"removed lab {removed.name}, {len(removed.topology.pods)} pods")


def _become(argv: list[str], **variables: str) -> NoReturn:
    """Become a program that runs in a pod."""
    try:
        os.execve(argv[0], argv, os.environ | {"PATH": search_path()} | variables)  # noqa: S606 - what it is for
    except OSError as error:
        raise LabError(f"cannot run {argv[0]}: {error.strerror}") from error


def _star(pods: int, mtu: int) -> Topology:
    return Topology.of(pods, ipv6="fd00::/64" if kernel_has_ipv6() else None, mtu=mtu)


def _stored(name: str | None, file: str | None) -> StoredLab | None:
    """A lab that stays; None where a file is meant."""
    if file is None:
        return lab_store.get(name or _LAB)
    if name is not None:
        raise click.UsageError(f"--name is for a lab that stays, and {file} is none; leave out one of them")
    return None


def _plan(name: str | None, file: str | None) -> Topology:
    stored = _stored(name, file)
    return stored.topology if stored else Topology.read(str(file))


@contextlib.contextmanager
def _pods(name: str | None, file: str | None) -> Iterator[NamedList[Pod]]:
    """The pods of a lab that stays, or of one that is made of a file, with its switches, and removed."""
    stored = _stored(name, file)
    if stored:
        from fastbridge.lab.visits import visit

        with visit(stored) as pods:
            yield pods
        return
    from fastbridge.lab.topology import Lab
    from fastbridge.switch.several import Switches

    with Lab(Topology.read(str(file))) as made, Switches(made.switches):
        yield made.pods


def _find(pods: NamedList[Pod], name: str) -> Pod:
    for pod in pods:
        if pod.name == name:
            return pod
    raise LabError(f"there is no pod {name!r}; the pods are {', '.join(pod.name for pod in pods)}")


def _print_pings(reached: list[Reach], as_json: bool) -> None:
    received = sum(bool(reach.result) for reach in reached)
    if as_json:
        pings = [
            {
                "from": reach.source,
                "to": reach.target,
                "rtt": next(iter(reach.result.rtts), None),
                "error": reach.result.error,
            }
            for reach in reached
        ]
        click.echo(json.dumps({"sent": len(reached), "received": received, "pings": pings}))
        return
    rows: dict[str, list[str]] = {}
    for reach in reached:
        rows.setdefault(reach.source, []).append(reach.target if reach.result else "X")
    for source, targets in rows.items():
        click.echo(f"{source} → {' '.join(targets)}")
    click.echo(f"{received:,} of {len(reached):,} pings answered, {1 - received / len(reached):.0%} lost")


def _state(lab: StoredLab) -> str:
    missing = lab.missing()
    if lab.complete and not missing:
        return "complete, its ports in another network namespace" if lab.elsewhere else "complete"
    if not lab.complete:
        what = "incomplete"
    elif {pod.name for pod in lab.topology.pods} <= set(missing):
        what = "gone"
    else:
        more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
        what = f"{', '.join(missing[:_SHOWN])}{more} gone"
    return f"{what}; fastbridge lab down --name {lab.name}"


def _make(name: str, topology: Topology) -> StoredLab:
    console = make_console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(f"making lab {name}", total=len(topology.pods))
        return lab_store.up(name, topology, lambda done, total: bar.update(task, completed=done))
