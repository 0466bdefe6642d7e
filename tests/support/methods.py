"""Methods of the bench, run on simulated switches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from fake_dut import FakeDut

from fastbridge.bench import Findings, Offer, Trial
from fastbridge.bench.methods import Method
from fastbridge.bench.methods.measurer import Measurer, Recorder, Replay


def about(value: float) -> Any:
    """Equal to within 2 %."""
    return pytest.approx(value, rel=0.02)


def found(method: Method, dut: Measurer) -> Findings:
    """What the method finds; its names are declared, and a replay of its trials gives the same."""
    recorder = Recorder(dut)
    findings = method.run(recorder)
    assert set(findings.values) | set(findings.series) <= set(method.units)
    assert method.primary in method.units
    assert method.run(Replay(recorder.trials, recorder.ports)) == findings
    return findings


class Altered:
    """A fake DUT whose trials are tampered with."""

    def __init__(self, dut: FakeDut, alter: Callable[[Trial], Trial]) -> None:
        self._dut, self._alter = dut, alter
        self.ports = dut.ports

    def trial(self, offer: Offer) -> Trial:
        return self._alter(self._dut.trial(offer))

    def restart(self) -> None:
        self._dut.restart()
