"""IP → MAC, port.

The neighbour table: which MAC and port an IP is at, by VLAN, as ARP and ND say. One thread changes it, others read it.
A look-up takes no lock: an entry that moves is replaced, never half changed.
"""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Collection, Iterable, Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address

from fastbridge.addresses import MacAddress
from fastbridge.arp_nd import OVERRIDE, ROUTER, Kind, Message, vlan_tags
from fastbridge.errors import ConfigError
from fastbridge.notebook import table

from .neighbour_entry import Change, Claim, Conflict, Neighbour, NeighbourEntry

# A neighbour is asked from two thirds of its ageing time on, each twelfth of it: four times before it expires.
_REFRESH_AFTER, _REFRESH_EVERY = 2 / 3, 1 / 12
# Two owners of one IP dispute it with every frame. People hear of it once in this time. Hosts defend an address no more
# often either (RFC 5227 §2.4).
_CONFLICT_SECONDS = 10.0
_CONFLICTS_KEPT = 256

Key = tuple[int, bytes]  # VLAN, IP
Station = tuple[
    int, bytes
]  # VID of the outer tag, MAC: the key that the FDB learns, which one port can take from another

_NA, _NA_UNSOLICITED = Kind.NA, Kind.NA_UNSOLICITED


class Neighbours:
    """The neighbour table. Iterating gives a snapshot of its live entries, by VLAN and IP.

    ageing: seconds that an entry lives after its owner was last heard; None: for ever.
    capacity: most entries; per_port: most learned entries of one port. Beyond either, a port's new neighbour takes
        the place of the same port's oldest, never of another's. If the port has none, the neighbour is not learned, and
        counted in `refused`.
    on_conflict: called for each reported conflict, at most once in 10 s for each IP. `conflicts` keeps the last 256,
        `conflict_count` counts all.
    name_of: the name of a port for people.
    """

    def __init__(
        self,
        ageing: float | None = 60.0,
        capacity: int = 65536,
        per_port: int = 1024,
        *,
        clock: Callable[[], float] = time.monotonic,
        on_conflict: Callable[[Conflict], None] | None = None,
        name_of: Callable[[int], str] = str,
    ) -> None:
        if ageing is not None and not ageing > 0:
            raise ConfigError(f"a neighbour table's ageing must be more than 0 s, not {ageing}; None means for ever")
        if capacity < 1 or per_port < 1:
            raise ConfigError(f"a neighbour table must hold 1 entry or more, not {min(capacity, per_port)}")
        self._ageing = math.inf if ageing is None else ageing
        self._capacity, self._per_port = capacity, per_port
        self._clock, self._on_conflict, self.name_of = clock, on_conflict, name_of
        self._lock = threading.Lock()
        self._entries: dict[Key, Neighbour] = {}
        self._learned: defaultdict[int, OrderedDict[Key, Neighbour]] = defaultdict(OrderedDict)  # oldest first
        # By MAC: the last static entry first, learned ones in the order of their coming.
        self._of_station: dict[Station, OrderedDict[Key, Neighbour]] = {}
        self._holders: dict[Station, Neighbour] = {}  # the first of these
        self._changed: set[Key] = set()
        self._changed_stations: set[Station] = set()
        self.conflicts: deque[Conflict] = deque(maxlen=_CONFLICTS_KEPT)
        self.conflict_count = 0
        self.refused = 0

    @property
    def capacity(self) -> int:
        """Most entries."""
        return self._capacity

    @property
    def ageing(self) -> float | None:
        """Seconds that an entry lives after its owner was last heard; None: for ever."""
        return None if self._ageing == math.inf else self._ageing

    def lookup(self, vlan: int, ip: bytes) -> Neighbour | None:
        """The live entry of an IP, or None."""
        known = self._entries.get((vlan, ip))
        return known if known is not None and self._is_live(known, self._clock()) else None

    def holder(self, vlan: int, mac: bytes) -> Neighbour | None:
        """Who has a MAC in a VLAN, or None: the last static entry, else the live neighbour that had it first.

        Only the VLAN's outer tag counts, as in the FDB: whoever sends from a MAC under that tag gets the MAC's frames.
        """
        station = (vlan & 0xFFF, mac)
        first = self._holders.get(station)
        if first is None or self._is_live(first, self._clock()):
            return first
        with self._lock:
            now = self._clock()
            entries = self._of_station.get(station, OrderedDict())
            return next((n for n in entries.values() if self._is_live(n, now)), None)

    def of_station(self, vlan: int, mac: bytes, port: int) -> list[Neighbour]:
        """The entries of a MAC behind a port, live or not, in the order of their coming."""
        with self._lock:
            return [n for n in self._of_station.get((vlan & 0xFFF, mac), OrderedDict()).values() if n.port == port]

    def end(self, neighbours: Iterable[Neighbour]) -> None:
        """Forget those of these learned entries that are still in the table."""
        with self._lock:
            for neighbour in neighbours:
                key = (neighbour.vlan, neighbour.ip)
                if not neighbour.static and self._entries.get(key) is neighbour:
                    self._forget(key, neighbour)

    def take_changes(self) -> tuple[dict[Key, Neighbour | None], dict[Station, Neighbour | None]]:
        """The entries, and the holders of MACs, that have changed since the last call; None: gone."""
        if not self._changed and not self._changed_stations:
            return {}, {}
        with self._lock:
            entries = {key: self._entries.get(key) for key in self._changed}
            stations = {station: self._holders.get(station) for station in self._changed_stations}
            self._changed.clear()
            self._changed_stations.clear()
        return entries, stations

    def live(self) -> list[Neighbour]:
        """All live entries."""
        with self._lock:
            now = self._clock()
            return [n for n in self._entries.values() if self._is_live(n, now)]

    def __iter__(self) -> Iterator[NeighbourEntry]:
        now = self._clock()
        for n in sorted(self.live(), key=lambda n: (n.vlan, len(n.ip), n.ip)):
            age = None if n.static else max(0.0, now - n.seen)
            port = self.name_of(n.port)
            yield NeighbourEntry(ip_address(n.ip), MacAddress(n.mac), port, age, n.source, n.static, n.vlan)

    def __len__(self) -> int:
        return len(self.live())

    def __contains__(self, item: object) -> bool:
        """Whether an IP address has a live entry in any VLAN, or a NeighbourEntry is still true.

        Raises ConfigError for text that is not a unicast IP address, TypeError for another type.
        """
        if isinstance(item, NeighbourEntry):
            known = self.lookup(item.vlan, item.ip.packed)
            return known is not None and (known.mac, self.name_of(known.port)) == (item.mac.packed, item.port)
        if not isinstance(item, str | IPv4Address | IPv6Address):
            raise TypeError(f"a neighbour table has IP addresses and NeighbourEntry, not {type(item).__name__}")
        ip = _station_ip(item).packed
        return self.lookup(0, ip) is not None or any(n.ip == ip for n in self.live())

    def __repr__(self) -> str:
        return f"<Neighbours: {len(self)} entries>"

    def _repr_html_(self) -> str:
        """A table, in a notebook."""
        entries = list(self)
        heads = ("IP", "MAC", "VLAN", "port", "heard", "by")
        rows = (_cells(entry) for entry in entries)
        return table(f"Neighbours: {len(entries):,}", heads, rows, len(entries), right=("VLAN", "heard"))

    def observe(self, message: Message) -> Change | None:
        """Learn from a message. Call it for every message that was not dropped, after the decision.

        The last claim counts, so a redeployed pod is found at once. But static entries stay, and an advertisement
        without the override flag changes no MAC (RFC 4861 §7.2.5). None: the message claims nothing.
        """
        ip, mac = message.sender_ip, message.sender_mac
        if ip is None:
            return None
        conflict = None
        with self._lock:
            now, key = self._clock(), (message.vlan, ip)
            known = self._entries.get(key)
            if known is not None and not self._is_live(known, now):
                self._forget(key, known)
                known = None
            same = known is not None and known.mac == (mac or message.eth_source)
            if known is not None and same and known.port == message.ingress:
                self._refresh(key, known, message, now)
                return Change.REFRESHED
            if mac is None:
                return None
            if known is None:
                return Change.NEW if self._learn(key, mac, message, now, None) else None
            if not same or known.static:
                conflict = self._dispute(known, mac, message, now)
            if not known.static and (same or message.kind not in (_NA, _NA_UNSOLICITED) or message.flags & OVERRIDE):
                self._forget(key, known)
                self._learn(key, mac, message, now, known)
        if conflict and self._on_conflict:
            self._on_conflict(conflict)
        return Change.MOVED if same and not known.static else Change.CONFLICT

    def contest(self, message: Message) -> bool:
        """Report a dropped claim as a conflict; returns whether the table contradicts it. The table stays."""
        with self._lock:
            known = None if message.sender_ip is None else self.lookup(message.vlan, message.sender_ip)
            if known is None:
                return False
            mac = message.sender_mac or message.eth_source
            conflict = self._dispute(known, mac, message, self._clock())
        if conflict and self._on_conflict:
            self._on_conflict(conflict)
        return True

    def add(
        self,
        ip: IPv4Address | IPv6Address | str,
        mac: MacAddress | str | int,
        port: int,
        vlan: int = 0,
        *,
        source: str = "static",
        router: bool = False,
    ) -> None:
        """Add a static entry, or replace a learned one by it. No message changes it, and it does not age.

        router: the R flag of answers on its behalf. Raises ConfigError for an address that is not unicast.
        """
        address, station = _station_ip(ip), MacAddress(mac)
        if station.is_group or not station:
            raise ConfigError(f"{station} is not a unicast MAC address, which a neighbour needs")
        if not 0 <= vlan < 1 << 24 or vlan & 0xFFF == 0xFFF:
            raise ConfigError(f"VLAN id {vlan} is outside 0 … 4094 (IEEE 802.1Q §9.6)")
        key = (vlan, address.packed)
        with self._lock:
            known = self._entries.get(key)
            if known is None and len(self._entries) >= self._capacity:
                raise ConfigError(f"the neighbour table is full ({self._capacity} entries); give it more capacity")
            if known is not None:
                self._forget(key, known)
            self._enter(
                key,
                Neighbour(*key, station.packed, port, self._clock(), source, True, router, tags=vlan_tags(vlan)),
            )

    def learned(self) -> list[tuple[Neighbour, float]]:
        """The live learned entries, each with the seconds since its owner was heard, the oldest first."""
        with self._lock:
            now = self._clock()
            found = [(n, now - n.seen) for n in self._entries.values() if not n.static and self._is_live(n, now)]
        return sorted(found, key=lambda entry: -entry[1])

    def take_back(self, entries: Iterable[tuple[Neighbour, float]]) -> int:
        """Enter what learned() gave, in its order, where there is room and nothing else; returns how many."""
        taken = 0
        with self._lock:
            now = self._clock()
            for neighbour, age in entries:
                key, learned = (neighbour.vlan, neighbour.ip), self._learned[neighbour.port]
                full = len(learned) >= self._per_port or len(self._entries) >= self._capacity
                if full or key in self._entries or age >= self._ageing:
                    continue
                neighbour.seen = now - age
                learned[key] = neighbour
                self._enter(key, neighbour)
                taken += 1
        return taken

    def remove(self, ip: IPv4Address | IPv6Address | str, vlan: int = 0) -> bool:
        """Remove an entry, static or learned; returns whether there was one."""
        key = (vlan, _station_ip(ip).packed)
        with self._lock:
            known = self._entries.get(key)
            if known is not None:
                self._forget(key, known)
        return known is not None

    def flush(self, ports: Collection[int] | None = None, *, static: bool = False) -> int:
        """Forget the learned entries, of some ports or all; `static`: the static ones too. Returns how many."""
        return self._forget_all(lambda n: (ports is None or n.port in ports) and (static or not n.static))

    def sweep(self) -> int:
        """Remove expired entries; returns how many."""
        now = self._clock()
        return self._forget_all(lambda n: not self._is_live(n, now))

    def due_for_refresh(self) -> list[Neighbour]:
        """The entries that expire soon, whose owners should be asked now (see Neighbour.question)."""
        due = []
        with self._lock:
            now = self._clock()
            for learned in self._learned.values():
                for neighbour in learned.values():
                    if now - neighbour.seen < self._ageing * _REFRESH_AFTER:
                        break
                    if now - neighbour.asked >= self._ageing * _REFRESH_EVERY and now - neighbour.seen < self._ageing:
                        neighbour.asked = now
                        due.append(neighbour)
        return due

    def _refresh(self, key: Key, known: Neighbour, message: Message, now: float) -> None:
        known.seen = now
        known.heard += 1
        if known.static:
            return
        self._learned[known.port].move_to_end(key)
        if message.kind is _NA or message.kind is _NA_UNSOLICITED:
            known.router, known.override = bool(message.flags & ROUTER), bool(message.flags & OVERRIDE)

    def _learn(self, key: Key, mac: bytes, message: Message, now: float, before: Neighbour | None) -> bool:
        """Make an entry from a message. `before`: the entry that it replaces, already forgotten."""
        learned = self._learned[message.ingress]
        if len(learned) >= self._per_port or len(self._entries) >= self._capacity:
            if not learned:
                self.refused += 1
                return False
            self._forget(*next(iter(learned.items())))
        neighbour = Neighbour(*key, mac, message.ingress, now, message.kind.value, tags=message.tags)
        if before is not None:
            neighbour.disputed = before.disputed
        if message.kind is _NA or message.kind is _NA_UNSOLICITED:
            neighbour.router, neighbour.override = bool(message.flags & ROUTER), bool(message.flags & OVERRIDE)
        elif before is not None and before.mac == mac:
            neighbour.router, neighbour.override = before.router, before.override
        elif len(neighbour.ip) == 16:
            neighbour.router = None
        learned[key] = neighbour
        self._enter(key, neighbour)
        return True

    def _enter(self, key: Key, neighbour: Neighbour) -> None:
        station = (neighbour.vlan & 0xFFF, neighbour.mac)
        now = self._clock()
        while (holder := self._holders.get(station)) is not None and not self._is_live(holder, now):
            self._forget((holder.vlan, holder.ip), holder)  # else it would keep the MAC until the next sweep
        self._changed.add(key)
        self._entries[key] = neighbour
        entries = self._of_station.setdefault(station, OrderedDict())
        entries[key] = neighbour
        if neighbour.static:
            entries.move_to_end(key, last=False)
        if neighbour.static or holder is None:
            self._hold(station, neighbour)

    def _is_live(self, neighbour: Neighbour, now: float) -> bool:
        return neighbour.static or now - neighbour.seen < self._ageing

    def _forget(self, key: Key, known: Neighbour) -> None:
        self._changed.add(key)
        del self._entries[key]
        if not known.static:
            del self._learned[known.port][key]
        station = (known.vlan & 0xFFF, known.mac)
        entries = self._of_station[station]
        del entries[key]
        if self._holders[station] is known:
            self._hold(station, next(iter(entries.values()), None))
        if not entries:
            del self._of_station[station]

    def _hold(self, station: Station, neighbour: Neighbour | None) -> None:
        self._changed_stations.add(station)
        if neighbour is None:
            del self._holders[station]
        else:
            self._holders[station] = neighbour

    def _forget_all(self, chosen: Callable[[Neighbour], bool]) -> int:
        with self._lock:
            doomed = [(key, n) for key, n in self._entries.items() if chosen(n)]
            for key, neighbour in doomed:
                self._forget(key, neighbour)
        return len(doomed)

    def _dispute(self, known: Neighbour, mac: bytes, message: Message, now: float) -> Conflict | None:
        """Count a conflict; returns it when it may be reported again."""
        self.conflict_count += 1
        if now - known.disputed < _CONFLICT_SECONDS:
            return None
        known.disputed = now
        conflict = Conflict(
            now,
            known.vlan,
            ip_address(known.ip),
            Claim(MacAddress(known.mac), self.name_of(known.port)),
            Claim(MacAddress(mac), self.name_of(message.ingress)),
        )
        self.conflicts.append(conflict)
        return conflict


def _cells(entry: NeighbourEntry) -> tuple[str, ...]:
    """A row of a table."""
    heard = "static" if entry.age is None else f"{entry.age:,.1f} s ago"
    by = "" if entry.source == "static" else entry.source
    return str(entry.ip), str(entry.mac), str(entry.vlan or ""), entry.port, heard, by


def _station_ip(ip: IPv4Address | IPv6Address | str) -> IPv4Address | IPv6Address:
    try:
        address = ip_address(ip)
    except ValueError:
        raise ConfigError(f"{ip!r} is not an IP address; write it as 10.0.0.1 or fd00::1") from None
    if address.is_multicast or address.is_unspecified or address.is_loopback:
        raise ConfigError(f"{address} is not a unicast IP address, which a neighbour needs")
    return address
