"""What a run says on stdout: JSON lines for programs, or text for people.

Where several switches run, each has a report of its own, and what it says names the switch.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Sequence
from typing import Any

import rich_click as click

from fastbridge.control.directory import socket_path
from fastbridge.switch.counters import Counters

from .streams import StreamBox


class Report:
    """The lines of one switch. They are written by a box that all switches share."""

    lost = "{:,} lines lost: nobody read them in time"

    def __init__(self, box: StreamBox, switch: str = "") -> None:
        """switch: its name, where several run."""
        self._box, self._switch = box, switch

    def ready(self, names: Sequence[str], match: Sequence[str], fast_path: str, name: str, metrics: str | None) -> None:
        """Forwarding works; commands find the switch by this name. metrics: where they are."""

    def link(self, name: str, link: str) -> None:
        """A port joined or went up, down, or is gone."""

    def reloaded(self, changes: Sequence[str]) -> None:
        """What a configuration that was read again has changed."""

    def counters(self, counters: Counters) -> None:
        """An interval has passed."""

    def stopped(self, counters: Counters) -> None:
        """Forwarding has ended."""


class Reports:
    """The reports of a run's switches."""

    def __init__(self, as_json: bool) -> None:
        self._kind = _JsonReport if as_json else _TextReport
        self._box = StreamBox("stdout", self._kind.lost)

    def of(self, switch: str = "") -> Report:
        """One switch's; switch: its name, if the lines are to have it."""
        return self._kind(self._box, switch)

    def check(self) -> None:
        """Raise OSError when stdout cannot be written."""
        self._box.check()

    def close(self) -> None:
        """Wait for the reader, for 2 s at most. Raises OSError, ClickException."""
        read = self._box.close()
        self._box.check()
        if not read:
            raise click.ClickException("nobody reads stdout: the last lines are lost")


class _JsonReport(Report):
    lost = '{{"event": "lost", "lines": {}}}'

    def ready(self, names: Sequence[str], match: Sequence[str], fast_path: str, name: str, metrics: str | None) -> None:
        found = {"metrics": metrics} if metrics else {}
        if self._switch:
            found["socket"] = str(socket_path(name))
        self._say("ready", ports=list(names), fast_path=fast_path, name=name, **found)

    def link(self, name: str, link: str) -> None:
        self._say("port", name=name, link=link)

    def reloaded(self, changes: Sequence[str]) -> None:
        self._say("reloaded", changes=list(changes))

    def counters(self, counters: Counters) -> None:
        self._say("counters", counters=counters.as_dict())

    def stopped(self, counters: Counters) -> None:
        self._say("stopped", counters=counters.as_dict())

    def _say(self, event: str, **fields: Any) -> None:
        whose = {"switch": self._switch} if self._switch else {}
        self._box.put(json.dumps({"event": event, **whose, **fields}), always=event == "stopped")


class _TextReport(Report):
    """For people. Changes of links are in the log, on stderr."""

    def __init__(self, box: StreamBox, switch: str = "") -> None:
        super().__init__(box, switch)
        self._before: Counters | None = None
        self._since = time.monotonic()

    def ready(self, names: Sequence[str], match: Sequence[str], fast_path: str, name: str, metrics: str | None) -> None:
        by_hand = sys.stdin.isatty() and signal.getsignal(signal.SIGINT) != signal.SIG_IGN
        how = "Ctrl-C ends it" if by_hand else "SIGTERM ends it"
        between = [*names, *(f"all that match {pattern}" for pattern in match)]
        self._say(f"forwarding between {', '.join(between) or 'no ports so far'}; {how}")
        if metrics:
            self._say(f"metrics at {metrics}")

    def reloaded(self, changes: Sequence[str]) -> None:
        self._say(f"read again: {', '.join(changes) or 'nothing differs'}")

    def counters(self, counters: Counters) -> None:
        now = time.monotonic()
        total, before = counters.total, self._before.total if self._before else type(counters.total)()
        seconds = now - self._since
        self._before, self._since = counters, now
        lost = sum(total.dropped.values()) + sum(total.tx_dropped.values()) + total.rx_missed
        lost -= sum(before.dropped.values()) + sum(before.tx_dropped.values()) + before.rx_missed
        self._say(
            f"{time.strftime('%H:%M:%S')}  "
            f"received {(total.rx_frames - before.rx_frames) / seconds:>11,.0f} frames/s"
            f" {(total.rx_bytes - before.rx_bytes) * 8e-6 / seconds:>10,.1f} Mb/s"
            f"   flooded {(total.flooded - before.flooded) / seconds:,.0f}/s   lost {lost / seconds:,.0f}/s"
        )

    def stopped(self, counters: Counters) -> None:
        from fastbridge.cli.counter_table import counter_table  # --json needs no tables
        from fastbridge.console import make_console

        console = make_console()
        with console.capture() as captured:
            console.print()
            console.print(counter_table(counters))
            console.print(counters.story)
        self._say(captured.get().removesuffix("\n"), always=True)

    def _say(self, text: str, *, always: bool = False) -> None:
        self._box.put(f"{self._switch}: {text}" if self._switch else text, always=always)
