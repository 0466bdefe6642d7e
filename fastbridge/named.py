"""Sequences of things with names.

`"pod1" in lab.ports` asks for a name. A plain list would compare the text with objects, and always say no.
"""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

from .errors import ConfigError


class HasName(Protocol):
    """Something that has a name, such as a port or a pod."""

    @property
    def name(self) -> str:
        """What people call it."""
        ...


T = TypeVar("T", bound=HasName)


class NamedList(list[T]):
    """A list in which `in` also takes a name."""

    def __contains__(self, item: object) -> bool:
        return any(each.name == item for each in self) if isinstance(item, str) else super().__contains__(item)


class NamedTuple(tuple[T, ...]):
    """A tuple in which `in` also takes a name."""

    __slots__ = ()

    def __contains__(self, item: object) -> bool:
        return any(each.name == item for each in self) if isinstance(item, str) else super().__contains__(item)


def refuse_text(value: Any, what: str) -> None:
    """Raise ConfigError for a text where a list of names belongs: each letter would be taken for a name."""
    if isinstance(value, str | bytes):
        raise ConfigError(f"{what} must be a list of names, not the text {value!r}; write [{value!r}]")
