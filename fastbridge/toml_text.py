"""TOML, with lines.

The standard library's reader gives values, but not where they stand. A short scan of the same text finds the line of
each key, so that an error can name it. And the way back: a table as TOML.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fastbridge.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Path = tuple[str | int, ...]  #: keys and places in arrays, from the document's top

_TOKEN = re.compile(
    r"""
    (?P<space>[ \t\r]+ | \#[^\n]*)
    | (?P<text>"{3}(?:\\.|[^\\])*?"{3,5} | '{3}.*?'{3,5} | "(?:\\.|[^"\\])*" | '[^']*')
    | (?P<mark>[\[\]{}=,.\n])
    | (?P<word>[^\s\[\]{}=,.\#"']+)
    """,
    re.VERBOSE | re.DOTALL,
)
_WHOLE = 1e15  # below, a whole number is written without a point
_BARE = re.compile(r"[A-Za-z0-9_-]+")


class Document:
    """The values of a TOML text, and the line of each key."""

    def __init__(self, text: str, source: str) -> None:
        """source: what errors call it. Raises ConfigError: it is not TOML."""
        self.source = source
        try:
            self.table = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            what, _, where = str(error).rpartition(" (at ")
            line = re.search(r"line (\d+)", where)
            number = int(line.group(1)) if line else text.count("\n") + 1
            raise ConfigError(f"{source}:{number}: this is not TOML: {what[:1].lower()}{what[1:]}") from None
        self._lines = _Scan(text).lines

    def where(self, path: Path) -> str:
        """SOURCE:LINE of a key or element; of what it is in, where it does not stand in the text."""
        while path and path not in self._lines:
            path = path[:-1]
        return f"{self.source}:{self._lines.get(path, 1)}"


class _Scan:
    """Walks over a text that is TOML, and notes in `lines` where each key and element begins."""

    def __init__(self, text: str) -> None:
        self.lines: dict[Path, int] = {}
        self._sizes: dict[Path, int] = {}  # of arrays of tables
        self._tokens = list(_tokens(text))
        self._at = 0
        table: Path = ()
        while self._skip_lines():
            line = self._line
            if self._next() == "[":
                many = self._peek() == "["
                if many:
                    self._next()
                table = self._inside(self._key("]"), many)
                if many:
                    self._next()
                for length in range(1, len(table) + 1):
                    self.lines.setdefault(table[:length], line)
            else:
                self._at -= 1
                self._pair(table)

    @property
    def _line(self) -> int:
        return self._tokens[self._at][1]

    def _peek(self) -> str:
        return self._tokens[self._at][0] if self._at < len(self._tokens) else ""

    def _next(self) -> str:
        self._at += 1
        return self._tokens[self._at - 1][0]

    def _skip_lines(self) -> bool:
        """Whether more follows after the ends of lines."""
        while self._peek() == "\n":
            self._at += 1
        return self._at < len(self._tokens)

    def _key(self, end: str) -> list[str]:
        """The parts of a key, and past the mark that ends it."""
        parts = []
        while (part := self._next()) != end:
            if part[0] in "\"'":
                parts.append(tomllib.loads(f"key = {part}")["key"])
            elif part != ".":
                parts.append(part)
        return parts

    def _inside(self, parts: Sequence[str], many: bool) -> Path:
        """The path that a header names: in arrays of tables the last one; `many`: a new one of these."""
        path: Path = ()
        for place, part in enumerate(parts):
            path += (part,)
            if many and place == len(parts) - 1:
                self._sizes[path] = self._sizes.get(path, 0) + 1
            if path in self._sizes:
                path += (self._sizes[path] - 1,)
        return path

    def _pair(self, table: Path) -> None:
        line = self._line
        path = table
        for part in self._key("="):
            path += (part,)
            self.lines.setdefault(path, line)
        self._value(path)

    def _value(self, path: Path) -> None:
        if self._peek() not in ("[", "{"):
            while self._peek() not in ("", "\n", ",", "]", "}"):
                self._at += 1
            return
        end = "]" if self._next() == "[" else "}"
        element = 0
        while self._skip_lines() and self._peek() != end:
            if self._peek() == ",":
                self._at += 1
            elif end == "}":
                self._pair(path)
            else:
                self.lines[(*path, element)] = self._line
                self._value((*path, element))
                element += 1
        self._at += 1


def _tokens(text: str) -> Iterator[tuple[str, int]]:
    """The tokens that matter, each with its line."""
    line = 1
    for found in _TOKEN.finditer(text):
        if found.lastgroup != "space":
            yield found.group(), line
        line += found.group().count("\n")


def write(table: Mapping[str, Any]) -> str:
    """A table as TOML: values, tables of tables, and arrays of tables, each a section. None is left out.

    Raises ConfigError: it has text that is not Unicode.
    """
    values, sections = [], []
    for key, value in table.items():
        if value is None:
            continue
        if isinstance(value, Mapping) and value and all(isinstance(inner, Mapping) for inner in value.values()):
            sections += [_section(f"[{_key(key)}.{_key(name)}]", inner) for name, inner in value.items()]
        elif isinstance(value, list) and value and all(isinstance(inner, Mapping) for inner in value):
            sections += [_section(f"[[{_key(key)}]]", inner) for inner in value]
        else:
            values.append(f"{_key(key)} = {_value(value)}\n")
    return "\n".join(["".join(values), *sections] if values else sections)


def _section(header: str, table: Mapping[str, Any]) -> str:
    lines = [f"{_key(key)} = {_value(value)}" for key, value in table.items() if value is not None]
    return "\n".join([header, *lines, ""])


def _key(key: str) -> str:
    return key if _BARE.fullmatch(key) else _text(key)


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, Mapping):
        inner = [f"{_key(key)} = {_value(item)}" for key, item in value.items() if item is not None]
        return f"{{ {', '.join(inner)} }}" if inner else "{}"
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, float) and value.is_integer() and abs(value) < _WHOLE:
        return str(int(value))
    return repr(value)


def _text(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ConfigError(f"{text!r} is not Unicode, which TOML needs; rename it") from None
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
