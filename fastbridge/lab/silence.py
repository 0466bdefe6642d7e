"""Silence, for host ends.

The host's own stack must not speak or route on the ports of a switch: it would answer ARP, send router solicitations
and multicast reports, and could forward. `shield` sees to that; here are the settings for where it does not: host ends
of a persistent lab, which are ours, and interfaces of others on kernels without nf_tables, for as long as a run lasts.
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
    settings: dict[str, str]  # by the end of their paths
    addresses: list[IPv6Interface]  # the kernel forgets them when IPv6 is switched off


@contextlib.contextmanager
def silence(names: Iterable[str]) -> Iterator[None]:
    """Keep the host's stack off these interfaces while the context lasts, then put back what was there, wherever and
    under whatever name it is then. Routes and neighbours of IPv6 are lost, and so is all after SIGKILL.
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
    """Keep the host's stack off one interface of the current namespace, one that is down, for good."""
    for setting, value in _settings(name).items():
        try:
            _write(setting, value)
        except PrivilegeError:  # a container may read them alone
            (links.stop_link_local if "ipv6" in setting.parts else links.stop_forwarding)(name)
    links.set(name, arp=False)


def _remember(watch: LinkWatch, names: Iterable[str]) -> list[_Before]:
    found = []
    with Links() as links:
        addresses = links.ipv6_addresses()
    for name in names:
        link = watch.look(name)
        if link is None:
            raise PortError(f"there is no interface {name} in this network namespace")
        settings = {_key(path): path.read_text().strip() for path in _settings(link.name)}
        found.append(_Before(link, settings, addresses.get(link.index, [])))
    return found


def _restore(watch: LinkWatch, found: list[_Before]) -> None:
    with Links() as links:
        for before in found:
            now = watch.look(before.link.index)
            if now is None:
                continue  # removed, or moved away: there is nothing to restore
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
    """A setting, whatever its interface is called: "ipv4/forwarding"."""
    return f"{setting.parts[-4]}/{setting.name}"


def _settings(name: str) -> dict[Path, str]:
    """The settings of an interface that it has (below an MTU of 1280 none of IPv6), each with its silent value."""
    paths = {Path(f"/proc/sys/net/{family}/conf/{name}/{key}"): value for family, key, value in _SETTINGS}
    return {path: value for path, value in paths.items() if path.exists()}


def _write(setting: Path, value: str) -> None:
    if setting.read_text().strip() == value:
        return  # a container's /proc/sys may be read-only, and right as it is
    try:
        setting.write_text(value)
    except OSError as error:
        raise PrivilegeError(f"cannot write {setting}: {error.strerror}; {SETTINGS_WRITABLE}") from error
