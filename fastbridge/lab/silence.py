"""Silence, for host ends.

The host's own stack must not speak or route on the ports of a switch. It would answer ARP, send router solicitations
and multicast reports, and could forward. Usually the switch's `shield` prevents that. Here are the settings for two
other cases: host ends of a persistent lab, for good, and any interfaces on a kernel without nf_tables, while a run
lasts.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv6Interface
from pathlib import Path

from fastbridge.errors import PortError, PrivilegeError
from fastbridge.link_watch import Link, LinkWatch

from .links import Links
from .namespaces import SETTINGS_WRITABLE

_IFF_NOARP = 0x80
_SETTINGS = (("ipv4", "forwarding", "0"), ("ipv6", "disable_ipv6", "1"))


@dataclass(frozen=True, slots=True)
class _Before:
    link: Link
    settings: dict[str, str]  # by _key
    addresses: list[IPv6Interface]  # the kernel removes them when IPv6 is switched off


@contextlib.contextmanager
def silence(names: Iterable[str]) -> Iterator[None]:
    """Keep the host's stack off these interfaces while the context lasts, then put their settings back.

    They are put back also on an interface that was renamed meanwhile. IPv6 routes and neighbours are lost. After
    SIGKILL nothing is put back.
    """
    with contextlib.closing(LinkWatch()) as watch:
        found = _remember(watch, names)
        with contextlib.ExitStack() as undo:
            undo.callback(_restore, watch, found)
            with Links() as links:
                for before in found:
                    for setting, value in _settings(before.link.name).items():
                        _write(setting, value)
                    links.set(before.link.name, arp=False)
            yield


def make_silent(links: Links, name: str) -> None:
    """Keep the host's stack off one interface of the current namespace for good. The interface must be down."""
    for setting, value in _settings(name).items():
        try:
            _write(setting, value)
        except PrivilegeError:  # /proc/sys is read-only, as in a container
            (links.stop_link_local if "ipv6" in setting.parts else links.stop_forwarding)(name)
    links.set(name, arp=False)


def _remember(watch: LinkWatch, names: Iterable[str]) -> list[_Before]:
    found = []
    with Links() as links:
        addresses = links.ipv6_addresses()
    for name in names:
        link = watch.look(name)
        if link is None:
            raise PortError(f"there is no interface {name} in this network namespace; `ip link` lists those there are")
        settings = {_key(path): path.read_text().strip() for path in _settings(link.name)}
        found.append(_Before(link, settings, addresses.get(link.index, [])))
    return found


def _restore(watch: LinkWatch, found: list[_Before]) -> None:
    with Links() as links:
        for before in found:
            now = watch.look(before.link.index)
            if now is None:
                continue  # removed, or moved away
            links.set(now.name, arp=not before.link.flags & _IFF_NOARP)
            for setting in _settings(now.name):
                _write(setting, before.settings.get(_key(setting), setting.read_text().strip()))
        present = links.ipv6_addresses()
        for before in found:
            now = watch.look(before.link.index)
            if now is not None and any("ipv6" in path.parts for path in _settings(now.name)):
                for address in before.addresses:
                    if address not in present.get(now.index, []):
                        links.add_address(now.index, address)


def _key(setting: Path) -> str:
    """The name of a setting without its interface: "ipv4/forwarding"."""
    return f"{setting.parts[-4]}/{setting.name}"


def _settings(name: str) -> dict[Path, str]:
    """The settings of an interface, each with its silent value. Below an MTU of 1280 it has none of IPv6."""
    paths = {Path(f"/proc/sys/net/{family}/conf/{name}/{key}"): value for family, key, value in _SETTINGS}
    return {path: value for path, value in paths.items() if path.exists()}


def _write(setting: Path, value: str) -> None:
    if setting.read_text().strip() == value:
        return  # nothing to write: a container's /proc/sys may be read-only
    try:
        setting.write_text(value)
    except OSError as error:
        raise PrivilegeError(f"cannot write {setting}: {error.strerror}; {SETTINGS_WRITABLE}") from error
