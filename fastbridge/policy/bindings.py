"""Bindings, kept true.

Tells the core's source guard what the neighbour table says. It tells changes only, so a claim costs the same however
many entries the table has.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from .neighbours import Key, Neighbours

if TYPE_CHECKING:
    from fastbridge.core.dataplane import Dataplane

_NO_IP = bytes(16)
_UNBOUND = -1

_Row = tuple[int, int, int, bytes]  # port, VLAN, MAC, IP: see Dataplane.change_bindings


class Bindings:
    """The bindings of one data plane, taken from a neighbour table."""

    def __init__(self, dataplane: Dataplane, neighbours: Neighbours) -> None:
        self._dataplane, self._neighbours = dataplane, neighbours
        self._lock = threading.Lock()  # changes are told in the order they were made, by whatever thread
        self._macs: dict[Key, int] = {}  # which MAC the core has for an IP

    def follow(self) -> None:
        """Tell the core what has changed since the last call."""
        with self._lock:
            entries, stations = self._neighbours.take_changes()
            rows: list[_Row] = []
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
                self._dataplane.change_bindings(rows)


def _ip16(ip: bytes) -> bytes:
    """An IP address in 16 bytes, IPv4 in ff00::/8. No station has an IPv6 address there; ::ffff:… it might claim."""
    return ip if len(ip) == 16 else b"\xff" + bytes(11) + ip
