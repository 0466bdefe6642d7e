"""The protocol, its lines.

JSON-RPC 2.0, one object a line. A request has an id and named parameters. What is wrong is answered by one error, with
one of these codes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

from fastbridge.errors import ConfigError, FastbridgeError, PortError, PrivilegeError

#: of the protocol: verbs and keys are added without a new one
VERSION = 1
#: bytes of a request, with its line end
MOST_BYTES = 65536

PARSE, INVALID, NO_VERB, WRONG_PARAMETERS, INTERNAL = -32700, -32600, -32601, -32602, -32603
CONFIG, PORT, PRIVILEGE, OTHER = 1, 2, 3, 4
BUSY, ENDED, SILENT = -32000, -32001, -32002  # no place left for the client; the switch has ended, or does not answer
_ERRORS = ((ConfigError, CONFIG), (PortError, PORT), (PrivilegeError, PRIVILEGE), (FastbridgeError, OTHER))
_WRONG_REQUESTS = (PARSE, INVALID, NO_VERB, WRONG_PARAMETERS, CONFIG)
Id: TypeAlias = str | int | float | None  # of a request
# Objects encoded at once: some milliseconds, in which no other thread has Python.
_AT_ONCE = 500


class RpcError(FastbridgeError):
    """An answer that is an error. `code` says which; `number` is the id of the request, where it is known."""

    def __init__(self, code: int, message: str, number: Id = None) -> None:
        super().__init__(message)
        self.code, self.number = code, number
        self.exit_status = 2 if code in _WRONG_REQUESTS else 1

    @classmethod
    def of(cls, error: FastbridgeError) -> RpcError:
        """The answer that tells of this error."""
        if isinstance(error, RpcError):
            return error
        return cls(next(code for kind, code in _ERRORS if isinstance(error, kind)), str(error))


@dataclass(frozen=True, slots=True)
class Request:
    """One request."""

    id: Id
    verb: str
    params: dict[str, Any]


def parse(line: bytes) -> Request:
    """A line's request. Raises RpcError."""
    found = load(line)
    if b"\\u" in line:
        _refuse_half_characters(found)
    if isinstance(found, list):
        raise RpcError(INVALID, "batches are not taken: send one object a line")
    if not isinstance(found, dict):
        raise RpcError(INVALID, "a request is an object, with jsonrpc, id, method and params")
    number, verb, params = found.get("id"), found.get("method"), found.get("params", {})
    if isinstance(number, (dict, list, bool)) or number is None:
        raise RpcError(INVALID, "a request has an id: a number or a string")
    if found.get("jsonrpc") != "2.0":
        raise RpcError(INVALID, 'a request has "jsonrpc": "2.0"', number)
    if not isinstance(verb, str):
        raise RpcError(INVALID, "a request has a method: a string", number)
    if not isinstance(params, dict):
        raise RpcError(WRONG_PARAMETERS, f"{verb}: params is an object, with the parameters by name", number)
    return Request(number, verb, params)


def load(line: bytes) -> Any:
    """What a line says. Raises RpcError."""
    try:
        return json.loads(line.decode(), parse_constant=_number, parse_float=_number)
    except (ValueError, RecursionError):  # a number of thousands of digits is a ValueError, too
        raise RpcError(PARSE, "this line is not JSON; send one JSON-RPC object a line") from None


def _number(text: str) -> float:
    """Python would read NaN, and 1e999 as infinity."""
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number


def _refuse_half_characters(found: Any) -> None:
    """Raise RpcError for the escape of half a character (UTF-16's surrogates), which no UTF-8 can have."""
    try:
        json.dumps(found, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise RpcError(PARSE, "this line has half a character: \\ud800 to \\udfff come in pairs") from None


def request(number: int, verb: str, params: dict[str, Any]) -> bytes:
    """A request's line."""
    return _line({"jsonrpc": "2.0", "id": number, "method": verb, "params": params})


def answer(number: Id, result: Any) -> Iterator[bytes]:
    """An answer's line, in pieces."""
    head = _text({"jsonrpc": "2.0", "id": number})[:-1]
    if not isinstance(result, list):
        yield f'{head}, "result": {_text(result)}}}\n'.encode()
        return
    yield f'{head}, "result": ['.encode()
    for first in range(0, len(result), _AT_ONCE):
        yield ((", " if first else "") + _text(result[first : first + _AT_ONCE])[1:-1]).encode()
    yield b"]}\n"


def refusal(number: Id, error: RpcError) -> bytes:
    """The line of an answer that is an error."""
    return _line({"jsonrpc": "2.0", "id": number, "error": {"code": error.code, "message": str(error)}})


def event(stream: int, **said: Any) -> bytes:
    """The line of a stream: its next `event`, or its `end`: null, or why."""
    return _line({"jsonrpc": "2.0", "method": "event", "params": {"stream": stream, **said}})


def _line(value: Any) -> bytes:
    return f"{_text(value)}\n".encode()


def _text(value: Any) -> str:
    return json.dumps(value, allow_nan=False)
