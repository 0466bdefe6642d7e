"""State, kept over a restart.

What a switch has learned and what was changed by hand, in a file of JSON. The next switch takes it back, for the
interfaces that are still the same. What the configuration says is not in it: the configuration says it again.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import stat
import time
from collections.abc import Collection
from dataclasses import asdict, dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

from fastbridge.addresses import MacAddress
from fastbridge.config_values import WrongError, read
from fastbridge.errors import ConfigError, FastbridgeError
from fastbridge.links.link import DIRECTIONS, Link
from fastbridge.links.places import Place, read_place, spoken
from fastbridge.policy.builtin import parse_policy
from fastbridge.policy.neighbour_entry import Neighbour

from .config import Config, FdbEntryConfig, NeighbourConfig
from .config_apply import says, static_entries
from .port_flags import StormControl

if TYPE_CHECKING:
    from .live import Switch

_VERSION = 1
_BEGINNING = b'{"fastbridge": "state", '  # tells its files from all others
_LARGEST_FILE = 1 << 30
_BOOT = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, kw_only=True)
class PortState:
    """A port: which interface it is, and what was changed by hand."""

    ifname: str
    ifindex: int
    mac: str
    netns: int
    flags: dict[str, bool] = field(default_factory=dict)
    policy: str | None = None
    storm_control: dict[str, float | None] | None = None

    @property
    def interface(self) -> tuple[str, int, str, int]:
        """Which it is."""
        return self.ifname, self.ifindex, self.mac, self.netns


@dataclass(frozen=True, kw_only=True)
class Stations:
    """Learned FDB entries, a column each: a row for each would take much longer to read."""

    mac: list[int]
    vlan: list[int]
    port: list[int]  # its place in `ports`
    age: list[float]


@dataclass(frozen=True, kw_only=True)
class NeighbourState:
    """A learned neighbour."""

    dst: str
    lladdr: str
    dev: str
    vlan: int
    age: float
    source: str
    router: bool | None
    override: bool
    tags: str


@dataclass(frozen=True, kw_only=True)
class State:
    """All of it."""

    fastbridge: str
    version: int
    boot: str
    time: float  # since the boot, also while it slept
    policy: str | None
    ports: list[PortState]
    stations: Stations
    fdb: list[FdbEntryConfig]
    neighbours: list[NeighbourState]
    neigh: list[NeighbourConfig]
    links: dict[str, str] = field(default_factory=dict)
    seeds: dict[str, int] = field(default_factory=dict)  # that links of the configuration have drawn
    cuts: dict[str, list[str]] = field(default_factory=dict)
    partition: list[list[str]] = field(default_factory=list)


class StateFile:
    """Where a switch keeps its state."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._foreign = False

    def take_back(self, switch: Switch) -> str:
        """Give a switch that does not forward yet what is in the file; returns how much that was, or why it is nothing.

        Raises ConfigError: the file is damaged, or not ours. It is left alone then, and by save(), too.
        """
        try:
            data = self._read()
            if data is None:
                return f"{self.path} is not there yet"
            state = _parse(data)
        except _StrangeError as strange:
            self._foreign = True
            raise ConfigError(f"{self.path} {strange}; it is left alone, and no state is kept: remove it") from None
        elapsed = time.clock_gettime(time.CLOCK_BOOTTIME) - state.time
        ageing = switch.options.ageing
        if state.boot != _boot() or elapsed < 0:
            return f"{self.path} is from before the machine started: not taken"
        if ageing is not None and elapsed >= ageing:
            return f"{self.path} is {elapsed:.0f} s old, which is more than ageing: not taken"
        try:
            return f"{_give(switch, state, elapsed)} taken back from {self.path}"
        except (ValueError, OverflowError, FastbridgeError) as error:  # whatever is wrong in it, the switch goes on
            self._foreign = True
            raise ConfigError(f"{self.path} is damaged ({error}); it is left alone: remove it") from None

    def save(self, switch: Switch) -> None:
        """Write what the switch has now, in place of what is there. Raises ConfigError."""
        if self._foreign or not self._is_ours():
            raise ConfigError(f"{self.path} is not a state that this user has written; it is left alone: remove it")
        data = _BEGINNING + json.dumps(asdict(_of(switch))).encode()[len(_BEGINNING) :]
        made = self.path.with_name(f".{self.path.name}.{secrets.token_hex(4)}")
        try:
            fd = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                with open(fd, "wb") as file:  # noqa: PTH123
                    file.write(data)
                made.replace(self.path)
            except BaseException:
                made.unlink(missing_ok=True)
                raise
        except OSError as error:
            raise ConfigError(f"cannot write {self.path}: {error.strerror}; give --state another place") from None

    def _is_ours(self) -> bool:
        """Whether what is there may be replaced, if there is something."""
        try:
            data = self._read(len(_BEGINNING))
        except _StrangeError:
            return False
        return data is None or data == _BEGINNING

    def _read(self, size: int = _LARGEST_FILE) -> bytes | None:
        """The file's first bytes; None: there is none. Raises _StrangeError."""
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _StrangeError("is a link" if error.errno == errno.ELOOP else str(error.strerror)) from None
        try:
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode):
                raise _StrangeError("is no ordinary file")
            if found.st_uid != os.geteuid():
                raise _StrangeError(f"belongs to user {found.st_uid}")
            if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                raise _StrangeError("can be written by others")
            with open(fd, "rb", closefd=False) as file:
                return file.read(size)
        finally:
            os.close(fd)


