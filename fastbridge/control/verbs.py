"""Verbs, what can be asked.

A verb is a function with type hints. From them come the check of its parameters and its schema: what is printed is what
is checked.
"""

from __future__ import annotations

import functools
import inspect
import json
import math
import sys
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, Protocol, TypeVar, Union, runtime_checkable

from .protocol import NO_VERB, VERSION, WRONG_PARAMETERS, RpcError

Schema = dict[str, Any]
_Function = TypeVar("_Function", bound=Callable[..., Any])

_PLAIN: dict[Any, tuple[str, str]] = {  # JSON's name, and ours
    str: ("string", "a string"),
    int: ("integer", "an integer"),
    float: ("number", "a number"),
    bool: ("boolean", "true or false"),
    dict: ("object", "an object"),
    list: ("array", "a list"),
    type(None): ("null", "null"),
}
_SPOKEN = dict(_PLAIN.values())
_CLASS = {name: kind for kind, (name, _) in _PLAIN.items()}


@runtime_checkable
class Stream(Protocol):
    """What a stream verb returns: events that come by and by."""

    def fileno(self) -> int:
        """Readable when events wait, and when it has ended."""

    def read(self) -> list[dict[str, Any]] | None:
        """The events that wait, and never wait for more; None: it has ended.

        Those that nobody reads are bounded: the oldest are dropped, and an event {"event": "lost", "count": N} says so.
        """

    def close(self) -> None:
        """No more of them. Only who asked for them calls it, once; until then fileno() stays what it is."""


class Verb:
    """One thing that can be asked."""

    def __init__(self, name: str, function: Callable[..., Any], *, stream: bool = False) -> None:
        self.name, self.function, self.stream = name, function, stream
        self.help = inspect.cleandoc(function.__doc__ or "")
        plain = getattr(function, "__func__", function)
        signature, schemas = _read(plain)
        named = signature[1:] if plain is not function else signature  # a method has its object already
        self._others = next((p.name for p in named if p.kind is p.VAR_KEYWORD), None)
        self._named = [p for p in named if p.name != self._others]
        self.parameters = {p.name: schemas.get(p.name, {}) for p in self._named}
        self.others = schemas.get(self._others, {}) if self._others else None
        self.result = {"type": "object", "properties": {"stream": {"type": "integer"}}} if stream else {}
        if not stream:
            self.result = schemas.get("return", {})

    def __call__(self, params: Mapping[str, Any]) -> Any:
        """Call it. Raises RpcError where the parameters are wrong, and whatever it raises."""
        self._check(params)
        return self.function(**params)

    def schema(self) -> Schema:
        """Its parameters and its result, as JSON Schema."""
        return {
            "description": self.help,
            "stream": self.stream,
            "params": {
                "type": "object",
                "properties": self.parameters,
                "required": [p.name for p in self._named if p.default is p.empty],
                "additionalProperties": False if self.others is None else self.others,
            },
            "result": self.result,
        }

    def _check(self, params: Mapping[str, Any]) -> None:
        for parameter in self._named:
            if parameter.default is parameter.empty and parameter.name not in params:
                wanted = spoken(self.parameters[parameter.name])
                raise RpcError(WRONG_PARAMETERS, f"{self.name} needs the parameter {parameter.name}: {wanted}")
        for name, value in params.items():
            schema = self.parameters.get(name, self.others)
            if schema is None:
                known = f"it takes {', '.join(self.parameters)}" if self.parameters else "it takes none"
                raise RpcError(WRONG_PARAMETERS, f"{self.name} has no parameter {_shown(name)}; {known}")
            if not fits(value, schema):
                given = _shown(value)
                raise RpcError(WRONG_PARAMETERS, f"{self.name}: {name} must be {spoken(schema)}, not {given}")


