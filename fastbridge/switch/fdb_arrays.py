"""FDB, as numpy arrays: many entries at once. It takes the extra `arrays`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from fastbridge.addresses import MacAddress
from fastbridge.errors import ConfigError
from fastbridge.extras import way_to

from .fdb import MOST_AGES, check_vlan

try:
    import numpy as np
except ImportError:
    raise ConfigError(f"the FDB as arrays takes the package numpy: {way_to('arrays')}") from None

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

_Number = TypeVar("_Number", bound=np.generic)

#: A row of `Fdb.to_numpy()`. mac: the address as a number, its first byte highest; vlan: 0 for untagged; port: the
#: index, as in `Switch.ports`; age: seconds since a frame came from it, NaN for a static entry.
FDB_DTYPE = np.dtype([("mac", "u8"), ("vlan", "u2"), ("port", "u2"), ("age", "f8"), ("static", "?")])
#: An entry as FdbAccess.export() has it: `seen` is ms of the clock given to learn.
ENTRY_DTYPE = np.dtype(
    {
        "names": ["mac", "seen", "vlan", "port", "static"],
        "formats": ["u8", "u4", "u2", "u2", "?"],
        "offsets": [0, 8, 12, 14, 16],
        "itemsize": 24,
    }
)


def live_rows(exported: bytes, ageing_ms: int | None, now_ms: int) -> NDArray[np.void]:
    """Those of the core's rows that are live, in their order, as a structured array of FDB_DTYPE."""
    rows = np.frombuffer(exported, ENTRY_DTYPE)
    ages = np.uint32(now_ms) - rows["seen"]
    if ageing_ms is not None:
        live = rows["static"] | (ages < ageing_ms)
        rows, ages = rows[live], ages[live]
    entries = np.empty(len(rows), FDB_DTYPE)
    for name in ("mac", "vlan", "port", "static"):
        entries[name] = rows[name]
    entries["age"] = np.where(rows["static"], np.nan, ages / 1000)
    return entries


def keys_of(macs: ArrayLike, vlan: ArrayLike) -> NDArray[np.uint64]:
    """The core's keys, vlan << 48 | mac. Raises ConfigError for what are none."""
    addresses, vlans = _numbers(macs, "macs"), _numbers(vlan, "vlan")
    if addresses.ndim != 1:
        raise ConfigError(f"macs must be an array of one dimension, not of shape {addresses.shape}")
    if len(wrong := addresses[(addresses < 0) | (addresses >= 1 << 48)]):
        raise ConfigError(f"{wrong[0]} is not a MAC address; give a number of 48 bits")
    for number in np.unique(vlans).tolist():
        check_vlan(number)
    return addresses.astype(np.uint64) | _spread(vlans, len(addresses), "vlan").astype(np.uint64) << np.uint64(48)


def as_array(ports: memoryview[int]) -> NDArray[np.int32]:
    """What FdbAccess.lookup_many() returns, as an array."""
    return np.asarray(ports, np.int32)


def by_age(
    macs: ArrayLike,
    ports: ArrayLike,
    vlan: ArrayLike,
    age: ArrayLike,
    index_of: Callable[[int], int],
    ageing_ms: int | None,
) -> Iterator[tuple[int, memoryview, memoryview]]:
    """Stations to learn, by about how many ms ago they were heard, the oldest first: keys and indices of ports.

    index_of: raises ConfigError for what is no port's index. Raises ConfigError before anything is yielded.
    """
    keys = keys_of(macs, vlan)
    stations = keys & np.uint64((1 << 48) - 1)
    if len(wrong := stations[(stations == 0) | (stations >> np.uint64(40) & np.uint64(1) == 1)]):
        raise ConfigError(f"{MacAddress(int(wrong[0]))} is not a unicast MAC address; only these are learned")
    indices = _numbers(ports, "ports")
    for index in np.unique(indices).tolist():
        index_of(index)
    behind = np.ascontiguousarray(_spread(indices, len(keys), "ports"), np.uint16)
    ages = _spread(_ages(age), len(keys), "age")
    live = np.arange(len(ages)) if ageing_ms is None else np.flatnonzero(ages <= ageing_ms)
    if not len(live):
        return
    step = 1 if len(np.unique(ages[live])) <= MOST_AGES else int(ages[live].max()) // MOST_AGES + 1
    rounded = ages[live] // step * step
    for ago in np.unique(rounded)[::-1].tolist():
        some = live[rounded == ago]
        yield ago, keys[some].data, behind[some].data


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
