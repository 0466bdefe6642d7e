"""Which hand this machine allows, tried once in a process."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import socket
import threading
from collections.abc import Callable, Sequence
from functools import partial

from . import inside
from .bpf import BpfHand
from .bpf_syscall import BpfError
from .canary import fly
from .hand import MOST_PAIRS
from .nft import NftHand, OpenSocket

_NEEDS = {
    "bpf": "bpf takes root outside of a user namespace, kernel 6.6 or later, and a sandbox that allows bpf(2)",
    "nft": "nft takes CAP_NET_ADMIN, a kernel with nf_tables and its fwd expression (nft_fwd_netdev), and a sandbox "
    "that allows nfnetlink",
}
_CLONE_NEWNET, _SIOCGSKNS = 0x40000000, 0x894C
_FEW = 16  # most pairs of a hand on trial

_tried: dict[str, str] = {}
_closing: list[threading.Thread] = []


def choices(wanted: str) -> Sequence[str]:
    """The hands that an option of the switch names, the quickest first."""
    return {"auto": ("bpf", "nft"), "off": ()}.get(wanted, (wanted,))


def missing(kind: str, open_socket: OpenSocket = socket.socket) -> str:
    """Why a hand does not work here, and what it needs; "": it works. Call settle() afterwards.

    open_socket: opens a socket in the network namespace for the trial, where this process may make none of its own.
    """
    if kind not in _tried:
        leftovers = contextlib.ExitStack()
        try:
            if private := inside.make():
                leftovers.callback(private.close)
                private.run(partial(fly, partial(make, kind, socket.socket, _FEW), socket.socket, True, leftovers))
            else:
                fly(partial(make, kind, open_socket, _FEW), open_socket, False, leftovers)
        except OSError as error:
            _tried[kind] = f"{error.strerror or error}; {_NEEDS[kind]}"
        else:
            _tried[kind] = ""
        finally:
            thread = threading.Thread(target=leftovers.close, name="fastbridge-canary")
            thread.start()
            _closing.append(thread)
    return _tried[kind]


def settle() -> None:
    """Return when nothing is left of the trials."""
    while _closing:
        _closing.pop().join()


def make(kind: str, open_socket: OpenSocket, size: int = MOST_PAIRS) -> NftHand:
    """A hand for interfaces of the network namespace that open_socket opens sockets in. Raises OSError."""
    if kind == "bpf":
        return BpfHand(open_socket, size, partial(_within, open_socket))
    return NftHand(open_socket, size)


def _within(open_socket: OpenSocket, action: Callable[[], int]) -> int:
    """Call a function in that network namespace. Raises OSError.

    bpf(2) looks up an interface's index in the calling thread's namespace.
    """
    with open_socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as sock:
        there = fcntl.ioctl(sock.fileno(), _SIOCGSKNS)
    here = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        if os.fstat(there).st_ino == os.fstat(here).st_ino:
            return action()
        _enter(there)
        try:
            return action()
        finally:
            _enter(here)
    finally:
        os.close(there)
        os.close(here)


def _enter(space: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(space, _CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise BpfError(number, f"the ports' network namespace: {os.strerror(number)}")
