"""Configuration: a switch as a file.

One set of keys, with the names that options and methods have, for `run -c`, `config check`, `config dump` and reload.
A file says how the switch starts. A reload applies what it says now: what it names is as it says, what it no longer
names goes back to the default, and what was only changed by hand stays.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from fnmatch import fnmatchcase
from functools import cached_property, partial
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

from fastbridge.addresses import MacAddress
from fastbridge.config_values import WrongError, read
from fastbridge.config_values import schema as schema_of
from fastbridge.control.directory import check_name
from fastbridge.errors import ConfigError, FastbridgeError
from fastbridge.links.link import Link
from fastbridge.links.places import Place, read_place, spoken
from fastbridge.policy.builtin import parse_policy
from fastbridge.policy.neighbours import Neighbours
from fastbridge.toml_text import Document
from fastbridge.toml_text import Path as Key
from fastbridge.toml_text import write as write_toml

from .options import LiveOptions
from .port_flags import PortFlags, StormControl

_LONGEST_FILE = 16 << 20


@dataclass(frozen=True, kw_only=True)
class StormLimits:
    """Frames a second that a port may have flooded, by kind; without one, no limit."""

    broadcast: float | None = None
    multicast: float | None = None
    unknown_unicast: float | None = None


@dataclass(frozen=True, kw_only=True)
class PortConfig:
    """One port. What it does not say is as for all ports."""

    policy: Annotated[str | None, "what becomes of its ARP and ND"] = None
    storm_control: Annotated[float | StormLimits | None, "frames a second that it may have flooded, of each kind"] = (
        None
    )
    learning: Annotated[bool | None, "sources heard on it go into the FDB"] = None
    broadcast_flood: Annotated[bool | None, "broadcast is flooded to it"] = None
    multicast_flood: Annotated[bool | None, "multicast is flooded to it"] = None
    unicast_flood: Annotated[bool | None, "unicast with an unknown destination is flooded to it"] = None
    isolated: Annotated[bool | None, "it exchanges no frames with other isolated ports"] = None
    hairpin: Annotated[bool | None, "a frame may leave by the port it came in"] = None
    locked: Annotated[bool | None, "only sources the FDB already has behind it may send"] = None
    coalesce: Annotated[bool | None, "consecutive frames of one flow leave by it as one GSO frame"] = None


@dataclass(frozen=True, kw_only=True)
class SwitchConfig:
    """One of several switches. All else is the same for all."""

    ports: Annotated[list[str], "its interfaces"] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class FdbEntryConfig:
    """A static FDB entry."""

    mac: Annotated[str, "the station"]
    ifname: Annotated[str, "its port"]
    vlan: int = 0


@dataclass(frozen=True, kw_only=True)
class NeighbourConfig:
    """A static neighbour."""

    dst: Annotated[str, "its IP address"]
    lladdr: Annotated[str, "its MAC address"]
    dev: Annotated[str, "its port"]
    vlan: int = 0


@dataclass(frozen=True, kw_only=True)
class Config:
    """All that a file can say of a switch."""

    name: Annotated[str | None, "the switch's name, for --switch"] = None
    ports: Annotated[list[str], "its interfaces"] = field(default_factory=list)
    match: Annotated[list[str], "patterns of further interfaces, which join as they come"] = field(default_factory=list)
    switch: Annotated[dict[str, SwitchConfig], "several switches in one process, in place of `ports`"] = field(
        default_factory=dict
    )
    policy: Annotated[str, "what becomes of ARP and ND, as --arp"] = "flood"
    storm_control: Annotated[
        float | StormLimits | None, "frames a second that a port may have flooded, of each kind"
    ] = None
    loop_detection: Annotated[bool, "probe for loops where MAC addresses keep moving"] = True
    ageing: Annotated[float | Literal["never"], "seconds until a silent MAC address is forgotten"] = 300.0
    capacity: Annotated[int, "the most FDB entries"] = 65536
    neighbour_ageing: Annotated[float | Literal["never"], "seconds until a silent neighbour is forgotten"] = 60.0
    move_damping: Annotated[float, "seconds for which a station just heard stays on its port"] = 0.0
    filter_link_local: Annotated[bool, "drop frames to 01:80:c2:00:00:0x"] = False
    busy_poll: Annotated[int, "microseconds to spin for the next frame"] = 50
    coalesce: Annotated[bool, "let consecutive frames of a flow leave as one"] = True
    fast_path: Annotated[Literal["auto", "nft", "bpf", "off"], "how the kernel forwards by itself"] = "auto"
    workers: Annotated[int, "threads of the data plane"] = 1
    fanout: Annotated[bool, "let all workers read every port"] = False
    cpu: Annotated[list[int], "the CPU of each worker"] = field(default_factory=list)
    real_time: Annotated[bool, "let the workers run before all ordinary programs"] = False
    port: Annotated[dict[str, PortConfig], "what differs for one port"] = field(default_factory=dict)
    link: Annotated[dict[str, str], 'links by port, by pair ("veth1>veth2"), or "*": that of all other ports'] = field(
        default_factory=dict
    )
    fdb: Annotated[list[FdbEntryConfig], "static FDB entries"] = field(default_factory=list)
    neigh: Annotated[list[NeighbourConfig], "static neighbours"] = field(default_factory=list)

    def options(self) -> dict[str, Any]:
        """The keywords of `Switch`. Raises ConfigError."""
        words = {word: getattr(self, word) for word in LiveOptions.__dataclass_fields__ if hasattr(self, word)}
        words["busy_poll"] = self.busy_poll / 1e6
        words["cpu"] = self.cpu or None
        for word in ("ageing", "neighbour_ageing"):
            words[word] = None if words[word] == "never" else words[word]
        return words

    def covers(self, port: str) -> bool:
        """Whether a port of this name can be one of the switch, or of one of the switches."""
        named = port in self.ports or any(port in switch.ports for switch in self.switch.values())
        return named or any(fnmatchcase(port, pattern) for pattern in self.match)

    def apart(self) -> dict[str, Config]:
        """Each of several switches by itself, with what is said of its ports."""
        return {name: self._of(name, switch.ports) for name, switch in self.switch.items()}

    def _of(self, name: str, ports: list[str]) -> Config:
        return replace(
            self,
            name=name,
            switch={},
            ports=ports,
            port={port: own for port, own in self.port.items() if port in ports},
            link={text: link for text, link in self.link.items() if text == "*" or set(_ports_of(text)) <= set(ports)},
            fdb=[entry for entry in self.fdb if entry.ifname in ports],
            neigh=[neighbour for neighbour in self.neigh if neighbour.dev in ports],
        )

    def policy_of(self, port: str) -> str | None:
        """The policy that a port has to itself."""
        return self.port[port].policy if port in self.port else None

    def storm_of(self, port: str) -> StormControl:
        """A port's limits."""
        own = self.port[port].storm_control if port in self.port else None
        limits = self.storm_control if own is None else own
        if isinstance(limits, StormLimits):
            return StormControl(**asdict(limits))
        return StormControl(limits, limits, limits)

    def link_of(self, place: Place) -> str | None:
        """The link of a port or pair, in words."""
        own = self.link.get(spoken(place))
        return self.link.get("*") if own is None and isinstance(place, str) else own

    @cached_property
    def links(self) -> dict[str, Link]:
        """Its links by their words. The files that they name are read once. Raises ConfigError."""
        return {text: Link.parse(text) for text in self.link.values()}

    def flags_of(self, port: str) -> dict[str, bool]:
        """The flags that it sets on a port."""
        own = self.port.get(port, PortConfig())
        return {flag: value for flag in PortFlags.__slots__ if (value := getattr(own, flag)) is not None}


