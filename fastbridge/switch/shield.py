"""A shield, between the host's own stack and a switch's ports.

Each switch has one nf_tables table in each namespace. At the ingress of each port it drops every frame. Packet sockets
are served before that hook, so the switch hears every frame, and no daemon or protocol of the host hears any. At the
egress only frames with the switch's priority leave. So the host sends nothing: no ARP, no router solicitations, no
multicast reports. No setting of the host changes. The table ends with the process, whatever ends the process.

Every frame that the switch sends pays for the egress chain, so the chain is one comparison. A mark would have to be
taken off again, for that is another 3 % of a small frame's cost. A priority need not be: veth clears it.
"""

from __future__ import annotations

import os
import secrets
import socket
import struct
from collections.abc import Callable, Iterable, Sequence

from .nftables import Batch, Nftables, load_priority, unless, verdict

# The priority of a switch's frames. Its last four bits are those of the default, 0: queues sort by these. No queue has
# a class of this number.
PRIORITY = 0x66627370


class Shield:
    """Shields ports of one network namespace, each an interface's index and its name."""

    def __init__(self, open_socket: Callable[[int, int, int], socket.socket] = socket.socket) -> None:
        """open_socket: opens a socket in that namespace.

        Raises OSError where there is no shield: no CAP_NET_ADMIN, no nf_tables, or a kernel older than 5.16.
        """
        self._name = f"fastbridge-{os.getpid()}-{secrets.token_hex(6)}"
        self._nftables = Nftables(open_socket)
        try:
            batch = Batch(self._name)
            batch.add_table()
            batch.add_chain("trial", "egress", ["lo"])  # which needs the newest kernel of all; it lets everything pass
            self._nftables.apply(batch)
            self._nftables.replace(Batch(self._name), ["trial"])
        except BaseException:
            self._nftables.close()
            raise

    def close(self) -> None:
        """Lift it from all ports."""
        self._nftables.close()

    def add(self, ports: Iterable[tuple[int, str]]) -> None:
        """Shield these ports, too. Raises OSError; then some of them may be shielded."""
        batch = Batch(self._name)
        for index, name in ports:
            _add_chains(batch, index, name)
        self._nftables.apply(batch)

    def remove(self, index: int) -> None:
        """Lift the shield from a port, even from a deleted one: a later interface may have its name."""
        self._nftables.replace(Batch(self._name), _chains(index))

    def rename(self, index: int, name: str) -> None:
        """A port's interface has another name now. Chains are bound to names (since 6.16 they follow them)."""
        batch = Batch(self._name)
        _add_chains(batch, index, name)
        self._nftables.replace(batch, _chains(index))


def let_pass(sock: socket.socket) -> None:
    """Let a socket's frames pass the shield of their egress port."""
    if sock.getsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY) != PRIORITY:  # else whoever opened it had the right
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY, PRIORITY)


def _add_chains(batch: Batch, index: int, name: str) -> None:
    batch.add_chain(f"in-{index}", "ingress", [name], policy="drop")
    batch.add_chain(f"out-{index}", "egress", [name])
    batch.add_rule(f"out-{index}", load_priority(), unless(struct.pack("=I", PRIORITY)), verdict("drop"))


def _chains(index: int) -> Sequence[str]:
    return f"in-{index}", f"out-{index}"
