"""FDB, the view.

What Python sees of the MAC table: entries with port names and ages, and the few ways to change it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .addresses import MacAddress
from .errors import ConfigError

if TYPE_CHECKING:
    from .core.dataplane import Dataplane


class FdbEntry(NamedTuple):
    """Which port a MAC address is behind."""

    mac: MacAddress
    port: str
    age: float | None  #: seconds since a frame came from it; None for a static entry
    static: bool
    vlan: int  #: VLAN id of the outer tag; 0 for untagged

    def __str__(self) -> str:
        age = "static" if self.age is None else f"{self.age:.1f} s"
        vlan = f" vlan {self.vlan}" if self.vlan else ""
        return f"{self.mac}{vlan} → {self.port} ({age})"


class Fdb:
    """The forwarding database of a switch: iterate for its live entries (a snapshot, by VLAN and MAC)."""

    def __init__(
        self,
        dataplane: Dataplane,
        ageing_ms: int | None,
        now_ms: Callable[[], int],
        index_of: Callable[[str | int], int],
        name_of: Callable[[int], str],
    ) -> None:
        self._dataplane = dataplane
        self._ageing_ms = ageing_ms
        self._now_ms = now_ms
        self._index_of = index_of
        self._name_of = name_of

    def __iter__(self) -> Iterator[FdbEntry]:
        rows, ages = self._live_rows()
        order = np.lexsort((rows["mac"], rows["vlan"]))
        for row, age in zip(rows[order].tolist(), ages[order].tolist(), strict=True):
            mac, _, vlan, port, static = row
            yield FdbEntry(MacAddress(mac), self._name_of(port), None if static else age / 1000, static, vlan)

    def __len__(self) -> int:
        return len(self._live_rows()[0])

    def _live_rows(self) -> tuple[NDArray[np.void], NDArray[np.uint32]]:
        """The live entries and their ages in ms."""
        rows = self._dataplane.fdb_export()
        ages = np.uint32(self._now_ms()) - rows["seen"]
        if self._ageing_ms is None:
            return rows, ages
        live = rows["static"] | (ages < self._ageing_ms)
        return rows[live], ages[live]

    def lookup(self, mac: MacAddress | str | int, vlan: int = 0) -> FdbEntry | None:
        """The live entry of a MAC address in a VLAN, or None."""
        address = MacAddress(mac)
        found = self._dataplane.fdb_find(address, _vlan(vlan))
        if found is None:
            return None
        port, seen, static = found
        age = self._now_ms() - seen & 0xFFFFFFFF
        if not static and self._ageing_ms is not None and age >= self._ageing_ms:
            return None
        return FdbEntry(address, self._name_of(port), None if static else age / 1000, static, vlan)

    def add(self, mac: MacAddress | str | int, port: str | int, vlan: int = 0) -> None:
        """Add a static entry, or make the one there is static; learning never changes it.

        Raises ConfigError for a group address, an unknown port or a VLAN id outside 0 … 4094.
        """
        address = MacAddress(mac)
        if address.is_group or not address:
            raise ConfigError(f"{address} is no station's address: a static entry needs a unicast MAC")
        self._dataplane.fdb_add(address, _vlan(vlan), self._index_of(port))

    def remove(self, mac: MacAddress | str | int, vlan: int = 0) -> bool:
        """Remove an entry, static or learned; returns whether there was one."""
        return self._dataplane.fdb_remove(MacAddress(mac), _vlan(vlan))

    def flush(self, port: str | int | None = None) -> int:
        """Forget the learned entries (of one port); static ones stay. Returns how many were removed."""
        return self._dataplane.fdb_flush(None if port is None else self._index_of(port))


def _vlan(vlan: int) -> int:
    if not 0 <= vlan < 4095:
        raise ConfigError(f"VLAN id {vlan} is outside 0 … 4094 (IEEE 802.1Q §9.6)")
    return vlan
