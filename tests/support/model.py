"""The switch, in plain Python: what fastbridge must do, slow and simple.

One frame at a time, one dict as the FDB, integers for times (milliseconds) and MAC addresses. The tests run
the same cases on this model and on the Cython core and ask for equal frames, equal entries, equal counters.

Frames pass the links (link_model.py) of their ports: from the pod before they are decided, to the pod afterwards. Those
in flight are decided, or leave, when advance() comes to their time.

It has the policies guard, and "watch", which learns neighbours and has no opinion. It reads ARP and ND messages by
`arp_nd.read`, whose own tests ask scapy. It finds by itself which frames are such messages, and where an IP header
begins.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from link_model import Link, Unit

from fastbridge.arp_nd import OVERRIDE, Kind, Message, read
from fastbridge.links.stages import Stages

VLAN_TPIDS = (0x8100, 0x88A8)  # 802.1Q customer tag, 802.1ad service tag
BROADCAST = 0xFFFF_FFFF_FFFF
FLAGS = ("learning", "broadcast_flood", "multicast_flood", "unicast_flood", "isolated", "hairpin", "locked")
DEFAULT_FLAGS = FLAGS[:4]

Copy = tuple[int, bytes]  # the port that it leaves by, and the frame
LinkKey = tuple[str, int | None, int | None]  # "from_pod", "to_pod" or "pair"; ingress, egress


@dataclass
class Entry:
    port: int
    seen: int
    static: bool = False


@dataclass
class Bucket:
    """Frames allowed a second, kept as the time (ns) at which the bucket will be full again."""

    rate: float
    full_at: int = 0

    def take(self, now: int) -> bool:
        interval = int(1e9 / self.rate)
        depth = int(interval * max(1.0, self.rate / 4))  # the frames of a quarter of a second may come at once
        full_at = max(self.full_at, now) + interval
        if full_at > now + depth:
            return False
        self.full_at = full_at
        return True


@dataclass
class Port:
    name: str
    link: str = "up"
    flags: set[str] = field(default_factory=lambda: set(DEFAULT_FLAGS))
    storm: dict[str, Bucket] = field(default_factory=dict)  # "broadcast", "multicast", "unicast": all without a limit
    counts: Counter[str] = field(default_factory=Counter)  # rx_frames, rx_bytes, forwarded, flooded, tx_…
    dropped: Counter[str] = field(default_factory=Counter)
    tx_dropped: Counter[str] = field(default_factory=Counter)
    copies: int = 0  # decided; links make more of some of them
    policy: str = "flood"  # watch, guard, guard=strict, guard=router

    @property
    def guarded(self) -> bool:
        return self.policy.startswith("guard")


@dataclass
class Neighbour:
    """Who has an IP address."""

    mac: bytes
    port: int
    seen: float
    rank: int  # of entries that share a MAC the lowest rank has it: the last static entry, then the oldest learned one
    static: bool = False


class Flight(NamedTuple):
    """A frame on a link. At one time copies for pods come first; else they keep the order in which they came."""

    due: int
    deciding: bool  # it comes from a pod
    number: int
    link: Link
    port: int  # the one that it comes from, or goes to
    frame: bytes


class Model:
    def __init__(
        self,
        ports: int,
        *,
        ageing: float | None,
        capacity: int,
        filter_link_local: bool,
        clock: Callable[[], float],
        damping: float = 0.0,
        neighbour_ageing: float = 60.0,
    ) -> None:
        self.ports = [Port(str(index)) for index in range(ports)]
        self.fdb: dict[tuple[int, int], Entry] = {}  # (VLAN id, MAC) -> Entry
        self.ageing = None if ageing is None else round(ageing * 1000)
        self.damping = round(damping * 1000)
        self.capacity = capacity
        self.filter_link_local = filter_link_local
        self._given_clock, self._moment = clock, None
        self.counts: Counter[str] = Counter()  # learned, moved, aged, refused
        self.neighbours: dict[tuple[int, bytes], Neighbour] = {}  # (VLAN ids, IP) -> Neighbour
        self.neighbour_ageing = neighbour_ageing
        self.entered = 0
        self.bound_ips: dict[tuple[int, bytes], tuple[int, bytes]] = {}  # (VLAN ids, IP) -> port, MAC
        self.bound_macs: dict[tuple[int, bytes], int] = {}  # (outer VLAN id, MAC) -> port
        self.handed: list[tuple[int, bool, bytes]] = []  # to the policy: ingress, whether it alone decides, frame
        self.policy: Counter[str] = Counter()  # forwarded, dropped:…, undelivered, conflicts
        self.links: dict[LinkKey, Link] = {}
        self.flights: list[Flight] = []  # a heap
        self.flown = 0

    def process(self, ingress: int, frames: Iterable[bytes]) -> list[Copy]:
        """Decide a batch by the bindings of before, then ask the policy."""
        return [copy for frame in frames for copy in self._receive(ingress, frame)] + self._consult()

    def _consult(self) -> list[Copy]:
        copies = [copy for punt in self.handed for copy in self._police(*punt)]
        self.handed.clear()
        self.bind()
        return copies

    def _receive(self, ingress: int, frame: bytes) -> list[Copy]:
        """A frame that a pod sends. It is decided when it has passed the port's link."""
        link, port = self.links.get(("from_pod", ingress, None)), self.ports[ingress]
        if link is None:
            return self._decide(ingress, frame)
        copies = list[Copy]()
        for unit in link.enter(self._now_ns(), frame):
            if unit.fate == "passes":
                copies += self._decide(ingress, unit.frame)
            elif unit.fate == "flies":
                port.counts.update(rx_frames=1, rx_in_flight=1)
                self._fly(link, ingress, unit, deciding=True)
            else:
                port.counts.update(rx_frames=1, rx_bytes=len(unit.frame))
                port.dropped[unit.fate] += 1
        return copies

    def _decide(self, ingress: int, frame: bytes) -> list[Copy]:
        port = self.ports[ingress]
        port.counts.update(rx_frames=1, rx_bytes=len(frame))
        verdict, egress = self._classify(ingress, frame)
        if verdict in ("forwarded", "flooded", "consumed"):
            port.counts[verdict] += 1
        else:
            port.dropped[verdict] += 1
        return [copy for index in egress for copy in self._send(ingress, index, frame)]

    def _send(self, ingress: int, egress: int, frame: bytes) -> list[Copy]:
        """A copy for a pod, by the link of the two ports, or of the one: what leaves at once."""
        port = self.ports[egress]
        port.copies += 1
        link, pair = self.links.get(("to_pod", None, egress)), self.links.get(("pair", ingress, egress))
        earliest = 0
        if pair and not pair.stages and link:
            earliest = pair.last_due
        elif pair:
            link = pair
        units = link.enter(self._now_ns(), frame, earliest=earliest) if link else [Unit(frame, "passes")]
        copies = list[Copy]()
        for unit in units:
            if unit.fate == "passes":
                port.counts.update(tx_frames=1, tx_bytes=len(frame))
                copies.append((egress, unit.frame))
            elif link and unit.fate == "flies":
                port.counts["tx_in_flight"] += 1
                self._fly(link, egress, unit, deciding=False)
            else:
                port.tx_dropped[unit.fate] += 1
        if len(units) > 1:
            port.counts["link_added"] += len(units) - 1
        return copies

    def _fly(self, link: Link, port: int, unit: Unit, *, deciding: bool) -> None:
        self.flown += 1
        heapq.heappush(self.flights, Flight(unit.due, deciding, self.flown, link, port, unit.frame))

    def advance(self, until: int | None = None) -> list[tuple[int, int, bytes]]:
        """Let time pass up to `until` (ns; None: now): what leaves meanwhile, (time, port, frame)."""
        until = self._now_ns() if until is None else until
        left = list[tuple[int, int, bytes]]()
        while self.flights and self.flights[0].due <= until:
            self._moment = self.flights[0].due
            copies = list[Copy]()
            while self.flights and self.flights[0].due == self._moment:
                copies += self._land(heapq.heappop(self.flights))
            left += [(self._moment, *copy) for copy in copies + self._consult()]
        self._moment = None
        return left

    def _land(self, flight: Flight) -> list[Copy]:
        port, frame = self.ports[flight.port], flight.frame
        flight.link.land(frame)
        if flight.deciding:
            port.counts.update(rx_frames=-1, rx_in_flight=-1)
            return self._decide(flight.port, frame)
        port.counts["tx_in_flight"] -= 1
        if port.link != "up":
            port.tx_dropped["port_down"] += 1
            return []
        port.counts.update(tx_frames=1, tx_bytes=len(frame))
        return [(flight.port, frame)]

    def set_link(self, key: LinkKey, stages: Stages | None, *, restart: bool = True) -> None:
        if key in self.links or stages:
            link = self.links.setdefault(key, Link(None))
            link.set(stages, self._now_ns(), restart)
            other = self.links.get(("to_pod", None, key[2]))
            if key[0] == "pair" and stages and other:  # what is on that way still comes first
                link.last_due = max(link.last_due, other.last_due)

    def replace_port(self, index: int) -> Port:
        """Take a port out, and add one with the same name; returns the old one, with its last counts."""
        port, flights, self.flights = self.ports[index], self.flights, []
        for flight in flights:
            if not (flight.port == index or (key_of(self.links, flight.link)[1] == index)):
                heapq.heappush(self.flights, flight)
                continue
            flight.link.land(flight.frame, delivered=False)
            mine = self.ports[flight.port]
            if flight.deciding:
                mine.counts.update(rx_bytes=len(flight.frame), rx_in_flight=-1)
                mine.dropped["link_cut"] += 1
            else:
                mine.counts["tx_in_flight"] -= 1
                mine.tx_dropped["link_cut"] += 1
        self.links = {key: link for key, link in self.links.items() if index not in key[1:]}
        self.fdb = {key: entry for key, entry in self.fdb.items() if entry.port != index}
        self.ports[index] = Port(port.name)
        return port

    def clock(self) -> float:
        return self._given_clock() if self._moment is None else self._moment / 1e9

    def _classify(self, ingress: int, frame: bytes) -> tuple[str, list[int]]:
        """The fate of one frame ("forwarded", "flooded" or the drop reason), and its egress ports."""
        if len(frame) < 14:
            return "runt", []
        vid = 0
        if int.from_bytes(frame[12:14], "big") in VLAN_TPIDS:
            vid = int.from_bytes(frame[14:16], "big") & 0xFFF
            if len(frame) < 18 or vid == 0xFFF:
                return "bad_tag", []
        source = int.from_bytes(frame[6:12], "big")
        if is_group(source) or source == 0:
            return "bad_source", []
        port = self.ports[ingress]
        if port.link == "blocked":
            return "blocked", []
        if "locked" in port.flags and self._where(vid, source) != ingress:
            return "locked", []
        taken = self._is_taken(port, frame)
        mac_fits = not port.guarded or self.bound_macs.get((vid, frame[6:12]), ingress) == ingress
        if port.guarded and not (has_plain_tags(frame) and (taken or (mac_fits and self._ip_fits(ingress, frame)))):
            return "source_guard", []
        if "learning" in port.flags and mac_fits:
            self._learn(vid, source, ingress)
        if taken is not None:
            self.handed.append((ingress, taken, frame))
        return ("consumed", []) if taken else self._look_up(ingress, frame, vid)

    def _look_up(self, ingress: int, frame: bytes, vid: int) -> tuple[str, list[int]]:
        """Where a frame goes by its destination alone."""
        port, destination = self.ports[ingress], int.from_bytes(frame[0:6], "big")
        if is_group(destination):
            if self.filter_link_local and destination & ~0xF == 0x0180C2000000:
                return "link_local", []
            return self._flood(ingress, "broadcast" if destination == BROADCAST else "multicast")
        egress = self._where(vid, destination)
        if egress is None or self.ports[egress].link != "up":
            return self._flood(ingress, "unicast")
        if egress == ingress:
            return ("forwarded", [egress]) if "hairpin" in port.flags else ("filtered", [])
        return ("isolated", []) if self._isolated(ingress, egress) else ("forwarded", [egress])

    def _flood(self, ingress: int, what: str) -> tuple[str, list[int]]:
        limit = self.ports[ingress].storm.get(what)
        if limit and not limit.take(self._now_ns()):
            return f"storm_{'unknown_unicast' if what == 'unicast' else what}", []
        return "flooded", [index for index in range(len(self.ports)) if self._may_flood(ingress, index, what)]

    def _may_flood(self, ingress: int, egress: int, what: str) -> bool:
        if self.ports[egress].link != "up" or f"{what}_flood" not in self.ports[egress].flags:
            return False
        if egress == ingress:
            return "hairpin" in self.ports[ingress].flags
        return not self._isolated(ingress, egress)

    def _isolated(self, a: int, b: int) -> bool:
        return "isolated" in self.ports[a].flags & self.ports[b].flags

    def _where(self, vid: int, mac: int) -> int | None:
        """The port of a live entry."""
        entry = self.fdb.get((vid, mac))
        return None if entry is None or self.expired(entry) else entry.port

    def _learn(self, vid: int, source: int, ingress: int) -> None:
        entry = self.fdb.get((vid, source))
        if entry is not None and entry.static:
            return
        if entry is None and len(self.fdb) >= self.capacity:  # static entries may have gone past it
            self.counts["refused"] += 1
            return
        if entry is None:
            self.counts["learned"] += 1
        elif self.expired(entry):
            self.counts.update(aged=1, learned=1)
        elif entry.port != ingress:
            if self._now() - entry.seen < self.damping:  # just heard elsewhere: it stays there
                return
            self.counts["moved"] += 1
        self.fdb[vid, source] = Entry(ingress, self._now())

    def _now_ns(self) -> int:
        return round(self.clock() * 1e9) if self._moment is None else self._moment

    def _now(self) -> int:
        return self._now_ns() // 1_000_000

    def expired(self, entry: Entry) -> bool:
        return not entry.static and self.ageing is not None and self._now() - entry.seen >= self.ageing

    def tick(self) -> None:
        """Sweep: remove what has expired, and links without frames that were taken off."""
        self.links = {key: link for key, link in self.links.items() if link.stages or link.waiting}
        for key in [key for key, entry in self.fdb.items() if self.expired(entry)]:
            del self.fdb[key]
            self.counts["aged"] += 1

    def add(self, mac: int, port: int, vid: int = 0) -> None:
        """Add a static entry, or replace a known one by it."""
        self.fdb[vid, mac] = Entry(port, self._now(), static=True)

    def remove(self, mac: int, vid: int = 0) -> bool:
        """Remove an entry, static or learned; returns whether there was one."""
        return self.fdb.pop((vid, mac), None) is not None

    # Policies.

    def _is_taken(self, port: Port, frame: bytes) -> bool | None:
        """Whether the policy alone decides about a frame; False: it is shown it; None: it never sees it."""
        if port.policy == "flood" or not is_arp_or_nd(frame):
            return None
        return port.guarded or is_group(int.from_bytes(frame[:6], "big"))

    def _ip_fits(self, ingress: int, frame: bytes) -> bool:
        """Whether a guarded port may send from this IP address."""
        (vlan, ip), policy = ip_source(frame), self.ports[ingress].policy
        if ip is None or policy == "guard=router":
            return True
        port, mac = self.bound_ips.get((vlan, ip), (None, b""))
        if policy == "guard=strict":
            return (port, mac) == (ingress, frame[6:12])
        return port in (None, ingress)

    def _police(self, ingress: int, taken: bool, frame: bytes) -> list[Copy]:
        """Decide one frame as the policy does, send it, and learn from it."""
        message, egress = read(ingress, frame), list[int]()
        reason = self._inspect(message) if self.ports[ingress].guarded else None
        if reason:
            self.policy[f"dropped:{reason}"] += 1
            if reason == "spoofed" and message.sender_ip and self.lookup(message.vlan, message.sender_ip):
                self.policy["conflicts"] += 1
            return []
        if taken:
            self.policy["forwarded"] += 1
            verdict, egress = self._look_up(ingress, frame, message.vlan & 0xFFF if has_tag(frame) else 0)
            self.policy["undelivered"] += verdict not in ("forwarded", "flooded")
        self._observe(message)
        return [copy for index in egress for copy in self._send(ingress, index, frame)]

    def _inspect(self, message: Message) -> str | None:
        """Why guard drops a message."""
        if message.kind is Kind.MALFORMED:
            return "malformed"
        if message.sender_mac not in (None, message.eth_source):
            return "l2_mismatch"
        holder = next((n for n in self.of_station(message.vlan, message.eth_source) if self._is_live(n)), None)
        if holder and holder.port != message.ingress:
            return "spoofed"
        if message.sender_ip is None:
            return None
        strict = self.ports[message.ingress].policy == "guard=strict"
        bound = self.lookup(message.vlan, message.sender_ip)
        if bound is None:
            return "unbound" if strict else None
        other_mac = bound.mac != message.eth_source and (strict or bound.static)
        return "spoofed" if bound.port != message.ingress or other_mac else None

    def _observe(self, message: Message) -> None:
        """The last claim counts; static entries stay; an advertisement without override changes no MAC."""
        if message.sender_ip is None:
            return
        mac, key = message.sender_mac, (message.vlan, message.sender_ip)
        known = self.lookup(*key)
        if known is None:
            self.neighbours.pop(key, None)  # expired
        same = known is not None and known.mac == (mac or message.eth_source)
        if known and same and known.port == message.ingress:
            known.seen = self.clock()
        elif mac is not None:
            self.policy["conflicts"] += known is not None and (known.static or not same)
            if known and known.static:
                return
            advertised = message.kind in (Kind.NA, Kind.NA_UNSOLICITED)
            if known is None or same or not advertised or message.flags & OVERRIDE:
                self._enter(key, mac, message.ingress, static=False)

    def _enter(self, key: tuple[int, bytes], mac: bytes, port: int, *, static: bool) -> None:
        self.neighbours.pop(key, None)
        for before in self.of_station(key[0], mac):  # expired holders of the MAC
            if self._is_live(before):
                break
            self.neighbours = {k: n for k, n in self.neighbours.items() if n is not before}
        self.entered += 1
        rank = -self.entered if static else self.entered
        self.neighbours[key] = Neighbour(mac, port, self.clock(), rank, static)

    def lookup(self, vlan: int, ip: bytes) -> Neighbour | None:
        known = self.neighbours.get((vlan, ip))
        return known if known and self._is_live(known) else None

    def of_station(self, vlan: int, mac: bytes) -> list[Neighbour]:
        """All that have a MAC under the same outer tag. The first one has the right to it."""
        found = [n for (at, _), n in self.neighbours.items() if at & 0xFFF == vlan & 0xFFF and n.mac == mac]
        return sorted(found, key=lambda n: n.rank)

    def _is_live(self, neighbour: Neighbour) -> bool:
        return neighbour.static or self.clock() - neighbour.seen < self.neighbour_ageing

    def bind(self) -> None:
        """Bind as the table says. Expired entries count until they are swept."""
        self.bound_ips = {key: (n.port, n.mac) for key, n in self.neighbours.items()}
        stations = {(vlan & 0xFFF, n.mac) for (vlan, _), n in self.neighbours.items()}
        self.bound_macs = {station: self.of_station(*station)[0].port for station in stations}

    def sweep(self) -> None:
        self.neighbours = {key: n for key, n in self.neighbours.items() if self._is_live(n)}
        self.bind()

    def add_neighbour(self, ip: bytes, mac: bytes, port: int, vlan: int) -> None:
        self._enter((vlan, ip), mac, port, static=True)

    def remove_neighbour(self, ip: bytes, vlan: int) -> bool:
        return self.neighbours.pop((vlan, ip), None) is not None

    def set_policy(self, port: int, policy: str) -> None:
        self.ports[port].policy = policy
        self.bind()

    def flush(self, port: int | None = None) -> None:
        """Forget learned entries, of one port or all. Static entries stay."""
        self.fdb = {k: e for k, e in self.fdb.items() if e.static or port not in (None, e.port)}


