"""Values, read by types.

What a parser found becomes what a dataclass says: bool, int, float, str, Literal, list, dict, other dataclasses, and
unions of these. The same types give the JSON Schema. A word in Annotated describes a key.
"""

from __future__ import annotations

import types
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from fastbridge.toml_text import Path as Key
from fastbridge.toml_text import write as write_toml


class WrongError(Exception):
    """A value does not have the type that its key wants."""

    def __init__(self, path: Key, text: str) -> None:
        super().__init__(text)
        self.path = path


_NAMES: dict[object, str] = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
_SCHEMAS: dict[object, dict[str, Any]] = {
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": "number"},
    str: {"type": "string"},
}


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


@cache
def _sayings(kind: type) -> dict[str, str]:
    """What its keys mean."""
    annotated = get_type_hints(kind, include_extras=True)
    return {key: hint.__metadata__[0] for key, hint in annotated.items() if get_origin(hint) is Annotated}


def _choices(kind: Any) -> list[Any]:
    """What a union allows, but None: TOML has no such value."""
    of = get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)
    return [one for one in of if one is not types.NoneType]


def read(kind: Any, value: object, path: Key = ()) -> Any:
    """A value as this type has it. Raises WrongError."""
    choices = _choices(kind)
    if value is None and types.NoneType in get_args(kind):  # in JSON
        return None
    for one in choices:
        origin, inner = get_origin(one), get_args(one)
        if is_dataclass(one) and isinstance(value, dict):
            return _read_table(one, value, path)
        if origin is list and isinstance(value, list):
            if inner[0] in _NAMES and all(type(item) is inner[0] for item in value):
                return value  # many are read so in a moment
            return [read(inner[0], item, (*path, place)) for place, item in enumerate(value)]
        if origin is dict and isinstance(value, dict):
            _refuse_other_keys(value, path)
            return {key: read(inner[1], item, (*path, key)) for key, item in value.items()}
        if origin is Literal and value in inner:
            return value
        if type(value) is one:
            return value
        if one is float and type(value) is int:
            return float(value)
    raise WrongError(path, f"{_dotted(path)} is {' or '.join(map(_name, choices))}, not {_shown(value)}")


def _read_table(kind: Any, table: dict[str, Any], path: Key) -> Any:
    hints = _hints(kind)
    _refuse_other_keys(table, path)
    for key in table:
        if key not in hints:
            there = ", ".join(hints)
            raise WrongError((*path, key), f"there is no key {_dotted((*path, key))}; there are: {there}")
    for one in fields(kind):
        if _is_required(one) and one.name not in table:
            raise WrongError(path, f"{_dotted(path)} has no {one.name}; add it")
    return kind(**{key: read(hints[key], value, (*path, key)) for key, value in table.items()})


def _refuse_other_keys(table: dict[Any, Any], path: Key) -> None:
    """A dict of Python's may have keys that no file can have."""
    for key in table:
        if not isinstance(key, str):
            raise WrongError(path, f"{_dotted(path)} has the key {key!r}; a key is text")


def _is_required(key: Field[Any]) -> bool:
    return key.default is MISSING and key.default_factory is MISSING


def _name(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return " or ".join(f'"{word}"' for word in get_args(kind))
    if get_origin(kind) is list:
        inner = get_args(kind)[0]
        return "an array of tables" if is_dataclass(inner) else f"an array, each {_name(inner)}"
    return _NAMES.get(kind, "a table")


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "an array"
    return write_toml({"x": value}).removeprefix("x = ").strip() if type(value) in _NAMES else str(value)


def _dotted(path: Key) -> str:
    return ".".join(str(part) for part in path if isinstance(part, str)) or "the file"


def schema(kind: Any) -> dict[str, Any]:
    """The JSON Schema of values of this type."""
    choices = _choices(kind)
    if len(choices) > 1:
        return {"anyOf": [schema(one) for one in choices]}
    (one,) = choices
    if get_origin(one) is Literal:
        return {"enum": list(get_args(one))}
    if get_origin(one) is list:
        return {"type": "array", "items": schema(get_args(one)[0])}
    if get_origin(one) is dict:
        return {"type": "object", "additionalProperties": schema(get_args(one)[1])}
    if one in _SCHEMAS:
        return dict(_SCHEMAS[one])
    properties, required = {}, []
    for key in fields(one):
        described = schema(_hints(one)[key.name])
        if says := _sayings(one).get(key.name):
            described["description"] = says
        if _is_required(key):
            required.append(key.name)
        elif key.default not in (None, MISSING):
            described["default"] = key.default
        properties[key.name] = described
    found: dict[str, Any] = {"type": "object", "properties": properties, "additionalProperties": False}
    return found | ({"required": required} if required else {})
