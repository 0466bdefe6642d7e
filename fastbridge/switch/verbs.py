"""Verbs, over a switch.

What a running switch can be asked and told by its control socket. Each verb is a method of `Switch` in plain JSON, with
the keys that iproute2 uses. A verb that fails has changed nothing.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, replace
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING

from fastbridge.addresses import MacAddress
from fastbridge.control.verbs import Verbs
from fastbridge.described import describe
from fastbridge.errors import ConfigError
from fastbridge.feed import Monitor
from fastbridge.links.places import spoken
from fastbridge.policy.neighbour_entry import NeighbourEntry

from .capture_verbs import CaptureVerbs
from .fdb import check_vlan
from .link_verbs import LinkVerbs, read_places
from .member import SwitchPort
from .port_flags import StormControl
from .rows import ChangeRow, FdbRow, FileRow, FlushedRow, MirrorRow, NeighRow, PolicyRow, PortRow, Row, TomlRow
from .scenario_verbs import ScenarioVerbs

if TYPE_CHECKING:
    from .live import Switch
    from .memory import MemorySwitch


_HEX = re.compile(r"[0-9a-fA-F:\s]*[0-9a-fA-F][0-9a-fA-F:\s]*")  # a frame, in digits
_STREAMS = frozenset({"monitor"})  # verbs that give events


def switch_verbs(switch: Switch | MemorySwitch) -> Verbs:
    """All verbs of a switch. A method `port_list` of the class below is the verb `port.list`."""
    verbs = Verbs()
    operations = _Operations(switch)
    for name in vars(_Operations):
        if not name.startswith("_"):
            verbs.add(name.replace("_", ".", 1), getattr(operations, name), stream=name in _STREAMS)
    links = LinkVerbs(switch)
    for name in vars(LinkVerbs):
        if not name.startswith("_"):
            verbs.add(f"link.{name}", getattr(links, name))
    scenarios = ScenarioVerbs(switch)
    for name in ("play", "show", "stop"):
        verbs.add(f"scenario.{name}", getattr(scenarios, name))
    verbs.add("link.flap", scenarios.flap)
    captures = CaptureVerbs(switch.watch, switch.about)
    verbs.add("capture", captures.capture, stream=True)
    verbs.add("capture.stop", captures.stop)
    return verbs


class _Operations:
    """The verbs. One that changes something returns what it has changed: as it is now or, if it is gone, as it was."""

    def __init__(self, switch: Switch | MemorySwitch) -> None:
        self._switch = switch

    def status(self) -> list[Row]:
        """What the switch is and how it does: fast path, workers, ports, tables, capabilities, losses."""
        return [self._switch.status().as_dict()]

    def port_list(self, port: str | None = None) -> list[PortRow]:
        """All ports, or one: state, flags that are on, policy, limits, number of MAC addresses behind it."""
        with self._switch.still():
            self._check(port)
            ports = self._switch.ports
            stations = Counter(at for _, _, at, _ in self._switch.fdb.rows())
            return [self._port_row(each, stations[each.index]) for each in ports if port in (None, each.name)]

    def port_add(self, port: str) -> list[PortRow]:
        """Make an interface a port. A deleted interface's port of the same name is replaced."""
        self._switch.add_port(port)
        return self.port_list(port)

    def port_remove(self, port: str) -> list[PortRow]:
        """Take a port out, and forget what is behind it. The interface stays as it is."""
        with self._switch.still():
            before = self.port_list(port)
            self._switch.remove_port(port)
        return before

    def port_set(
        self,
        port: str,
        flags: dict[str, bool] | None = None,
        storm_control: dict[str, float | None] | None = None,
    ) -> list[PortRow]:
        """Change some of a port's flags (true, false) and limits on flooded frames (a second; null: none)."""
        with self._switch.still():
            limits = self._limits(port, storm_control or {})
            self._switch.set_flags(port, **(flags or {}))
            if storm_control:
                self._switch.set_storm_control(limits, port)
            return self.port_list(port)

    def link_down(self, ports: list[str]) -> list[PortRow]:
        """Take the carrier from ports' pods: `ip link` there shows NO-CARRIER until link.up, or the switch's end."""
        return self._set_carrier(ports, False)

    def link_up(self, ports: list[str]) -> list[PortRow]:
        """Give ports' pods the carrier back that link.down took."""
        return self._set_carrier(ports, True)

    def _set_carrier(self, ports: list[str], up: bool) -> list[PortRow]:
        with self._switch.still():
            names = [spoken(place) for place in read_places(self._switch, ports)]
            for port in names:
                self._check(port)  # a pair has no carrier
            for port in names:
                self._switch.set_carrier(port, up)
            return [row for row in self.port_list() if row["ifname"] in names]

    def fdb_show(self, mac: str | None = None, port: str | None = None, vlan: int | None = None) -> list[FdbRow]:
        """The FDB's live entries: all, or those of a MAC address, a port, a VLAN (0: untagged)."""
        address = None if mac is None else MacAddress(mac)
        if vlan is not None:
            check_vlan(vlan)
        with self._switch.still():
            self._check(port)
            names = {each.index: each.name for each in self._switch.ports}
            index = None if port is None else next(index for index, name in names.items() if name == port)
            rows = self._switch.fdb.rows(address, index, vlan)
        return [_fdb_row(mac, vlan, names[at], age) for mac, vlan, at, age in rows]

    def fdb_add(self, mac: str, port: str, vlan: int = 0) -> list[FdbRow]:
        """Add a static entry, or make the one there static. No frame changes it, and it does not age."""
        self._switch.fdb.add(mac, port, vlan)
        return self.fdb_show(mac, None, vlan)

    def fdb_delete(self, mac: str, vlan: int = 0) -> list[FdbRow]:
        """Remove an entry, static or learned."""
        before = self.fdb_show(mac, None, vlan)
        if not self._switch.fdb.remove(mac, vlan) or not before:
            where = f"in VLAN {vlan}" if vlan else "without a VLAN"
            raise ConfigError(f"the FDB has no entry of {MacAddress(mac)} {where}; `fdb show` lists all")
        return before

    def fdb_flush(self, port: str | None = None) -> list[FlushedRow]:
        """Forget the learned entries, of one port or all; static ones stay. Says how many."""
        return [{"flushed": self._switch.fdb.flush(port)}]

    def neigh_show(self, ip: str | None = None, port: str | None = None) -> list[NeighRow]:
        """The live neighbours: all, or those of an IP address or a port. None is learned while no policy looks."""
        self._check(port)
        address = None if ip is None else _address(ip)
        return [
            _neigh_row(entry)
            for entry in self._switch.neighbours
            if address in (None, entry.ip) and port in (None, entry.port)
        ]

    def neigh_add(self, ip: str, mac: str, port: str, vlan: int = 0) -> list[NeighRow]:
        """Enter a static neighbour. No message changes it, and `guard` binds to it."""
        self._switch.add_neighbour(ip, mac, port, vlan)
        return [row for row in self.neigh_show(ip) if row.get("vlan", 0) == vlan]

    def neigh_delete(self, ip: str, vlan: int = 0) -> list[NeighRow]:
        """Forget a neighbour, static or learned. What `guard` bound to it is free."""
        before = [row for row in self.neigh_show(ip) if row.get("vlan", 0) == vlan]
        if not self._switch.remove_neighbour(ip, vlan) or not before:
            where = f"in VLAN {vlan}" if vlan else "without a VLAN"
            raise ConfigError(f"there is no neighbour {_address(ip)} {where}; `neigh show` lists all")
        return before

    def policy_show(self, port: str | None = None) -> list[PolicyRow]:
        """The policy of each port, or one; `own`: this port's alone. First, without a name, that of all others."""
        switch = self._switch
        general: PolicyRow = {"ifname": None, "policy": str(switch.policy()), "own": False}
        with switch.still():
            self._check(port)
            rows: list[PolicyRow] = [
                {"ifname": each.name, "policy": str(switch.policy(each)), "own": each.name in switch.own_policies}
                for each in switch.ports
                if port in (None, each.name)
            ]
        return rows if port is not None else [general, *rows]

    def policy_set(self, policy: str | None = None, port: str | None = None) -> list[PolicyRow]:
        """Change the policy for ARP and ND of one port (left out: it has none), or of all without their own."""
        if policy is None and port is None:
            raise ConfigError("name the port that is to have no policy of its own")
        self._switch.set_policy(policy, port)
        return self.policy_show(port)

    def stats(self, port: str | None = None) -> list[Row]:
        """The counters of all ports at one moment, or of one port. Last, without a name: the sum, and what all share.

        `time`: seconds by the switch's clock. Two answers give rates.
        """
        self._check(port)
        return [row for row in self._switch.counters().rows() if port in (None, row["ifname"])]

    def load(self) -> list[Row]:
        """How busy the data plane is, and how full its queues are. Two answers give the CPU time in between."""
        return [self._switch.load().as_dict()]

    def trace(
        self,
        port: str,
        frame: str = "",
        src: str | None = None,
        dst: str | None = None,
        vlan: int = 0,
        ethertype: int | None = None,
        send: bool = False,
    ) -> list[Row]:
        """What would become of a frame that a port receives, step by step, and why; nothing changes.

        frame: in hexadecimal digits, or in words such as `arp who-has 10.0.0.2 tell 10.0.0.1`; src, dst: MAC addresses
        for words, in place of the neighbours'. send: send it in as if the port had received it, and say what happened.
        """
        if _HEX.fullmatch(frame):
            if (src, dst, vlan, ethertype) != (None, None, 0, None):
                raise ConfigError("a frame in hexadecimal digits has its addresses, VLAN and EtherType; give no others")
            octets = _octets(frame)
        else:
            octets = describe(frame, self._finder(vlan), src=src, dst=dst, vlan=vlan, ethertype=ethertype)
        return (self._switch.send_in if send else self._switch.explain)(port, octets).as_list()

    def _finder(self, vlan: int) -> Callable[[IPv4Address | IPv6Address], MacAddress | None]:
        def find(ip: IPv4Address | IPv6Address) -> MacAddress | None:
            found = self._switch.neighbours.lookup(vlan, ip.packed)
            return None if found is None else MacAddress(found.mac)

        return find

    def monitor(self, events: list[str] | None = None) -> Monitor:
        """What happens from now on, as events: of these names, or all."""
        return self._switch.monitor(events)

    def config_dump(self) -> list[TomlRow]:
        """The switch as it is now, as a configuration file in TOML."""
        return [{"toml": _live(self._switch).dump_config()}]

    def config_reload(self) -> list[ChangeRow]:
        """Read the configuration file again and apply what it says now. Says what has changed."""
        return [{"change": change} for change in _live(self._switch).reload_config()]

    def state_save(self) -> list[FileRow]:
        """Write what has been learned, and changed by hand, to the state file. Says which."""
        return [{"file": str(_live(self._switch).save_state())}]

    def mirror(self, to: str | None = None, ports: list[str] | None = None) -> list[MirrorRow]:
        """Copy each frame from or to some ports to another port; without ports end that. Says which mirrors there are.

        A port that is copied to is a mirror only: nothing else goes in or out.
        """
        if to is not None and ports:
            self._switch.mirror(ports, to)
        elif to is not None:
            mirror = next((each for each in self._switch.mirrors if each.to == to), None)
            if mirror is None:
                raise ConfigError(f"nothing is copied to {to!r}; name the ports whose frames it is to get")
            mirror.close()
        return [
            {"to": each.to, "ports": list(each.sources), "frames": each.frames, "lost": each.lost}
            for each in self._switch.mirrors
        ]

    def vitals(self) -> list[Row]:
        """What the switch holds and uses: entries and limits, CPU time, pairs of the fast path, waits for a policy."""
        return [self._switch.vitals().as_dict()]

    def _check(self, port: str | None) -> None:
        """Raise ConfigError for an unknown port."""
        if port is not None:
            self._switch.flags(port)

    def _port_row(self, port: SwitchPort, stations: int) -> PortRow:
        limits = asdict(self._switch.storm_control(port))
        return {
            "ifname": port.name,
            "port": port.index,
            "state": port.state,
            "flags": self._switch.flags(port).names,
            "policy": str(self._switch.policy(port)),
            "stations": stations,
            "storm_control": {kind: rate for kind, rate in limits.items() if rate is not None},
        }

    def _limits(self, port: str, changes: dict[str, float | None]) -> StormControl:
        """A port's limits after these changes. Raises ConfigError."""
        for kind in changes:
            if kind not in StormControl.__slots__:
                kinds = ", ".join(StormControl.__slots__)
                raise ConfigError(f"storm control has no kind {kind!r}; there are: {kinds}")
        return replace(self._switch.storm_control(port), **changes)


