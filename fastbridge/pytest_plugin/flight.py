"""What the report of a failing test says of its labs: counters, tables, and the last frames."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from fastbridge.errors import FastbridgeError
from fastbridge.links.places import spoken
from fastbridge.switch.counters import Counters

if TYPE_CHECKING:
    from fastbridge.switch.live import Switch
    from fastbridge.switch.wires import LinkState

    from .labs import SwitchedLab

_MOST = 20  # lines of each table, and of frames; and sections
_LONGEST = 100  # characters of a test's name in a file's name


class Flight:
    """What is kept of one switch for a report."""

    def __init__(self, switch: Switch) -> None:
        self._switch = switch
        self._recorder = switch.flight_recorder()
        self._last_state: list[str] | None = None

    def end(self) -> None:
        """Keep the tables: the switch is about to stop."""
        if self._last_state is None:
            self._last_state = self._tables()

    @property
    def state(self) -> list[str]:
        """Counters and tables in lines; those of the end, if that has come."""
        return self._tables() if self._last_state is None else self._last_state

    def frames(self, path: Path | None, comment: str) -> list[str]:
        """The last frames in lines; all that were kept are written to the file, if there is one to be. Begins anew."""
        recorder = self._recorder
        events = recorder.events
        kept = "pytest --lab-artifacts DIR keeps them" if path is None else _write(path, recorder.pcapng([comment]))
        if self._switch.running:  # for the tests that share it
            self._recorder = self._switch.flight_recorder()
        start = events[0].time_ns if events else 0
        told = [f"{(event.time_ns - start) / 1e9:10.6f} {event}" for event in events[-_MOST:]]
        return [f"frames: {recorder.seen:,}; the last {len(events):,} as pcapng: {kept}", *told]

    def _tables(self) -> list[str]:
        switch = self._switch
        links = [f"{spoken(place)}: {_link(state)}" for place, state in switch.links.items()]
        links += [f"{port.name}: {port.state}" for port in switch.ports if port.state != "up"]
        return [
            *_counters(switch.counters()),
            *_table("links", links),
            *_table("FDB", map(str, switch.fdb)),
            *_table(f"neighbours, policy {switch.policy()}", map(str, switch.neighbours)),
        ]


def _link(state: LinkState) -> str:
    cut = f"cut {' and '.join(state.cut)}" if state.cut else ""
    group = "" if state.group is None else f"group {state.group} of a partition"
    return "; ".join(filter(None, (str(state.link or ""), cut, group))) or "perfect"


def tell(labs: Sequence[SwitchedLab], test: str, phase: str, directory: Path | None) -> list[tuple[str, str]]:
    """A section of the report for each switch. The last frames are kept in the directory, if there is one."""
    sections = []
    for number, lab in enumerate(labs, 1):
        which = f"lab {number} of {len(labs)}" if len(labs) > 1 else "lab"
        first = next(iter(lab.flights), "")
        for name, flight in lab.flights.items():
            switch = f"; switch {name}" if len(lab.flights) > 1 else ""
            title = f"{which}: {', '.join(_first(pod.name for pod in lab))}{switch}"
            path = directory / _file_name(test, phase, number, name if switch else "") if directory else None
            try:
                pods = _neighbours_of_pods(lab) if name == first else []  # told once
                lines = [*flight.state, *pods, *flight.frames(path, f"test: {test} ({phase}), {title}")]
            except Exception as error:  # a report that fails would end the whole run
                lines = [f"it cannot tell what it saw: {type(error).__name__}: {error}"]
            sections.append((title, "\n".join(lines)))
    more = [f"{title}: {text.rpartition('frames: ')[2].partition(chr(10))[0]}" for title, text in sections[_MOST:]]
    return [*sections[:_MOST], *([("more switches", "\n".join(more))] if more else [])]


def _counters(counters: Counters) -> Iterator[str]:
    """The table; of many ports those that lost something."""
    ports = counters.ports
    if len(ports) > _MOST:
        ports = {name: port for name, port in ports.items() if any((*port.dropped.values(), *port.tx_dropped.values()))}
        ports = dict(islice(ports.items(), _MOST))
    yield from str(replace(counters, ports=ports)).splitlines()
    for name, port in ports.items():
        if port.reasons:
            yield f"{name}: {'; '.join(port.reasons)}"


def _neighbours_of_pods(lab: SwitchedLab) -> list[str]:
    """What the pods' own kernels know. Those of a closed lab are gone."""
    if not lab.is_open:
        return []
    found = []
    for pod in islice(lab, _MOST):
        try:
            known = [each for each in pod.neighbours() if each.state != "noarp"]  # those follow from the address
            found += [f"{pod.name}: {each.ip} → {each.mac or '?'} ({each.state})" for each in known]
        except FastbridgeError as error:  # the test has taken its interface away
            found.append(f"{pod.name}: {error}")
    return _table("neighbours in pods", found)


def _write(path: Path, data: bytes) -> str:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    except OSError as error:
        return f"cannot write {path}: {error.strerror}"
    return str(path)


def _table(title: str, rows: Iterable[str]) -> list[str]:
    return [f"{title}:", *(f"  {row}" for row in _first(rows))]


def _first(rows: Iterable[str]) -> list[str]:
    """The first of them, and how many more there are."""
    every = iter(rows)
    first = list(islice(every, _MOST)) or ["none"]
    more = sum(1 for _ in every)
    return [*first, *([f"… and {more:,} more"] if more else [])]


def _file_name(test: str, phase: str, number: int, switch: str) -> str:
    """One that any file system takes, of this test alone: the sum tells apart what the characters do not."""
    words = [re.sub(r"[^\w.-]+", "-", test, flags=re.ASCII).strip("-.")[:_LONGEST]]
    words += [] if phase == "call" else [phase]
    words += [str(number)] if number > 1 else []
    words += [switch] if switch else []
    return f"{'-'.join(words)}-{zlib.crc32(test.encode()):08x}.pcapng"
