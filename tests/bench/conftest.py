"""What the live tests of the bench need beside other programs."""

from __future__ import annotations

import pytest
from live import PATIENCE


@pytest.fixture(autouse=True)
def undisturbed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take a trial that other programs have spoiled for none, and wait for an engine however slowly it starts."""
    monkeypatch.setattr("fastbridge.bench.tester.tester.ATTEMPTS", 100)
    for engine in ("fastbridge", "python_sockets", "vde", "testpmd"):
        monkeypatch.setattr(f"fastbridge.bench.engines.{engine}.READY_SECONDS", PATIENCE)
