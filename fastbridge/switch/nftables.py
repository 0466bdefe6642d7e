"""nf_tables, spoken over netlink.

A batch of changes to one table of the family netdev, all of which the kernel makes, or none. A table that is owned
vanishes with the socket it was made by, SIGKILL included. The formats are in <linux/netfilter/nf_tables.h> and
Documentation/netlink/specs/nftables.yaml; `nft --debug=netlink` shows the expressions of a rule.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from types import TracebackType

_NETLINK_NETFILTER, _NETDEV = 12, 5  # NFPROTO_NETDEV
_BATCH_BEGIN, _BATCH_END, _SUBSYSTEM = 0x10, 0x11, 10  # NFNL_SUBSYS_NFTABLES
_NEW_TABLE, _DEL_TABLE, _NEW_CHAIN, _DEL_CHAIN, _NEW_RULE, _NEW_SET, _NEW_ELEMENTS, _DEL_ELEMENTS = (
    0,
    2,
    3,
    5,
    6,
    9,
    12,
    14,
)
_REQUEST, _ACK, _EXCL, _CREATE, _APPEND = 0x1, 0x4, 0x200, 0x400, 0x800  # NLM_F_…
_NLMSG_ERROR, _NESTED = 2, 0x8000
_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr
_OWNED = 0x2  # NFT_TABLE_F_OWNER, kernel ≥ 5.12
_HOOKS = {"ingress": 0, "egress": 1}  # NF_NETDEV_…; egress: kernel ≥ 5.16
_VERDICTS = {"drop": 0, "accept": 1}
_REGISTER = 1  # NFT_REG_1, 16 bytes: all that the expressions here need
DEVICES_A_CHAIN = 256  #: NFT_NETDEVICE_MAX
# A message may not be longer than the send buffer, and that no longer than net.core.wmem_max (212,992 by default).
_BATCH_BYTES, _BUFFER_BYTES = 100_000, 200_000


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def _nested(kind: int, *attributes: bytes) -> bytes:
    return _attribute(kind | _NESTED, b"".join(attributes))


def _text(kind: int, value: str) -> bytes:
    return _attribute(kind, os.fsencode(value) + b"\0")


def _number(kind: int, value: int) -> bytes:
    return _attribute(kind, struct.pack("!I", value))


# Expressions: what a rule does, one after the other. Each leaves its value in the same register.


def _expression(name: str, *attributes: bytes) -> bytes:
    return _nested(1, _text(1, name), _nested(2, *attributes))  # NFTA_LIST_ELEM: NFTA_EXPR_NAME, NFTA_EXPR_DATA


def load_mark() -> bytes:
    """The frame's mark."""
    return _expression("meta", _number(1, _REGISTER), _number(2, 3))


def set_mark(mark: int) -> bytes:
    """Give the frame this mark."""
    value = _nested(2, _attribute(1, struct.pack("=I", mark)))
    return _expression("immediate", _number(1, _REGISTER), value) + _expression(
        "meta", _number(2, 3), _number(3, _REGISTER)
    )


def unless(value: bytes) -> bytes:
    """Go on where the register holds something else."""
    return _expression("cmp", _number(1, _REGISTER), _number(2, 1), _nested(3, _attribute(1, value)))


def verdict(name: str) -> bytes:
    """End: "drop" or "accept"."""
    return _expression("immediate", _number(1, 0), _nested(2, _nested(2, _number(1, _VERDICTS[name]))))