@dataclass(frozen=True)
class ConfigFile:
    """A configuration as it stands in a file, so that errors can name the line."""

    config: Config
    document: Document

    @classmethod
    def read(cls, path: str | Path) -> ConfigFile:
        """Raises ConfigError: unreadable, not TOML, an unknown key, a wrong type."""
        try:
            with Path(path).open("rb") as file:
                data = file.read(_LONGEST_FILE + 1)
        except OSError as error:
            raise ConfigError(f"cannot read {path}: {error.strerror}") from None
        if len(data) > _LONGEST_FILE:
            raise ConfigError(f"{path} has more than {_LONGEST_FILE >> 20} MiB; that is no configuration")
        try:
            return cls.parse(data.decode(), str(path))
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            raise ConfigError(f"{path}:{line}: this is not UTF-8, which TOML needs") from None

    @classmethod
    def parse(cls, text: str, source: str) -> ConfigFile:
        """As read(); source: what errors call it."""
        document = Document(text, source)
        try:
            config = read(Config, document.table)
        except WrongError as error:
            raise ConfigError(f"{document.where(error.path)}: {error}") from None
        return cls(config, document)

    def fail(self, path: Key, text: str) -> NoReturn:
        """Raise ConfigError for a key of it."""
        raise ConfigError(f"{self.document.where(path)}: {text}")


def load(path: str | Path) -> Config:
    """The configuration in a file, checked. Raises ConfigError."""
    file = ConfigFile.read(path)
    check(file.config, file)
    return file.config


def check(config: Config, file: ConfigFile | None = None) -> None:
    """Raise ConfigError unless a switch can be made so. file: where `config`, or most of it, comes from.

    Whether its interfaces exist is not looked at.
    """
    for path, test in _tests(config):
        try:
            test()
        except FastbridgeError as error:
            if file is None:
                raise
            file.fail(path, str(error))
    try:
        LiveOptions(**config.options())
    except ConfigError as error:
        if file is None:
            raise
        word = re.match(r"\w*", str(error))
        file.fail((word.group().lower(),) if word else (), str(error))


