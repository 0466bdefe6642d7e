"""`fastbridge lab`, pods that stay.

Named namespaces and host ends that outlive the command, until `lab down` removes them again.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from typing import NoReturn

import rich_click as click
from click.shell_completion import CompletionItem
from rich.progress import Progress

from fastbridge.console import make_console, make_table
from fastbridge.errors import FastbridgeError, LabError
from fastbridge.lab import persistent as lab_store
from fastbridge.lab.persistent import StoredLab
from fastbridge.lab.topology import Topology, kernel_has_ipv6
from fastbridge.programs import find_program, search_path

from .options import link_option, read_links

_LAB = "fb"  # the lab that is meant when none is named
_SHOWN = 8  # pods of a big lab that are listed one by one


def _complete_lab(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    return _beginning(incomplete, lambda: [found.name for found in lab_store.list_labs()])


def _complete_pod(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    lab = context.params.get("name") or _LAB
    return _beginning(incomplete, lambda: [plan.name for plan in lab_store.get(lab).topology.pods])


def _beginning(start: str, names: Callable[[], list[str]]) -> list[CompletionItem]:
    try:
        return [CompletionItem(name) for name in names() if name.startswith(start)]
    except FastbridgeError:  # a shell's Tab key has no place for errors
        return []


_name = click.option("--name", default=_LAB, show_default=True, shell_complete=_complete_lab, help="The lab's name.")


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

    Needs root. The namespaces are seen by `ip netns`, the host ends by `ip link` and `fastbridge run`.
    """


@lab.command(epilog="Example: fastbridge lab up --pods 3 --name test")
@click.option("--pods", metavar="N", type=click.IntRange(1), default=2, show_default=True, help="How many pods.")
@click.option("--mtu", metavar="BYTES", type=int, default=1500, show_default=True, help="MTU of their links.")
@_name
@link_option
def up(pods: int, mtu: int, name: str, links: dict[str, str]) -> None:
    """Make a lab: namespaces NAME-pod1 …, host ends of the same names.

    --link takes pods for ports. A switch emulates links, so it becomes part of the command that joins them.
    """
    topology = Topology.of(pods, ipv6="fd00::/64" if kernel_has_ipv6() else None, mtu=mtu)
    read_links(links, [plan.name for plan in topology.pods])
    made = _make(name, topology)
    option = "" if name == _LAB else f" --name {name}"
    console = make_console()
    table = make_table(f"Lab {name}", "pod", "namespace = host end", "MAC", "IPv4", "IPv6")
    for plan in made.topology.pods[:_SHOWN]:
        table.add_row(plan.name, made.namespace(plan.name), str(plan.mac), str(plan.ipv4), str(plan.ipv6 or ""))
    console.print(table)
    if pods > _SHOWN:
        console.print(f"  … and {pods - _SHOWN} more, up to pod{pods}")
    ports = " ".join(made.ports) if pods <= 4 else f"{name}-pod{{1..{pods}}}"
    wires = "".join(f" --link {shlex.quote(f'{_ends(made, at)}:{text}')}" for at, text in links.items())
    console.print("\njoin them:    ", f"fastbridge run{wires} {ports}", soft_wrap=True)
    console.print("use a pod:    ", f"fastbridge lab exec{option} pod1 COMMAND", soft_wrap=True)
    console.print("remove it all:", f"fastbridge lab down{option}", soft_wrap=True)


@lab.command("list", epilog="Example: fastbridge lab list")
def list_() -> None:
    """List the labs, and which of their pods somebody else removed."""
    labs = lab_store.list_labs()
    if not labs:
        click.echo("there is no lab; make one: fastbridge lab up")
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


def _ends(lab: StoredLab, place: str) -> str:
    """A pod, a pair of pods or `*`, by the names of their host ends."""
    from fastbridge.links.places import read_place, spoken

    if place == "*":
        return place
    pods = read_place(place, [plan.name for plan in lab.topology.pods])
    return spoken(lab.namespace(pods) if isinstance(pods, str) else (lab.namespace(pods[0]), lab.namespace(pods[1])))


def _state(lab: StoredLab) -> str:
    missing = lab.missing()
    if lab.complete and not missing:
        return "complete"
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
