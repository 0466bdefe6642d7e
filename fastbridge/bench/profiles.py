"""Profiles: what is measured, and for how long.

Trials that are shorter than the RFCs' say less about rare events, but more about the same machine in the same minute.
The results have every length, and a report names its profile.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from types import MappingProxyType
from typing import Any

from fastbridge.errors import ConfigError, FastbridgeError

from .methods import Method
from .methods.address_caching import AddressCaching
from .methods.address_learning import AddressLearning
from .methods.back_to_back import BackToBack
from .methods.broadcast import Broadcast
from .methods.congestion import Congestion
from .methods.emulation import Emulation
from .methods.errored_frames import ErroredFrames
from .methods.fdb_scaling import FdbScaling
from .methods.forwarding_rate import ForwardingRate
from .methods.frame_loss import FrameLoss
from .methods.latency import Latency, LatencyAtLoad
from .methods.max_forwarding_rate import MaxForwardingRate
from .methods.mesh import Mesh
from .methods.ping import Ping
from .methods.port_scaling import PortScaling
from .methods.recovery import Recovery
from .methods.registry import METHODS
from .methods.request_response import RequestResponse
from .methods.reset import Reset
from .methods.tcp_bulk import TcpBulk
from .methods.throughput import Throughput
from .tester.offer import IMIX, SIZES
from .wanted_link import WantedLink

FINE = 0.05  #: the noise floor that is fine enough to end at


@dataclass(frozen=True)
class Task:
    """A method to run on every engine, `blocks` times."""

    method: Method
    blocks: int = 1  #: two or more give a ratio with an interval
    ceiling: bool = False  #: on the direct veth pair as well
    seconds: float = 1.0  #: a guess of a run's length, for the time left, until the first one is timed
    most: int = 0  #: blocks, if more than `blocks`: the task goes on until its noise floor is FINE

    @property
    def name(self) -> str:
        """The method and its subject: "forwarding rate, 64 B"."""
        return f"{self.method.name.replace('-', ' ')}, {self.method.subject}"


@dataclass(frozen=True)
class Profile:
    """Tasks under a name."""

    name: str
    tasks: tuple[Task, ...]
    asked: tuple[Task, ...] = ()  #: only where their method is asked for: most engines cannot do them


def _emulation(link: WantedLink, seconds: float, load: float = 1000.0) -> Task:
    return Task(Emulation(link, seconds, load), seconds=seconds + 4)


def _rate(rate: int, seconds: float) -> Task:
    limit = max(round(rate / 8 * _QUEUE_SECONDS), _QUEUE_BYTES)
    return _emulation(WantedLink(rate=rate, limit=limit), seconds)


_QUEUE_SECONDS, _QUEUE_BYTES = 0.05, 60_000  # forty frames: with few, the one that has no room any more decides
_SPREAD = WantedLink(delay=0.02, jitter=0.005, distribution="normal")


# Ten blocks for claims about rates. Latency differs by factors, and so does a switch whose CPU the pods use themselves:
# there five will do. Trials are shorter than the usual 1-2 s, to end within three to five minutes. TCP has the longest
# trials, because a stream's rate wanders more than that of frames. Ten trials of 0.4 s had a noise floor of 7 to 10 %
# on a quiet machine. So they are twice as long, and there are more of them where that does not do: trials differ
# more from each other (22 % on a busy machine) than a trial wanders in itself (4 %).
QUICK = Profile(
    "quick",
    (
        Task(ForwardingRate((64,), seconds=0.3), 10, ceiling=True, seconds=0.6),
        Task(ForwardingRate((1518,), seconds=0.3), 10, ceiling=True, seconds=0.6),
        Task(ForwardingRate((64,), "busy", seconds=0.3), 5, ceiling=True, seconds=0.7),
        Task(TcpBulk(seconds=0.8), 10, ceiling=True, seconds=1.0, most=30),
        Task(RequestResponse(seconds=0.3), 5, ceiling=True, seconds=0.6),
        Task(Ping(bulk=1, seconds=0.4), 5, ceiling=True, seconds=1.0),
        Task(LatencyAtLoad(1_000.0, seconds=0.4), 5, ceiling=True, seconds=0.7),
        Task(LatencyAtLoad(100_000.0, seconds=0.2), 5, ceiling=True, seconds=0.5),
    ),
    asked=(
        _emulation(WantedLink(delay=0.02), 2),
        _emulation(replace(_SPREAD, overtakes=True), 5, 2000),
        _emulation(_SPREAD, 2, 2000),
        _emulation(WantedLink(loss=0.01), 6, 10_000),
        _emulation(WantedLink(loss=0.05, burst=5), 6, 10_000),
        _rate(10_000_000, 3),
        _rate(100_000_000, 3),
    ),
)

# A search's trials are short, and three of them decide about a load. A noisy machine can tell bounds 5 % apart.
_SECONDS, _SUM, _WIDTH = 0.3, 0.9, 0.05
_FOUR = 4  # ports: the fewest of RFC 2889 §5.10, and of §5.5
STANDARD = Profile(
    "standard",
    (
        *(
            Task(ForwardingRate(sizes, seconds=0.5), 10, ceiling=True, seconds=0.9)
            for sizes in ((64,), (512,), (1518,), IMIX)
        ),
        Task(ForwardingRate((64,), "busy", seconds=0.5), 10, ceiling=True, seconds=0.9),
        Task(ForwardingRate((64,), "mesh", seconds=0.5), 10, seconds=0.9),
        *(
            Task(TcpBulk(1.0, connections, pinned), 10, ceiling=True, seconds=1.4, most=30)
            for connections, pinned in ((1, True), (2, True), (8, True), (1, False))
        ),
        *(Task(RequestResponse(connect, 0.5), 10, ceiling=True, seconds=0.9, most=20) for connect in (False, True)),
        *(Task(Ping(bulk=bulk, seconds=1.0), 10, ceiling=True, seconds=1.6) for bulk in (0, 1)),
        *(
            Task(Latency(sizes, "pair", 1.0, 1000.0, _SECONDS, _SUM, _WIDTH), ceiling=True, seconds=14)
            for sizes in ((64,), IMIX)
        ),
        Task(Throughput((1518,), "pair", _SECONDS, _SUM, _WIDTH), seconds=9),
        Task(FrameLoss(seconds=0.4), ceiling=True, seconds=5),
        Task(BackToBack((64,), 5, 0.5, _SECONDS, _SUM, _WIDTH), seconds=14),
        Task(Recovery((64,), 0.5, 1.0, 2, _SECONDS, _SUM, _WIDTH), seconds=12),
        Task(Reset((64,), 3.0, 1, _SECONDS), seconds=9),
        Task(MaxForwardingRate((64,), "pair", _SECONDS, 10), seconds=4),
        *(
            Task(Mesh(_FOUR, pattern, (64,), _SECONDS, _SUM, _WIDTH), seconds=10)
            for pattern in ("mesh", "one-to-many", "many-to-one")
        ),
        Task(Congestion((64,), _SECONDS), seconds=4),
        Task(AddressCaching(70_000, width=0.01), seconds=14),
        Task(AddressLearning(8_000, width=0.05), seconds=5),
        Task(ErroredFrames(), seconds=3),
        Task(Broadcast(_FOUR, (64,), 0.5, _SECONDS, _SUM, _WIDTH), seconds=9),
        Task(FdbScaling((2, 1_000, 10_000, 100_000), seconds=_SECONDS), seconds=9),
        *(Task(PortScaling(ports, seconds=_SECONDS), seconds=2) for ports in (2, 16, 64, 256)),
    ),
    asked=(
        *(_emulation(WantedLink(delay=delay), 10) for delay in (0.0001, 0.001, 0.02, 0.3)),
        *(
            _emulation(WantedLink(delay=0.02, jitter=0.005, distribution=kind, overtakes=True), 5, 2000)
            for kind in ("uniform", "normal")
        ),
        _emulation(_SPREAD, 10, 2000),
        *(_emulation(WantedLink(loss=loss), 50, 20_000) for loss in (0.01, 0.0005)),
        _emulation(WantedLink(loss=0.05, burst=5), 50, 20_000),
        *(_rate(rate, 10) for rate in (1_000_000, 10_000_000, 100_000_000, 1_000_000_000)),
    ),
)

_EVERY = (*((size,) for size in SIZES), IMIX)
_HOUR = 3600.0
RFC2544 = Profile(
    "rfc2544",
    (
        *(Task(ForwardingRate(sizes, seconds=60.0), 10, ceiling=True, seconds=61) for sizes in _EVERY),
        *(Task(TcpBulk(60.0, connections), 10, ceiling=True, seconds=61) for connections in (1, 8)),
        *(Task(RequestResponse(connect, 60.0), 10, ceiling=True, seconds=61) for connect in (False, True)),
        *(Task(Ping(bulk=bulk, seconds=60.0), 10, ceiling=True, seconds=61) for bulk in (0, 1)),
        *(Task(Latency(sizes, seconds=60.0, duration_sum=60.0), ceiling=True, seconds=_HOUR / 2) for sizes in _EVERY),
        *(Task(FrameLoss(sizes), ceiling=True, seconds=600) for sizes in _EVERY),
        *(Task(BackToBack(sizes), seconds=_HOUR / 2) for sizes in _EVERY),
        *(Task(Recovery(sizes), seconds=600) for sizes in _EVERY),
        *(Task(Reset(sizes), seconds=360) for sizes in _EVERY),
        *(Task(MaxForwardingRate(sizes, seconds=60.0), seconds=_HOUR / 3) for sizes in _EVERY),
        *(
            Task(Mesh(_FOUR, pattern, sizes, seconds=60.0, duration_sum=60.0), seconds=_HOUR / 2)
            for pattern in ("mesh", "one-to-many", "many-to-one")
            for sizes in _EVERY
        ),
        *(Task(Congestion(sizes, seconds=60.0), seconds=200) for sizes in _EVERY),
        Task(AddressCaching(), seconds=_HOUR / 6),
        Task(AddressLearning(), seconds=60),
        Task(ErroredFrames(), seconds=3),
        *(Task(Broadcast(_FOUR, sizes, seconds=60.0, duration_sum=60.0), seconds=_HOUR / 2) for sizes in _EVERY),
        Task(FdbScaling(seconds=60.0), seconds=400),
        *(Task(PortScaling(ports, seconds=60.0), seconds=62) for ports in (2, 4, 8, 16, 32, 64, 128, 256)),
    ),
)


def chosen(
    profile: Profile,
    *,
    methods: Sequence[str] = (),
    sizes: Sequence[tuple[int, ...]] = (),
    pattern: str | None = None,
    blocks: int | None = None,
) -> Profile:
    """A profile of these methods, frame sizes, pattern and blocks. Whatever is not given comes from `profile`.

    A method that the profile lacks comes from `standard` or `quick`. Raises ConfigError for an unknown method,
    and for sizes or a pattern that a requested method does not take.
    """
    if unknown := [name for name in methods if name not in METHODS]:
        raise ConfigError(f"there is no method {', '.join(unknown)}; there are {', '.join(METHODS)}")
    tasks = list(profile.tasks) if not methods else [task for name in methods for task in _tasks_of(name, profile)]
    wanted: dict[str, list[dict[str, Any]]] = {
        "frame sizes": [{"sizes": each} for each in sizes],
        f"pattern {pattern!r}": [{"pattern": pattern}] if pattern else [],
    }
    for what, variants in wanted.items():
        if variants:
            able = {task.method.name for task in tasks if _variants(task, variants)}
            if lacking := [name for name in methods if name not in able] or ([] if able else ["any of them"]):
                every = [
                    name for name in METHODS if any(_variants(task, variants) for task in _tasks_of(name, profile))
                ]
                raise ConfigError(f"{what}: not for {', '.join(lacking)}; for {', '.join(every) or 'no method'}")
            tasks = [each for task in tasks for each in _variants(task, variants) or [task]]
    if blocks is not None:
        tasks = [replace(task, blocks=blocks, most=0) for task in tasks]
    return Profile(profile.name, tuple({task.name: task for task in tasks}.values()))


def _tasks_of(method: str, profile: Profile) -> list[Task]:
    for known in (profile, STANDARD, QUICK):
        if found := [task for task in (*known.tasks, *known.asked) if task.method.name == method]:
            return found
    return [Task(METHODS[method]())]


def _variants(task: Task, variants: Sequence[dict[str, Any]]) -> list[Task]:
    """The task with each of these parameters that its method takes."""
    names = {field.name for field in fields(task.method)}  # type: ignore[arg-type]
    made = []
    for parameters in variants:
        if parameters.keys() <= names:
            with contextlib.suppress(FastbridgeError):
                made.append(replace(task, method=replace(task.method, **parameters)))  # type: ignore[type-var]
    return made


PROFILES: Mapping[str, Profile] = MappingProxyType({profile.name: profile for profile in (QUICK, STANDARD, RFC2544)})
