"""Results, raw trials first.

A run's results are its raw trials and where they were measured, and nothing that can be computed
from them: ratios, intervals and verdicts are recomputed on every reading (see `report`). Frames are
counted as they were; no count is derived from another.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from fastbridge.errors import BenchError

from .decoding import decode

SCHEMA = 1


@dataclass(frozen=True)
class Scenario:
    """What is offered to every engine. Frame sizes include the FCS: 64 is 60 bytes on AF_PACKET."""

    name: str
    frame_size: int | None = None  #: None: one TCP stream on default offloads
    rate: float | None = None  #: intended load in frames/s; None: as fast as the sender can
    seconds: float = 0.5  #: length of a trial's window


@dataclass(frozen=True)
class Trial:
    """One trial, as counted.

    The rate and the CPU time are taken over a window inside the trial, in which the path is full:
    buffers filling at the start and draining at the end would flatter the engine with the bigger ones.
    Loss is taken over the whole trial, after the drain.
    """

    engine: str
    scenario: str
    block: int
    position: int  #: in its block
    seconds: float  #: time during which frames were offered
    window_seconds: float
    window_bytes: int  #: received in the window: frames without FCS, or TCP payload
    cpu_machine_seconds: float  #: busy time of all CPUs in the window, /proc/stat (10 ms steps)
    steal_seconds: float  #: taken by the hypervisor in the window
    cpu_switch_seconds: float | None = None  #: of the engine's process; None where it has none
    intended: int | None = None  #: None in the frame counts: a TCP trial
    offered: int | None = None
    forwarded: int | None = None
    window_frames: int | None = None
    involuntary_switches: int | None = None  #: of the sender

    @property
    def frames_per_second(self) -> float | None:
        """Forwarding rate in the window."""
        return None if self.window_frames is None else self.window_frames / self.window_seconds

    @property
    def gigabits_per_second(self) -> float:
        """Frames without FCS, or TCP payload."""
        return self.window_bytes * 8e-9 / self.window_seconds

    @property
    def rate(self) -> float:
        """What engines are compared by: frames/s, or for TCP Gb/s."""
        return self.gigabits_per_second if self.window_frames is None else self.window_frames / self.window_seconds

    @property
    def loss_ratio(self) -> float | None:
        """Of the offered frames; a stray frame of a pod's own kernel cannot make it negative."""
        if self.offered is None or self.forwarded is None:
            return None
        return max(0.0, 1.0 - self.forwarded / self.offered) if self.offered else 0.0

    @property
    def cpu_machine_ns(self) -> float | None:
        """Busy time of the whole machine a forwarded frame: sender, switch, receiver and all."""
        return self.cpu_machine_seconds * 1e9 / self.window_frames if self.window_frames else None

    @property
    def cpu_switch_ns(self) -> float | None:
        """CPU time of the engine's process a forwarded frame."""
        if self.cpu_switch_seconds is None or not self.window_frames:
            return None
        return self.cpu_switch_seconds * 1e9 / self.window_frames


@dataclass(frozen=True)
class EngineRecord:
    """An engine as it was run."""

    name: str
    version: str
    command: str
    buffers: str  #: what holds frames that wait for it
    joins: bool  #: False for the tester's own ceiling


@dataclass(frozen=True)
class Unfit:
    """Why an engine has no, or no further, trials in a scenario."""

    engine: str
    scenario: str
    reason: str


@dataclass(frozen=True)
class Fingerprint:
    """The machine and the software that gave the numbers."""

    cpu: str
    cpus: int
    microcode: str
    hypervisor: str
    kernel: str
    boot: str  #: kernel command line
    governor: str
    mitigations: Mapping[str, str]
    versions: Mapping[str, str]
    layout: Mapping[str, str]  #: role → CPU
    offloads: Mapping[str, str]  #: end of a veth pair → its features, as `ethtool -k` has them


@dataclass(frozen=True)
class Results:
    """One run of the bench: everything that is needed to recompute every number of its report."""

    schema: int
    profile: str
    started: str  #: UTC, ISO 8601
    seed: int
    blocks: int  #: intended
    baseline: str
    control: str  #: the baseline engine under a second name (A/A)
    interrupted: bool
    fingerprint: Fingerprint
    scenarios: tuple[Scenario, ...]
    engines: tuple[EngineRecord, ...]
    unfit: tuple[Unfit, ...]
    trials: tuple[Trial, ...]

    def to_json(self) -> str:
        """The results as a JSON document."""
        return json.dumps(asdict(self), indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Results:
        """Read to_json()'s document back; raise BenchError that names what is wrong with it."""
        try:
            value = json.loads(text)
        except ValueError as error:
            raise BenchError(f"not a JSON document: {error}") from None
        schema = value.get("schema") if isinstance(value, dict) else None
        if isinstance(schema, int) and schema != SCHEMA:
            raise BenchError(f"schema: version {schema} is not known here; this fastbridge reads version {SCHEMA}")
        results = decode(cls, value)
        results._check_names()
        return results

    def save(self, path: str | Path) -> None:
        """Write to_json() to `path`."""
        Path(path).write_text(self.to_json(), encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Results:
        """Read a saved file; raise BenchError that names the file and the field."""
        try:
            return cls.from_json(Path(path).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise BenchError(f"cannot read results: {error}") from None
        except BenchError as error:
            raise BenchError(f"{path}: {error}") from None

    def _check_names(self) -> None:
        engines = {engine.name for engine in self.engines}
        scenarios = {scenario.name for scenario in self.scenarios}
        for i, trial in enumerate(self.trials):
            if trial.engine not in engines:
                raise BenchError(f"trials[{i}].engine: {trial.engine!r} is not in engines")
            if trial.scenario not in scenarios:
                raise BenchError(f"trials[{i}].scenario: {trial.scenario!r} is not in scenarios")
            if trial.window_seconds <= 0:
                raise BenchError(f"trials[{i}].window_seconds: must be greater than 0, not {trial.window_seconds}")
