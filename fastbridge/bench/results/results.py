"""Results, raw trials first.

The results of a run are its raw trials and the machine, and nothing that can be computed from them. Findings, ratios,
intervals and verdicts are recomputed at every reading (see `report`): each method runs again on the recorded trials.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from fastbridge.bench.machine.fingerprint import Fingerprint
from fastbridge.bench.machine.likeness import settings_of
from fastbridge.bench.tester.trial import Trial
from fastbridge.errors import BenchError

from .files import write_whole
from .shapes import Schema, decode, shape_of

SCHEMA = 4
INTERRUPTED = "interrupted"  #: why a run was not finished although nothing failed
# Version 2 has no disturbances, and the whole command line of the kernel; 2 and 3 have no links.
READABLE = (2, 3, SCHEMA)


@dataclass(frozen=True)
class TaskRecord:
    """A method with its parameters, run on every engine `blocks` times."""

    name: str
    method: str  #: its name in methods.registry
    parameters: Mapping[str, Any]  #: the method's own fields
    ports: int  #: pods around each engine
    blocks: int  #: intended


@dataclass(frozen=True)
class Run:
    """One run of a task's method on one engine."""

    engine: str
    task: str
    block: int
    position: int  #: in the block
    trials: tuple[Trial, ...]  #: in the order the method asked for them
    unfinished: str | None = None  #: why the method did not end, if so


@dataclass(frozen=True)
class EngineRecord:
    """An engine as it was run."""

    name: str
    version: str
    command: str  #: in the smallest lab it ran in
    buffers: str  #: where frames wait for it
    ceiling: bool  #: True for the direct veth pair: no switch, the highest rate and the lowest latency
    offloads: str  #: of its pods: "default", or those that were turned off
    kernel_share: float | None = None  #: of the frames it took, its kernel fast path's; None where it does not say


@dataclass(frozen=True)
class Unfit:
    """Why an engine has no runs, or no more."""

    engine: str
    task: str | None  #: None: every task
    reason: str


