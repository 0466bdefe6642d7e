"""The results' schema, written down.

A JSON Schema (draft 2020-12) made from the dataclasses that read and write results, their `#:` comments as
descriptions: it cannot say anything else than the code does.
"""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from .results import SCHEMA, Results

_SCALARS: dict[Any, dict[str, Any]] = {
    int: {"type": "integer"},
    float: {"type": "number"},
    str: {"type": "string"},
    bool: {"type": "boolean"},
    type(None): {"type": "null"},
    Any: {},
}
_COMMENT = re.compile(r"^    (\w+): .*?#: (.*)$", re.MULTILINE)


def results_schema() -> dict[str, Any]:
    """The JSON Schema of a results file of this version."""
    definitions: dict[str, Any] = {}
    root = _any(Results, definitions)
    definitions["Results"]["properties"]["schema"] = {"const": SCHEMA}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"fastbridge results, version {SCHEMA}",
        **root,
        "$defs": definitions,
    }


def _any(kind: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    origin, arguments = get_origin(kind), get_args(kind)
    if is_dataclass(kind):
        return _reference(kind, definitions)
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin in (Union, types.UnionType):
        return {"anyOf": [_any(each, definitions) for each in arguments]}
    if origin is tuple:
        return {"type": "array", "items": _any(arguments[0], definitions)}
    if origin is not None and issubclass(origin, Mapping):
        return {"type": "object", "additionalProperties": _any(arguments[1], definitions)}
    return dict(_SCALARS[kind])


def _reference(kind: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    if kind.__name__ not in definitions:
        definitions[kind.__name__] = {}  # it may refer to itself
        definitions[kind.__name__] = _object(kind, definitions)
    return {"$ref": f"#/$defs/{kind.__name__}"}


def _object(kind: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    hints, comments = get_type_hints(kind), dict(_COMMENT.findall(inspect.getsource(kind)))
    properties = {}
    for field in fields(kind):
        properties[field.name] = _any(hints[field.name], definitions)
        if field.name in comments:
            properties[field.name]["description"] = comments[field.name]
    required = [f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING]
    return {
        "type": "object",
        "description": inspect.cleandoc(kind.__doc__ or "").partition("\n")[0],
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }
