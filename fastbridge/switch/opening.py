"""Ports are opened: their sockets and receive rings, as large as the kernel has memory for."""

from __future__ import annotations

import errno
import logging
import socket

from fastbridge.core.dataplane import open_ring
from fastbridge.errors import PortError
from fastbridge.journal import Journal
from fastbridge.open_files import reserve_files

from .helper import Helper
from .member import Member
from .options import LiveOptions
from .port_links import PortLink, PortLinks
from .port_socket import (
    Interface,
    PacketSockets,
    PortLike,
    Receiver,
    open_port_sockets,
    pod_question,
    set_send_buffer,
    start_receiving,
    takes_gso,
)
from .ring_size import FEWEST, MOST, SLOW, ring_slots, smaller_ring
from .shield import PRIORITY, let_pass

_log = logging.getLogger(__name__)


class Opener:
    """Opens the ports of one switch. Several threads may open and start ports."""

    def __init__(self, options: LiveOptions, links: PortLinks, journal: Journal) -> None:
        self._rings, self._coalesce = options.workers if options.fanout else 1, options.coalesce
        self._links, self._journal = links, journal
        self._most = self._slots = MOST  # slots that the kernel has memory for; slots that a ring is to have
        self._sockets: PacketSockets | None = None

    def hand_over(self, helper: Helper) -> None:
        """Have a helper do what takes rights."""
        self._sockets = helper.take("sockets", PacketSockets(PRIORITY if self._links.shields else 0))

    def source(self, port: str | PortLike) -> PortLike:
        """A port by name is an interface."""
        return Interface(port, self._sockets) if isinstance(port, str) else port

    def expect(self, ports: int, beside: int) -> None:
        """So many ports are to be opened beside others."""
        reserve_files(ports * (self._rings + 3))  # rings, TX, claim, and what attaches a program
        self._slots = min(self._most, ring_slots((beside + ports) * self._rings))

    def open(self, source: PortLike, link: PortLink, listen: Receiver | None) -> Member:
        """Sockets and rings of a port, deaf so far. Raises PortError or PrivilegeError."""
        sockets = open_port_sockets(source, link.link.index, self._rings, listen)
        try:
            slots = tuple(self._open_ring(rx, source.name, self._slots_for(listen)) for rx in sockets[:-1])
            ask = pod_question(source)
            takes = ask is None or ask()
        except BaseException:
            for sock in sockets:
                sock.close()
            raise
        merges = self._coalesce and takes_gso(sockets[-1])
        return Member(source.name, sockets, slots, (), merges, link, ask_pod=ask, takes_merged=takes, listen=listen)

    def start(self, member: Member) -> None:
        """Let frames fill a port's rings. Raises PortError."""
        *receivers, tx = member.sockets
        assert member.link is not None  # it is an interface
        index = member.listen.ifindex if member.listen else member.link.link.index
        start_receiving(receivers, index, member.name)
        self._links.wait_until_running(member.link)
        if member.link.shielded:
            let_pass(tx)

    def note_size(self, member: Member) -> None:
        """Later rings are no larger than one that the kernel has made smaller."""
        if min(member.slots) < self._slots_for(member.listen):
            text = f"the kernel refused a larger ring: {member.name} has {min(member.slots)} slots"
            self._journal.warn(_log, "smaller rings", text)
            self._most = self._slots = min(member.slots)

    def set_send_buffer(self, tx: socket.socket, small: bool) -> None:
        """Limit the bytes on their way out by a socket. Raises OSError."""
        (self._sockets.set_send_buffer if self._sockets else set_send_buffer)(tx, small)

    def _slots_for(self, listen: Receiver | None) -> int:
        return self._slots if listen is None else min(self._slots, SLOW)

    def _open_ring(self, rx: socket.socket, name: str, slots: int) -> int:
        """Halve the ring until the kernel has memory for it; returns its number of slots. Raises PortError."""
        while True:
            try:
                open_ring(rx.fileno(), slots)
                return slots
            except OSError as error:
                if error.errno != errno.ENOMEM:
                    text = f"no receive ring for {name}: {error.strerror}; fastbridge needs AF_PACKET with TPACKET_V2"
                    raise PortError(text) from None
                if slots <= FEWEST:
                    raise PortError(f"no receive ring for {name}: {error.strerror}; free some memory") from None
            slots = smaller_ring(slots)
