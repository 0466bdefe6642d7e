"""Runs of one made-up task, and results of them."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import Any

from fastbridge.bench import Offer, Results, Trial
from fastbridge.bench.machine.fingerprint import Fingerprint
from fastbridge.bench.methods.forwarding_rate import ForwardingRate
from fastbridge.bench.methods.measurer import Recorder
from fastbridge.bench.results.results import EngineRecord, Run, TaskRecord

FINGERPRINT = Fingerprint(
    "cpu", 2, "0x1", "none seen", "6.1", "none that matters", "unknown", {}, {"python": "3"}, {"sender": "CPU 0"}, {}
)
METHOD = ForwardingRate(sizes=(64,), seconds=1.0)
TASK = TaskRecord("64 B", METHOD.name, json.loads(json.dumps(asdict(METHOD))), METHOD.ports, 10)


class OneTrial:
    """A measurer that gives the same made-up trial for any offer."""

    ports = 2

    def __init__(self, frames: int, changes: dict[str, Any]) -> None:
        self.frames, self.changes = frames, changes

    def trial(self, offer: Offer) -> Trial:
        made = Trial(
            offer=offer,
            seconds=1.0,
            window_seconds=1.0,
            window_bytes=60 * self.frames,
            cpu_machine_seconds=1.0,
            steal_seconds=0.0,
            cpu_switch_seconds=0.5,
            window_frames=self.frames,
            intended=self.frames,
            sent=(self.frames, 0),
            received=(0, self.frames),
        )
        return replace(made, **self.changes)

    def restart(self) -> None:
        raise AssertionError("a forwarding rate needs no restart")


def make_run(engine: str, block: int, rate: float, *, offered: int | None = None, **changes: Any) -> Run:
    """One run of METHOD: a 64 B trial of one second at `rate` frames/s, without loss unless more were offered."""
    sent = {} if offered is None else {"sent": (offered, 0), "intended": offered}
    recorder = Recorder(OneTrial(int(rate), sent | changes))
    METHOD.run(recorder)
    return Run(engine, TASK.name, block, 0, tuple(recorder.trials))


def make_results(runs: list[Run], **changes: Any) -> Results:
    names = ["base", "base (control)", *sorted({run.engine for run in runs} - {"base", "base (control)"})]
    made = Results(
        schema=4,
        profile="quick",
        started="2026-01-01T00:00:00+00:00",
        seed=1,
        baseline="base",
        control="base (control)",
        interrupted=False,
        fingerprint=FINGERPRINT,
        tasks=(TASK,),
        engines=tuple(EngineRecord(name, "1", "-", "-", name == "nothing", "default") for name in names),
        runs=tuple(runs),
        unfit=(),
    )
    return replace(made, **changes)