def _live(switch: Switch | MemorySwitch) -> Switch:
    """Raise ConfigError for a switch in memory, which no file describes."""
    from .memory import MemorySwitch

    if isinstance(switch, MemorySwitch):
        raise ConfigError("a switch in memory has no configuration file")
    return switch


def _fdb_row(mac: int, vlan: int, port: str, age: int | None) -> FdbRow:
    state = "static" if age is None else ""
    row: FdbRow = {"mac": mac.to_bytes(6, "big").hex(":"), "ifname": port, "flags": [], "state": state}
    if vlan:
        row["vlan"] = vlan
    if age is not None:
        row["age"] = age / 1000
    return row


def _neigh_row(entry: NeighbourEntry) -> NeighRow:
    row: NeighRow = {
        "dst": str(entry.ip),
        "dev": entry.port,
        "lladdr": str(entry.mac),
        "state": ["PERMANENT" if entry.static else "REACHABLE"],
        "source": entry.source,
    }
    if entry.vlan:
        row["vlan"] = entry.vlan
    if entry.age is not None:
        row["age"] = round(entry.age, 3)
    return row


def _octets(digits: str) -> bytes:
    try:
        return bytes.fromhex(digits.replace(":", " "))
    except ValueError:
        raise ConfigError("a frame in hexadecimal has two digits for each byte") from None


def _address(text: str) -> IPv4Address | IPv6Address:
    try:
        return ip_address(text)
    except ValueError:
        raise ConfigError(f"{text!r} is not an IP address; write it as 10.0.0.1 or fd00::1") from None