@dataclass(frozen=True)
class Results:
    """One run of the bench: everything that its report is computed from."""

    schema: int
    profile: str
    started: str  #: UTC, ISO 8601
    seed: int  #: of the order in blocks, and of the bootstrap
    baseline: str
    control: str  #: the baseline engine under a second name (A/A)
    interrupted: bool
    fingerprint: Fingerprint
    tasks: tuple[TaskRecord, ...]
    engines: tuple[EngineRecord, ...]
    runs: tuple[Run, ...]
    unfit: tuple[Unfit, ...]
    command: str = ""  #: that measures the same again; empty if no command made the results

    def to_json(self) -> str:
        """The results as a JSON document."""
        return json.dumps(asdict(self), separators=(",", ":")).replace('{"engine":', '\n{"engine":') + "\n"

    @classmethod
    def from_json(cls, text: str) -> Results:
        """Read to_json()'s document back; raise BenchError that names what is wrong with it."""
        try:
            value = json.loads(text)
        except RecursionError:
            raise BenchError("not a results file: its lists or objects are nested too deeply") from None
        except ValueError as error:
            raise BenchError(f"not a JSON document: {error}") from None
        schema = value.get("schema") if isinstance(value, dict) else None
        if isinstance(schema, int) and schema not in READABLE:
            raise BenchError(_other_schema(schema, value))
        if isinstance(value, dict) and schema is None and "benchmarks" in value:
            raise BenchError("saved for pytest-benchmark: `fastbridge track` reads it; for a report name results.json")
        results = decode(cls, value)
        results._check_names()
        machine = replace(results.fingerprint, boot=settings_of(results.fingerprint.boot))
        return replace(results, schema=SCHEMA, fingerprint=machine)

    def save(self, path: str | Path) -> None:
        """Write to_json() to `path`, at once or not at all. Raises OSError."""
        write_whole(Path(path), self.to_json())

    @classmethod
    def load(cls, path: str | Path) -> Results:
        """Read a saved file; raise BenchError that names the file and the field."""
        try:
            return cls.from_json(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise BenchError(f"cannot read {path}: {error.strerror}") from None
        except UnicodeDecodeError:
            raise BenchError(f"{path}: not a results file: it is not text") from None
        except BenchError as error:
            raise BenchError(f"{path}: {error}") from None

    def _check_names(self) -> None:
        engines = _unique("engines", [engine.name for engine in self.engines])
        tasks = dict(zip(_unique("tasks", [task.name for task in self.tasks]), self.tasks, strict=True))
        _unique("runs", [f"{run.engine}, {run.task}, block {run.block}" for run in self.runs])
        for field in ("baseline", "control"):
            _require(getattr(self, field) in engines, field, f"{getattr(self, field)!r} is not in engines")
        _require(self.seed >= 0, "seed", "must be 0 or more")
        _require(self.fingerprint.cpus > 0, "fingerprint.cpus", "must be greater than 0")
        for i, entry in enumerate(self.unfit):
            _require(entry.engine in engines, f"unfit[{i}].engine", f"{entry.engine!r} is not in engines")
            known = entry.task is None or entry.task in tasks
            _require(known, f"unfit[{i}].task", f"{entry.task!r} is not in tasks")
        for i, run in enumerate(self.runs):
            _require(run.engine in engines, f"runs[{i}].engine", f"{run.engine!r} is not in engines")
            _require(run.task in tasks, f"runs[{i}].task", f"{run.task!r} is not in tasks")
            for j, trial in enumerate(run.trials):
                _check_trial(trial, f"runs[{i}].trials[{j}]", tasks[run.task].ports)


def _check_trial(trial: Trial, path: str, ports: int) -> None:
    for field in ("seconds", "window_seconds"):
        value = getattr(trial, field)
        _require(value > 0, f"{path}.{field}", f"must be greater than 0, not {value}")
    for field in ("window_bytes", "window_frames", "intended", "refused", "involuntary_switches"):
        value = getattr(trial, field)
        _require(value is None or value >= 0, f"{path}.{field}", f"must be 0 or more, not {value}")
    for field in ("sent", "received"):
        counts = getattr(trial, field)
        wanted = 0 if trial.offer.is_end_to_end else ports
        _require(len(counts) == wanted, f"{path}.{field}", f"needs a number for each of {wanted} ports")
        _require(all(count >= 0 for count in counts), f"{path}.{field}", "must be 0 or more each")
    if not trial.offer.is_end_to_end:
        for field in ("window_frames", "intended"):
            _require(getattr(trial, field) is not None, f"{path}.{field}", "frames must be counted")
    if trial.offer.sample:
        _require(trial.samples is not None, f"{path}.samples", "the offer asks for samples")


def results_schema() -> Schema:
    """The JSON Schema (draft 2020-12) of a results file of this version, made from the dataclasses that read it."""
    definitions: dict[str, Schema] = {}
    root = shape_of(Results).schema(definitions)
    definitions["Results"]["properties"]["schema"] = {"const": SCHEMA}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"fastbridge results, version {SCHEMA}",
        **root,
        "$defs": definitions,
    }


def _other_schema(schema: int, value: Mapping[str, Any]) -> str:
    # Trials of version 1 lack what was offered. No method can run again on them, so they cannot be migrated.
    fingerprint = value.get("fingerprint")
    versions = fingerprint.get("versions") if isinstance(fingerprint, dict) else None
    known = versions if isinstance(versions, dict) else {}
    writer = [f"{name} {known[name]}" for name in ("fastbridge", "commit") if known.get(name, "unknown") != "unknown"]
    written = f" ({', '.join(writer)})" if writer else ""
    readable = f"{', '.join(map(str, READABLE[:-1]))} and {READABLE[-1]}"
    return (
        f"schema: version {schema} is not known here; this fastbridge reads version {readable}. Measure again, or read "
        f"it with the fastbridge that wrote it{written}"
    )


def _unique(path: str, names: list[str]) -> list[str]:
    for i, name in enumerate(names):
        _require(name not in names[:i], f"{path}[{i}]", f"a second {name!r}")
    return names


def _require(holds: bool, path: str, otherwise: str) -> None:
    if not holds:
        raise BenchError(f"{path}: {otherwise}")