class _StrangeError(Exception):
    """The file is none that we have written."""


def _parse(data: bytes) -> State:
    """Raises _StrangeError."""
    if not data.startswith(_BEGINNING):
        raise _StrangeError("is not the state of a switch")
    try:
        table = json.loads(data)
        if table.get("version") != _VERSION:
            raise _StrangeError(f"is of version {table.get('version')}, not {_VERSION}")
        state: State = read(State, table)
    except (ValueError, RecursionError, AttributeError) as error:
        raise _StrangeError(f"is damaged ({error})") from None
    except WrongError as error:
        raise _StrangeError(f"is damaged ({error})") from None
    return state


def _boot() -> str:
    with contextlib.suppress(OSError):
        return _BOOT.read_text().strip()
    return ""


def _of(switch: Switch) -> State:
    """What a switch has that its configuration does not say."""
    said = switch.configured.config if switch.configured else Config()
    with switch.still():
        ports = [port for port in switch.interfaces if port.state != "gone"]
        places = {port.index: place for place, port in enumerate(ports)}
        every = switch.fdb.rows()
        learned = [
            (mac, vlan, places[port], age / 1000)
            for mac, vlan, port, age in every
            if age is not None and port in places
        ]
        neigh = [
            NeighbourConfig(dst=str(n.ip), lladdr=str(n.mac), dev=n.port, vlan=n.vlan)
            for n in switch.neighbours
            if n.static and n.source == "static"
        ]
        return State(
            fastbridge="state",
            version=_VERSION,
            boot=_boot(),
            time=time.clock_gettime(time.CLOCK_BOOTTIME),
            policy=_unless(str(switch.policy()), said.policy),
            ports=[_port_of(switch, port.name, said) for port in ports],
            stations=Stations(
                mac=[mac for mac, _, _, _ in learned],
                vlan=[vlan for _, vlan, _, _ in learned],
                port=[port for _, _, port, _ in learned],
                age=[age for _, _, _, age in learned],
            ),
            fdb=[entry for entry in static_entries(switch, every) if entry not in said.fdb],
            neighbours=[_neighbour_of(switch, n, age) for n, age in switch.neighbours.learned()],
            neigh=[entry for entry in neigh if entry not in said.neigh],
            links={spoken(place): str(link) for place, link in switch.own_links.items() if not says(said, place, link)},
            seeds={
                spoken(place): int(link.seed)
                for place, link in switch.own_links.items()
                if link.seed is not None and says(said, place, link)
            },
            cuts={spoken(place): list(state.cut) for place, state in switch.links.items() if state.cut},
            partition=[list(group) for group in switch.parts],
        )


def _port_of(switch: Switch, port: str, said: Config) -> PortState:
    usual = asdict(switch.default_flags(port)) | said.flags_of(port)
    flags = {flag: on for flag, on in asdict(switch.lasting_flags(port)).items() if on != usual[flag]}
    limits = switch.storm_control(port)
    own = switch.own_policies.get(port)
    name, ifindex, mac, netns = switch.identity(port)
    return PortState(
        ifname=name,
        ifindex=ifindex,
        mac=mac,
        netns=netns,
        flags=flags,
        policy=_unless(str(own), said.policy_of(port)) if own is not None else None,
        storm_control=asdict(limits) if limits != said.storm_of(port) else None,
    )


def _unless(text: str, said: str | None) -> str | None:
    """A policy, unless the configuration says the same."""
    return None if said is not None and text == str(parse_policy(said)) else text


def _neighbour_of(switch: Switch, neighbour: Neighbour, age: float) -> NeighbourState:
    return NeighbourState(
        dst=str(ip_address(neighbour.ip)),
        lladdr=str(MacAddress(neighbour.mac)),
        dev=switch.neighbours.name_of(neighbour.port),
        vlan=neighbour.vlan,
        age=round(age, 3),
        source=neighbour.source,
        router=neighbour.router,
        override=neighbour.override,
        tags=neighbour.tags.hex(),
    )


