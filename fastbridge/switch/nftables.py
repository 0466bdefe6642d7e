"""nf_tables, spoken over netlink.

A batch holds changes to one table of the family netdev. The kernel makes all of them, or none. An owned table vanishes
with the socket that made it, SIGKILL included. The formats are in <linux/netfilter/nf_tables.h> and
Documentation/netlink/specs/nftables.yaml; `nft --debug=netlink` shows the expressions of a rule.
"""

from __future__ import annotations

import errno
import socket
import struct
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache

from fastbridge.closes import Closes
from fastbridge.netlink import (
    NETLINK_NETFILTER,
    NLM_F_APPEND,
    NLM_F_CREATE,
    NLM_F_DUMP,
    NLM_F_EXCL,
    Netlink,
    attribute,
    attributes,
    be32,
    message,
    nested,
    text,
)

_NETDEV = 5  # NFPROTO_NETDEV
_BATCH_BEGIN, _BATCH_END, _SUBSYSTEM = 0x10, 0x11, 10  # NFNL_SUBSYS_NFTABLES
_NEW_TABLE, _DEL_TABLE, _NEW_CHAIN, _DEL_CHAIN, _NEW_RULE, _DEL_RULE = 0, 2, 3, 5, 6, 8
_NEW_SET, _NEW_ELEMENTS, _DEL_ELEMENTS = 9, 12, 14
_OWNED = 0x2  # NFT_TABLE_F_OWNER, kernel ≥ 5.12
_HOOKS = {"ingress": 0, "egress": 1}  # NF_NETDEV_…; egress: kernel ≥ 5.16
_VERDICTS = {"drop": 0, "accept": 1}
_PRIORITY = 2  # NFT_META_PRIORITY
_REGISTER = 1  # NFT_REG_1, 16 bytes: enough for the expressions here
_MAP, _GET_ELEMENTS = 0x8, 13
_ELEMENTS = 400  # in one message: their attribute's length has 16 bits
DEVICES_A_CHAIN = 256  #: NFT_NETDEVICE_MAX
# A batch may not be longer than the send buffer, and that no longer than net.core.wmem_max (212,992 by default).
_BATCH_BYTES = 100_000


# Expressions: the steps of a rule, in order. Each leaves its value in the same register. Those that many ports have in
# common are packed once.


def _expression(name: str, *parts: bytes) -> bytes:
    return nested(1, text(1, name), nested(2, *parts))  # NFTA_LIST_ELEM: NFTA_EXPR_NAME, NFTA_EXPR_DATA


@cache
def load_priority() -> bytes:
    """The frame's priority."""
    return _expression("meta", be32(1, _REGISTER), be32(2, _PRIORITY))


def unless(value: bytes) -> bytes:
    """Go on where the register holds something else."""
    return _expression("cmp", be32(1, _REGISTER), be32(2, 1), nested(3, attribute(1, value)))


def verdict(name: str) -> bytes:
    """End: "drop" or "accept"."""
    return _expression("immediate", be32(1, 0), nested(2, nested(2, be32(1, _VERDICTS[name]))))


# Expressions of the fast path. They name 32-bit registers, 0 … 15, because a key takes several in a row.


@cache
def load_frame(offset: int, length: int, into: int) -> bytes:
    """Load bytes of the frame, with zeros up to the end of their last register; go on only where the frame has them.

    A tag beside the frame counts as part of it (net/netfilter/nft_payload.c).
    """
    return _expression("payload", be32(1, 8 + into), be32(2, 0), be32(3, offset), be32(4, length))


def load_value(value: bytes, into: int) -> bytes:
    """Load up to 16 bytes."""
    return _expression("immediate", be32(1, 8 + into), nested(2, attribute(1, value)))


def set_bits(register: int, bits: bytes) -> bytes:
    """Set these bits of a register, and leave the others."""
    parts = (
        nested(number, attribute(1, value)) for number, value in ((4, bytes(~bit & 0xFF for bit in bits)), (5, bits))
    )
    return _expression("bitwise", be32(1, 8 + register), be32(2, 8 + register), be32(3, len(bits)), *parts)


@cache
def set_priority(register: int) -> bytes:
    """Give the frame the priority that is in a register."""
    return _expression("meta", be32(2, _PRIORITY), be32(3, 8 + register))


