"""The canary: two frames that show whether a hand works here, before any traffic depends on it.

Two punt pairs stand for two ports. One pair of stations is promoted from the first to the second: its frame must come
out there. Any other frame must be handed over. It goes to the first punt pair, which is also the first port's punt.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
import time
from collections.abc import Callable

from fastbridge.netlink import NETLINK_ROUTE, Netlink
from fastbridge.waiting import wait_for

from .hand import Pair, RefusedError
from .nft import NftHand, OpenSocket, PortEnds
from .punts import Punts

_SECONDS = 3.0  # for a frame to arrive: it takes less than a millisecond, but a link may come up late
_TRIES = 100  # at least, however long they take
_AGAIN_SECONDS = 0.001  # a frame is lost in a link that is about to come up
_NO_INDEX = 2_000_000_000  # no interface has such an index: punt pairs are named by it
_ETHERTYPE = 0x88B5  # for experiments (IEEE 802)
_SOURCE, _KNOWN, _UNKNOWN = 0x020000000001, 0x020000000002, 0x020000000003
_SOL_PACKET, _PACKET_IGNORE_OUTGOING = 263, 23


def fly(
    make_hand: Callable[[], NftHand], open_socket: OpenSocket, private: bool, leftovers: contextlib.ExitStack
) -> None:
    """Try a hand in the network namespace that open_socket opens sockets in. Raises OSError that says why it fails.

    private: the namespace ends with the trial. leftovers: collects the things to close afterwards; closing each takes
    the kernel some 10 ms.
    """
    hand = leftovers.enter_context(contextlib.closing(make_hand()))
    route = Netlink(open_socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_ROUTE))
    leftovers.callback(route.close)
    punts = Punts(route)
    stand_ins = [_NO_INDEX + 2 * os.getpid() + number for number in (0, 1)]
    if not private:
        leftovers.callback(punts.remove_all)
    near, far = punts.make([("a trial", index) for index in stand_ins])
    sender, hearer = (leftovers.enter_context(_listen(open_socket, end.inner)) for end in (near, far))
    hand.attach({n: PortEnds(p.name, p.ifindex, near.ifindex) for n, p in enumerate((near, far))})
    try:
        hand.promote({Pair(0, _KNOWN, _SOURCE, _ETHERTYPE): 1})
    except RefusedError as error:
        raise OSError(str(error)) from None
    _send(sender, _KNOWN, hearer, "the kernel did not forward a frame that it was to forward")
    _send(sender, _UNKNOWN, sender, "the kernel did not hand over a frame that it was to hand over")


def _listen(open_socket: OpenSocket, name: str) -> socket.socket:
    sock = open_socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    sock.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
    sock.bind((name, _ETHERTYPE))
    sock.setblocking(False)
    return sock


def _send(sender: socket.socket, destination: int, hearer: socket.socket, failure: str) -> None:
    """Repeat a frame until it arrives."""
    addresses = destination.to_bytes(6, "big") + _SOURCE.to_bytes(6, "big")
    frame = (addresses + struct.pack("!H", _ETHERTYPE)).ljust(60, b"\0")
    deadline, tries = time.monotonic() + _SECONDS, 0
    while time.monotonic() < deadline or tries < _TRIES:  # a process that gets no CPU for so long has not tried
        tries += 1
        sender.send(frame)
        while wait_for(hearer.fileno(), select.POLLIN, _AGAIN_SECONDS):
            if hearer.recv(2048) == frame:
                return
    raise OSError(failure)
