"""Configuration, applied.

A running switch as a configuration, and a configuration upon a running switch: only what differs is touched, so the
other ports go on forwarding.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import asdict, fields, replace
from fnmatch import fnmatchcase
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING, TypeVar

from fastbridge.addresses import MacAddress
from fastbridge.errors import ConfigError, FastbridgeError, PortError
from fastbridge.links.link import Link
from fastbridge.links.places import Place, read_place, spoken
from fastbridge.policy.builtin import parse_policy

from .config import Config, FdbEntryConfig, NeighbourConfig, PortConfig, StormLimits
from .port_flags import StormControl

if TYPE_CHECKING:
    from fastbridge.policy.base import Policy

    from .fdb import PlainEntry
    from .live import Switch

_T = TypeVar("_T")

NO_FILE = "this switch has no configuration file; start it with one: fastbridge run -c FILE"

# What a reload can change. All else is settled when a switch is made.
_PERFECT = str(Link.parse("delay=0"))  # in words
_LIVE = {"ports", "policy", "storm_control", "port", "link", "fdb", "neigh"}


class Configured:
    """A configuration that a switch follows: it is applied now, when it is read again, and to each port that comes."""

    def __init__(self, switch: Switch, config: Config, read: Callable[[], Config] | None = None) -> None:
        """read: gives the configuration as it is by then; None: it comes from no file. Raises as apply() does."""
        self._switch, self._config, self._read = switch, config, read
        self._reloading = threading.RLock()
        apply(switch, config)
        switch.on_port = lambda port: apply_to_port(switch, port, self._config)
        switch.configured = self

    @property
    def config(self) -> Config:
        """As last applied."""
        return self._config

    def reload(self) -> list[str]:
        """Apply what has changed in the configuration; returns that in words. If it raises, nothing has changed."""
        if self._read is None:
            raise ConfigError(NO_FILE)
        with self._reloading:
            return self.follow(self._read())

    def follow(self, new: Config) -> list[str]:
        """Apply what differs in a new configuration; returns that in words. If it raises, nothing has changed."""
        with self._reloading:
            before, self._config = self._config, new  # for the ports that come with it
            try:
                return apply(self._switch, new, before)
            except BaseException:
                self._config = before
                with contextlib.suppress(FastbridgeError):  # the first one says what is wrong
                    apply(self._switch, before, new)
                raise


def follow_together(wishes: Sequence[tuple[Configured, Config]]) -> list[list[str]]:
    """Have several switches follow new configurations; returns what changed in each. If it raises, nothing has changed.

    Ports may move between them: all let go of those that move before any takes one.
    """
    for one, new in wishes:
        _refuse_settled(new, one.config)
    gained = {port for one, new in wishes for port in new.ports if port not in one.config.ports}
    leaving = [
        (one, replace(one.config, ports=[port for port in one.config.ports if port not in gained]))
        for one, _ in wishes
        if not gained.isdisjoint(one.config.ports)
    ]
    changes: dict[Configured, list[str]] = {one: [] for one, _ in wishes}
    done: list[tuple[Configured, Config]] = []
    try:
        for one, config in [*leaving, *wishes]:
            before = one.config
            changes[one] += one.follow(config)
            done.append((one, before))
    except BaseException:
        for one, before in reversed(done):
            with contextlib.suppress(FastbridgeError):  # the first one says what is wrong
                one.follow(before)
        raise
    return list(changes.values())


def of_switch(switch: Switch, before: Config | None = None) -> Config:
    """What a switch is now. Raises ConfigError: it has a policy of Python's own, which no file can name.

    before: the configuration that it follows. Its patterns of ports are kept.
    """
    with switch.still():
        options, match = switch.options, before.match if before else []
        names = [port.name for port in switch.interfaces]
        others = {port.name for port in switch.ports} - set(names)  # socket ports, which no file makes
        limits = {port: switch.storm_control(port) for port in names}
        shared = next(iter(limits.values())) if len(set(limits.values())) == 1 else StormControl()
        own = {port: _port_of(switch, port, shared) for port in names}
        return Config(
            name=switch.options.control if isinstance(switch.options.control, str) else None,
            ports=[port for port in names if not any(fnmatchcase(port, pattern) for pattern in match)],
            match=match,
            policy=_policy_text(switch.policy()),
            storm_control=_limits(shared),
            loop_detection=options.loop_detection,
            ageing="never" if options.ageing is None else options.ageing,
            capacity=options.capacity,
            neighbour_ageing="never" if options.neighbour_ageing is None else options.neighbour_ageing,
            move_damping=options.move_damping,
            filter_link_local=options.filter_link_local,
            busy_poll=round(options.busy_poll * 1e6),
            coalesce=options.coalesce,
            fast_path=options.fast_path,  # type: ignore[arg-type] # one of these, as LiveOptions has checked
            workers=options.workers,
            fanout=options.fanout,
            cpu=list(options.cpus),
            real_time=options.real_time,
            port={port: settings for port, settings in own.items() if settings != PortConfig()},
            link=_links_of(switch, others, before),
            fdb=[entry for entry in static_entries(switch, switch.fdb.rows()) if entry.ifname not in others],
            neigh=[
                NeighbourConfig(dst=str(n.ip), lladdr=str(n.mac), dev=n.port, vlan=n.vlan)
                for n in switch.neighbours
                if n.static and n.port not in others
            ],
        )


def _links_of(switch: Switch, others: Collection[str], before: Config | None) -> dict[str, str]:
    """Each port and pair has its link by its name, with its seed; those to come have that of "*"."""
    own = {
        spoken(place): str(link)
        for place, link in switch.own_links.items()
        if not any(port in others for port in ((place,) if isinstance(place, str) else place))
    }
    if before is None or "*" not in before.link:
        return own
    return {"*": before.link["*"]} | {port.name: _PERFECT for port in switch.interfaces} | own


def static_entries(switch: Switch, rows: Iterable[PlainEntry]) -> list[FdbEntryConfig]:
    """Those among the rows of the switch's FDB. Call it while the switch is still()."""
    names = {port.index: port.name for port in switch.ports}
    return [
        FdbEntryConfig(mac=str(MacAddress(mac)), ifname=names[port], vlan=vlan)
        for mac, vlan, port, age in rows
        if age is None
    ]