@cache
def compare(register: int, operation: str, value: bytes) -> bytes:
    """Go on only where a register's first bytes are "==", "<=" or ">=" the value."""
    number = {"==": 0, "<=": 3, ">=": 5}[operation]  # NFT_CMP_…
    return _expression("cmp", be32(1, 8 + register), be32(2, number), nested(3, attribute(1, value)))


@cache
def look_up(name: str, start: int, into: int) -> bytes:
    """Load a map's value for the key that begins in a register; go on only where the map has the key."""
    return _expression("lookup", text(1, name), be32(2, 8 + start), be32(3, 8 + into))


@cache
def contained(name: str, start: int) -> bytes:
    """Go on only where a set has the key that begins in a register."""
    return _expression("lookup", text(1, name), be32(2, 8 + start))


@cache
def forward(to: int) -> bytes:
    """Send the frame out of the interface whose index is in a register."""
    return _expression("fwd", be32(1, 8 + to))


#: Of an element: when it was last used.
_LAST = nested(7, text(1, "last"), nested(2))


@dataclass
class Batch:
    """Changes to one table, in order."""

    table: str
    messages: list[tuple[str, bytes]] = field(default_factory=list)  # each one's purpose and numberless message

    def add_table(self) -> None:
        """The table, owned by the socket that sends the batch; it must not exist yet."""
        self._add(_NEW_TABLE, NLM_F_CREATE | NLM_F_EXCL, f"table {self.table}", text(1, self.table), be32(2, _OWNED))

    def add_chain(
        self, name: str, hook: str, devices: Sequence[str], *, policy: str = "accept", priority: int = 0
    ) -> None:
        """A chain that sees the frames of some interfaces, at "ingress" or at "egress"; at most DEVICES_A_CHAIN."""
        # A list of one is unknown before 5.5, and after it the same as a single interface.
        where = text(3, devices[0]) if len(devices) == 1 else nested(4, *(text(1, device) for device in devices))
        at = nested(4, be32(1, _HOOKS[hook]), attribute(2, struct.pack("!i", priority)), where)
        rest = be32(5, _VERDICTS[policy]), text(7, "filter")
        about = f"chain {name} at the {hook} of {', '.join(devices)}"
        self._add(_NEW_CHAIN, NLM_F_CREATE | NLM_F_EXCL, about, text(1, self.table), text(3, name), at, *rest)

    def delete_chain(self, name: str) -> None:
        """A chain with its rules."""
        self._add(_DEL_CHAIN, 0, f"chain {name}", text(1, self.table), text(3, name))

    def add_rule(self, chain: str, *expressions: bytes) -> None:
        """A rule behind those that the chain has."""
        what = text(1, self.table), text(2, chain), nested(4, *expressions)
        self._add(_NEW_RULE, NLM_F_CREATE | NLM_F_APPEND, f"rule of chain {chain}", *what)

    def delete_rules(self, chain: str) -> None:
        """All rules of a chain."""
        self._add(_DEL_RULE, 0, f"rules of chain {chain}", text(1, self.table), text(2, chain))

    def add_map(self, name: str, number: int, key_bytes: int, value_bytes: int, size: int) -> None:
        """A map from keys to values, with room for so many."""
        self._add_set(name, number, key_bytes, size, be32(3, _MAP), be32(6, 0), be32(7, value_bytes))

    def add_set(self, name: str, number: int, keys: Sequence[bytes]) -> None:
        """A set of keys, all of one length."""
        self._add_set(name, number, len(keys[0]), len(keys), be32(3, 0))
        self._elements(_NEW_ELEMENTS, NLM_F_CREATE, name, [nested(1, nested(1, attribute(1, key))) for key in keys])

    def _add_set(self, name: str, number: int, key_bytes: int, size: int, *more: bytes) -> None:
        parts = text(1, self.table), text(2, name), be32(4, 0), be32(5, key_bytes)
        self._add(_NEW_SET, NLM_F_CREATE, f"set {name}", *parts, *more, nested(9, be32(1, size)), be32(10, number))

    def add_elements(self, name: str, elements: Iterable[tuple[bytes, bytes]], *, timed: bool = False) -> None:
        """Elements of a map, (key, value). timed: the kernel notes when each was last used."""
        extra = _LAST if timed else b""
        made = [
            nested(1, nested(1, attribute(1, key)), nested(2, attribute(1, value)), extra) for key, value in elements
        ]
        self._elements(_NEW_ELEMENTS, NLM_F_CREATE, name, made)

    def delete_elements(self, name: str, keys: Iterable[bytes]) -> None:
        """Elements of a map, by their keys; all of them must be there."""
        self._elements(_DEL_ELEMENTS, 0, name, [nested(1, nested(1, attribute(1, key))) for key in keys])

    def delete_all_elements(self, name: str) -> None:
        """All elements of a map."""
        self._add(_DEL_ELEMENTS, 0, f"elements of {name}", text(1, self.table), text(2, name))

    def _elements(self, kind: int, flags: int, name: str, made: Sequence[bytes]) -> None:
        for start in range(0, len(made), _ELEMENTS):
            what = text(1, self.table), text(2, name), nested(3, *made[start : start + _ELEMENTS])
            self._add(kind, flags, f"elements of {name}", *what)

    def _add(self, kind: int, flags: int, about: str, *parts: bytes) -> None:
        body = struct.pack("!BBH", _NETDEV, 0, 0) + b"".join(parts)
        self.messages.append((about, message(_SUBSYSTEM << 8 | kind, flags, body)))


