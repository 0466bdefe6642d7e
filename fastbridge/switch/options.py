"""The options of a switch: each has its name, its default and its check here. `Switch` says what they mean.

`run` reads its defaults here before it imports the switch, so this imports nothing heavy.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypedDict

from fastbridge.errors import ConfigError
from fastbridge.named import refuse_text

if TYPE_CHECKING:
    from fastbridge.policy.base import Policy

    from .port_flags import PortSettings

FAST_PATHS = ("auto", "nft", "bpf", "off")
_MOST_AGEING, _MOST_CAPACITY, _MOST_SECONDS = (1 << 21) - 1, 1 << 24, 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options that every switch has. Raises ConfigError."""

    ageing: float | None = 300.0
    capacity: int = 65536
    filter_link_local: bool = False
    policy: Policy | str = "flood"
    move_damping: float = 0.0
    neighbour_ageing: float | None = 60.0

    def __post_init__(self) -> None:
        if self.ageing is not None and not 0 <= self.ageing <= _MOST_AGEING:
            raise ConfigError(f"ageing must be 0 … {_MOST_AGEING} seconds, or None for never, not {self.ageing}")
        if not 1 <= self.capacity <= _MOST_CAPACITY:
            raise ConfigError(f"capacity must be 1 … {_MOST_CAPACITY} FDB entries, not {self.capacity}")
        _check_seconds("move_damping", self.move_damping)

    @property
    def ageing_ms(self) -> int | None:
        """As the core has it."""
        return None if self.ageing is None else round(self.ageing * 1000)


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveOptions(Options):
    """The options of a switch over interfaces. Raises ConfigError."""

    busy_poll: float = 50e-6
    workers: int = 1
    fanout: bool = False
    cpu: int | Sequence[int] | None = None
    real_time: bool = False
    coalesce: bool = True
    trusted: bool = False
    loop_detection: bool = True
    shield: bool = False
    fast_path: str = "auto"
    take_over: bool = False
    match: Sequence[str] | None = None
    settings: Mapping[str, PortSettings] = field(default_factory=dict)
    control: str | bool | None = None

    def __post_init__(self) -> None:
        Options.__post_init__(self)
        self._check_match()
        _check_seconds("busy_poll", self.busy_poll)
        allowed = sorted(os.sched_getaffinity(0))
        if not 1 <= self.workers <= len(allowed):
            raise ConfigError(
                f"workers must be 1 … {len(allowed)}, at most one for each CPU this process may run on, "
                f"not {self.workers}"
            )
        if self.fanout and self.workers == 1:
            raise ConfigError("fanout=True spreads a port over several workers; add workers=2 or more")
        self._check_cpus(allowed)
        if self.fast_path not in FAST_PATHS:
            *names, last = map(repr, FAST_PATHS)
            raise ConfigError(f"fast_path is {', '.join(names)} or {last}, not {self.fast_path!r}")

    def _check_match(self) -> None:
        if self.match is None:
            return
        refuse_text(self.match, "match")
        if "" in self.match:
            raise ConfigError("match: an empty pattern matches no interface; give one such as 'veth*'")
        if self.trusted:
            raise ConfigError("trusted=True needs ports that know their pods' addresses; interfaces that match do not")

    @property
    def cpus(self) -> Sequence[int]:
        """One CPU for each worker, or none."""
        if self.cpu is None:
            return ()
        return [self.cpu] if isinstance(self.cpu, int) else self.cpu

    def _check_cpus(self, allowed: Sequence[int]) -> None:
        if self.cpu is None:
            return
        if len(set(self.cpus)) != self.workers or len(self.cpus) != self.workers:
            named = ", ".join(map(str, self.cpus)) or "none"
            raise ConfigError(f"cpu: one CPU for each worker, {self.workers} in all, not {named}")
        for cpu in self.cpus:
            if cpu not in allowed:
                text = ", ".join(map(str, allowed))
                raise ConfigError(f"CPU {cpu} is not one this process may run on; those are: {text}")


# The same for type checkers, as keywords of `Switch` and `MemorySwitch`; a test holds them together.


class OptionWords(TypedDict, total=False):
    """Keywords of Options."""

    ageing: float | None
    capacity: int
    filter_link_local: bool
    policy: Policy | str
    move_damping: float
    neighbour_ageing: float | None


class LiveOptionWords(OptionWords, total=False):
    """Keywords of LiveOptions."""

    busy_poll: float
    workers: int
    fanout: bool
    cpu: int | Sequence[int] | None
    real_time: bool
    coalesce: bool
    trusted: bool
    loop_detection: bool
    shield: bool
    fast_path: str
    take_over: bool
    match: Sequence[str] | None
    settings: Mapping[str, PortSettings]
    control: str | bool | None


def _check_seconds(name: str, value: float) -> None:
    if not 0 <= value <= _MOST_SECONDS:
        raise ConfigError(f"{name} must be 0 … {_MOST_SECONDS} seconds, not {value}")
