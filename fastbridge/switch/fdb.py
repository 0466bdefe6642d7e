"""FDB, the view.

Python's view of the MAC table: entries with port names and ages, and the few ways to change it; many entries at once as
numpy arrays are fdb_arrays.py. Operations on many entries run in steps, and frames pass between the steps.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from fastbridge.addresses import MacAddress
from fastbridge.errors import ConfigError, PortError
from fastbridge.named import HasName
from fastbridge.notebook import table

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray
    from typing_extensions import Buffer

    from fastbridge.core.fdb import FdbAccess

MOST_AGES = 256  #: how many ages are told apart in many entries
_MOST_AGE = (1 << 21) - 1  # seconds

#: A live entry in plain numbers: the MAC address, VLAN id, index of the port, age in ms; None: it is static.
PlainEntry: TypeAlias = tuple[int, int, int, int | None]
PortRef = str | int | HasName  #: a port's name or index, or a SwitchPort, or a Port or Pod of a Lab


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
        core: FdbAccess,
        ageing_ms: int | None,
        now_ms: Callable[[], int],
        index_of: Callable[[PortRef], int],
        name_of: Callable[[int], str],
    ) -> None:
        self._core = core
        #: Called after entries were added, removed or changed from here.
        self.on_change: Callable[[], None] = _nothing
        self._ageing_ms = ageing_ms
        self._now_ms = now_ms
        self._index_of = index_of
        self._name_of = name_of

    def __iter__(self) -> Iterator[FdbEntry]:
        for mac, vlan, port, age in self.rows():
            yield FdbEntry(MacAddress(mac), self._name_of(port), None if age is None else age / 1000, age is None, vlan)

    def __len__(self) -> int:
        return len(self.rows())

    def __contains__(self, item: object) -> bool:
        """Whether a MAC address has a live entry, in any VLAN; or whether an FdbEntry still holds.

        Raises ConfigError for text that is not a MAC address, TypeError for another type.
        """
        if isinstance(item, FdbEntry):
            found = self.lookup(item.mac, item.vlan)
            return found is not None and (found.port, found.static) == (item.port, item.static)
        if isinstance(item, bool) or not isinstance(item, int | str | bytes):
            raise TypeError(f"an FDB has MAC addresses and FdbEntry, not {type(item).__name__}")
        mac = MacAddress(item)
        return self.lookup(mac) is not None or bool(self.rows(mac=int(mac)))

    def __repr__(self) -> str:
        return f"<Fdb of {len(self)} entries>"

    def _repr_html_(self) -> str:
        """A table, in a notebook."""
        entries = self.rows()
        rows = (_cells(entry, self._name_of) for entry in entries)
        title = f"MAC addresses: {len(entries):,}"
        return table(title, ("MAC", "VLAN", "port", "heard"), rows, len(entries), right=("VLAN", "heard"))

    def rows(self, mac: int | None = None, port: int | None = None, vlan: int | None = None) -> list[PlainEntry]:
        """The live entries in plain numbers, by VLAN and MAC: all, or those of a MAC address, a port, a VLAN.

        There may be a million: this is quicker than one FdbEntry each.
        """
        return self._core.rows(self._now_ms(), self._ageing_ms, mac, port, vlan)

    def to_numpy(self) -> NDArray[np.void]:
        """The live entries as a structured array of fdb_arrays.FDB_DTYPE, by VLAN and MAC.

        This, lookup_many and learn_many need numpy, by the extra `arrays`. Raises ConfigError where it is missing.
        """
        from . import fdb_arrays

        return fdb_arrays.live_rows(self._core.export(), self._ageing_ms, self._now_ms())

    def lookup_many(self, macs: ArrayLike, vlan: ArrayLike = 0) -> NDArray[np.int32]:
        """The index of the port that each MAC address is behind (int32), -1 where there is no live entry.

        macs: one dimension of whole numbers, as `mac` in FDB_DTYPE; vlan: of all, or as many. Raises ConfigError.
        """
        from . import fdb_arrays

        return fdb_arrays.as_array(self._core.lookup_many(fdb_arrays.keys_of(macs, vlan).data, self._now_ms()))

    def learn_many(self, macs: ArrayLike, ports: str | ArrayLike, vlan: ArrayLike = 0, age: ArrayLike = 0.0) -> int:
        """Learn MAC addresses as if a frame had come from each; they age, move and are evicted like others.

        macs, vlan: as for lookup_many, unicast; ports: the index or the name of one for all, or as many indices; age:
        seconds since that frame, of all or as many. Returns how many the FDB took. It leaves out what has expired by
        now. A full FDB refuses some, and `move_damping` forbids some moves. Static entries stay as they are. Raises
        ConfigError, and then learns nothing; PortError when a port was removed meanwhile.
        """
        from . import fdb_arrays

        indices = self._index_of(ports) if isinstance(ports, str) else ports
        return self._learn(fdb_arrays.by_age(macs, indices, vlan, age, self._index_of, self._ageing_ms))

    def learn_rows(self, rows: Iterable[tuple[int, int, int, float]]) -> int:
        """As learn_many(), of stations in plain numbers: (MAC address, VLAN id, index of the port, age in seconds)."""
        heard: list[tuple[int, int, int]] = []
        for mac, vlan, port, age in rows:
            if not 0 < mac < 1 << 48 or mac >> 40 & 1:
                raise ConfigError(f"{MacAddress(mac)} is not a unicast MAC address; only these are learned")
            ms = _age_in_ms(age)
            self._index_of(port)
            if self._ageing_ms is None or ms <= self._ageing_ms:
                heard.append((ms, check_vlan(vlan) << 48 | mac, port))
        ages = {ms for ms, _, _ in heard}
        step = 1 if len(ages) <= MOST_AGES else max(ages) // MOST_AGES + 1
        groups: dict[int, tuple[array[int], array[int]]] = {}
        for ms, key, port in heard:
            keys, ports = groups.setdefault(ms // step * step, (array("Q"), array("H")))
            keys.append(key)
            ports.append(port)
        return self._learn((ago, *groups[ago]) for ago in sorted(groups, reverse=True))

    def _learn(self, groups: Iterable[tuple[int, Buffer, Buffer]]) -> int:
        """Learn keys on ports, each group as if heard so many ms ago."""
        now = self._now_ms()
        try:
            taken = sum(self._core.learn_many(keys, ports, now - ago & 0xFFFFFFFF) for ago, keys, ports in groups)
        except IndexError:
            raise PortError("a port was removed while its stations were being learned") from None
        self.on_change()
        return taken

    def lookup(self, mac: MacAddress | str | int, vlan: int = 0) -> FdbEntry | None:
        """The live entry of a MAC address in a VLAN, or None."""
        address = MacAddress(mac)
        found = self._core.find(address, check_vlan(vlan))
        if found is None:
            return None
        port, seen, static = found
        age = self._now_ms() - seen & 0xFFFFFFFF
        if not static and self._ageing_ms is not None and age >= self._ageing_ms:
            return None
        return FdbEntry(address, self._name_of(port), None if static else age / 1000, static, vlan)

    def add(self, mac: MacAddress | str | int, port: PortRef, vlan: int = 0) -> None:
        """Add a static entry, or make the one there is static; learning never changes it.

        Raises ConfigError for a group address, an unknown port or a VLAN id outside 0 … 4094.
        """
        address = MacAddress(mac)
        if address.is_group or not address:
            raise ConfigError(f"{address} is not a unicast MAC address, which a static entry needs")
        index = self._index_of(port)
        try:
            self._core.add(address, check_vlan(vlan), index)
        except IndexError:
            raise PortError(f"port {self._name_of(index)} was removed meanwhile") from None
        self.on_change()

    def remove(self, mac: MacAddress | str | int, vlan: int = 0) -> bool:
        """Remove an entry, static or learned; returns whether there was one."""
        removed = self._core.remove(MacAddress(mac), check_vlan(vlan))
        self.on_change()
        return removed

    def flush(self, port: PortRef | None = None) -> int:
        """Forget the learned entries (of one port); static ones stay. Returns how many were removed."""
        removed = self._core.flush(None if port is None else self._index_of(port))
        self.on_change()
        return removed


def _cells(entry: PlainEntry, name_of: Callable[[int], str]) -> tuple[str, ...]:
    """A row of a table."""
    mac, vlan, port, age = entry
    heard = "static" if age is None else f"{age / 1000:,.1f} s ago"
    return str(MacAddress(mac)), str(vlan or ""), name_of(port), heard


def _nothing() -> None:
    """The default listener: does nothing."""


def check_vlan(vlan: int) -> int:
    """The VLAN id. Raises ConfigError where it is none."""
    if not 0 <= vlan < 4095:
        raise ConfigError(f"VLAN id {vlan} is outside 0 … 4094 (IEEE 802.1Q §9.6)")
    return vlan


def _age_in_ms(seconds: float) -> int:
    """An age in ms. Raises ConfigError where it is none."""
    if not 0 <= seconds <= _MOST_AGE:
        raise ConfigError(f"an age must be 0 … {_MOST_AGE} seconds")
    return int(seconds * 1000)
