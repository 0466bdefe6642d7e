"""`fastbridge trace`, one frame's way through a running switch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import rich_click as click

from fastbridge.console import make_console, print_lines
from fastbridge.described import FORMS
from fastbridge.pcap import frame_of
from fastbridge.switch.explain import branches

from .operate import Remote, Row, complete_port, operate


def _read_ethertype(context: click.Context, parameter: click.Parameter, text: str | None) -> int | None:
    try:
        number = None if text is None else int(text, 0)
    except ValueError:
        number = -1
    if number is not None and not 0 <= number <= 0xFFFF:
        raise click.BadParameter(f"{text!r} is not an EtherType; write it as 0x0800")
    return number


@click.command(
    epilog='Examples: fastbridge trace veth1 "icmp 10.0.0.1 > 10.0.0.2"; fastbridge trace veth1 --pcap f.pcap'
)
@operate
@click.argument("port", shell_complete=complete_port)
@click.argument("frame", nargs=-1)
@click.option(
    "--pcap",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Take the frame from a pcap or pcapng file.",
)
@click.option("--number", metavar="N", type=click.IntRange(min=1), help="Which frame of --pcap.  [default: 1]")
@click.option("--src", metavar="MAC", help="Its source address; else that of the IP address that it is from.")
@click.option("--dst", metavar="MAC", help="Its destination address; else that of the IP address that it is for.")
@click.option("--vlan", metavar="ID", type=click.IntRange(0, 4094), help="Its VLAN id.")
@click.option("--ethertype", metavar="NUMBER", callback=_read_ethertype, help="Its EtherType, such as 0x88cc.")
@click.option("--send", is_flag=True, help="Send it into the switch as if the port had received it. This is for real.")
def trace(
    remote: Remote,
    port: str,
    frame: Sequence[str],
    pcap: Path | None,
    number: int | None,
    src: str | None,
    dst: str | None,
    vlan: int | None,
    ethertype: int | None,
    send: bool,
) -> None:
    """Show what a running switch would do with a frame, and why.

    PORT is the one that receives the frame. FRAME is in hexadecimal digits, or in words such as
    `arp who-has 10.0.0.2 tell 10.0.0.1`. Nothing changes without --send.
    """
    text = " ".join(frame)
    if pcap is not None:
        if text:
            raise click.UsageError("a frame and --pcap: give one of them")
        text = frame_of(pcap, number or 1).hex()
    elif number is not None:
        raise click.UsageError("--number is of a frame in a file: give --pcap, too")
    elif not text and (src is None or dst is None):
        raise click.UsageError(f"give --pcap, or --src and --dst, or a frame: in hexadecimal, or {'; '.join(FORMS)}")
    rows = remote.call("trace", port=port, frame=text, src=src, dst=dst, vlan=vlan, ethertype=ethertype, send=send)
    remote.show(rows, lambda steps: _print(port, steps, send))


def _print(port: str, steps: Sequence[Row], sent: bool) -> None:
    console = make_console()
    print_lines(console, [f"{port}, sent in" if sent else port], indent="")
    print_lines(console, branches(steps), indent="")
