"""Ports' links: which interfaces are a switch's ports.

A port is one interface, an index in a network namespace, whatever its names. It is resolved once, when the port is
taken, and held from then on, so that no other switch takes it. The kernel reports its changes; nothing polls for them.
With a shield the host's own stack neither hears nor speaks on it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fastbridge.errors import ConfigError, PortError
from fastbridge.forks import in_child
from fastbridge.journal import Journal
from fastbridge.link_watch import Link, LinkWatch

from .carrier import Carriers
from .port_socket import Interface, PortLike
from .shield import Shield

if TYPE_CHECKING:
    from .helper import Helper

_log = logging.getLogger(__name__)

_SO_NETNS_COOKIE, _SIOCGSKNS = 71, 0x894C  # since 5.14; before, with CAP_NET_ADMIN
_CAP_NET_RAW = 13
_CLAIMING_SECONDS = 1.0  # the wait for a holder that begins or ends
_STARTING_SECONDS = 2.0  # the wait for an interface with a new carrier
# Disciplines that slow no interface down: none, and the kernel's defaults for a network card. Any other one shapes, and
# counts frames, not bytes: 1,000 frames of 64 KB wait for 50 s at 10 Mb/s.
_NO_QUEUES = ("", "noop", "noqueue")
_FREE_QUEUES = (*_NO_QUEUES, "mq", "pfifo_fast", "fq_codel")
_WAITING = 64  # processes that ask who holds a port: so many wait to be heard, and so many are kept


@dataclass(eq=False)
class PortLink:
    """The interface that is a port."""

    name: str  # the port's name, as requested
    link: Link  # as last reported
    namespace: int
    claim: socket.socket
    shielded: bool = False  # only the switch's frames leave by it
    lost: str = ""  # the reason why it is no port any more
    ignored: int = 0  # frames lost in the interface before it was a port …
    lost_after: int = 0  # … and since, as last reported, including those that were …
    lost_queued: int = 0  # … dropped by its queueing discipline
    queue_at: tuple[int, int] = (0, 0)  # that discipline's handle, and how many it had dropped
    dark: bool = False  # set_carrier() has taken the carrier from its far end
    faltered: bool = False  # it did not run at some time since this was last set to False

    @property
    def queues(self) -> bool:
        """Whether frames that leave by it may wait in the kernel."""
        return self.link.queue not in _NO_QUEUES

    def note_queue(self, handle: int, drops: int) -> None:
        """Note the drops of its queueing discipline; another discipline has begun at 0."""
        before, self.queue_at = self.queue_at, (handle, drops)
        self.lost_queued += (drops - (before[1] if before[0] == handle else 0)) % (1 << 32)

    @property
    def shaped(self) -> bool:
        """Whether frames that leave by it wait in a queue that a user has set up."""
        return self.link.queue not in _FREE_QUEUES


class PortLinks:
    """The interfaces that are ports of one switch, with what watches and shields them, a namespace."""

    def __init__(self, journal: Journal, shield: bool = False) -> None:
        """shield: shield the host from the ports that are interfaces of the current network namespace."""
        in_child(self, PortLinks._leave_to_parent)
        self._journal = journal
        self._lock = threading.RLock()
        self._watches: dict[int, LinkWatch] = {}
        self._shields: dict[int, Shield] = {}
        self._carriers: dict[int, Carriers] = {}
        self._held: dict[tuple[int, int], PortLink] = {}
        self._happened = select.epoll()
        self._asked = select.epoll()  # of the claims, and of …
        self._askers: dict[int, tuple[PortLink, socket.socket]] = {}  # … connections to them, by descriptor
        self._wants_shield = shield
        #: Why there is no shield though one was asked for.
        self.unshielded = ""

    def fileno(self) -> int:
        """Readable when there are changes."""
        return self._happened.fileno()

    def _leave_to_parent(self) -> None:
        """In a forked child: leave the claims and the shield to the parent; they end with it."""
        self._lock = threading.RLock()
        self._carriers.clear()
        self.close()

    def close(self) -> None:
        """Let go of all: the claims last, since a switch that waits for them has a shield of its own."""
        with self._lock:
            self.give_carriers_back()
            for watch in self._watches.values():
                watch.close()
            for shield in self._shields.values():
                shield.close()
            for port in self._held.values():
                port.claim.close()
            for _, asker in self._askers.values():
                asker.close()
            self._askers.clear()
            self._held.clear()
            self._watches.clear()
            self._shields.clear()
            self._happened.close()
            self._asked.close()

    def give_carriers_back(self) -> None:
        """Give back all carriers that set_carrier() took."""
        with self._lock:
            for carriers in self._carriers.values():
                carriers.close()

    def open_here(self) -> int:
        """Watch and shield interfaces of the current network namespace that are to come; returns its number."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0) as sock:
            namespace = _namespace(sock)
        with self._lock:
            self._watch(namespace, Interface(""))
            if self._wants_shield:
                self._shield_of(namespace)
        return namespace

    @property
    def shields(self) -> bool:
        """Whether ports that are interfaces of the current network namespace are shielded."""
        return bool(self._shields)

    def hand_over(self, helper: Helper) -> None:
        """Have a helper shield them, and take their carriers, before the switch starts."""
        self._shields = {
            namespace: helper.take("shield", shield) for namespace, shield in self._shields.items()
        }  # there is one at most: only interfaces of the current namespace are shielded
        self._carriers = {namespace: helper.take("carriers", each) for namespace, each in self._carriers.items()}

    def find(self, sources: Sequence[PortLike]) -> list[PortLink]:
        """Find the interfaces of these ports: all or none. They are to be held next.

        Raises PortError: there is none, it is not Ethernet, or belongs to a bridge; PrivilegeError;
        ConfigError: two ports are the same interface.
        """
        taken: list[PortLink] = []
        with self._lock:
            try:
                for source in sources:
                    taken.append(self._find(source))
                self._note_queues(taken)
                for port in taken:
                    port.lost_queued = 0  # was before its time
            except BaseException:
                for port in taken:
                    self.release(port)
                raise
        return taken

    def hold(self, ports: Sequence[PortLink], sources: Sequence[PortLike]) -> None:
        """Hold and shield what was found. Raises PortError: one is another switch's. The caller releases them then."""
        with self._lock:
            for port, source in zip(ports, sources, strict=True):
                if _claim(port.claim, source, port.link, self._journal):
                    self._asked.register(port.claim, select.EPOLLIN)
            if self._wants_shield:
                self._shield([port for port, source in zip(ports, sources, strict=True) if _is_ours(source)])

    def hear_askers(self) -> None:
        """Accept the connections to the claims: where too many wait, nobody can ask any more.

        They stay open until the port is released, for a switch that takes over waits for their end.
        """
        with self._lock:
            ready = {fd for fd, _ in self._asked.poll(0)}
            for fd in ready & self._askers.keys():  # they have gone
                self._askers.pop(fd)[1].close()
            for port in [port for port in self._held.values() if port.claim.fileno() in ready]:
                while len(self._askers) < _WAITING and (asker := _accept(port.claim)):
                    self._askers[asker.fileno()] = port, asker
                    self._asked.register(asker, 0)  # the end is always reported

    def count_losses(self) -> None:
        """Ask anew how many frames were lost in the ports' interfaces, `lost_after`. Raises PortError."""
        with self._lock:
            for namespace, watch in self._watches.items():
                ports = [port for (where, _), port in self._held.items() if where == namespace]
                self._note_queues(ports)
                found = watch.tx_dropped([port.link.index for port in ports])
                for port in ports:
                    self._note_losses(port, found.get(port.link.index, 0))

    def _note_queues(self, ports: Sequence[PortLink]) -> None:
        ports = [port for port in ports if port.queues]
        drops = {namespace: self._watches[namespace].queue_drops() for namespace in {port.namespace for port in ports}}
        for port in ports:
            if found := drops[port.namespace].get(port.link.index):
                port.note_queue(*found)

    def _note_losses(self, port: PortLink, tx_dropped: int) -> None:
        # No less where it is gone.
        port.lost_after = max(port.lost_after, tx_dropped - port.ignored + port.lost_queued)

    def set_carrier(self, port: PortLink, on: bool) -> None:
        """Take the carrier from the far end of a port's interface, or give it back. Raises PortError."""
        index = port.link.index
        with self._lock:
            carriers = self._carriers[port.namespace]
            try:
                lost: list[str] = []
                if on:
                    lost = carriers.give_back(index)
                else:
                    carriers.take(index)
                port.dark = not on
            except OSError as error:
                what = "give the carrier back to" if on else "take the carrier from"
                hint = f"; ip link set {port.link.name} up" if error.errno == errno.ENETDOWN else ""
                raise PortError(f"cannot {what} {port.name}: {error.strerror}{hint}") from None
        for what in lost:
            text = f"port {port.name} is up again, without what the host had there: {what}"
            self._journal.warn(_log, "losses of the host's", text)

    def wait_until_running(self, port: PortLink) -> None:
        """Wait until the kernel uses a carrier that has just come: frames sent before are lost."""
        deadline = time.monotonic() + _STARTING_SECONDS
        while time.monotonic() < deadline:
            link = self._watches[port.namespace].look(port.link.index)
            if link is None or not link.starting:
                break
            time.sleep(0.001)

    def release(self, port: PortLink) -> None:
        """Hold and shield this port no longer; a second call does nothing."""
        key = (port.namespace, port.link.index)
        with self._lock:
            port.claim.close()
            for fd in [fd for fd, (asked, _) in self._askers.items() if asked is port]:
                self._askers.pop(fd)[1].close()
            if self._held.get(key) is port:
                del self._held[key]
                if port.dark:
                    with contextlib.suppress(OSError):  # the interface is gone
                        self._carriers[port.namespace].give_back(port.link.index)
                if port.shielded:
                    self._shields[port.namespace].remove(port.link.index)

    def changes(self) -> list[tuple[PortLink, Link]]:
        """The ports whose links have changed, each with its link as it was before. One that is lost is released."""
        found = []
        with self._lock:
            for namespace, watch in self._watches.items():
                known = [index for where, index in self._held if where == namespace]
                for link in watch.changes(known):
                    port = self._held.get((namespace, link.index))
                    if port is None:
                        continue
                    port.faltered |= not link.running or link.falls != port.link.falls
                    told = (link.name, link.master, link.running)
                    if told != (port.link.name, port.link.master, True) and not link.gone:
                        # Messages queued before the port was taken do not count.
                        link = watch.look(link.index) or link
                    if link != port.link:
                        before, port.link = port.link, link
                        self._note_losses(port, link.tx_dropped)
                        self._follow(port, before)
                        found.append((port, before))
        return found

    def _rename_shield(self, port: PortLink) -> None:
        link = port.link
        try:
            self._shields[port.namespace].rename(link.index, link.name)
        except OSError as error:  # as where it has yet another name by now, of which we shall hear
            text = f"the host is not shielded from port {port.name}, whose interface is named {link.name} now"
            self._journal.warn(_log, "interfaces without a shield", f"{text}: {error.strerror}", thing=port.name)

    def _follow(self, port: PortLink, before: Link) -> None:
        """Release a port that is lost; note a new name."""
        link = port.link
        if link.gone:
            where = "moved to another network namespace" if link.gone == "moved" else "deleted"
            port.lost = f"its interface was {where}"
        elif link.master:
            master = self._name_of(port.namespace, link.master)
            port.lost = f"its interface was put under {master} (ip link set {link.name} nomaster takes it out again)"
        elif link.name != before.name:
            text = f"port {port.name}: its interface {before.name} is named {link.name} now"
            self._journal.warn(_log, "interfaces renamed", text)
            if port.shielded:
                self._rename_shield(port)
        if port.lost:
            self.release(port)

    def _find(self, source: PortLike) -> PortLink:
        name = source.name
        try:
            claim = source.open_socket(socket.AF_UNIX, socket.SOCK_STREAM, 0)
        except OSError as error:
            hint = "; raise the limit on open files (ulimit -n)" if error.errno in (errno.EMFILE, errno.ENFILE) else ""
            raise PortError(f"cannot open sockets on {name}: {error.strerror}{hint}") from None
        try:
            namespace = _namespace(claim)
            watch = self._watch(namespace, source)
            link = watch.look(name)
            if link is not None:
                watch.hear_of([link.index, *(index for where, index in self._held if where == namespace)])
                link = watch.look(link.index)  # what has changed before is not heard of
            self._check(name, link, namespace)
            assert link is not None
        except BaseException:
            claim.close()
            raise
        port = PortLink(name, link, namespace, claim, ignored=link.tx_dropped)
        self._held[namespace, link.index] = port
        return port

    def _watch(self, namespace: int, source: PortLike) -> LinkWatch:
        if namespace not in self._watches:
            watch = LinkWatch(source.open_socket)
            watch.hear_of(())
            self._happened.register(watch.fileno(), select.EPOLLIN)
            self._watches[namespace] = watch
            self._carriers[namespace] = Carriers(source.open_socket)
        return self._watches[namespace]

    def _check(self, name: str, link: Link | None, namespace: int) -> None:
        if link is None:
            raise PortError(f"there is no interface {name!r}; `ip link` lists those there are")
        if other := self._held.get((namespace, link.index)):
            text = (
                f"{name} is the interface {link.name}, which is port {other.name} already; a switch has each port once"
            )
            raise ConfigError(text)
        if not link.ethernet:
            raise PortError(f"{name} is not an Ethernet interface; a port must be one (veth, tap, a network card)")
        if link.master:
            master = self._name_of(namespace, link.master)
            raise PortError(f"{name} belongs to {master}; take it out first: ip link set {link.name} nomaster")

    def _name_of(self, namespace: int, index: int) -> str:
        link = self._watches[namespace].look(index)
        return link.name if link else f"interface {index}"

    def _shield(self, ports: Sequence[PortLink]) -> None:
        """Shield ports of the current network namespace, where there can be a shield. Raises PortError."""
        shield = self._shield_of(ports[0].namespace) if ports else None
        if shield is None:
            return
        try:
            shield.add([(port.link.index, port.link.name) for port in ports])
        except OSError as error:
            # Some interface is gone, say: what shields is known to work.
            raise PortError(f"cannot shield the host from {ports[0].name}: {error.strerror}") from None
        for port in ports:
            port.shielded = True

    def _shield_of(self, namespace: int) -> Shield | None:
        """The shield of the current network namespace; None where there can be none."""
        if namespace not in self._shields and not self.unshielded:
            try:
                self._shields[namespace] = Shield()
            except OSError as error:
                self.unshielded = error.strerror or str(error)
        return self._shields.get(namespace)