def key_of(links: dict[LinkKey, Link], link: Link) -> LinkKey:
    return next(key for key, each in links.items() if each is link)


def is_group(mac: int) -> bool:
    return bool(mac >> 40 & 1)


def has_tag(frame: bytes) -> bool:
    return int.from_bytes(frame[12:14], "big") in VLAN_TPIDS


def behind_tags(frame: bytes) -> tuple[list[int], int, bytes]:
    """The VIDs of at most two whole tags, the EtherType behind them, and what follows."""
    at, vids = 14, list[int]()
    while len(vids) < 2 and int.from_bytes(frame[at - 2 : at], "big") in VLAN_TPIDS and len(frame) >= at + 4:
        vids.append(int.from_bytes(frame[at : at + 2], "big") & 0xFFF)
        at += 4
    return vids, int.from_bytes(frame[at - 2 : at], "big"), frame[at:]


def has_plain_tags(frame: bytes) -> bool:
    """Whether a guard can read a frame with these tags: none, one, or two of which the outer names a VLAN."""
    vids, ethertype, _ = behind_tags(frame)
    return ethertype not in VLAN_TPIDS and not (len(vids) == 2 and vids[0] == 0)


def is_arp_or_nd(frame: bytes) -> bool:
    """Whether a frame is ARP or ND. ND may stand behind extension headers."""
    _, ethertype, packet = behind_tags(frame)
    if ethertype != 0x86DD or len(packet) <= 40:
        return ethertype == 0x0806
    header, at = packet[6], 40
    while len(packet) >= at + 8 and header in (0, 43, 44, 60):
        if header == 44 and int.from_bytes(packet[at + 2 : at + 4], "big") >> 3:
            return False  # a later fragment
        header, at = packet[at], at + (8 if header == 44 else 8 * (packet[at + 1] + 1))
    return len(packet) >= at + 8 and header == 58 and packet[at] in (135, 136)


def ip_source(frame: bytes) -> tuple[int, bytes | None]:
    """The VLAN as a Message has it, and an IP header's source address; None: there is none, or it is unspecified."""
    vids, ethertype, packet = behind_tags(frame)
    vlan = sum(vid << 12 * n for n, vid in enumerate(vids))
    ip = None
    if ethertype == 0x0800 and len(packet) >= 20:
        ip = packet[12:16]
    elif ethertype == 0x86DD and len(packet) >= 40:
        ip = packet[8:24]
    return vlan, ip if ip and any(ip) else None
