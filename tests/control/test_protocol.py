"""The protocol: any bytes are a request or one error, and an answer's pieces are one line."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastbridge.control.protocol import INVALID, PARSE, WRONG_PARAMETERS, RpcError, answer, parse

GOOD = {"jsonrpc": "2.0", "id": 1, "method": "echo", "params": {}}


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        (b"", PARSE, "not JSON"),
        (b"hello", PARSE, "not JSON"),
        (b"\xff\xfe", PARSE, "not JSON"),
        (b'{"id": NaN}', PARSE, "not JSON"),
        (b'{"id": 1e999}', PARSE, "not JSON"),
        (b'{"id": ' + b"9" * 5000 + b"}", PARSE, "not JSON"),
        (b"[" * 60_000, PARSE, "not JSON"),
        (b"[" * 30_000 + b"]" * 30_000, PARSE, "not JSON"),
        (rb'{"jsonrpc": "2.0", "id": "\ud800", "method": "echo"}', PARSE, "half a character"),
        (b"[]", INVALID, "batches are not taken: send one object a line"),
        (json.dumps([GOOD]).encode(), INVALID, "batches"),
        (b"5", INVALID, "a request is an object"),
        (b"null", INVALID, "a request is an object"),
        (json.dumps({**GOOD, "id": None}).encode(), INVALID, "a request has an id"),
        (json.dumps({**GOOD, "id": [1]}).encode(), INVALID, "a request has an id"),
        (json.dumps({**GOOD, "id": True}).encode(), INVALID, "a request has an id"),
        (json.dumps({**GOOD, "jsonrpc": "1.0"}).encode(), INVALID, "jsonrpc"),
        (json.dumps({**GOOD, "method": 5}).encode(), INVALID, "a method"),
        (json.dumps({**GOOD, "params": [1]}).encode(), WRONG_PARAMETERS, "echo: params is an object"),
    ],
)
def test_what_is_wrong_has_a_code_and_one_line(line: bytes, code: int, said: str) -> None:
    with pytest.raises(RpcError) as wrong:
        parse(line)
    assert wrong.value.code == code and said in str(wrong.value) and "\n" not in str(wrong.value)


def test_an_error_is_the_request_s_where_it_has_an_id() -> None:
    with pytest.raises(RpcError) as wrong:
        parse(b'{"id": "mine", "method": "echo"}')
    assert wrong.value.number == "mine"


@given(
    st.binary()
    | st.text().map(str.encode)
    | st.recursive(st.none() | st.text(), st.lists).map(json.dumps).map(str.encode)
)
def test_any_line_is_a_request_or_an_error(line: bytes) -> None:
    try:
        parse(line)
    except RpcError as wrong:
        assert wrong.code in (PARSE, INVALID, WRONG_PARAMETERS)


@pytest.mark.parametrize(
    "result",
    [None, {}, [], [1], "\n😀", *([{"n": n}] * size for n, size in enumerate((499, 500, 501, 1001)))],
)
def test_the_pieces_of_an_answer_are_one_line(result: Any) -> None:
    line = b"".join(answer("x", result))
    assert line.count(b"\n") == 1 and line.endswith(b"\n")
    assert json.loads(line) == {"jsonrpc": "2.0", "id": "x", "result": result}
