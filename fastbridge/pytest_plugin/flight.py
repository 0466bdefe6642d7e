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
    from .labs import SwitchedLab

_MOST = 20  # lines of each table, and of frames
_LONGEST = 100  # characters of a test's name in a file's name


def tell(labs: Sequence[SwitchedLab], test: str, phase: str, directory: Path | None) -> list[tuple[str, str]]:
    """A section of the report for each lab; its last frames are kept in the directory, if there is one."""
    sections = []
    for number, lab in enumerate(labs, 1):
        name = "lab" if len(labs) == 1 else f"lab {number} of {len(labs)}"
        path = directory / _file_name(test, phase, number) if directory else None
        try:
            lines = [*lab.state, *_neighbours_of_pods(lab), *_frames(lab, f"{test} ({phase}), {name}", path)]
        except Exception as error:  # a report that fails would end the whole run
            lines = [f"it cannot tell what it saw: {type(error).__name__}: {error}"]
        sections.append((f"{name}: {', '.join(_first([pod.name for pod in lab]))}", "\n".join(lines)))
    return sections


def state_of(lab: SwitchedLab) -> list[str]:
    """Counters and tables of the lab's switch, in lines."""
    switch = lab.switch
    return [
        *_counters(switch.counters()),
        *_table("links", [f"{spoken(place)}: {state.link}" for place, state in switch.links.items() if state.link]),
        *_table("FDB", map(str, switch.fdb)),
        *_table(f"neighbours, policy {switch.policy()}", map(str, switch.neighbours)),
    ]


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
    found = []
    for pod in islice(lab, _MOST if lab.is_open else 0):
        try:
            known = [each for each in pod.neighbours() if each.state != "noarp"]  # those follow from the address
            found += [f"{pod.name}: {each.ip} → {each.mac or '?'} ({each.state})" for each in known]
        except FastbridgeError as error:  # the test has taken its interface away
            found.append(f"{pod.name}: {error}")
    return _table("neighbours in pods", found) if lab.is_open else []


def _frames(lab: SwitchedLab, title: str, path: Path | None) -> list[str]:
    """The last frames, in lines; all that were kept, in a file."""
    recorder = lab.recorder
    events, seen = recorder.events, recorder.seen
    kept = (
        "pytest --lab-artifacts DIR keeps them" if path is None else _write(path, recorder.pcapng([f"test: {title}"]))
    )
    if lab.is_open and lab.switch.running:
        lab.record_anew()  # for the tests that share it
    last = events[-_MOST:]
    start = events[0].time_ns if events else 0
    told = [f"{(event.time_ns - start) / 1e9:10.6f} {event}" for event in last]
    return [f"frames: {seen:,}; the last {len(events):,} as pcapng: {kept}", *told]


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
    """The first of them, and whether there are more."""
    every = iter(rows)
    first = list(islice(every, _MOST))
    more = sum(1 for _ in every)
    return [*(first or ["none"]), *([f"… and {more:,} more"] if more else [])]


def _file_name(test: str, phase: str, number: int) -> str:
    """One that any file system takes, of this test alone: the sum tells apart what the characters do not."""
    name = re.sub(r"[^\w.-]+", "-", test, flags=re.ASCII).strip("-.")[:_LONGEST]
    parts = [name, *([] if phase == "call" else [phase]), *([str(number)] if number > 1 else [])]
    return f"{'-'.join(parts)}-{zlib.crc32(test.encode()):08x}.pcapng"
