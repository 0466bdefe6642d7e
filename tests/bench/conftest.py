"""What the live tests of the bench need beside other programs."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def undisturbed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take a trial that other programs have spoiled for none, however many there are."""
    monkeypatch.setattr("fastbridge.bench.tester.tester.ATTEMPTS", 100)
