"""The switch, in plain Python: what fastbridge must do, with nothing done for speed.

One frame at a time, one dict as the FDB, integers for times (milliseconds) and MAC addresses. The tests run
the same cases on this model and on the Cython core and ask for equal frames, equal entries, equal counters.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

VLAN_TPIDS = (0x8100, 0x88A8)  # 802.1Q customer tag, 802.1ad service tag
BROADCAST = 0xFFFF_FFFF_FFFF
FLAGS = ("learning", "broadcast_flood", "multicast_flood", "unicast_flood", "isolated", "hairpin", "locked")
DEFAULT_FLAGS = FLAGS[:4]


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
        depth = int(interval * max(1.0, self.rate / 4))  # a quarter of a second's may come at once
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
    ) -> None:
        self.ports = [Port(str(index)) for index in range(ports)]
        self.fdb: dict[tuple[int, int], Entry] = {}  # (VLAN id, MAC) -> Entry
        self.ageing = None if ageing is None else round(ageing * 1000)
        self.damping = round(damping * 1000)
        self.capacity = capacity
        self.filter_link_local = filter_link_local
        self.clock = clock
        self.counts: Counter[str] = Counter()  # learned, moved, aged, refused

    def process(self, ingress: int, frames: Iterable[bytes]) -> list[tuple[int, bytes]]:
        return [(port, frame) for frame in frames for port in self._one_frame(ingress, frame)]

    def _one_frame(self, ingress: int, frame: bytes) -> list[int]:
        port = self.ports[ingress]
        port.counts.update(rx_frames=1, rx_bytes=len(frame))
        verdict, egress = self._classify(ingress, frame)
        if verdict in ("forwarded", "flooded"):
            port.counts[verdict] += 1
        else:
            port.dropped[verdict] += 1
        for index in egress:
            self.ports[index].counts.update(tx_frames=1, tx_bytes=len(frame))
        return egress

    def _classify(self, ingress: int, frame: bytes) -> tuple[str, list[int]]:
        """What becomes of one frame: "forwarded", "flooded" or the drop reason, and its egress ports."""
        if len(frame) < 14:
            return "runt", []
        vid = 0
        if int.from_bytes(frame[12:14], "big") in VLAN_TPIDS:
            vid = int.from_bytes(frame[14:16], "big") & 0xFFF
            if len(frame) < 18 or vid == 0xFFF:
                return "bad_tag", []
        destination, source = int.from_bytes(frame[0:6], "big"), int.from_bytes(frame[6:12], "big")
        if is_group(source) or source == 0:
            return "bad_source", []
        port = self.ports[ingress]
        if port.link == "blocked":
            return "blocked", []
        if "locked" in port.flags and self._where(vid, source) != ingress:
            return "locked", []
        if "learning" in port.flags:
            self._learn(vid, source, ingress)
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
        if limit and not limit.take(self._now() * 1_000_000):
            return f"storm_{what}", []
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

    def _now(self) -> int:
        return int(self.clock() * 1000)

    def expired(self, entry: Entry) -> bool:
        return not entry.static and self.ageing is not None and self._now() - entry.seen >= self.ageing

    def tick(self) -> None:
        """Sweep: remove what has expired."""
        for key in [key for key, entry in self.fdb.items() if self.expired(entry)]:
            del self.fdb[key]
            self.counts["aged"] += 1

    def add(self, mac: int, port: int, vid: int = 0) -> None:
        """A static entry, in place of whatever was known."""
        self.fdb[vid, mac] = Entry(port, self._now(), static=True)

    def remove(self, mac: int, vid: int = 0) -> bool:
        """Remove an entry of any kind; whether there was one."""
        return self.fdb.pop((vid, mac), None) is not None

    def flush(self, port: int | None = None) -> None:
        """Forget what was learned (on one port, or on all); static entries stay."""
        self.fdb = {k: e for k, e in self.fdb.items() if e.static or port not in (None, e.port)}


def is_group(mac: int) -> bool:
    return bool(mac >> 40 & 1)
