"""Taking over: the switch before ends, so that this one begins.

Whoever holds an interface as a port has a socket of a known name (port_links.py). A connection to it tells who that is,
and ends in the moment it lets go.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import time
from collections.abc import Iterable, Iterator

from fastbridge.control.directory import listener, socket_path
from fastbridge.errors import ConfigError, PortError, PrivilegeError

from .port_links import claim_of, connect, may_switch, peer

_PATIENCE_SECONDS = 10.0


def take_over(names: Iterable[str]) -> None:
    """Have the switches that hold these interfaces end, by SIGTERM, and wait until they have let go of them.

    Does nothing where nobody holds one. Raises PortError: one does not let go, or is this process; PrivilegeError.
    """
    with contextlib.ExitStack() as opened:
        held: dict[int, str] = {}  # by the descriptor of the connection to its holder
        holders: dict[int, str] = {}  # by process
        waiting = select.poll()
        for name, sock in _ask(names, opened):
            pid, uid = peer(sock)
            if pid == os.getpid():
                raise PortError(f"{name} is a port of another switch in this process; stop that one first")
            if may_switch(pid, uid):
                waiting.register(sock, select.POLLHUP)
                held[sock.fileno()] = holders[pid] = name
        for pid, name in holders.items():
            _end(pid, name)
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while held:
            ready = waiting.poll(1000 * max(0.0, deadline - time.monotonic()))
            if not ready:
                who = ", ".join(map(str, holders))
                raise PortError(f"process {who} was asked to end, and still holds {next(iter(held.values()))}")
            for fd, _ in ready:
                waiting.unregister(fd)
                del held[fd]


def is_held(name: str) -> bool:
    """Whether somebody holds this interface as a port. Raises PortError: its holder cannot be asked."""
    with contextlib.ExitStack() as opened:
        return any(True for _ in _ask([name], opened))


def check_name(name: str, ports: Iterable[str]) -> None:
    """Raises ConfigError: another switch of this name has none of these ports, so a take-over does not end it."""
    pid = listener(socket_path(name))
    with contextlib.ExitStack() as opened:
        if pid and pid not in {peer(sock)[0] for _, sock in _ask(ports, opened)}:
            text = f"a switch named {name} runs already, in process {pid}, and has none of these ports"
            raise ConfigError(f"{text}; give this one another name")


def _ask(names: Iterable[str], opened: contextlib.ExitStack) -> Iterator[tuple[str, socket.socket]]:
    """The interfaces that somebody holds, each with a connection to its holder. Raises PortError."""
    for name in names:
        sock = opened.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC))
        try:
            connect(sock, claim_of(socket.if_nametoindex(name)), name)
        except OSError:  # there is no such interface, which is said when it is opened; or nobody holds it
            continue
        yield name, sock


def _end(pid: int, name: str) -> None:
    """Ask a process to end. Raises PrivilegeError."""
    if not pid:
        raise PrivilegeError(f"{name} is a port of a switch outside this PID namespace; stop that one first")
    try:
        os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:  # it has just ended
        return
    except PermissionError:
        raise PrivilegeError(f"{name} is a port of process {pid}, which this user may not end; stop it first") from None
