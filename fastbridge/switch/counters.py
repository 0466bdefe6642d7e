"""Counters, plain values.

A snapshot is taken between two breaths of the data plane, so its sums are exact:
`rx_frames == forwarded + flooded + consumed + sum(dropped.values()) + rx_in_flight` for every port, always. The
interfaces count the frames of the kernel's fast path. So these counts are exact when no frame is on its way.
A GSO frame of 64 KB counts as one frame, as it does on AF_PACKET.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

from fastbridge import notebook
from fastbridge.errors import ConfigError

#: Counts of now, which have no rate.
GAUGES = ("rx_in_flight", "tx_in_flight")
#: The column heads of a table of ports.
CELLS = ("received", "forwarded", "flooded", "dropped", "sent", "not sent")


class Passed(NamedTuple):
    """The kernel's counts of a port's interface since the port was attached."""

    received: int = 0  #: frames that came in and were not handed to the core
    missed: int = 0  #: frames for the core that found no room on the way
    sent: int = 0  #: frames that left or were lost in the interface, sent by the core or not
    received_bytes: int = 0  #: of the received and the missed frames


@dataclass(frozen=True, slots=True)
class PortCounters:
    """Frames and bytes of one port since it was added (bytes without FCS, VLAN tags included)."""

    rx_frames: int = 0
    rx_bytes: int = 0
    forwarded: int = 0  #: received here, sent to the one port of the destination
    flooded: int = 0  #: received here, sent to all other ports that take it
    consumed: int = 0  #: received here, taken by the policy
    dropped: Mapping[str, int] = field(default_factory=dict)  #: received here, by drop reason
    #: never received: the kernel found the ring full (PACKET_STATISTICS tp_drops) or no room on the way to it, or the
    #: port was removed, or the switch stopped, before they were read
    rx_missed: int = 0
    tx_frames: int = 0  #: copies sent; a copy that the kernel loses afterwards (`device`) is subtracted
    #: bytes of all copies that the kernel took; those of `device` are not subtracted, because their sizes are not known
    tx_bytes: int = 0
    #: copies not sent, by drop reason; device: the kernel took the copy, then lost it in the interface or in its
    #: queueing discipline, which count several merged copies as one
    tx_dropped: Mapping[str, int] = field(default_factory=dict)
    coalesced: int = 0  #: of tx_frames: sent inside another one's GSO frame
    fast: int = 0  #: not in rx_frames: came in here, and the kernel's fast path sent it to the port of its destination
    #: bytes of `fast`, as the interfaces count them. A frame that found no room on its way to the core adds its own,
    #: and a frame to the core that came with its tag inside adds 4
    fast_bytes: int = 0
    #: not in tx_frames: left by this port, sent by the kernel's fast path. Frames lost in the interface (`device`) may
    #: be the core's or the fast path's: they are subtracted here first
    fast_sent: int = 0
    split: int = 0  #: GSO frames made of several that the kernel refused: sent frame by frame instead
    rx_in_flight: int = 0  #: of rx_frames: on the link from the pod now, and not decided yet
    tx_in_flight: int = 0  #: copies on the link to the pod now, neither sent nor dropped yet
    #: copies that the link to the pod made of others: segments of a GSO frame beyond the first, and duplicates
    link_added: int = 0

    def __add__(self, other: PortCounters) -> PortCounters:
        return PortCounters(**{f.name: _sum(getattr(self, f.name), getattr(other, f.name)) for f in fields(self)})

    def as_dict(self) -> dict[str, Any]:
        """The counters as plain JSON values."""
        return {f.name: _plain(getattr(self, f.name)) for f in fields(self)}

    @property
    def cells(self) -> tuple[str, ...]:
        """The cells of a table under the heads `CELLS`: the core and the kernel's fast path together."""
        dropped, not_sent = sum(self.dropped.values()), sum(self.tx_dropped.values())
        received, forwarded = self.rx_frames + self.fast, self.forwarded + self.fast
        numbers = (received, forwarded, self.flooded, dropped, self.tx_frames + self.fast_sent, not_sent)
        return tuple(f"{number:,}" for number in numbers)

    def __str__(self) -> str:
        """In one line, the drops with their reasons."""
        parts = [f"{head} {cell}" for head, cell in zip(CELLS, self.cells, strict=True)]
        return "; ".join([", ".join(parts), *self.reasons])

    @property
    def reasons(self) -> list[str]:
        """What is not 0, in words: drops by reason, what is in flight, what the kernel forwarded or missed."""
        found = [("dropped", self.dropped), ("not sent", self.tx_dropped)]
        parts = [f"forwarded by the kernel: {self.fast:,}"] if self.fast else []
        flying = {"from the pod": self.rx_in_flight, "to the pod": self.tx_in_flight}
        parts += [f"in flight: {_listed(flying)}"] if any(flying.values()) else []
        parts += [f"{what}: {_listed(drops)}" for what, drops in found if any(drops.values())]
        return parts + ([f"missed by the kernel, ring full: {self.rx_missed:,}"] if self.rx_missed else [])


