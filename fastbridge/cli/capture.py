"""`fastbridge capture`, the frames of a running switch.

The switch sends a pcapng file in parts by its control socket, and this program writes it: so the switch opens no file
for anybody, and waits for none.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import signal
import sys
import time
from collections.abc import Generator, Iterator
from typing import Any, BinaryIO

import rich_click as click

from fastbridge.control.client import Client, EventStream
from fastbridge.errors import ConfigError

from .operate import Remote, complete_port, operate_events

Event = dict[str, Any]
_UNITS = {"K": 10**3, "M": 10**6, "G": 10**9}


def _read_size(context: click.Context, parameter: click.Parameter, text: str | None) -> int | None:
    if text is None:
        return None
    number, unit = (text[:-1], _UNITS[text[-1].upper()]) if text[-1:].upper() in _UNITS else (text, 1)
    if not number.isdecimal() or not int(number):
        raise click.BadParameter(f"{text!r} is not a number of bytes; give one, such as 5000000 or 5M")
    return int(number) * unit


@click.command(epilog="Example: fastbridge capture -w all.pcapng --filter 'tcp port 80'")
@operate_events
@click.option(
    "-w", "--write", "file", metavar="FILE", help="Write a pcapng file; - is stdout. Else print a line a frame."
)
@click.option(
    "--port",
    "ports",
    metavar="PORT",
    multiple=True,
    shell_complete=complete_port,
    help="Only frames from or to this port. Repeatable.",
)
@click.option("--drops", is_flag=True, help="Only dropped frames, and copies not sent. The fast path goes on.")
@click.option(
    "--reason", "reasons", metavar="REASON", multiple=True, help="Only frames dropped for this reason. Repeatable."
)
@click.option("--filter", "words", metavar="EXPRESSION", default="", help="Only frames that match, as tcpdump has it.")
@click.option("-c", "--count", metavar="N", type=click.IntRange(min=1), help="End after N frames.")
@click.option(
    "-C", "--bytes", "most_bytes", metavar="BYTES", callback=_read_size, help="End before the file is larger; K, M, G."
)
@click.option("-s", "--snap", metavar="BYTES", type=click.IntRange(1, 1 << 20), help="Keep so much of each frame.")
@click.option("--copies", is_flag=True, help="Write a block for each copy, too.")
def capture(
    remote: Remote,
    file: str | None,
    ports: tuple[str, ...],
    drops: bool,
    reasons: tuple[str, ...],
    words: str,
    count: int | None,
    most_bytes: int | None,
    snap: int | None,
    copies: bool,
) -> None:
    """Capture the frames of a running switch, with what became of each.

    It ends with Ctrl-C. When the switch ends, its status is 1. -w writes one pcapng file: an interface for each port, a
    block for each frame, its fate in a comment.
    While it runs the fast path forwards nothing, unless it is for drops alone.
    """
    if file is None and (copies or most_bytes):
        raise click.UsageError("--copies and --bytes are for files; add -w FILE")
    wish = {
        "ports": list(ports), "drops": drops, "reasons": list(reasons), "filter": words, "count": count, "snap": snap,
        "copies": copies, "most_bytes": most_bytes, "text": file is None,
    }  # fmt: skip
    wish = {name: value for name, value in wish.items() if value}
    events = follow(remote.client, wish)
    first = next(events)  # the switch has understood: no file is made for nothing
    assert "capture" in first
    with contextlib.closing(events):
        if file is None:
            end = _print(events, remote.as_json)
        else:
            with _opened(file) as out:
                end = write(events, out)
    if not remote.as_json:
        click.echo(f"{end['frames']:,} frames captured, {end['lost']:,} lost by the capture", err=True)


def follow(client: Client, wish: Event) -> Generator[Event, None, None]:
    """The events of a capture until it ends, or a signal ends it: then what is left comes, too."""
    with _signals() as came, client.stream("capture", **wish) as stream:
        number = None
        for event in _events(stream, came):
            if event is None:
                if number is not None:
                    client.call("capture.stop", capture=number)
                number = None
                continue
            number = event.get("capture", number)
            yield event


def write(events: Iterator[Event], out: BinaryIO) -> Event:
    """Write the parts of a file as they come; returns the last event."""
    event: Event = {}
    for event in events:
        if "pcapng" in event:
            out.write(base64.b64decode(event["pcapng"]))
            out.flush()
    return event


def _events(stream: EventStream, signalled: int) -> Iterator[Event | None]:
    """Events; None: a signal came."""
    poll = select.poll()
    poll.register(signalled, select.POLLIN)
    poll.register(stream.fileno(), select.POLLIN)
    while True:
        if any(descriptor == signalled for descriptor, _ in poll.poll()):
            os.read(signalled, 64)
            yield None
        events = stream.read()
        if events is None:
            return
        yield from events


@contextlib.contextmanager
def _signals() -> Iterator[int]:
    """A descriptor that is readable once a signal that ends programs has come."""
    readable, writable = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    numbers = [n for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) != signal.SIG_IGN]
    before = {number: signal.signal(number, lambda *_: None) for number in numbers}
    wakeup = signal.set_wakeup_fd(writable)
    try:
        yield readable
    finally:
        signal.set_wakeup_fd(wakeup)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(readable)
        os.close(writable)


@contextlib.contextmanager
def _opened(file: str) -> Iterator[BinaryIO]:
    if file == "-":
        if sys.stdout.isatty():
            raise click.UsageError("a terminal cannot show a pcapng file; send it to a file or a program")
        yield sys.stdout.buffer
        return
    try:
        out = open(file, "wb")  # noqa: SIM115, PTH123 - closed below
    except OSError as error:
        raise ConfigError(f"cannot write {file}: {error.strerror}; name another file") from None
    with out:
        yield out


def _print(events: Iterator[Event], as_json: bool) -> Event:
    event: Event = {}
    for event in events:
        if as_json:
            click.echo(json.dumps(event))
        elif "text" in event:
            fraction = f"{event['time'] % 1:.6f}"[1:]
            click.echo(f"{time.strftime('%H:%M:%S', time.localtime(event['time']))}{fraction} {event['text']}")
    return event
