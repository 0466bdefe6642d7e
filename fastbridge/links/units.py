"""Numbers with units, as tc writes them; and back.

A number of Python is in base units: seconds, bit/s, a probability. Text has a unit, but for rates (bit/s) and zero. For
a bare number of text there is no safe guess: tc reads 20 as microseconds, Mininet and others as milliseconds.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import NamedTuple

from fastbridge.errors import ConfigError

from .stages import MOST_RATE, MOST_TIME

Number = str | int | float

_TEXT = re.compile(r"([+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?)\s*([a-zA-Z%/]*)")
_NANOSECONDS = {
    **dict.fromkeys(("s", "sec", "secs"), Decimal(10**9)),
    **dict.fromkeys(("ms", "msec", "msecs"), Decimal(10**6)),
    **dict.fromkeys(("us", "usec", "usecs"), Decimal(10**3)),
    **dict.fromkeys(("ns", "nsec", "nsecs"), Decimal(1)),
}
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_BITS_PER_SECOND = {
    "": Decimal(1),
    **{f"{letter}bit": Decimal(1000**power) for letter, power in _POWERS.items()},
    **{f"{letter}ibit": Decimal(1024**power) for letter, power in _POWERS.items() if letter},
    **{f"{letter}bps": Decimal(8 * 1000**power) for letter, power in _POWERS.items()},
    **{f"{letter}ibps": Decimal(8 * 1024**power) for letter, power in _POWERS.items() if letter},
}
_BYTES = {
    "b": Decimal(1),
    **{letter: Decimal(1024**power) for letter, power in _POWERS.items() if letter},
    **{f"{letter}b": Decimal(1024**power) for letter, power in _POWERS.items() if letter},
    **{f"{letter}bit": Decimal(1024**power) / 8 for letter, power in _POWERS.items()},
}
_PERCENT = {"%": Decimal(1) / 100}
_FRAMES = {"p": Decimal(1)}
_MOST_LIMIT = (1 << 63) - 1  # bytes, ns or frames, as `Stages` takes them


class Limit(NamedTuple):
    """How much the queue before a rate holds. One of the three is not 0."""

    bytes: int = 0
    ns: int = 0
    frames: int = 0


def read_time(word: str, value: Number) -> int:
    """Nanoseconds. A number is in seconds. Raises ConfigError, as all below."""
    allowed = "a time such as 20ms, 100us or 1.5s"
    exact = _read(word, value, _NANOSECONDS, allowed, Decimal(10**9))
    ns = round(exact)
    if exact and not ns:
        raise ConfigError(f"{word} {value!r} is shorter than 1ns")
    if ns > MOST_TIME:
        raise ConfigError(f"{word} {value!r} is too long: at most {show_time(MOST_TIME)}")
    return ns


def show_time(ns: int) -> str:
    """The time as text, exactly."""
    for unit, size in (("s", 10**9), ("ms", 10**6), ("us", 10**3)):
        if ns >= size:
            return f"{_plain(Decimal(ns) / size)}{unit}"
    return f"{ns}ns" if ns else "0"


def read_probability(word: str, value: Number) -> float:
    """0 … 1. A number is a probability below 1."""
    allowed = "a share such as 1% or 0.05%"
    if type(value) in (int, float) and float(value) >= 1:
        raise ConfigError(
            f"{word} {value!r} as a number is a probability, and below 1; for percent write a text: {word}={value}%"
        )
    share = _read(word, value, _PERCENT, allowed, Decimal(1))
    if share > 1:
        raise ConfigError(f"{word} {value!r} is more than all frames: at most 100%")
    return float(share)


def show_probability(share: float) -> str:
    """The probability as text, exactly."""
    return f"{_plain(Decimal(repr(share)) * 100)}%" if share else "0"


def read_rate(word: str, value: Number) -> int:
    """Bits per second. A bare number is in bit/s, too."""
    allowed = "a rate such as 10mbit, 1.5gbit or, in bytes a second as tc has it, 100kbps"
    exact = _read(word, value, _BITS_PER_SECOND, allowed, Decimal(1))
    rate = round(exact)
    if rate > MOST_RATE:
        raise ConfigError(f"{word} {value!r} is too much: at most {show_rate(MOST_RATE)}")
    if exact and not rate:
        raise ConfigError(f"{word} {value!r} is less than 1bit, a bit a second")
    return rate


def show_rate(rate: int) -> str:
    """The rate as text, exactly."""
    for letter in "tgmk":
        size = 1000 ** _POWERS[letter]
        if rate >= size:
            return f"{_plain(Decimal(rate) / size)}{letter}bit"
    return f"{rate}bit" if rate else "0"


def read_limit(word: str, value: Number) -> Limit:
    """How much a queue holds: bytes ("100kB", 1024 each, as tc has it), time ("50ms") or frames ("100p")."""
    allowed = "a size (100kB), a time (50ms) or a number of frames (100p)"
    units = {**_BYTES, **_NANOSECONDS, **_FRAMES}
    match = _TEXT.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None or match[2].lower() not in units:
        hint = "; tc's netem counts frames, 100p" if match is not None and not match[2] else ""
        raise ConfigError(f"{word} must be {allowed}, not {value!r}{hint}")
    unit = match[2].lower()
    number = round(_read(word, value, units, allowed, None))
    if number > _MOST_LIMIT:
        raise ConfigError(f"{word} {value!r} is more than any queue holds; it must be {allowed}")
    if not number:
        raise ConfigError(f"{word} {value!r} holds no frame; it must be {allowed}")
    return Limit(frames=number) if unit in _FRAMES else Limit(ns=number) if unit in _NANOSECONDS else Limit(number)


def show_limit(limit: Limit) -> str:
    """The limit as text, exactly."""
    if limit.frames:
        return f"{limit.frames}p"
    if limit.ns:
        return show_time(limit.ns)
    for letter, unit in (("g", "GB"), ("m", "MB"), ("k", "kB")):
        size = 1024 ** _POWERS[letter]
        if limit.bytes % size == 0:
            return f"{limit.bytes // size}{unit}"
    return f"{limit.bytes}b"


def read_whole(word: str, value: Number, most: int) -> int:
    """A whole number, 0 … most."""
    text = value.strip() if isinstance(value, str) else value
    if isinstance(text, str) and re.fullmatch("[0-9]{1,20}", text):
        text = int(text)
    if not isinstance(text, int) or isinstance(text, bool) or not 0 <= text <= most:
        raise ConfigError(f"{word} must be a whole number, 0 … {most}, not {value!r}")
    return text


def read_switch(word: str, value: Number) -> bool:
    """True or false."""
    known = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
    found = value if isinstance(value, bool) else known.get(str(value).strip().lower())
    if found is None:
        raise ConfigError(f"{word} must be true or false, not {value!r}")
    return found


def _read(word: str, value: Number, units: Mapping[str, Decimal], allowed: str, number_unit: Decimal | None) -> Decimal:
    """A number that is not negative, in base units."""
    if isinstance(value, int | float) and not isinstance(value, bool) and number_unit is not None:
        number, unit = Decimal(str(value)), number_unit
        if not number.is_finite():
            raise ConfigError(f"{word} must be {allowed}, not {value!r}")
    else:
        match = _TEXT.fullmatch(value.strip()) if isinstance(value, str) else None
        if match is None:
            tail = isinstance(value, str) and _TEXT.fullmatch(value.strip().rpartition(" ")[2])
            hint = "; it is one value, and there are no correlations as tc has them" if tail else ""
            raise ConfigError(f"{word} must be {allowed}, not {value!r}{hint}")
        number = Decimal(match[1])
        found = units.get(match[2].lower(), Decimal(1) if not match[2] and not number else None)
        if found is None:
            what = f"the unit {match[2]!r} is not known" if match[2] else "a unit is missing"
            raise ConfigError(f"{word} {value!r}: {what}; it must be {allowed}")
        unit = found
    if number < 0:
        raise ConfigError(f"{word} {value!r} is negative; it must be {allowed}")
    return number * unit


def _plain(number: Decimal) -> str:
    """Without an exponent, and no zeros at the end."""
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
