"""FDB, the view.

Python's view of the MAC table: entries with port names and ages, the few ways to change it, and the same for many
entries at once as numpy arrays. Operations on many entries run in steps, and frames pass between the steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastbridge.addresses import MacAddress
from fastbridge.errors import ConfigError, PortError
from fastbridge.named import HasName
from fastbridge.notebook import MOST_ROWS, table

if TYPE_CHECKING:
    from fastbridge.core.fdb import FdbAccess

_Number = TypeVar("_Number", bound=np.generic)
_AGES = 256  # how many ages are told apart in many entries

PortRef = str | int | HasName  #: a port's name or index, or a SwitchPort, or a Port or Pod of a Lab

#: A row of `Fdb.to_numpy()`. mac: the address as a number, its first byte highest; vlan: 0 for untagged; port: the
#: index, as in `Switch.ports`; age: seconds since a frame came from it, NaN for a static entry.
FDB_DTYPE = np.dtype([("mac", "u8"), ("vlan", "u2"), ("port", "u2"), ("age", "f8"), ("static", "?")])


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
        yield from self._told(*self._live_rows())

    def _told(self, rows: NDArray[np.void], ages: NDArray[np.uint32]) -> Iterator[FdbEntry]:
        order = np.lexsort((rows["mac"], rows["vlan"]))
        for row, age in zip(rows[order].tolist(), ages[order].tolist(), strict=True):
            mac, _, vlan, port, static = row
            yield FdbEntry(MacAddress(mac), self._name_of(port), None if static else age / 1000, static, vlan)

    def __len__(self) -> int:
        return len(self._live_rows()[0])

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
        return self.lookup(mac) is not None or bool((self._live_rows()[0]["mac"] == int(mac)).any())

    def __repr__(self) -> str:
        return f"<Fdb of {len(self)} entries>"

    def _repr_html_(self) -> str:
        """A table, in a notebook."""
        entries = self.to_numpy()
        rows = (_cells(row, self._name_of) for row in entries[:MOST_ROWS].tolist())
        title = f"MAC addresses: {len(entries):,}"
        return table(title, ("MAC", "VLAN", "port", "heard"), rows, len(entries), right=("VLAN", "heard"))

    def _live_rows(self) -> tuple[NDArray[np.void], NDArray[np.uint32]]:
        """The live entries and their ages in ms."""
        rows = self._core.export()
        ages = np.uint32(self._now_ms()) - rows["seen"]
        if self._ageing_ms is None:
            return rows, ages
        live = rows["static"] | (ages < self._ageing_ms)
        return rows[live], ages[live]

    def to_numpy(self) -> NDArray[np.void]:
        """The live entries as a structured array of FDB_DTYPE, by VLAN and MAC."""
        rows, ages = self._live_rows()
        order = np.lexsort((rows["mac"], rows["vlan"]))
        entries = np.empty(len(rows), FDB_DTYPE)
        for name in ("mac", "vlan", "port", "static"):
            entries[name] = rows[name][order]
        entries["age"] = np.where(rows["static"], np.nan, ages / 1000)[order]
        return entries

    def lookup_many(self, macs: ArrayLike, vlan: ArrayLike = 0) -> NDArray[np.int32]:
        """The index of the port that each MAC address is behind (int32), -1 where there is no live entry.

        macs: one dimension of whole numbers, as `mac` in FDB_DTYPE; vlan: of all, or as many. Raises ConfigError.
        """
        return self._core.lookup_many(_keys(macs, vlan), self._now_ms())

    def learn_many(self, macs: ArrayLike, ports: str | ArrayLike, vlan: ArrayLike = 0, age: ArrayLike = 0.0) -> int:
        """Learn MAC addresses as if a frame had come from each; they age, move and are evicted like others.

        macs, vlan: as for lookup_many, unicast; ports: the index or the name of one for all, or as many indices; age:
        seconds since that frame, of all or as many. Returns how many the FDB took. It leaves out what has expired by
        now. A full FDB refuses some, and `move_damping` forbids some moves. Static entries stay as they are. Raises
        ConfigError, and then learns nothing; PortError when a port was removed meanwhile.
        """
        keys = _keys(macs, vlan)
        stations = keys & np.uint64((1 << 48) - 1)
        if len(wrong := stations[(stations == 0) | (stations >> np.uint64(40) & np.uint64(1) == 1)]):
            raise ConfigError(f"{MacAddress(int(wrong[0]))} is not a unicast MAC address; only these are learned")
        indices = np.asarray(self._index_of(ports)) if isinstance(ports, str) else _numbers(ports, "ports")
        for index in _distinct(indices).tolist():
            self._index_of(index)
        behind = np.ascontiguousarray(_spread(indices, len(keys), "ports"), np.uint16)
        now = self._now_ms()
        try:
            taken = 0
            for ago, some in self._by_age(_spread(_ages(age), len(keys), "age")):
                taken += self._core.learn_many(keys[some], behind[some], (now - ago) & 0xFFFFFFFF)
        except IndexError:
            raise PortError("a port was removed while its stations were being learned") from None
        self.on_change()
        return taken

    def _by_age(self, ages: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.intp]]]:
        """The places of these ages (ms) that have not expired, those of about one age together, the oldest first."""
        live = np.arange(len(ages)) if self._ageing_ms is None else np.flatnonzero(ages <= self._ageing_ms)
        if not len(live):
            return
        step = 1 if len(_distinct(ages[live])) <= _AGES else int(ages[live].max()) // _AGES + 1
        rounded = ages[live] // step * step
        for ago in _distinct(rounded)[::-1].tolist():
            yield ago, live[rounded == ago]

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


def _cells(row: tuple[int, int, int, float, bool], name_of: Callable[[int], str]) -> tuple[str, ...]:
    """A row of a table."""
    mac, vlan, port, age, static = row
    return str(MacAddress(mac)), str(vlan or ""), name_of(port), "static" if static else f"{age:,.1f} s ago"


def _nothing() -> None:
    """The default listener: does nothing."""


def check_vlan(vlan: int) -> int:
    """The VLAN id. Raises ConfigError where it is none."""
    if not 0 <= vlan < 4095:
        raise ConfigError(f"VLAN id {vlan} is outside 0 … 4094 (IEEE 802.1Q §9.6)")
    return vlan


def _keys(macs: ArrayLike, vlan: ArrayLike) -> NDArray[np.uint64]:
    """The core's keys, vlan << 48 | mac, checked."""
    addresses, vlans = _numbers(macs, "macs"), _numbers(vlan, "vlan")
    if addresses.ndim != 1:
        raise ConfigError(f"macs must be an array of one dimension, not of shape {addresses.shape}")
    if len(wrong := addresses[(addresses < 0) | (addresses >= 1 << 48)]):
        raise ConfigError(f"{wrong[0]} is not a MAC address; give a number of 48 bits")
    for number in _distinct(vlans).tolist():
        check_vlan(number)
    return addresses.astype(np.uint64) | _spread(vlans, len(addresses), "vlan").astype(np.uint64) << np.uint64(48)