@dataclass(frozen=True, slots=True)
class Counters:
    """One consistent snapshot of a switch."""

    ports: Mapping[str, PortCounters]
    total: PortCounters
    learned: int = 0  #: new FDB entries
    moved: int = 0  #: station moves: a known source seen on another port
    aged: int = 0  #: entries removed because nothing was heard from them
    evicted: int = 0  #: entries that made room for another port's, the FDB being full
    refused: int = 0  #: sources not learned: the FDB was full, above all of their port
    policy: Mapping[str, int] = field(default_factory=dict)  #: the fate of `consumed` frames (see Policing.counts)
    time: float = field(default=0.0, compare=False)  #: when it was taken, in seconds by the switch's clock

    def rows(self) -> list[dict[str, Any]]:
        """A row of plain JSON values for each port, with `ifname` and `time`; the last, of None, has what all share."""
        ports: list[tuple[str | None, PortCounters]] = [*self.ports.items(), (None, self.total)]
        rows = [{"ifname": name, "time": self.time, **port.as_dict()} for name, port in ports]
        plain = self.as_dict()
        rows[-1] |= {name: count for name, count in plain.items() if name not in ("ports", "total")}
        return rows

    def rates(self, before: Counters) -> list[dict[str, Any]]:
        """What has happened per second since an earlier snapshot, in rows as those of rows(). Raises ConfigError."""
        return rates(self.rows(), before.rows())

    def as_dict(self) -> dict[str, Any]:
        """The snapshot as plain JSON values."""
        return {
            "ports": {name: port.as_dict() for name, port in self.ports.items()},
            "total": self.total.as_dict(),
            "learned": self.learned,
            "moved": self.moved,
            "aged": self.aged,
            "evicted": self.evicted,
            "refused": self.refused,
            "policy": dict(self.policy),
            "time": self.time,
        }

    @property
    def story(self) -> str:
        """The FDB's counts in one line; then, if any, the reasons of all drops and the policy's counts."""
        fdb = f"MAC addresses learned {self.learned:,}, moved {self.moved:,}, aged {self.aged:,}"
        parts = [fdb + (f", refused {self.refused:,} (FDB full)" if self.refused else ""), *self.total.reasons]
        if any(self.policy.values()):
            parts.append(f"policy: {_listed(self.policy)}")
        return "; ".join(parts)

    @property
    def table(self) -> tuple[list[str], list[list[str]]]:
        """The heads of a table, and a row for each port and the total; one column more if policies took any frames."""
        named = [*self.ports.items(), ("total", self.total)]
        heads, rows = ["port", *CELLS], [[name, *port.cells] for name, port in named]
        if self.total.consumed:
            place = heads.index("dropped")
            for row, cell in zip([heads, *rows], ["consumed", *(f"{p.consumed:,}" for _, p in named)], strict=True):
                row.insert(place, cell)
        return heads, rows

    def _repr_html_(self) -> str:
        """A table, in a notebook."""
        heads, rows = self.table
        return notebook.table("Frames", heads, rows, len(rows), right=heads[1:]) + notebook.lines(
            self.story.split("; ")
        )

    def __str__(self) -> str:
        """A table of the ports, with the summary below."""
        heads, rows = self.table
        rows.insert(0, heads)
        name, *numbers = (max(map(len, column)) for column in zip(*rows, strict=True))
        lines = [
            "  ".join([row[0].ljust(name), *(cell.rjust(width) for cell, width in zip(row[1:], numbers, strict=True))])
            for row in rows
        ]
        return "\n".join([*lines, self.story])


def rates(rows: Sequence[Mapping[str, Any]], before: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The rates between two answers of Counters.rows(), the later one first; `seconds` are between them.

    What is in flight stays as it is. A port that has come since then, or come again, counts from 0. Raises ConfigError.
    """
    seconds = rows[0]["time"] - before[0]["time"] if rows and before else 0.0
    if seconds <= 0:
        raise ConfigError("rates need two snapshots of one switch, the later one first")
    earlier = {row["ifname"]: row for row in before}
    found = []
    for row in rows:
        since = earlier.get(row["ifname"], {})
        if any(row[name] < since.get(name, 0) for name in ("rx_frames", "tx_bytes")):
            since = {}
        counts = {
            name: value if name in GAUGES else _rate(value, since.get(name, 0), seconds)
            for name, value in row.items()
            if name not in ("ifname", "time")
        }
        found.append({"ifname": row["ifname"], "seconds": seconds, **counts})
    return found


def _rate(now: Any, before: Any, seconds: float) -> Any:
    if isinstance(now, Mapping):
        earlier = before if isinstance(before, Mapping) else {}
        return {reason: _rate(count, earlier.get(reason, 0), seconds) for reason, count in now.items()}
    return max(0.0, now - before) / seconds


def _listed(found: Mapping[str, int]) -> str:
    return ", ".join(f"{reason} {count:,}" for reason, count in found.items() if count)


def _sum(a: Any, b: Any) -> Any:
    if isinstance(a, Mapping):
        return {key: a.get(key, 0) + b.get(key, 0) for key in [*a, *(k for k in b if k not in a)]}
    return a + b


def _plain(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else value