def _is_ours(source: PortLike) -> bool:
    return isinstance(source, Interface)


def _namespace(sock: socket.socket) -> int:
    """A number of the socket's network namespace, unique as long as the socket is open."""
    try:
        return int.from_bytes(sock.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8), "little")
    except OSError:
        fd = fcntl.ioctl(sock.fileno(), _SIOCGSKNS)
    try:
        return os.fstat(fd).st_ino
    finally:
        os.close(fd)


def _claim(claim: socket.socket, source: PortLike, link: Link, journal: Journal) -> bool:
    """Hold an interface as long as this socket is open; another process that wants it learns the holder.

    A name of the abstract kind belongs to the network namespace and dies with the process. Anybody may take one, so a
    holder counts only if it could be a switch. Returns whether the name is ours.
    """
    name = claim_of(link.index)
    claim.setblocking(False)
    deadline = time.monotonic() + _CLAIMING_SECONDS
    while not _bind(claim, name, source):
        holder = _holder(source, name)
        if holder is None and time.monotonic() < deadline:
            time.sleep(0.001)
            continue
        pid, uid = holder or (0, 0)
        if holder is None or not may_switch(pid, uid):
            who = f"process {pid} of user {uid}" if holder else "a process that does not listen"
            journal.warn(_log, "pretended ports", f"{who} pretends to hold port {source.name}: passed over", thing=who)
            return False
        who = "this process" if pid == os.getpid() else f"process {pid}" if pid else "another process"
        raise PortError(f"{source.name} is a port of another switch, in {who}; stop that one first") from None
    return True


