"""Silence, for host ends.

The host's own stack must not speak or route on the ports of a switch: it would answer ARP, send
router solicitations and multicast reports, and could forward. So a port has no ARP, no IPv6 and no
IPv4 forwarding. Private labs do this for their whole namespace of host ends; here it is done to
single interfaces of the current namespace, and undone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv6Interface
from pathlib import Path

from .errors import PortError, PrivilegeError
from .links import Links

_IFF_NOARP = 0x80
_SETTINGS = (("ipv4", "forwarding", "0"), ("ipv6", "disable_ipv6", "1"))


@dataclass(frozen=True, slots=True)
class _Before:
    name: str
    arp: bool
    settings: dict[Path, str]
    addresses: list[IPv6Interface]  # the kernel forgets them when IPv6 is switched off


@contextlib.contextmanager
def silence(names: Iterable[str]) -> Iterator[None]:
    """Keep the host's stack off these interfaces while the context lasts, then put back what was there."""
    with contextlib.ExitStack() as undo:
        with Links() as links:
            for name in names:
                undo.callback(_restore, _remember(links, name))
                make_silent(links, name)
        yield


def make_silent(links: Links, name: str) -> None:
    """Keep the host's stack off one interface of the current namespace, for good."""
    for setting, value in _settings(name).items():
        _write(setting, value)
    links.set(name, arp=False)


def _remember(links: Links, name: str) -> _Before:
    if not links.exists(name):
        raise PortError(f"there is no interface {name} in this network namespace")
    settings = {setting: setting.read_text().strip() for setting in _settings(name)}
    return _Before(name, not links.flags(name) & _IFF_NOARP, settings, links.ipv6_addresses(name))


def _restore(before: _Before) -> None:
    with Links() as links:
        if not links.exists(before.name):
            return  # removed meanwhile: there is nothing to restore
        links.set(before.name, arp=before.arp)
        for setting, value in before.settings.items():
            _write(setting, value)
        present = links.ipv6_addresses(before.name)
        for address in before.addresses:
            if address not in present:
                links.add_address(links.index(before.name), address)


def _settings(name: str) -> dict[Path, str]:
    """The settings of an interface that this kernel has, each with its silent value."""
    paths = {Path(f"/proc/sys/net/{family}/conf/{name}/{key}"): value for family, key, value in _SETTINGS}
    return {path: value for path, value in paths.items() if path.exists()}


def _write(setting: Path, value: str) -> None:
    if setting.read_text().strip() == value:
        return  # a container's /proc/sys may be read-only, and right as it is
    try:
        setting.write_text(value)
    except OSError as error:
        raise PrivilegeError(f"cannot write {setting}: {error.strerror}; run as root, with /proc writable") from error