def _numbers(values: ArrayLike, what: str) -> NDArray[np.integer[Any]]:
    try:
        array = np.asarray(values)
    except ValueError:  # rows of unequal length
        raise ConfigError(f"{what} must be an array of whole numbers") from None
    if array.size == 0 and not isinstance(values, np.ndarray):
        array = array.astype(np.uint64)  # [] has no type of its own
    if array.dtype.kind not in "ui":
        raise ConfigError(f"{what} must be whole numbers, not {array.dtype}")
    return array


def _distinct(array: NDArray[_Number]) -> NDArray[_Number]:
    """Each value once, ascending. numpy.unique would import numpy.ma, 50 ms that a start cannot spare."""
    values = np.sort(array, axis=None)
    return values[np.concatenate(([True], values[1:] != values[:-1]))] if len(values) else values


def _ages(age: ArrayLike) -> NDArray[np.int64]:
    """Seconds as ms."""
    seconds = np.asarray(age, np.float64)
    if not np.all((seconds >= 0) & (seconds < 1 << 21)):
        raise ConfigError(f"an age must be 0 … {(1 << 21) - 1} seconds")
    return np.asarray(seconds * 1000, np.int64)


def _spread(array: NDArray[_Number], count: int, what: str) -> NDArray[_Number]:
    """One for all, or one each."""
    if array.shape not in ((), (count,)):
        raise ConfigError(f"{what} must be one value, or {count} like macs, not an array of shape {array.shape}")
    return np.broadcast_to(array, (count,))
