"""`fastbridge top`, a running switch watched, full screen."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import rich_click as click
from rich.live import Live
from rich.text import Text

from fastbridge.console import make_console, plain
from fastbridge.switch.counters import rates
from fastbridge.waiting import wait_for

from .operate import Remote, Row, operate

_HEADS = ("port", "state", "in/s", "out/s", "flood/s", "fast", "drop/s", "ring", "MACs")
_WIDTHS = (7, 8, 8, 8, 5, 8, 5, 7)  # all but the port's name
_REASONS = 3  # lines of drops with their reasons
_AROUND = 8 + _REASONS  # lines besides the ports'


@dataclass(frozen=True, slots=True)
class Sample:
    """What the switch says at one moment."""

    status: Row
    stats: Sequence[Row]
    load: Row
    ports: Mapping[str, Row]

    @classmethod
    def take(cls, remote: Remote) -> Sample:
        """Ask for it."""
        ports = {row["ifname"]: row for row in remote.call("port.list")}
        return cls(remote.call("status")[0], remote.call("stats"), remote.call("load")[0], ports)


@dataclass(frozen=True, slots=True)
class Look:
    """Two samples: what happens per second. The last row, without a name, is all together."""

    rows: Sequence[Row]
    status: Row

    @classmethod
    def between(cls, before: Sample, after: Sample) -> Look:
        """What has happened between two samples."""
        *ports, total = (_port_row(row, after) for row in rates(after.stats, before.stats))
        seconds = after.load["time"] - before.load["time"]
        earlier = {worker["worker"]: worker["cpu"] for worker in before.load["workers"]}
        total["workers"] = [
            {
                "worker": worker["worker"],
                "cpu": _share(worker["cpu"] - earlier.get(worker["worker"], 0.0), seconds),
                "punted": worker["punted"],
            }
            for worker in after.load["workers"]
        ]
        total["cpu"] = _share(after.load["cpu"] - before.load["cpu"], seconds)
        return cls([*ports, total], after.status)

    def lines(self, width: int, height: int | None, sort: str, note: str) -> Text:
        """As a screen of so many columns and rows; height None: of as many as it takes."""
        *ports, total = self.rows
        ports.sort(key=_ORDERS[sort])
        shown = ports if height is None else ports[: max(1, height - _AROUND)]
        name_width = max(8, width - sum(_WIDTHS) - len(_WIDTHS) - 1)
        lines = [*self._head(total), Text(), _line(_HEADS, name_width, style="dim")]
        lines += [_line(_cells(row), name_width, style=_style(row)) for row in shown]
        if len(shown) < len(ports):
            lines.append(Text(f"… and {len(ports) - len(shown):,} more ports", style="dim"))
        lines.append(_line(_cells(total), name_width, style="bold"))
        lines += [Text(), *self._drops()]
        lines = lines if height is None else lines[: height - 1]
        if note:
            lines += [Text()] * (0 if height is None else height - 1 - len(lines))
            lines.append(Text(note, style="reverse"))
        for line in lines:
            line.truncate(width)
        return Text("\n").join(lines)

    def _head(self, total: Row) -> Iterator[Text]:
        status = self.status
        states = ", ".join(f"{count:,} {state}" for state, count in status["ports"].items() if count) or "none"
        now = time.strftime("%H:%M:%S")
        yield Text(plain(f"{status['name']}  pid {status['pid']}  ports: {states}  {now}"), style="bold")
        workers = "  ".join(f"worker {worker['worker']} {worker['cpu']:.0%}" for worker in total["workers"])
        punted = sum(worker["punted"] for worker in total["workers"])
        yield Text(f"CPU: {workers}  whole process {total['cpu']:.0%}   waiting for the policies: {punted:,}")
        fdb, neighbours = status["fdb"], status["neighbours"]
        tables = f"MAC addresses: {fdb['entries']:,} of {fdb['capacity']:,}   neighbours: {neighbours['entries']:,}"
        fast = status["fast_path"]
        yield Text(f"{tables}   fast path: {fast}{'' if fast == 'off' else ' ' + _percent(total['fast'])}")

    def _drops(self) -> Iterator[Text]:
        """The worst drops, each with its reason."""
        found = sorted(
            ((count, row["ifname"], reason) for row in self.rows[:-1] for reason, count in row["reasons"].items()),
            reverse=True,
        )
        for count, name, reason in found[:_REASONS]:
            yield Text(plain(f"dropped at {name}: {reason} {_short(count)}/s"), style="red")


def _port_row(row: Row, after: Sample) -> Row:
    port, ring = after.ports.get(row["ifname"], {}), after.load["rings"].get(row["ifname"])
    received = row["rx_frames"] + row["fast"]
    reasons = {
        reason: count
        for drops in ({"rx_missed": row["rx_missed"]}, row["dropped"], row["tx_dropped"])
        for reason, count in drops.items()
        if count
    }
    return {
        "ifname": row["ifname"],
        "state": port.get("state"),
        "received": received,
        "sent": row["tx_frames"] + row["fast_sent"],
        "flooded": row["flooded"],
        "fast": _share(row["fast"], received),
        "dropped": sum(reasons.values()),
        "reasons": reasons,
        "ring": None if ring is None or not ring["slots"] else ring["waiting"] / ring["slots"],
        "stations": port.get("stations"),
    }


def _share(part: float, whole: float) -> float:
    return part / whole if whole > 0 else 0.0


_ORDERS: dict[str, Callable[[Row], Any]] = {
    "name": lambda row: row["ifname"],
    "in/s": lambda row: -row["received"],
    "out/s": lambda row: -row["sent"],
    "drop/s": lambda row: -row["dropped"],
}


def _cells(row: Row) -> tuple[str, ...]:
    ring = "" if row["ring"] is None else _percent(row["ring"])
    numbers = (row["received"], row["sent"], row["flooded"])
    return (
        row["ifname"] or "total",
        row["state"] or "",
        *map(_short, numbers),
        _percent(row["fast"]),
        _short(row["dropped"]),
        ring,
        "" if row["stations"] is None else _short(row["stations"]),
    )


def _line(cells: Sequence[str], name_width: int, style: str) -> Text:
    name, state, *numbers = map(plain, cells)
    if len(name) > name_width:
        name = f"{name[: name_width - 1]}…"
    rest = (cell.rjust(width) for cell, width in zip(numbers, _WIDTHS[1:], strict=True))
    return Text(" ".join([name.ljust(name_width), state.ljust(_WIDTHS[0]), *rest]), style=style)


def _style(row: Row) -> str:
    return "red" if row["dropped"] else "yellow" if row["state"] != "up" else ""


def _percent(share: float) -> str:
    return f"{share:.0%}" if share else "0"


def _short(number: float) -> str:
    """In at most 7 characters."""
    for size, unit in ((1e9, "G"), (1e6, "M")):
        if number >= size:
            return f"{number / size:.2f}{unit}"
    return f"{number:,.0f}" if number >= 10 or number == round(number) else f"{number:.1f}"


@click.command(epilog="Keys: q ends it, s sorts by another column, space pauses.")
@operate
@click.option(
    "--interval",
    metavar="SECONDS",
    type=click.FloatRange(min=0.1),
    default=1.0,
    show_default=True,
    help="Look this often.",
)
def top(remote: Remote, interval: float) -> None:
    """Watch the ports, rates and drops of a running switch, full screen.

    Without a terminal, or with --json, it looks once.
    """
    before = Sample.take(remote)
    if remote.as_json or not (sys.stdin.isatty() and sys.stdout.isatty()):
        time.sleep(interval)
        look = Look.between(before, Sample.take(remote))
        remote.show(look.rows, lambda rows: _print(look))
        return
    console = make_console()
    with (
        _keys() as read,
        contextlib.suppress(KeyboardInterrupt),
        Live(console=console, screen=True, auto_refresh=False) as live,
    ):
        _watch(remote, before, interval, read, lambda show: live.update(show(*console.size), refresh=True))


def _print(look: Look) -> None:
    console = make_console()
    console.print(look.lines(console.width, None, "name", ""))
    click.echo("fastbridge: one look; in a terminal, top goes on", err=True)


def _watch(
    remote: Remote,
    before: Sample,
    interval: float,
    read: Callable[[float], str],
    draw: Callable[[Callable[[int, int], Text]], None],
) -> None:
    """Look again and again, until q."""
    orders, sort, paused = list(_ORDERS), 0, False
    look: Look | None = None
    due = time.monotonic() + min(interval, 0.3)  # the first look comes soon
    while True:
        if look is not None:
            pause = "go on (paused)" if paused else "pause"
            note = f" q quit   s sort: {orders[sort]}   space {pause}   every {interval:g} s "
            draw(partial(look.lines, sort=orders[sort], note=note))
        key = read(max(0.0, due - time.monotonic()))
        if key == "q":
            return
        sort = (sort + (key == "s")) % len(orders)
        paused ^= key in (" ", "p")
        if time.monotonic() >= due:
            due = time.monotonic() + interval
            if not paused:
                after = Sample.take(remote)
                look, before = Look.between(before, after), after


@contextlib.contextmanager
def _keys() -> Iterator[Callable[[float], str]]:
    """Read single keys from the terminal, each without waiting longer than so many seconds; "" for none."""
    terminal = sys.stdin.fileno()
    before = termios.tcgetattr(terminal)

    def read(seconds: float) -> str:
        if not wait_for(terminal, select.POLLIN, seconds):
            return ""
        return os.read(terminal, 1).decode("ascii", "replace") or "q"  # a terminal that is gone

    try:
        tty.setcbreak(terminal)
        yield read
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)
