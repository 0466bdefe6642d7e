"""Bindings, kept true.

Tells the core's source guard what the neighbour table says. It tells changes only, so a claim costs the same however
many entries the table has.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from .neighbours import Key, Neighbours

if TYPE_CHECKING:
    from fastbridge.core.source_guard import SourceGuard

_NO_IP = bytes(16)
_UNBOUND = -1

Row = tuple[int, int, int, bytes]  # port, VLAN, MAC, IP: see SourceGuard.bind


class Bindings:
    """The bindings of one data plane, taken from a neighbour table."""

    def __init__(self, guard: SourceGuard, neighbours: Neighbours) -> None:
        self._guard, self._neighbours = guard, neighbours
        self._lock = threading.Lock()  # changes of any thread are told in their order
        self._macs: dict[Key, int] = {}  # the MAC that the core has for an IP
        #: Told of what has changed, when the core has it.
        self.on_change: Callable[[Sequence[Row]], None] = lambda rows: None

    def follow(self) -> None:
        """Tell the core what has changed since the last call."""
        with self._lock:
            entries, stations = self._neighbours.take_changes()
            rows: list[Row] = []
            for (vid, station), holder in stations.items():
                rows.append((holder.port if holder else _UNBOUND, vid, int.from_bytes(station, "big"), _NO_IP))
            for key, neighbour in entries.items():
                vlan, ip = key[0], _ip16(key[1])
                before = self._macs.pop(key, None)
                now = int.from_bytes(neighbour.mac, "big") if neighbour else None
                if before is not None and before != now:
                    rows.append((_UNBOUND, vlan, before, ip))
                if neighbour is not None and now is not None:
                    self._macs[key] = now
                    rows.append((neighbour.port, vlan, now, ip))
                rows.append((neighbour.port if neighbour else _UNBOUND, vlan, 0, ip))
            if rows:
                self._guard.bind(rows)
                self.on_change(rows)


def _ip16(ip: bytes) -> bytes:
    """An IP address in 16 bytes, IPv4 in ff00::/8. No station has an IPv6 address there; ::ffff:… it might claim."""
    return ip if len(ip) == 16 else b"\xff" + bytes(11) + ip
