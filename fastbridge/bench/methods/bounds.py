"""Bounds of parameters.

A results file or a caller can ask for anything. Parameters that make no sense are refused before the first trial.
"""

from __future__ import annotations

import math
from typing import Any

from fastbridge.errors import BenchError


def positive(method: Any, *names: str) -> None:
    """Raise BenchError unless these parameters of a method are finite and greater than 0, or None."""
    for name in names:
        value = getattr(method, name)
        if value is not None and not (_is_number(value) and value > 0):
            raise BenchError(f"{method.name}: {name} is {value!r}, and must be greater than 0")


def at_least(method: Any, **lowest: int) -> None:
    """Raise BenchError unless these parameters of a method are finite and at least so large."""
    for name, least in lowest.items():
        value = getattr(method, name)
        if not (_is_number(value) and value >= least):
            raise BenchError(f"{method.name}: {name} is {value!r}, and must be {least} or more")


def whole(method: Any, **lowest: int) -> None:
    """Raise BenchError unless these parameters are whole numbers and at least so large."""
    for name in lowest:
        value = getattr(method, name)
        if not isinstance(value, int) or isinstance(value, bool):
            raise BenchError(f"{method.name}: {name} is {value!r}, and must be a whole number")
    at_least(method, **lowest)


def search_parameters(method: Any) -> None:
    """Raise BenchError unless its `seconds`, `duration_sum` and `width` are fit for a search for throughput."""
    positive(method, "seconds", "duration_sum", "width")
    if method.width >= 1:
        raise BenchError(f"{method.name}: width is {method.width!r}, and must be less than 1")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
