"""JSON into dataclasses, strictly.

The fields' own annotations are the schema. Whatever does not fit ends as one BenchError that names
the field by its path (`trials[3].offered`), so that a broken file can be mended by hand.
"""

from __future__ import annotations

import math
import types
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from fastbridge.errors import BenchError, ConfigError

T = TypeVar("T")

_WORDS: dict[type, str] = {
    int: "a whole number",
    float: "a number",
    str: "text",
    bool: "true or false",
    type(None): "null",
}


def decode(kind: type[T], value: Any, path: str = "") -> T:
    """Return `value`, as json.loads() gave it, as a `kind`; raise BenchError naming the field."""
    decoded: T = _any(kind, value, path)
    return decoded


def _any(kind: Any, value: Any, path: str) -> Any:
    origin = get_origin(kind)
    if kind is Any:
        return value
    if is_dataclass(kind):
        return _dataclass(kind, value, path)
    if origin is Literal:
        _require(value in get_args(kind), path, f"one of {', '.join(map(repr, get_args(kind)))}", value)
        return value
    if origin in (Union, types.UnionType):
        return _union(get_args(kind), value, path)
    if origin is tuple:
        return _sequence(get_args(kind)[0], value, path)
    if origin is not None and issubclass(origin, Mapping):
        return _mapping(get_args(kind)[1], value, path)
    return _scalar(kind, value, path)


def _dataclass(kind: Any, value: Any, path: str) -> Any:
    _require(isinstance(value, dict), path, "an object", value)
    hints = get_type_hints(kind)
    names = {field.name for field in fields(kind)}
    unknown = value.keys() - names
    if unknown:
        raise BenchError(f"{_join(path, min(unknown))}: no such field")
    required = (f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING)
    missing = [name for name in required if name not in value]
    if missing:
        raise BenchError(f"{_join(path, missing[0])}: the field is missing")
    make: Callable[..., Any] = kind
    arguments = {name: _any(hints[name], item, _join(path, name)) for name, item in value.items()}
    try:
        return make(**arguments)
    except ConfigError as error:
        raise BenchError(f"{path or 'results'}: {error}") from None


def _union(kinds: tuple[Any, ...], value: Any, path: str) -> Any:
    # Only "X | None" occurs.
    (kind,) = (k for k in kinds if k is not type(None))
    return None if value is None else _any(kind, value, path)


def _sequence(kind: Any, value: Any, path: str) -> tuple[Any, ...]:
    _require(isinstance(value, list), path, "a list", value)
    return tuple(_any(kind, item, f"{path}[{i}]") for i, item in enumerate(value))


def _mapping(kind: Any, value: Any, path: str) -> dict[str, Any]:
    _require(isinstance(value, dict), path, "an object", value)
    return {key: _any(kind, item, _join(path, key)) for key, item in value.items()}


def _scalar(kind: type, value: Any, path: str) -> Any:
    fits = isinstance(value, (int, float)) if kind is float else isinstance(value, kind)
    _require(fits and (kind is bool or not isinstance(value, bool)), path, _WORDS[kind], value)
    _require(kind is not float or math.isfinite(value), path, _WORDS[kind], value)
    return float(value) if kind is float else value


def _require(fits: bool, path: str, wanted: str, value: Any) -> None:
    if not fits:
        shown = repr(value)
        raise BenchError(f"{path or 'results'}: {wanted} is needed, not {shown[:40]}{'…' if len(shown) > 40 else ''}")


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
