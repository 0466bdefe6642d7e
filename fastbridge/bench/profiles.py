"""Profiles: what is measured, and for how long.

Shorter trials than the RFCs' say less about rare events and more about the same machine in the same minute; the
results carry every length, and a report says which profile it is of.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from .methods import Method
from .methods.forwarding_rate import ForwardingRate
from .methods.latency import LatencyAtLoad
from .methods.tcp_bulk import TcpBulk
from .offer import IMIX, SIZES


@dataclass(frozen=True)
class Task:
    """A method to run on every engine, `blocks` times."""

    method: Method
    blocks: int = 1  #: two or more give a ratio with an interval
    ceiling: bool = False  #: on the direct veth pair as well
    seconds: float = 1.0  #: a run takes, roughly: for the time left, until the first one has been timed

    @property
    def name(self) -> str:
        """The method and its subject: "forwarding rate, 64 B"."""
        return f"{self.method.name.replace('-', ' ')}, {self.method.subject}"


@dataclass(frozen=True)
class Profile:
    """Tasks under a name."""

    name: str
    tasks: tuple[Task, ...]


# Ten blocks are the fewest an interval is worth quoting from. Trials are shorter than the usual 1-2 s, so that all
# end within two minutes; TCP's are the longest, because a stream's rate wanders more than that of frames.
QUICK = Profile(
    "quick",
    (
        Task(ForwardingRate((64,), seconds=0.3), 10, ceiling=True, seconds=0.6),
        Task(ForwardingRate((1518,), seconds=0.3), 10, ceiling=True, seconds=0.6),
        Task(TcpBulk(seconds=0.4), 10, ceiling=True, seconds=0.7),
        Task(LatencyAtLoad(1_000.0, seconds=0.5), 2, ceiling=True, seconds=0.9),
        Task(LatencyAtLoad(100_000.0, seconds=0.3), 2, ceiling=True, seconds=0.7),
    ),
)
PROFILES: Mapping[str, Profile] = MappingProxyType({profile.name: profile for profile in (QUICK,)})
