"""JSON and dataclasses.

The fields' annotations are the schema, and `shape_of` is the one walk over them. A shape reads a JSON value strictly,
and describes itself as JSON Schema. A value that does not fit raises one BenchError with the path of the field
(`trials[3].offered`): a broken file can be mended by hand.
"""

from __future__ import annotations

import inspect
import re
import sys
import types
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import cache
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from fastbridge.errors import BenchError, ConfigError

T = TypeVar("T")
Schema = dict[str, Any]

_COMMENT = re.compile(r"^    (\w+): .*?#: (.*)$", re.MULTILINE)
_LONGEST = 40  # characters of a value in an error


def decode(kind: type[T], value: Any, path: str = "") -> T:
    """Return `value`, as json.loads() gave it, as a `kind`; raise BenchError naming the field."""
    annotation: Any = kind
    decoded: T = shape_of(annotation).read(value, path)
    return decoded


class Shape(ABC):
    """What a JSON value must look like."""

    @abstractmethod
    def read(self, value: Any, path: str) -> Any:
        """Return the value as Python has it, or raise BenchError."""

    @abstractmethod
    def schema(self, definitions: dict[str, Schema]) -> Schema:
        """Return its JSON Schema; `definitions` takes those of the dataclasses in it."""


@cache
def shape_of(kind: Any) -> Shape:
    """The shape that an annotation asks for."""
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        return _Anything()
    if is_dataclass(kind):
        return _Record(kind)
    if origin is Literal:
        return _Choice(arguments)
    if origin in (Union, types.UnionType):
        (other,) = (each for each in arguments if each is not type(None))  # only "X | None" occurs
        return _Optional(shape_of(other))
    if origin is tuple:
        return _List(shape_of(arguments[0]))
    if origin is not None and issubclass(origin, Mapping):
        return _Map(shape_of(arguments[1]))
    return _SCALARS[kind]


class _Anything(Shape):
    def read(self, value: Any, path: str) -> Any:
        return value

    def schema(self, definitions: dict[str, Schema]) -> Schema:
        return {}


@dataclass(frozen=True)
class _Scalar(Shape):
    kind: type
    name: str
    words: str

    def read(self, value: Any, path: str) -> Any:
        _require(type(value) is self.kind, path, self.words, value)
        return value

    def schema(self, definitions: dict[str, Schema]) -> Schema:
        return {"type": self.name}


class _Number(_Scalar):
    def read(self, value: Any, path: str) -> float:
        # A whole number may have more digits than a float has room for.
        _require(type(value) in (int, float) and abs(value) <= sys.float_info.max, path, self.words, value)
        return float(value)


_SCALARS: Mapping[type, Shape] = {
    int: _Scalar(int, "integer", "a whole number"),
    float: _Number(float, "number", "a number"),
    str: _Scalar(str, "string", "text"),
    bool: _Scalar(bool, "boolean", "true or false"),
}


@dataclass(frozen=True)
class _Choice(Shape):
    values: tuple[Any, ...]

    def read(self, value: Any, path: str) -> Any:
        _require(value in self.values, path, f"one of {', '.join(map(repr, self.values))}", value)
        return value

    def schema(self, definitions: dict[str, Schema]) -> Schema:
        return {"enum": list(self.values)}


@dataclass(frozen=True)
class _Optional(Shape):
    other: Shape

    def read(self, value: Any, path: str) -> Any:
        return None if value is None else self.other.read(value, path)

    def schema(self, definitions: dict[str, Schema]) -> Schema:
        return {"anyOf": [self.other.schema(definitions), {"type": "null"}]}


@dataclass(frozen=True)
class _List(Shape):
    item: Shape

    def read(self, value: Any, path: str) -> Any:
        _require(isinstance(value, list), path, "a list", value)
        return tuple(self.item.read(item, f"{path}[{i}]") for i, item in enumerate(value))

    def schema(self, definitions: dict[str, Schema]) -> Schema:
        return {"type": "array", "items": self.item.schema(definitions)}


@dataclass(frozen=True)
class _Map(Shape):
    item: Shape

    def read(self, value: Any, path: str) -> Any:
        _require(isinstance(value, dict), path, "an object", value)
        return {key: self.item.read(item, _join(path, key)) for key, item in value.items()}

    def schema(self, definitions: dict[str, Schema]) -> Schema:
        return {"type": "object", "additionalProperties": self.item.schema(definitions)}


class _Record(Shape):
    """A dataclass."""

    def __init__(self, kind: Any) -> None:
        hints = get_type_hints(kind)
        self._make: Callable[..., Any] = kind
        self._kind = kind
        self._fields = {field.name: shape_of(hints[field.name]) for field in fields(kind)}
        self._required = [f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING]

    def read(self, value: Any, path: str) -> Any:
        _require(isinstance(value, dict), path, "an object", value)
        if unknown := value.keys() - self._fields.keys():
            raise BenchError(f"{_join(path, min(unknown))}: no such field")
        for name in self._required:
            if name not in value:
                raise BenchError(f"{_join(path, name)}: the field is missing")
        arguments = {name: self._fields[name].read(item, _join(path, name)) for name, item in value.items()}
        try:
            return self._make(**arguments)
        except ConfigError as error:
            raise BenchError(f"{path or 'results'}: {error}") from None

    def schema(self, definitions: dict[str, Schema]) -> Schema:
        name = self._kind.__name__
        if name not in definitions:
            comments = dict(_COMMENT.findall(inspect.getsource(self._kind)))
            definitions[name] = {
                "type": "object",
                "description": inspect.cleandoc(self._kind.__doc__ or "").partition("\n")[0],
                "properties": {
                    field: shape.schema(definitions) | ({"description": comments[field]} if field in comments else {})
                    for field, shape in self._fields.items()
                },
                "required": self._required,
                "additionalProperties": False,
            }
        return {"$ref": f"#/$defs/{name}"}


def _require(fits: bool, path: str, wanted: str, value: Any) -> None:
    if not fits:
        shown = repr(value)
        shown = shown[:_LONGEST] + ("…" if len(shown) > _LONGEST else "")
        raise BenchError(f"{path or 'results'}: {wanted} is needed, not {shown}")


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
