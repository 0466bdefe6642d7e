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
_NEW_TABLE, _DEL_TABLE, _NEW_CHAIN, _DEL_CHAIN, _NEW_RULE, _DEL_RULE = 0, 2, 3, 5, 6, 8
_NEW_SET, _NEW_ELEMENTS, _DEL_ELEMENTS = 9, 12, 14
_REQUEST, _ACK, _EXCL, _CREATE, _APPEND = 0x1, 0x4, 0x200, 0x400, 0x800  # NLM_F_…
_NLMSG_ERROR, _NESTED = 2, 0x8000
_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr
_OWNED = 0x2  # NFT_TABLE_F_OWNER, kernel ≥ 5.12
_HOOKS = {"ingress": 0, "egress": 1}  # NF_NETDEV_…; egress: kernel ≥ 5.16
_VERDICTS = {"drop": 0, "accept": 1}
_REGISTER = 1  # NFT_REG_1, 16 bytes: all that the expressions here need
_MAP, _GET_ELEMENTS, _DUMP, _DONE = 0x8, 13, 0x300, 3
_ELEMENTS = 400  # in one message: their attribute's length has 16 bits
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


# Expressions of the fast path. They name 32-bit registers, 0 … 15, as what is looked up takes several in a row.


def load_ingress(into: int) -> bytes:
    """The index of the interface the frame came in by."""
    return _expression("meta", _number(1, 8 + into), _number(2, 4))


def load_frame(offset: int, length: int, into: int) -> bytes:
    """Bytes of the frame, with zeros up to the end of their last register; go on only where the frame has them. A tag
    beside the frame counts as in it (net/netfilter/nft_payload.c).
    """
    return _expression("payload", _number(1, 8 + into), _number(2, 0), _number(3, offset), _number(4, length))


def load_zeros(length: int, into: int) -> bytes:
    """Zeros, up to 16."""
    return _expression("immediate", _number(1, 8 + into), _nested(2, _attribute(1, bytes(length))))


def compare(register: int, operation: str, value: bytes) -> bytes:
    """Go on only where what a register begins with is "==", "<=" or ">=" the value."""
    number = {"==": 0, "<=": 3, ">=": 5}[operation]  # NFT_CMP_…
    return _expression("cmp", _number(1, 8 + register), _number(2, number), _nested(3, _attribute(1, value)))


def look_up(name: str, start: int, into: int) -> bytes:
    """Load what a map says of the key that begins in a register; go on only where it has one."""
    return _expression("lookup", _text(1, name), _number(2, 8 + start), _number(3, 8 + into))


def contained(name: str, start: int) -> bytes:
    """Go on only where a set has the key that begins in a register."""
    return _expression("lookup", _text(1, name), _number(2, 8 + start))


def forward(to: int) -> bytes:
    """Send the frame out of the interface whose index is in a register."""
    return _expression("fwd", _number(1, 8 + to))


#: Of an element: when it was last used.
_LAST = _nested(7, _text(1, "last"), _nested(2))


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

    def delete_rules(self, chain: str) -> None:
        """All rules of a chain."""
        self._add(_DEL_RULE, 0, f"rules of chain {chain}", _text(1, self.table), _text(2, chain))

    def add_map(self, name: str, number: int, key_bytes: int, size: int) -> None:
        """A map from keys to interface indexes, with room for so many."""
        self._add_set(name, number, key_bytes, size, _number(3, _MAP), _number(6, 0), _number(7, 4))

    def add_set(self, name: str, number: int, keys: Sequence[bytes]) -> None:
        """A set of keys, all of one length."""
        self._add_set(name, number, len(keys[0]), len(keys), _number(3, 0))
        self._elements(_NEW_ELEMENTS, _CREATE, name, [_nested(1, _nested(1, _attribute(1, key))) for key in keys])

    def _add_set(self, name: str, number: int, key_bytes: int, size: int, *more: bytes) -> None:
        parts = _text(1, self.table), _text(2, name), _number(4, 0), _number(5, key_bytes)
        self._add(_NEW_SET, _CREATE, f"set {name}", *parts, *more, _nested(9, _number(1, size)), _number(10, number))

    def add_elements(self, name: str, elements: Iterable[tuple[bytes, bytes]], *, timed: bool = False) -> None:
        """Elements of a map, (key, value). timed: of each the kernel notes when it was last used."""
        extra = _LAST if timed else b""
        made = [
            _nested(1, _nested(1, _attribute(1, key)), _nested(2, _attribute(1, value)), extra)
            for key, value in elements
        ]
        self._elements(_NEW_ELEMENTS, _CREATE, name, made)

    def delete_elements(self, name: str, keys: Iterable[bytes]) -> None:
        """Elements of a map, by their keys; all of them must be there."""
        self._elements(_DEL_ELEMENTS, 0, name, [_nested(1, _nested(1, _attribute(1, key))) for key in keys])

    def delete_all_elements(self, name: str) -> None:
        """All elements of a map."""
        self._add(_DEL_ELEMENTS, 0, f"elements of {name}", _text(1, self.table), _text(2, name))

    def _elements(self, kind: int, flags: int, name: str, made: Sequence[bytes]) -> None:
        for start in range(0, len(made), _ELEMENTS):
            what = _text(1, self.table), _text(2, name), _nested(3, *made[start : start + _ELEMENTS])
            self._add(kind, flags, f"elements of {name}", *what)

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

    def last_used(self, table: str, name: str) -> Iterable[tuple[bytes, int | None]]:
        """Of each timed element of a map the key, and how many ms ago it was used; None: never. Raises OSError."""
        body = struct.pack("!BBH", _NETDEV, 0, 0) + _text(1, table) + _text(2, name)
        self._sock.send(_message(_SUBSYSTEM << 8 | _GET_ELEMENTS, _DUMP, body))
        while True:
            self._sock.setblocking(True)
            try:
                data = memoryview(self._sock.recv(1 << 18))
            finally:
                self._sock.setblocking(False)
            while len(data) >= _HEADER.size:
                size, kind, _, _, _ = _HEADER.unpack_from(data)
                if kind in (_DONE, _NLMSG_ERROR):
                    code = -struct.unpack_from("=i", data, _HEADER.size)[0]
                    if code:
                        raise OSError(code, f"elements of {name}: {os.strerror(code)}")
                    return
                for part, value in _read(data[_HEADER.size + 4 : size]):
                    if part == 3:
                        yield from (_read_element(element) for _, element in _read(value))
                data = data[size + -size % 4 :]

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


def _read(data: memoryview) -> Iterable[tuple[int, memoryview]]:
    """Attributes: (kind, value)."""
    while len(data) >= 4:
        size, kind = struct.unpack_from("=HH", data)
        if not 4 <= size <= len(data):
            return
        yield kind & 0x3FFF, data[4:size]
        data = data[size + -size % 4 :]


def _read_element(element: memoryview) -> tuple[bytes, int | None]:
    """An element's key, and how many ms ago it was used; None: never."""
    parts = dict(_read(element))
    key = bytes(dict(_read(parts[1]))[1])
    last = dict(_read(dict(_read(parts.get(7, memoryview(b"")))).get(2, memoryview(b""))))
    used = 1 in last and struct.unpack("!I", last[1])[0] != 0
    return key, struct.unpack("!Q", last[2])[0] if used else None