def _port_of(switch: Switch, port: str, shared: StormControl) -> PortConfig:
    usual = switch.default_flags(port)
    limits = switch.storm_control(port)
    own = switch.own_policies.get(port)
    return PortConfig(
        policy=None if own is None else _policy_text(own),
        storm_control=None if limits == shared else _limits(limits),
        **{flag: on for flag, on in asdict(switch.lasting_flags(port)).items() if on != getattr(usual, flag)},
    )


def _limits(limits: StormControl) -> float | StormLimits | None:
    rates = asdict(limits)
    return limits.broadcast if len(set(rates.values())) == 1 else StormLimits(**rates)


def _policy_text(policy: Policy) -> str:
    try:
        return str(parse_policy(str(policy)))
    except ConfigError:
        raise ConfigError(
            f"policy {policy} is a program's own, which no file can name; only fastbridge's can"
        ) from None


def apply(switch: Switch, new: Config, old: Config | None = None) -> list[str]:
    """Make a switch as `new` says; returns what was changed, in words. old: as it was made, or last changed, by a file.

    Other ports go on forwarding. Raises ConfigError, PortError or PrivilegeError; then nothing has changed.
    """
    if old is not None:
        _refuse_settled(new, old)
    old = old or Config()
    with switch.still():
        changes = [f"port {port} added" for port in _add_ports(switch, new.ports, old.ports)]
        for port in [port.name for port in switch.interfaces if old.covers(port.name) and not new.covers(port.name)]:
            switch.remove_port(port)
            changes.append(f"port {port} removed")
        if _differs(str(parse_policy(new.policy)), str(parse_policy(old.policy)), str(switch.policy()), Config.policy):
            switch.set_policy(new.policy)
            changes.append(f"policy {new.policy}")
        for port in [port.name for port in switch.ports]:
            changes += apply_to_port(switch, port, new, old)
    return changes


def _refuse_settled(new: Config, old: Config) -> None:
    """Raise ConfigError for a key that cannot change while the switch runs, and does."""
    for key in fields(Config):
        if key.name not in _LIVE and getattr(new, key.name) != getattr(old, key.name):
            raise ConfigError(f"{key.name} cannot change while the switch runs; restart it, or put it back")


def _differs(new: _T, old: _T, now: _T, default: _T) -> bool:
    """Whether a setting must change. What no file names, or has named, stays as it was set by hand."""
    return new != now and (new != default or old != default)


def _add_ports(switch: Switch, ports: Sequence[str], before: Sequence[str]) -> list[str]:
    """Add those that are missing or gone: all or none. One that was named before may have no interface by now."""
    present = {port.name for port in switch.ports if port.state != "gone"}
    added: list[str] = []
    try:
        for port in ports:
            if port not in present:
                with contextlib.suppress(*((PortError,) if port in before else ())):
                    switch.add_port(port)
                    added.append(port)
    except FastbridgeError:
        for port in added:
            switch.remove_port(port)
        raise
    return added


