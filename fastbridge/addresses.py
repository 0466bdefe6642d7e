"""MAC addresses, one type.

The standard library has types for IP addresses (`ipaddress`), but none for MAC addresses.
"""

from __future__ import annotations

import re
from typing import Any, TypeVar

from .errors import ConfigError

V = TypeVar("V")

_FORMS = re.compile(r"(?:[0-9a-f]{2}:){5}[0-9a-f]{2}|(?:[0-9a-f]{2}-){5}[0-9a-f]{2}|(?:[0-9a-f]{4}\.){2}[0-9a-f]{4}")


class MacAddress(int):
    """A 48-bit MAC address (IEEE 802-2014 §8): an int that prints as `02:00:00:00:00:01`.

    Made from an int, 6 bytes, or text in colon, hyphen or dotted form. It hashes and compares as the plain int of
    the same value.
    """

    def __new__(cls, value: int | str | bytes) -> MacAddress:
        """Raise ConfigError when `value` is not a MAC address."""
        if isinstance(value, str):
            text = value.strip().lower()
            if not _FORMS.fullmatch(text):
                raise ConfigError(f"{value!r} is not a MAC address; write it as 02:00:00:00:00:01")
            number = int(re.sub("[:.-]", "", text), 16)
        elif isinstance(value, bytes):
            if len(value) != 6:
                raise ConfigError(f"a MAC address has 6 bytes, not {len(value)}")
            number = int.from_bytes(value, "big")
        else:
            number = value
        if not 0 <= number < 1 << 48:
            raise ConfigError(f"{number} is not a MAC address: it must fit 48 bits")
        return super().__new__(cls, number)

    @property
    def is_group(self) -> bool:
        """True for multicast and broadcast: the I/G bit, first on the wire (IEEE 802-2014 §8.2)."""
        return bool(self >> 40 & 1)

    @property
    def packed(self) -> bytes:
        """The 6 bytes in wire order."""
        return self.to_bytes(6, "big")

    def __str__(self) -> str:
        return self.packed.hex(":")

    def __repr__(self) -> str:
        return f"MacAddress({str(self)!r})"


class ByMac(dict[MacAddress, V]):
    """A dict whose keys are MAC addresses. Look-ups take text and bytes too, and raise ConfigError for wrong ones."""

    def __missing__(self, key: Any) -> V:
        if isinstance(key, str | bytes) and (mac := MacAddress(key)) in self:
            return self[mac]
        raise KeyError(key)

    def __contains__(self, key: object) -> bool:
        return super().__contains__(MacAddress(key) if isinstance(key, str | bytes) else key)

    def get(self, key: Any, default: Any = None) -> Any:
        """The value of a key, or the default."""
        return super().get(MacAddress(key) if isinstance(key, str | bytes) else key, default)
