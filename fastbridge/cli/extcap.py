"""`fastbridge extcap`, running switches in Wireshark.

Wireshark asks any program in its extcap directory which interfaces it has, and lets it write what it captures into a
pipe (the manual "Adding Capture Interfaces And Log Sources Using Extcap"). The options are that protocol's.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
import sys
from pathlib import Path

import rich_click as click

from fastbridge.control.client import Client
from fastbridge.control.directory import running
from fastbridge.errors import ConfigError, FastbridgeError
from fastbridge.pcap_filter import compile_filter
from fastbridge.version import __version__

from .capture import follow, write

_PREFIX = "fastbridge-"


@click.command(epilog="Example: fastbridge extcap --install", context_settings={"ignore_unknown_options": True})
@click.option("--install", is_flag=True, help="Put a small script into Wireshark's personal extcap directory.")
@click.option("--extcap-interfaces", "interfaces", is_flag=True, help="List the running switches.")
@click.option("--extcap-version", "version", metavar="VERSION", help="Wireshark's.")
@click.option("--extcap-interface", "interface", metavar="NAME", help="One of them.")
@click.option("--extcap-dlts", "dlts", is_flag=True, help="List its link types.")
@click.option("--extcap-config", "config", is_flag=True, help="List its options.")
@click.option("--extcap-capture-filter", "words", metavar="EXPRESSION", default="", help="Capture what matches.")
@click.option("--capture", "capturing", is_flag=True, help="Capture into --fifo.")
@click.option("--fifo", metavar="FILE", help="Wireshark's pipe.")
@click.option("--port", metavar="PORT", default="", help="Only frames from or to this port.")
@click.option("--drops", is_flag=True, help="Only dropped frames.")
@click.option("--copies", is_flag=True, help="Each copy, too.")
@click.argument("more", nargs=-1, type=click.UNPROCESSED, metavar="")
def extcap(
    install: bool,
    interfaces: bool,
    version: str | None,
    interface: str | None,
    dlts: bool,
    config: bool,
    words: str,
    capturing: bool,
    fifo: str | None,
    port: str,
    drops: bool,
    copies: bool,
    more: tuple[str, ...],
) -> None:
    """Make running switches appear in Wireshark.

    After --install they are among its interfaces, and tshark's. The other options are for Wireshark to ask by.
    """
    if install:
        _install()
    elif interfaces:
        _list_switches()
    elif interface is None:
        raise click.UsageError("--install puts it into Wireshark; all else is for Wireshark to ask")
    elif dlts:
        click.echo("dlt {number=1}{name=EN10MB}{display=Ethernet}")
    elif config:
        _list_options(interface)
    elif capturing and fifo:
        wish = {"ports": [port] if port else [], "drops": drops, "copies": copies, "filter": words}
        _capture(interface, {name: value for name, value in wish.items() if value}, fifo)
    elif words:
        _check_filter(words)
    else:
        raise click.UsageError("--capture needs --fifo")


def _install() -> None:
    script = f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m fastbridge extcap "$@"\n'
    place = _directory() / "fastbridge"
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(script)
        place.chmod(0o755)
    except OSError as error:
        raise ConfigError(f"cannot write {place}: {error.strerror}") from None
    click.echo(f"{place}: running switches now appear in Wireshark, and in `tshark -D`")


def _directory() -> Path:
    """Wireshark's personal extcap directory, as it says itself; it has moved with version 4.2."""
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        said = subprocess.run(["tshark", "-G", "folders"], capture_output=True, text=True, check=True).stdout
        for line in said.splitlines():
            name, _, path = line.partition(":")
            if name.strip() == "Personal Extcap path":
                return Path(path.strip())
    home = os.environ.get("XDG_CONFIG_HOME")
    return (Path(home) if home else Path.home() / ".config") / "wireshark" / "extcap"


def _list_switches() -> None:
    click.echo(f"extcap {{version={__version__}}}{{display=fastbridge}}")
    for name in running():
        click.echo(f"interface {{value={_PREFIX}{name}}}{{display=the switch {name}}}")


def _list_options(interface: str) -> None:
    click.echo("arg {number=0}{call=--port}{display=Port}{type=selector}{tooltip=Frames from or to this port}")
    click.echo("arg {number=1}{call=--drops}{display=Drops only}{type=boolflag}{default=false}")
    click.echo("arg {number=2}{call=--copies}{display=Each copy}{type=boolflag}{default=false}")
    click.echo("value {arg=0}{value=}{display=all ports}{default=true}")
    with contextlib.suppress(FastbridgeError), _client(interface) as client:  # it has ended: there is nothing to choose
        for row in client.call("port.list"):
            click.echo(f"value {{arg=0}}{{value={row['ifname']}}}{{display={row['ifname']}}}")


def _check_filter(words: str) -> None:
    try:
        compile_filter(words)
    except ConfigError as error:
        click.echo(str(error))  # Wireshark shows what is on stdout; nothing: it is a good one


def _capture(interface: str, wish: dict[str, object], fifo: str) -> None:
    with _client(interface) as client, contextlib.closing(follow(client, wish)) as events:
        next(events)
        try:
            with open(fifo, "wb") as out:  # noqa: PTH123
                write(events, out)
        except BrokenPipeError:
            pass  # Wireshark was told to stop
        except OSError as error:
            raise ConfigError(f"cannot write {fifo}: {error.strerror}") from None


def _client(interface: str) -> Client:
    return Client(interface.removeprefix(_PREFIX))