def apply_to_port(switch: Switch, port: str, new: Config, old: Config | None = None) -> list[str]:
    """As apply(), for one port: for one that has just come, too."""
    old = old or Config()
    changes = [*_apply_flags(switch, port, new, old), *_apply_statics(switch, port, new, old)]
    changes += _apply_links(switch, port, new, old)
    policy = new.policy_of(port)
    if (policy is None and old.policy_of(port) is not None) or (
        policy is not None and str(parse_policy(policy)) != str(switch.policy(port))
    ):
        switch.set_policy(policy, port)
        changes.append(f"{port}: policy {policy or 'as all'}")
    if _differs(new.storm_of(port), old.storm_of(port), switch.storm_control(port), StormControl()):
        switch.set_storm_control(new.storm_of(port), port)
        changes.append(f"{port}: storm control")
    return changes


def _apply_flags(switch: Switch, port: str, new: Config, old: Config) -> list[str]:
    now, usual = switch.lasting_flags(port), switch.default_flags(port)
    wanted = {flag: getattr(usual, flag) for flag in old.flags_of(port)} | new.flags_of(port)
    differing = {flag: on for flag, on in wanted.items() if getattr(now, flag) != on}
    if differing:  # a change costs the port its fast path for a moment
        switch.set_flags(port, **differing)
    return [f"{port}: {flag} {'on' if on else 'off'}" for flag, on in differing.items()]


def _apply_links(switch: Switch, port: str, new: Config, old: Config) -> list[str]:
    """Of a port, and of its pairs with ports that are there."""
    ports = {each.name for each in switch.ports}
    pairs = [place for text in {**old.link, **new.link} if isinstance(place := read_place(text), tuple)]
    now = switch.own_links
    links: dict[Place, Link | None] = {}
    places: list[Place] = [port, *(pair for pair in pairs if port in pair and ports.issuperset(pair))]
    for place in places:
        text, before = new.link_of(place), old.link_of(place)
        if text is None and before is not None and place in now:
            links[place] = None
        elif text is not None and not says(new, place, now.get(place)):
            links[place] = new.links[text]
    switch.set_links(links)
    return [f"{spoken(place)}: link {link or 'perfect'}" for place, link in links.items()]


def says(config: Config, place: Place, link: Link | None) -> bool:
    """Whether a configuration says that a link is so. One whose seed it does not say has drawn its own."""
    text = config.link_of(place)
    if text is None or link is None:
        return False
    wanted, words = config.links[text].as_words(), link.as_words()
    if "seed=" not in text:
        wanted.pop("seed", None)
        words.pop("seed", None)
    return wanted == words


def _apply_statics(switch: Switch, port: str, new: Config, old: Config) -> list[str]:
    changes = []
    entries, before = _stations(new, port), _stations(old, port)
    for vlan, mac in sorted(before - entries):
        if _has_station(switch, port, vlan, mac):
            switch.fdb.remove(mac, vlan)
            changes.append(f"{port}: {mac} removed")
    for vlan, mac in sorted(entries):
        if not _has_station(switch, port, vlan, mac):
            switch.fdb.add(mac, port, vlan)
            changes.append(f"{port}: {mac} added")
    owners, earlier = _owners(new, port), _owners(old, port)
    for vlan, ip, mac in sorted(earlier - owners, key=str):
        if _has_owner(switch, port, vlan, ip, mac):
            switch.remove_neighbour(ip, vlan)
            changes.append(f"{port}: {ip} removed")
    for vlan, ip, mac in sorted(owners, key=str):
        if not _has_owner(switch, port, vlan, ip, mac):
            switch.add_neighbour(ip, mac, port, vlan)
            changes.append(f"{port}: {ip} added")
    return changes


def _has_station(switch: Switch, port: str, vlan: int, mac: MacAddress) -> bool:
    found = switch.fdb.lookup(mac, vlan)
    return found is not None and found.static and found.port == port


def _has_owner(switch: Switch, port: str, vlan: int, ip: IPv4Address | IPv6Address, mac: MacAddress) -> bool:
    found = switch.neighbours.lookup(vlan, ip.packed)
    if found is None or not found.static:
        return False
    return (switch.neighbours.name_of(found.port), MacAddress(found.mac)) == (port, mac)


def _stations(config: Config, port: str) -> set[tuple[int, MacAddress]]:
    """The static FDB entries of a port: VLAN and MAC."""
    return {(entry.vlan, MacAddress(entry.mac)) for entry in config.fdb if entry.ifname == port}


def _owners(config: Config, port: str) -> set[tuple[int, IPv4Address | IPv6Address, MacAddress]]:
    """The static neighbours of a port: VLAN, IP and MAC."""
    return {(n.vlan, ip_address(n.dst), MacAddress(n.lladdr)) for n in config.neigh if n.dev == port}
