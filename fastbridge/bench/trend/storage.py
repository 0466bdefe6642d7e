"""Saved benchmarks, read.

pytest-benchmark's storage, and the files of the same kind that `fastbridge compare` writes. Only the part that a trend
needs is read. Any other file raises one BenchError that names it: a trend with an unseen hole is worth less than none.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from fastbridge.bench.machine.likeness import DECISIVE, in_words
from fastbridge.errors import BenchError

_SHORTEST, _LONGEST = 1e-15, 1e9  # seconds that a round can take: other values are not measured times


@dataclass(frozen=True)
class Machine:
    """Where a run was measured: the properties that decide about speed. Like machines are equal."""

    about: tuple[tuple[str, str], ...]  #: name → value, in words

    def __str__(self) -> str:
        return (
            ", ".join(f"{name} {text}" for name, text in self.about if text not in ("unknown", "none"))
            or "unknown machine"
        )


@dataclass(frozen=True)
class SavedRun:
    """One saved file."""

    path: Path
    machine: Machine
    commit: str  #: short; with "-dirty" where the tree was changed since
    committed: datetime  #: without a commit, when it was measured
    measured: datetime
    seconds: Mapping[str, float]  #: the median round, by full name
    scatter: Mapping[str, float]  #: relative standard error of that median, by full name

    @property
    def name(self) -> str:
        """The names of file and directory: the files of `fastbridge compare` differ in the directory only."""
        return "/".join(self.path.parts[-2:])


def read_storage(*places: Path) -> list[SavedRun]:
    """All runs saved in `places`, oldest commit first; raise BenchError for a place without any.

    A place is a saved file, or a directory with saved files.
    """
    found = {path.resolve(): path for place in places for path in _saved(place)}
    runs = [read_run(path) for path in found.values()]
    return sorted(runs, key=lambda run: (run.committed, run.measured, run.name))


def _saved(place: Path) -> list[Path]:
    if place.is_file():
        return [place]
    try:
        paths = sorted({*place.glob("*.json"), *place.glob("*/*.json")})
    except OSError as error:
        raise BenchError(f"cannot read {place}: {error.strerror}") from None
    if not paths:
        what = "has no saved benchmarks" if place.is_dir() else "does not exist"
        raise BenchError(f"{place} {what}: save some with pytest --benchmark-only --benchmark-autosave")
    return paths


def read_run(path: Path) -> SavedRun:
    """Read one file; raise BenchError that names the file and its fault."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BenchError(f"cannot read {path}: {error.strerror}") from None
    except RecursionError:
        raise BenchError(f"{path}: not saved by pytest-benchmark, it is nested too deeply; move it elsewhere") from None
    except ValueError as error:  # of UTF-8 or of JSON
        raise BenchError(f"{path}: not a JSON document ({error}); move it elsewhere") from None
    if isinstance(value, dict) and "schema" in value and "runs" in value:
        raise BenchError(
            f"{path}: results of fastbridge compare; track the pytest-benchmark.json beside it, or make one: "
            f"fastbridge report {path} -o FILE.json"
        )
    if not isinstance(value, dict) or not isinstance(value.get("benchmarks"), list):
        raise BenchError(f"{path}: not saved by pytest-benchmark (no list 'benchmarks'); move it elsewhere")
    try:
        measured = _when(value["datetime"])
        commit = value.get("commit_info") or {}
        medians = {_text(each["fullname"]): _positive(each["stats"]["median"]) for each in value["benchmarks"]}
        return SavedRun(
            path=path,
            machine=_machine(value.get("machine_info") or {}),
            commit=_commit(commit),
            committed=_when(commit["time"]) if commit.get("time") else measured,
            measured=measured,
            seconds=medians,
            scatter={each["fullname"]: _scatter(each["stats"]) for each in value["benchmarks"]},
        )
    except KeyError as error:
        raise BenchError(f"{path}: not what pytest-benchmark saves, the field {error} is missing") from None
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        raise BenchError(f"{path}: not what pytest-benchmark saves: {error}") from None


def _when(text: str) -> datetime:
    # Some tools write "Z", which Python 3.10 cannot read. Old versions wrote times without a zone: they are UTC.
    time = datetime.fromisoformat(text.removesuffix("Z"))
    return time if time.tzinfo else time.replace(tzinfo=timezone.utc)


def _commit(about: Mapping[str, Any]) -> str:
    name = str(about.get("id") or "unversioned")
    return (name if name == "unversioned" else name[:9]) + ("-dirty" if about.get("dirty") else "")


def _machine(about: Mapping[str, Any]) -> Machine:
    # Files of other projects have no fingerprint of ours: take what pytest-benchmark itself knows.
    cpu = about.get("cpu") or {}
    known = {"cpu": cpu.get("brand_raw"), "cpus": cpu.get("count"), "release": about.get("release")}
    known |= about.get("fastbridge") or {}
    python = ".".join(str(about.get("python_version", "unknown")).split(".")[:2])
    kind = about.get("python_implementation", "Python")
    if known.get("quota") in (
        None,
        "unknown",
    ):  # older files do not say; few machines have one, and a trend must not end there
        known["quota"] = "none"
    return Machine((*((name, in_words(known.get(key))) for key, name in DECISIVE.items()), (str(kind), python)))


def _positive(value: Any) -> float:
    if not _is_number(value) or not _SHORTEST <= value <= _LONGEST:
        raise ValueError(f"a median of {_cut(value)}, where a time is needed")
    return float(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"a fullname of {_cut(value)}, where text is needed")
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _cut(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 40 else f"{shown[:40]}…"


def _scatter(stats: Mapping[str, Any]) -> float:
    # Of a normal distribution the quartiles are 1.35 standard deviations apart, and the median of n values has 1.25
    # times the standard error of their mean.
    rounds, spread = stats.get("rounds") or 1, stats.get("iqr") or 0.0
    if not (_is_number(rounds) and _is_number(spread) and rounds >= 1 and spread >= 0):
        raise ValueError(f"{_cut(rounds)} rounds with a spread (iqr) of {_cut(spread)}")
    return 1.25 * float(spread) / 1.35 / float(stats["median"]) / math.sqrt(rounds)
