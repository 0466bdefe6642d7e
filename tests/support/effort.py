"""How much of a test runs by default. CI runs all of it, and so does pytest with any other `-m`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

whole = False  #: set by conftest.py before any test is read


def examples(number: int) -> int:
    """How many examples hypothesis tries: a quarter by default."""
    return number if whole else max(10, number // 4)


def few(number: int, values: Iterable[Any]) -> list[Any]:
    """Values of one parameter, of which those after the first ones are slow."""
    return few_rows(number, ((value,) for value in values))


def few_rows(number: int, rows: Iterable[tuple[Any, ...]]) -> list[Any]:
    """Rows of several parameters, of which those after the first ones are slow."""
    return [pytest.param(*row, marks=[pytest.mark.slow] if n >= number else []) for n, row in enumerate(rows)]