def _give(switch: Switch, state: State, elapsed: float) -> str:
    """Take back what is of interfaces that are still ports, and what the configuration does not say otherwise."""
    said = switch.configured.config if switch.configured else Config()
    here = {switch.identity(port): port.index for port in switch.interfaces}
    places = {port.ifname: here.get(port.interface, -1) for port in state.ports}
    same = {name for name, index in places.items() if index >= 0}
    if state.policy is not None and said.policy == Config.policy:
        switch.set_policy(state.policy)
    for port in state.ports:
        if port.ifname in same:
            _give_port(switch, port, said)
    taken = _give_stations(switch, state.stations, [places[port.ifname] for port in state.ports], elapsed)
    for entry in state.fdb:
        if entry.ifname in same and not any((e.mac, e.vlan) == (entry.mac, entry.vlan) for e in said.fdb):
            switch.fdb.add(entry.mac, entry.ifname, entry.vlan)
    for static in state.neigh:
        if static.dev in same and not any((n.dst, n.vlan) == (static.dst, static.vlan) for n in said.neigh):
            switch.add_neighbour(static.dst, static.lladdr, static.dev, static.vlan)
    lost = _give_links(switch, state, said, same)
    learned = [(_neighbour(n, places[n.dev]), n.age + elapsed) for n in state.neighbours if n.dev in same]
    found = switch.take_back_neighbours(learned)
    without = f"all links but {', '.join(lost)}; " if lost else ""
    return f"{without}{taken:,} stations and {found:,} neighbours"


def _give_port(switch: Switch, port: PortState, said: Config) -> None:
    flags = {flag: on for flag, on in port.flags.items() if flag not in said.flags_of(port.ifname)}
    if flags:
        switch.set_flags(port.ifname, **flags)
    if port.policy is not None and said.policy_of(port.ifname) is None:
        switch.set_policy(port.policy, port.ifname)
    if port.storm_control is not None and said.storm_of(port.ifname) == StormControl():
        _require(set(port.storm_control) == set(StormControl.__slots__), "limits of unknown kinds")
        switch.set_storm_control(StormControl(**port.storm_control), port.ifname)


def _give_links(switch: Switch, state: State, said: Config, same: Collection[str]) -> list[str]:
    """Those that the configuration says get only their seeds back. Returns which it cannot make, each with why."""
    links: dict[Place, Link] = {}
    lost = []
    for name, text in state.links.items():
        place = read_place(name, same)
        if _is_among(place, same) and said.link_of(place) is None:
            try:
                links[place] = Link.parse(text)
            except ConfigError as error:  # such as a trace that is gone: the rest of the state is as good as ever
                lost.append(f"{name} ({error})")
    for name, seed in state.seeds.items():
        place = read_place(name, same)
        link = switch.own_links.get(place)
        if _is_among(place, same) and link is not None and says(said, place, link.change(seed=seed)):
            links[place] = link.change(seed=seed)
    switch.set_links(links)
    for name, directions in state.cuts.items():
        place = read_place(name, same)
        for direction in DIRECTIONS:
            if direction in directions and _is_among(place, same):
                switch.cut(place, direction=direction)
    groups = [[port for port in group if port in same] for group in state.partition]
    if any(groups):
        switch.partition([group for group in groups if group])
    return lost


def _is_among(place: Place, ports: Collection[str]) -> bool:
    return set((place,) if isinstance(place, str) else place) <= set(ports)


def _give_stations(switch: Switch, stations: Stations, indices: list[int], elapsed: float) -> int:
    columns = stations.mac, stations.vlan, stations.port, stations.age
    _require(len({len(column) for column in columns}) == 1, "columns of unequal length")
    _require(all(0 <= place < len(indices) for place in stations.port), "a station behind no port")
    return switch.fdb.learn_rows(
        (mac, vlan, indices[place], age + elapsed)
        for mac, vlan, place, age in zip(*columns, strict=True)
        if indices[place] >= 0
    )


def _neighbour(state: NeighbourState, port: int) -> Neighbour:
    _require(state.age >= 0, "an age below 0")
    return Neighbour(
        state.vlan,
        ip_address(state.dst).packed,
        MacAddress(state.lladdr).to_bytes(6, "big"),
        port,
        0.0,
        state.source,
        router=state.router,
        override=state.override,
        tags=bytes.fromhex(state.tags),
    )


def _require(holds: bool, text: str) -> None:
    if not holds:
        raise ValueError(text)
