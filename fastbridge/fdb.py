"""FDB, the view.

What Python sees of the MAC table: entries with port names and ages, and the few ways to change it. Every
access holds the data plane between two breaths.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .addresses import MacAddress
from .errors import ConfigError

if TYPE_CHECKING:
    from .core.dataplane import Dataplane
    from .core.mac_table import MacTable


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
        table: MacTable,
        ageing_ms: int | None,
        now_ms: Callable[[], int],
        index_of: Callable[[str | int], int],
        name_of: Callable[[int], str],
    ) -> None:
        self._dataplane = dataplane
        self._table = table
        self._ageing_ms = ageing_ms
        self._now_ms = now_ms
        self._index_of = index_of
        self._name_of = name_of

    def __iter__(self) -> Iterator[FdbEntry]:
        with self._dataplane:
            rows = self._table.export()
        now = np.uint32(self._now_ms())
        rows = np.sort(rows, order=("vlan", "mac"))
        ages = (now - rows["seen"]).astype(np.uint32)
        for row, age in zip(rows.tolist(), ages.tolist(), strict=True):
            mac, vlan, port, _, static = row
            if static or self._ageing_ms is None or age < self._ageing_ms:
                yield FdbEntry(MacAddress(mac), self._name_of(port), None if static else age / 1000, static, vlan)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def lookup(self, mac: MacAddress | str | int, vlan: int = 0) -> FdbEntry | None:
        """The live entry of a MAC address in a VLAN, or None."""
        wanted = MacAddress(mac)
        return next((e for e in self if e.mac == wanted and e.vlan == _vlan(vlan)), None)

    def add(self, mac: MacAddress | str | int, port: str | int, vlan: int = 0) -> None:
        """Add a static entry, or make the one there is static; learning never changes it.

        Raises ConfigError for a group address, an unknown port or a VLAN id outside 0 … 4094.
        """
        address = MacAddress(mac)
        if address.is_group or not address:
            raise ConfigError(f"{address} is no station's address: a static entry needs a unicast MAC")
        index = self._index_of(port)
        with self._dataplane:
            self._table.add_static(address, _vlan(vlan), index)

    def remove(self, mac: MacAddress | str | int, vlan: int = 0) -> bool:
        """Remove an entry, static or learned; returns whether there was one."""
        with self._dataplane:
            return self._table.remove(MacAddress(mac), _vlan(vlan))

    def flush(self, port: str | int | None = None) -> int:
        """Forget the learned entries (of one port); static ones stay. Returns how many were removed."""
        with self._dataplane:
            if port is not None:
                return self._table.flush(self._index_of(port))
            ports = np.unique(self._table.export()["port"]).tolist()
            return sum(self._table.flush(index) for index in ports)


def _vlan(vlan: int) -> int:
    if not 0 <= vlan < 4095:
        raise ConfigError(f"VLAN id {vlan} is outside 0 … 4094 (IEEE 802.1Q §9.6)")
    return vlan
