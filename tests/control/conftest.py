"""A control socket with a good client, for tests that do without a switch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from talks import Asked, asked

from fastbridge.control import server
from fastbridge.control.client import Client


@pytest.fixture
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that tests need not wait for the server to look after its socket and its clients."""
    monkeypatch.setattr(server, "_LOOK_SECONDS", 0.05)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "one.sock"


@pytest.fixture
def there(path: Path) -> Iterator[Asked]:
    with asked(path) as found:
        yield found


@pytest.fixture
def client(there: Asked, path: Path) -> Iterator[Client]:
    with Client(path=path, timeout=60) as made:
        yield made