def _bind(claim: socket.socket, name: str, source: PortLike) -> bool:
    """Take the name, unless somebody has it."""
    try:
        claim.bind(name)
        claim.listen(_WAITING)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise PortError(f"cannot take {source.name}: {error.strerror}") from None
        return False
    return True


def _accept(claim: socket.socket) -> socket.socket | None:
    try:
        return claim.accept()[0]
    except OSError:  # nobody waits, or there are too many open files: the next time, then
        return None


def claim_of(index: int) -> str:
    """The name of the socket by which an interface, by its index, is held."""
    return f"\0fastbridge-port-{index}"


def _holder(source: PortLike, name: str) -> tuple[int, int] | None:
    """Process and user that hold a claim; 0: a process that this one cannot see, root. Raises PortError.

    None: it has just ended, or does not listen, as a switch does within a moment.
    """
    with source.open_socket(socket.AF_UNIX, socket.SOCK_STREAM, 0) as sock:
        try:
            connect(sock, name, source.name)
        except ConnectionRefusedError:
            return None
        except OSError:  # it may not be asked
            return 0, 0
        return peer(sock)


def connect(sock: socket.socket, claim: str, port: str) -> None:
    """Connect to the claim of a port. Raises OSError: nobody holds it; PortError: its holder cannot be asked."""
    sock.setblocking(False)
    try:
        sock.connect(claim)
    except BlockingIOError:  # it is busy or was stopped (SIGSTOP), or a process asks all the time
        text = f"{port} is a port of another switch, which does not say which process it is in; stop that one first"
        raise PortError(text) from None


def peer(sock: socket.socket) -> tuple[int, int]:
    """Process and user at the other end of a connection."""
    pid, uid, _ = struct.unpack("=iII", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return pid, uid


def may_switch(pid: int, uid: int) -> bool:
    """Whether a process could have a switch here: it is root's or this user's, or may open raw sockets, too."""
    if uid in (0, os.geteuid()):
        return True
    process = Path(f"/proc/{pid}")
    try:
        status = (process / "status").read_text()
        same_users = (process / "ns/user").stat().st_ino == Path("/proc/self/ns/user").stat().st_ino
    except OSError:  # it has just ended, or is not ours to look at
        return False
    effective = next(int(line.split()[1], 16) for line in status.splitlines() if line.startswith("CapEff:"))
    return same_users and bool(effective >> _CAP_NET_RAW & 1)