class Nftables(Closes):
    """A socket to the nf_tables of one network namespace, for any thread; a context manager.

    The tables that it owns end with it.
    """

    def __init__(self, open_socket: Callable[[int, int, int], socket.socket] = socket.socket) -> None:
        """open_socket: opens a socket in that namespace, as `socket.socket` does in the current one. Raises OSError."""
        sock = open_socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
        try:
            self._netlink = Netlink(sock)
        except BaseException:
            sock.close()
            raise
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close the socket; its tables go."""
        self._netlink.close()

    def apply(self, batch: Batch) -> None:
        """Make the changes: all or none, but for a batch so long that it takes several transactions.

        Raises OSError that names the first change that was refused.
        """
        begin, end = (message(kind, 0, struct.pack("!BBH", 0, 0, _SUBSYSTEM)) for kind in (_BATCH_BEGIN, _BATCH_END))
        for part in _parts(batch.messages):
            about = ["nf_tables", *(what for what, _ in part), "nf_tables"]
            with self._lock:
                # The last change is acknowledged after all errors.
                self._netlink.send([begin, *(change for _, change in part), end], about, answered=-2)

    def replace(self, batch: Batch, chains: Sequence[str]) -> None:
        """Delete these chains of the batch's table, where they are there, and make the changes, all at once.

        For chains of an interface that has another name: before 6.16 they are gone with the old one. Raises OSError.
        """
        deletions = Batch(batch.table)
        for name in chains:
            deletions.delete_chain(name)
        try:
            self.apply(Batch(batch.table, deletions.messages + batch.messages))
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise
            if batch.messages:
                self.apply(batch)

    def last_used(self, table: str, name: str) -> list[tuple[bytes, int | None]]:
        """Each timed element of a map: its key, and how many ms ago it was used; None: never. Raises OSError."""
        body = struct.pack("!BBH", _NETDEV, 0, 0) + text(1, table) + text(2, name)
        with self._lock:
            answers = list(self._netlink.dump(message(_SUBSYSTEM << 8 | _GET_ELEMENTS, NLM_F_DUMP, body)))
        parts = (part for answer in answers for part in attributes(answer.payload[4:]))
        return [_read_element(element) for kind, value in parts if kind == 3 for _, element in attributes(value)]


def _parts(messages: Sequence[tuple[str, bytes]]) -> Iterable[Sequence[tuple[str, bytes]]]:
    """Split the changes into parts that fit into one transaction each."""
    part: list[tuple[str, bytes]] = []
    size = 0
    for change in messages:
        if part and size + len(change[1]) > _BATCH_BYTES:
            yield part
            part, size = [], 0
        part.append(change)
        size += len(change[1])
    if part:
        yield part


def _read_element(element: memoryview) -> tuple[bytes, int | None]:
    """An element's key, and how many ms ago it was used; None: never."""
    parts = dict(attributes(element))
    key = bytes(dict(attributes(parts[1]))[1])
    last = dict(attributes(dict(attributes(parts.get(7, memoryview(b"")))).get(2, memoryview(b""))))
    used = 1 in last and struct.unpack("!I", last[1])[0] != 0
    return key, struct.unpack("!Q", last[2])[0] if used else None
