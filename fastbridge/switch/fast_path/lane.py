"""The fast path of one switch: its head, its hand and its ports' punt pairs.

All ports live in one network namespace, that of the first; one of another namespace stays without.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from operator import gt
from typing import TYPE_CHECKING

from fastbridge.journal import Journal
from fastbridge.link_watch import LinkCounters, read_counts
from fastbridge.netlink import NETLINK_ROUTE, Netlink
from fastbridge.switch.counters import Passed
from fastbridge.switch.port_socket import Receiver

from .bpf import BpfHand
from .head import FastPath
from .inside import Inside
from .nft import NftHand, OpenSocket, PortEnds
from .peers import Peers
from .punts import Punts

if TYPE_CHECKING:
    from fastbridge.core.dataplane import Dataplane
    from fastbridge.core.fdb import FdbAccess
    from fastbridge.switch.helper import Helper

_READINGS = 8  # under traffic a reading may be some frames off

Stats = Mapping[int, LinkCounters]  # of interfaces, by their indexes


class FastLane:
    """Made with the first port, by a hand that works. Raises OSError."""

    def __init__(
        self,
        dataplane: Dataplane,
        entries: FdbAccess,
        now_ms: Callable[[], int],
        open_socket: OpenSocket,
        inside: Inside | None,
        hand: NftHand,
        journal: Journal,
        name_of: Callable[[int], str],
    ) -> None:
        self._inside = inside
        self._open_outer = open_socket
        self._route = self._open_route()
        self._inner = self._route
        self._open_inner = open_socket
        if inside is not None:
            self._open_inner = inside.open_socket
            self._inner = Netlink(inside.open_socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_ROUTE))
        self._punts = Punts(self._route, self._inner, -1 if inside is None else inside.fd)
        self._peers = Peers(self._route) if isinstance(hand, BpfHand) else None
        self._ports: dict[int, PortEnds] = {}
        self._begun: dict[int, Passed] = {}  # counts from before a port was attached …
        self._passed: dict[int, Passed] = {}  # … and since, as last read
        self._sent_before: dict[int, int] = {}  # by interfaces that are to be ports
        self._lock = threading.Lock()  # of the sockets
        self.hand, self.name = hand, hand.name
        self.head = FastPath(dataplane, entries, hand, now_ms, journal, name_of)

    def hand_over(self, helper: Helper) -> None:
        """Have a helper do what takes rights. Nothing is promoted yet."""
        self._punts.ask_by(self._open_route())
        self._punts = helper.take("punts", self._punts)
        if self._peers is not None:
            self._peers = helper.take("peers", Peers(self._open_route()))
        self.hand = self.head.hand = helper.take("hand", self.hand)
        if self._inside is not None:
            self._inside.end_thread()
            self._inside = inside = helper.take("inside", self._inside)
            self._open_inner = lambda *_: inside.open_packet()
            self._inner = self._route

    def _open_route(self) -> Netlink:
        return Netlink(self._open_outer(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_ROUTE))

    def peer(self, ifindex: int) -> int | None:
        """The MAC address at the other end of a port's veth pair, where the hand can make use of it."""
        with self._lock:
            return self._peers.address(ifindex) if self._peers else None

    def make(self, ports: Sequence[tuple[str, int]], beside: bool) -> list[Receiver]:
        """Punt pairs of ports, (name, interface's index). Raises OSError.

        beside: the switches before still have the ports, until they_ended().
        """
        with self._lock:
            made = self._punts.make(ports, beside)
            inner = self._punts.inner_indices([punt.inner for punt in made])
            self._note_sent([index for _, index in ports])
        return [Receiver(self._open_inner, inner[punt.inner], punt.ifindex) for punt in made]

    def they_ended(self) -> None:
        """The switches before have the ports no more. Raises OSError."""
        with self._lock:
            self._punts.remove_old()
            self._note_sent(list(self._sent_before))  # by those switches, too

    def _note_sent(self, indices: Sequence[int]) -> None:
        """Before the core can send by them: its sent frames are subtracted from the first one on."""
        stats, arrived = self._stats(indices), self._arrived(indices)
        self._sent_before.update({index: _sent(index, stats[index], arrived) for index in indices if index in stats})

    def attach(self, ports: Mapping[int, PortEnds]) -> None:
        """Take these ports' frames from now on, by the ports' indexes. Raises OSError."""
        with self._lock:
            self.hand.attach(ports)
            punt_indices = [links.punt for links in ports.values()]
            indices = [links.ifindex for links in ports.values()]
            before, punts, own = self._stats(indices), self._stats(punt_indices), self._stats(indices)
            for index, links in ports.items():
                self._begun[index] = self._begin(links, before, punts, own)
                self._passed[index] = Passed()
            self._ports.update(ports)

    def _begin(self, links: PortEnds, before: Stats, punts: Stats, own: Stats) -> Passed:
        """The counts of a port's interface from before it was attached. Nothing is promoted from it yet.

        So what has come in, but was not handed to the core, came before. Frames handed over are read first. So no
        reading is too low, and one is too high only where frames were on their way: the lowest is exact.
        """
        readings = [_count(links, own, punts, {}) or Passed()]
        while own.get(links.ifindex) != before.get(links.ifindex) and len(readings) < _READINGS:
            before, punts, own = own, self._stats([links.punt]), self._stats([links.ifindex])
            readings.append(_count(links, own, punts, {}) or Passed())
        sent = self._sent_before.pop(links.ifindex, 0)
        return Passed(*map(min, *readings, readings[-1]))._replace(missed=0, sent=sent)

    def detach(self, index: int) -> Passed | None:
        """Stop taking a port's frames and forwarding frames to it.

        Returns the counts of its frames; None: it was not attached. Raises OSError.
        """
        self.head.remove_port(index)
        with self._lock:
            if index not in self._ports:
                self.hand.detach(index)  # what it was to look at
                return None
            links = self._ports[index]
            for _ in range(_READINGS):  # now none is forwarded any more, so the highest reading is exact
                self._note({index: links})
            self.hand.detach(index)
            del self._ports[index], self._begun[index]
            self.head.promoted_from.discard(index)
            last = self._passed.pop(index)
        self.head.remove_port(index)  # its MTU may have been followed meanwhile
        return last

    def follow_name(self, index: int, name: str) -> None:
        """A port's interface may have another name. Raises OSError."""
        if index in self._ports and self._ports[index].name != name:
            self.head.rename(index, name)
            with self._lock:
                self._ports[index] = self._ports[index]._replace(name=name)

    def remove(self, punt: int) -> None:
        """A port's sockets are closed, so the punt pair with this outer end is not needed any more."""
        with self._lock:
            self._punts.remove(punt)

    def passed(self) -> dict[int, Passed]:
        """The counts of each port's frames; the last known ones where its interface is gone."""
        with self._lock:
            self._note(self._ports)
            return dict(self._passed)

    def follow_mtu(self, index: int, mtu: int) -> None:
        """A port's MTU may have changed."""
        if index in self._ports:
            self.head.set_port(index, mtu)

    def leave_to_parent(self) -> None:
        """In a forked child: close the copies of the parent's descriptors."""
        self.head.leave_to_parent()
        for sock in {self._route.socket, self._inner.socket}:
            sock.close()
        self.hand.close()
        if self._inside is not None:
            self._inside.leave_to_parent()

    def close(self) -> None:
        """Give all back."""
        self.head.stop()
        self.hand.close()
        if self._inside is None:  # else they go with their namespace
            self._punts.remove_all()
        for netlink in {self._route, self._inner}:
            netlink.close()
        if self._inside is not None:
            self._inside.close()

    def _note(self, ports: Mapping[int, PortEnds]) -> None:
        """Keep the highest counts: under traffic a reading may be some frames short.

        It may also be too high, by frames that wait in a CPU's backlog for the hook. So what is more than before is
        read once more, and the lower reading counts. Where nothing was ever promoted, the kernel has forwarded nothing.
        """
        promoted_from = set(self.head.promoted_from)
        now = self._since(ports)
        if more := {index: ports[index] for index, since in now.items() if any(map(gt, since, self._passed[index]))}:
            now |= {index: Passed(*map(min, since, now[index])) for index, since in self._since(more).items()}
        for index, since in now.items():
            if index not in promoted_from:
                since = since._replace(received=0, received_bytes=0)
            self._passed[index] = Passed(*map(max, since, self._passed[index]))

    def _since(self, ports: Mapping[int, PortEnds]) -> dict[int, Passed]:
        """A reading of the counts since the ports were attached, of those whose interfaces are there.

        Received frames are read first, frames handed to the core second. So no frame between the two counts as
        forwarded.
        """
        own = self._stats([links.ifindex for links in ports.values()])
        punts = self._stats([links.punt for links in ports.values()])
        arrived = self._arrived([links.ifindex for links in ports.values()])
        counts = {index: _count(links, own, punts, arrived) for index, links in ports.items()}
        begun = self._begun
        return {i: Passed(*(a - b for a, b in zip(now, begun[i], strict=True))) for i, now in counts.items() if now}

    def _arrived(self, indices: Sequence[int]) -> Mapping[int, int]:
        """How many frames the other ends of ports have received, where the hand sends by them."""
        return self._peers.received(indices) if self._peers else {}

    def _stats(self, indices: Collection[int]) -> Stats:
        """The kernel's counts of these interfaces, where they exist."""
        return read_counts(self._route, indices)


def _count(links: PortEnds, own: Stats, punts: Stats, arrived: Mapping[int, int]) -> Passed | None:
    """The counts of a port's interfaces since they were made. Reading them costs no frame anything."""
    if links.ifindex not in own or links.punt not in punts:
        return None
    port, punt = own[links.ifindex], punts[links.punt]
    received = port.rx_frames - punt.tx_frames - punt.tx_dropped
    sent = _sent(links.ifindex, port, arrived)
    return Passed(received, punt.tx_dropped, sent, port.rx_bytes - punt.tx_bytes)


def _sent(ifindex: int, port: LinkCounters, arrived: Mapping[int, int]) -> int:
    """A frame sent by bpf_redirect_peer counts as received at the other end, not as sent here."""
    return port.tx_dropped + arrived.get(ifindex, port.tx_frames)