class Verbs(Mapping[str, Verb]):
    """What a server can be asked, by name. All have `schema`."""

    def __init__(self) -> None:
        self._verbs: dict[str, Verb] = {}
        self.add("schema", self.schema)

    def add(self, name: str, function: Callable[..., Any], *, stream: bool = False) -> None:
        """Add a verb, or replace it."""
        self._verbs[name] = Verb(name, function, stream=stream)

    def verb(self, name: str, *, stream: bool = False) -> Callable[[_Function], _Function]:
        """`add`, as a decorator."""

        def added(function: _Function) -> _Function:
            self.add(name, function, stream=stream)
            return function

        return added

    def call(self, name: str, params: Mapping[str, Any]) -> Any:
        """Call a verb. Raises RpcError where there is none, and as a Verb does."""
        if name not in self._verbs:
            raise RpcError(NO_VERB, f"there is no verb {_shown(name)}; there are: {', '.join(sorted(self._verbs))}")
        return self._verbs[name](params)

    def schema(self) -> dict[str, Any]:
        """The parameters and the result of every verb, as JSON Schema."""
        verbs = {name: verb.schema() for name, verb in sorted(self._verbs.items())}
        return {"version": VERSION, "verbs": verbs}

    def __getitem__(self, name: str) -> Verb:
        return self._verbs[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._verbs)

    def __len__(self) -> int:
        return len(self._verbs)


@functools.cache
def _read(function: Callable[..., Any]) -> tuple[Sequence[inspect.Parameter], Mapping[str, Schema]]:
    """A function's parameters, and its hints as JSON Schema; once: all switches have the same verbs."""
    schemas = {name: schema_of(hint) for name, hint in typing.get_type_hints(function).items()}
    return list(inspect.signature(function).parameters.values()), schemas


def schema_of(hint: Any) -> Schema:
    """A type hint as JSON Schema; {} where it says nothing that JSON knows."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is int:
        return {"type": "integer", "minimum": -(1 << 63), "maximum": (1 << 63) - 1}
    if hint in _PLAIN:
        return {"type": _PLAIN[hint][0]}
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin in (Union, types.UnionType):
        return {"anyOf": [schema_of(one) for one in arguments]}
    if typing.is_typeddict(hint):
        properties = {name: schema_of(one) for name, one in typing.get_type_hints(hint).items()}
        return {"type": "object", "properties": properties, "required": sorted(hint.__required_keys__)}
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return {"type": "object", "additionalProperties": schema_of(arguments[1])}
    if isinstance(origin, type) and issubclass(origin, Sequence) and len(arguments) == 1:
        return {"type": "array", "items": schema_of(arguments[0])}
    return {}


def fits(value: Any, schema: Schema) -> bool:
    """Whether a JSON value is as the schema says; it knows what schema_of() makes."""
    if "enum" in schema:
        return any(value == one and type(value) is type(one) for one in schema["enum"])
    if "anyOf" in schema:
        return any(fits(value, one) for one in schema["anyOf"])
    kind = schema.get("type")
    if kind is None:
        return True
    if isinstance(value, bool) or kind == "boolean":
        return isinstance(value, bool) and kind == "boolean"
    if kind == "number":
        return isinstance(value, (int, float)) and abs(value) <= sys.float_info.max
    if kind == "integer":
        least, most = schema.get("minimum", -math.inf), schema.get("maximum", math.inf)
        return isinstance(value, int) and least <= value <= most
    if not isinstance(value, _CLASS[kind]):
        return False
    if kind == "array":
        return all(fits(one, schema.get("items", {})) for one in value)
    if kind == "object":
        named, others = schema.get("properties", {}), schema.get("additionalProperties", {})
        return all(name in value for name in schema.get("required", ())) and all(
            fits(one, named.get(name, others)) for name, one in value.items()
        )
    return True


def spoken(schema: Schema) -> str:
    """A schema in words, for errors."""
    if "enum" in schema:
        return " or ".join(map(str, schema["enum"]))
    if "anyOf" in schema:
        return " or ".join(spoken(one) for one in schema["anyOf"])
    kind = schema.get("type")
    if kind == "array" and schema.get("items"):
        return f"a list, each {spoken(schema['items'])}"
    if kind == "object" and schema.get("properties"):
        return f"an object of {', '.join(schema['properties'])}"
    if kind == "object" and schema.get("additionalProperties"):
        return f"an object, each value {spoken(schema['additionalProperties'])}"
    return "anything" if kind is None else _SPOKEN[kind]


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