@dataclass
class Batch:
    """Changes to one table, in order."""

    table: str
    messages: list[tuple[str, bytes]] = field(default_factory=list)  # what each is about, and itself without its number

    def add_table(self) -> None:
        """The table, owned by the socket that sends the batch; it must not exist yet."""
        self._add(_NEW_TABLE, _CREATE | _EXCL, f"table {self.table}", _text(1, self.table), _number(2, _OWNED))

    def add_chain(
        self, name: str, hook: str, devices: Sequence[str], *, policy: str = "accept", priority: int = 0
    ) -> None:
        """A chain that sees the frames of some interfaces, at "ingress" or at "egress"; at most DEVICES_A_CHAIN."""
        # A list of one is unknown before 5.5, and after it the same as a single interface.
        where = _text(3, devices[0]) if len(devices) == 1 else _nested(4, *(_text(1, device) for device in devices))
        at = _nested(4, _number(1, _HOOKS[hook]), _attribute(2, struct.pack("!i", priority)), where)
        rest = _number(5, _VERDICTS[policy]), _text(7, "filter")
        about = f"chain {name} at the {hook} of {', '.join(devices)}"
        self._add(_NEW_CHAIN, _CREATE | _EXCL, about, _text(1, self.table), _text(3, name), at, *rest)

    def delete_chain(self, name: str) -> None:
        """A chain with its rules."""
        self._add(_DEL_CHAIN, 0, f"chain {name}", _text(1, self.table), _text(3, name))

    def add_rule(self, chain: str, *expressions: bytes) -> None:
        """A rule behind those that the chain has."""
        what = _text(1, self.table), _text(2, chain), _nested(4, *expressions)
        self._add(_NEW_RULE, _CREATE | _APPEND, f"rule of chain {chain}", *what)

    def _add(self, kind: int, flags: int, about: str, *attributes: bytes) -> None:
        body = struct.pack("!BBH", _NETDEV, 0, 0) + b"".join(attributes)
        self.messages.append((about, _message(_SUBSYSTEM << 8 | kind, flags, body)))


class Nftables:
    """A socket to the nf_tables of one network namespace; what it owns there lasts as long as it. A context manager."""

    def __init__(self, open_socket: Callable[[int, int, int], socket.socket] = socket.socket) -> None:
        """open_socket: opens a socket in that namespace, as `socket.socket` does in the current one. Raises OSError."""
        self._sock = open_socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)
        try:
            self._sock.setblocking(False)
            for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
                self._sock.setsockopt(socket.SOL_SOCKET, option, _BUFFER_BYTES)
            self._sock.bind((0, 0))
        except BaseException:
            self._sock.close()
            raise

    def __enter__(self) -> Nftables:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket; its tables go."""
        self._sock.close()

    def apply(self, batch: Batch) -> None:
        """Make the changes: all or none, but for a batch so long that it takes several transactions.

        Raises OSError that names the first change that was refused.
        """
        for part in _parts(batch.messages):
            self._transact(part)

    def _transact(self, messages: Sequence[tuple[str, bytes]]) -> None:
        about = ["nf_tables", *(text for text, _ in messages)]
        begin, end = (_message(kind, 0, struct.pack("!BBH", 0, 0, _SUBSYSTEM)) for kind in (_BATCH_BEGIN, _BATCH_END))
        data = [begin, *(message for _, message in messages), end]
        numbered = bytearray()
        for number, message in enumerate(data):
            size, kind, flags, _, port = _HEADER.unpack_from(message)
            # The last change is acknowledged: that comes after all errors.
            flags |= _ACK if number == len(messages) else 0
            numbered += _HEADER.pack(size, kind, flags, number, port) + message[_HEADER.size :]
        self._sock.send(numbered)
        refused = [(code, about[min(number, len(about) - 1)]) for code, number in self._answers() if code]
        if refused:
            code, what = refused[0]
            raise OSError(code, f"{what}: {os.strerror(code)}")

    def _answers(self) -> Iterable[tuple[int, int]]:
        """(errno, number) of each answer: the kernel has given them all when send() returns."""
        found: list[tuple[int, int]] = []
        while True:
            try:
                data = self._sock.recv(1 << 16)
            except BlockingIOError:
                return found
            offset = 0
            while offset + _HEADER.size <= len(data):
                size, kind, _, number, _ = _HEADER.unpack_from(data, offset)
                if kind == _NLMSG_ERROR:
                    found.append((-struct.unpack_from("=i", data, offset + _HEADER.size)[0], number))
                offset += size + -size % 4


def _message(kind: int, flags: int, body: bytes) -> bytes:
    return _HEADER.pack(_HEADER.size + len(body), kind, _REQUEST | flags, 0, 0) + body


def _parts(messages: Sequence[tuple[str, bytes]]) -> Iterable[Sequence[tuple[str, bytes]]]:
    """As many as fit into one transaction each."""
    part: list[tuple[str, bytes]] = []
    size = 0
    for message in messages:
        if part and size + len(message[1]) > _BATCH_BYTES:
            yield part
            part, size = [], 0
        part.append(message)
        size += len(message[1])
    if part:
        yield part
