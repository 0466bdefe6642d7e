"""The control socket: who asks gets an answer, by its name and its parameters."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastbridge.control.client import Client
from fastbridge.control.protocol import NO_VERB, WRONG_PARAMETERS, RpcError
from fastbridge.control.server import ControlServer
from fastbridge.control.verbs import Verbs


@pytest.fixture
def verbs() -> Verbs:
    made = Verbs()

    @made.verb("add")
    def add(a: int, b: int = 1) -> int:
        """Add two numbers."""
        return a + b

    return made


def test_a_call(tmp_path: Path, verbs: Verbs) -> None:
    path = tmp_path / "one.sock"
    with ControlServer(path, verbs), Client(path=path) as client:
        assert client.call("add", a=1) == 2 and client.call("add", a=1, b=5) == 6
        with pytest.raises(RpcError, match=r"add: a must be an integer, not \"x\"") as wrong:
            client.call("add", a="x")
        assert (wrong.value.code, wrong.value.exit_status) == (WRONG_PARAMETERS, 2)
        with pytest.raises(RpcError, match="there is no verb 'nope'; there are: add, schema") as unknown:
            client.call("nope")
        assert unknown.value.code == NO_VERB
        assert client.call("schema")["verbs"]["add"]["params"]["required"] == ["a"]
    assert not path.exists()