def _tests(config: Config) -> Iterator[tuple[Key, Callable[[], object]]]:
    """What must not raise, each with the key that it is about."""
    if config.name is not None:
        yield ("name",), partial(check_name, config.name)
    yield ("policy",), partial(parse_policy, config.policy)
    yield ("storm_control",), partial(config.storm_of, "")
    yield ("busy_poll",), partial(_require, 0 <= config.busy_poll <= 1_000_000, "busy_poll is 0 … 1000000 microseconds")
    yield ("ports",), partial(_check_ports, config)
    yield from _tests_of_several(config)
    for place, port in enumerate(config.ports):
        twice = port in config.ports[:place]
        yield ("ports", place), partial(_require, port != "", "a port has no name; name its interface")
        yield ("ports", place), partial(_require, not twice, f"{port} is named twice; name each interface once")
    for port, own in config.port.items():
        yield ("port", port), partial(_check_port, config, port)
        yield ("port", port, "policy"), partial(parse_policy, own.policy or config.policy)
        yield ("port", port, "storm_control"), partial(config.storm_of, port)
    for text, link in config.link.items():
        yield ("link", text), partial(_check_place, config, text)
        yield ("link", text), partial(Link.parse, link)
    yield ("neighbour_ageing",), partial(Neighbours, config.options()["neighbour_ageing"])
    stations: set[tuple[int, MacAddress]] = set()
    for place, entry in enumerate(config.fdb):
        yield ("fdb", place, "ifname"), partial(_check_port, config, entry.ifname)
        yield ("fdb", place, "vlan"), partial(_check_vlan, entry.vlan)
        yield ("fdb", place, "mac"), partial(_check_station, entry, stations)
    neighbours: set[tuple[int, IPv4Address | IPv6Address]] = set()
    for place, neighbour in enumerate(config.neigh):
        yield ("neigh", place, "dev"), partial(_check_port, config, neighbour.dev)
        yield ("neigh", place, "lladdr"), partial(MacAddress, neighbour.lladdr)
        yield ("neigh", place, "dst"), partial(_check_neighbour, neighbour, neighbours)


def _tests_of_several(config: Config) -> Iterator[tuple[Key, Callable[[], object]]]:
    """What must not raise where there are several switches."""
    owners: dict[str, str] = {}
    for name, switch in config.switch.items():
        yield ("switch", name), partial(check_name, name)
        for place, port in enumerate(switch.ports):
            path = "switch", name, "ports", place
            yield path, partial(_require, port != "", "a port has no name; name its interface")
            yield path, partial(_require, port not in owners, f"{port} is named twice; name each interface once")
            owners[port] = name


def _require(holds: bool, text: str) -> None:
    if not holds:
        raise ConfigError(text)


def _check_ports(config: Config) -> None:
    if config.switch:
        alone = config.ports or config.match or config.name
        _require(not alone, "several switches have their own names and ports; leave out `name`, `ports` and `match`")
    elif len(config.ports) < 2 and not config.match:
        raise ConfigError("a switch joins at least two interfaces; name them in `ports`, or a pattern in `match`")


def _check_port(config: Config, port: str) -> None:
    if not config.covers(port):
        known = ", ".join([*config.ports, *config.match])
        raise ConfigError(f"there is no port {port!r} here; `ports` and `match` have: {known or 'none'}")


def _check_place(config: Config, text: str) -> None:
    ports = _ports_of(text)
    for port in ports:
        _check_port(config, port)
    owners = [name for name, switch in config.switch.items() if not set(ports).isdisjoint(switch.ports)]
    _require(len(owners) < 2, f"the ports of {text} are of different switches: {', '.join(owners)}")


def _ports_of(text: str) -> Sequence[str]:
    """The ports that a link's place names; none for all."""
    place = read_place(text)
    return () if text == "*" else (place,) if isinstance(place, str) else place


def _check_station(entry: FdbEntryConfig, before: set[tuple[int, MacAddress]]) -> None:
    station = MacAddress(entry.mac)
    _require(bool(station) and not station.is_group, f"{station} is not a unicast MAC address, which an entry needs")
    _require((entry.vlan, station) not in before, f"{station} is entered twice in VLAN {entry.vlan}; enter it once")
    before.add((entry.vlan, station))


def _check_neighbour(neighbour: NeighbourConfig, before: set[tuple[int, IPv4Address | IPv6Address]]) -> None:
    Neighbours().add(neighbour.dst, neighbour.lladdr, 0, neighbour.vlan)  # raises for addresses that none can have
    key = neighbour.vlan, ip_address(neighbour.dst)
    _require(key not in before, f"{neighbour.dst} is entered twice in VLAN {neighbour.vlan}; enter it once")
    before.add(key)


def _check_vlan(vlan: int) -> None:
    _require(0 <= vlan < 4095, f"VLAN id {vlan} is outside 0 … 4094 (IEEE 802.1Q §9.6)")


def schema() -> dict[str, Any]:
    """The JSON Schema of a configuration."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "fastbridge", **schema_of(Config)}


def write(config: Config) -> str:
    """A configuration as TOML. Raises ConfigError: it has a name that is not Unicode."""
    return write_toml({key: value for key, value in asdict(config).items() if value not in (None, [], {})})
