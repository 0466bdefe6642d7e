"""Port rules, plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from fastbridge.errors import ConfigError

if TYPE_CHECKING:
    from fastbridge.links.link import Link
    from fastbridge.policy.base import Policy


@dataclass(frozen=True, slots=True)
class PortFlags:
    """What a port may do, by the Linux bridge's flags (bridge(8), `bridge link set`)."""

    learning: bool = True  #: sources heard on it go into the FDB
    broadcast_flood: bool = True  #: broadcast is flooded to it
    multicast_flood: bool = True  #: multicast is flooded to it
    unicast_flood: bool = True  #: unicast with an unknown destination is flooded to it
    isolated: bool = False  #: it exchanges no frames with other isolated ports
    hairpin: bool = False  #: a frame may leave by the port it came in
    locked: bool = False  #: only sources the FDB already has behind it may send
    #: consecutive frames of one flow leave by it as one GSO frame (no such thing in a bridge: see Switch, coalesce)
    coalesce: bool = False

    @property
    def names(self) -> list[str]:
        """The flags that are set."""
        return [name for name, on in asdict(self).items() if on]


@dataclass(frozen=True, slots=True)
class StormControl:
    """How many frames a second a port may have flooded, by kind. None means no limit.

    A quarter of a second's frames may come at once. The rest is dropped as storm_broadcast, storm_multicast or
    storm_unknown_unicast. Raises ConfigError.
    """

    broadcast: float | None = None
    multicast: float | None = None
    unknown_unicast: float | None = None

    def __post_init__(self) -> None:
        for name, rate in asdict(self).items():
            if rate is not None and not 0 < rate <= 1e9:
                raise ConfigError(f"storm control: {name} must be more than 0 frames a second, or none, not {rate}")

    @property
    def rates(self) -> dict[str, tuple[float, float]]:
        """As the core has them: (rate, burst) by kind, a rate of 0 for no limit."""
        return {kind: (rate or 0.0, max(1.0, (rate or 0.0) / 4)) for kind, rate in asdict(self).items()}


@dataclass(frozen=True, slots=True)
class PortSettings:
    """What a port has from its first frame on; None: what all ports have."""

    policy: Policy | None = None
    flags: Mapping[str, bool] = field(default_factory=dict)
    storm_control: StormControl | None = None
    link: Link | None = None  #: unless it has had another one before


DEFAULT_SETTINGS = PortSettings()
