"""The helper: a process with the rights that its switches have given up.

When it runs, a switch seldom needs rights: for the sockets of a port that joins, for its pods' carriers, and for what
it changes in the kernel, which are its tables, its programs and its punt pairs. All that is the helper's. It is forked
when the switch is ready to start, and does what the switch asks for over a socket pair. The requests are few, and hold
names, indexes and addresses only. The switches of one process share it. It ends with that process, SIGKILL included;
then it gives the carriers back.
"""

from __future__ import annotations

import array
import contextlib
import errno
import json
import os
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, cast, get_type_hints

from fastbridge.closes import Closes
from fastbridge.control.directory import listener, socket_path
from fastbridge.control.server import remove_dead
from fastbridge.errors import ConfigError, PortError, PrivilegeError
from fastbridge.forks import in_child
from fastbridge.privileges import BPF_COMMANDS, CAP_NET_ADMIN, CAP_NET_RAW, give_up, refuse_calls

from .fast_path.hand import Look, NoInterfaceError, Pair, RefusedError
from .fast_path.inside import Inside
from .fast_path.nft import PortEnds
from .fast_path.punts import Punt

if TYPE_CHECKING:
    from .live import Switch

_T = TypeVar("_T")

# What may be asked for, by thing.
_REQUESTS = {
    "sockets": {"open", "set_send_buffer"},
    "inside": {"open_packet", "close"},
    "carriers": {"take", "give_back", "close"},
    "shield": {"add", "remove", "rename", "close"},
    "hand": {"attach", "detach", "rename", "look", "promote", "revoke", "idle", "clear", "close"},
    "punts": {"make", "inner_indices", "remove", "remove_all"},
    "peers": {"address", "received"},
}
# What needs no helper once it has ended, for its tables and programs have ended with it.
_DONE = {"close", "remove", "remove_all", "detach", "revoke", "clear"}
_NOTHING_FOUND = {"idle", "received"}
_REFUSALS = {refusal.__name__: refusal for refusal in (RefusedError, NoInterfaceError)}
_LENGTH = struct.Struct("=I")
_MOST_BYTES = 64 << 20  # of a message: all pairs of a full fast path take some 6 MB
_ENDED = "the helper process has ended"
_ENDING_SECONDS = 10.0  # that a killed process may take to let go of its files


class Helper(Closes):
    """The switches' side of it; a context manager."""

    def __init__(self, switches: Collection[Switch]) -> None:
        """Fork the helper of switches that are not started yet. Raises PrivilegeError, PortError."""
        self._things: dict[str, Any] = {}
        self._lock = threading.Lock()
        for self._switch, switch in enumerate(switches):
            switch.hand_over(self)
        self._owner = os.getpid()
        self._socket, theirs = socket.socketpair()
        try:
            self._pid = os.fork()
        except OSError as error:
            raise PortError(f"cannot start the helper process: {error.strerror}") from None
        if not self._pid:
            self._socket.close()
            _live(theirs, self._things, [switch.name for switch in switches])
        theirs.close()
        in_child(self._socket, socket.socket.close)
        for thing in self._things.values():
            thing.close()
        self._things.clear()
        try:
            self._receive()  # it is ready
        except EOFError:
            raise PortError(_ENDED) from None

    def take(self, name: str, thing: _T) -> _T:
        """Take a thing of a switch over. What is returned stands for it: the helper calls its methods."""
        name = f"{name} {self._switch}"
        self._things[name] = thing
        return cast(_T, _Far(partial(self._call, name)))

    def check(self) -> None:
        """Raise PortError when it has ended: its switch can change nothing any more."""
        if os.waitpid(self._pid, os.WNOHANG) != (0, 0):
            self._pid = 0
            raise PortError(f"{_ENDED}, so this one ends, too: it could change nothing any more")

    def close(self) -> None:
        """End it."""
        self._socket.close()
        if self._pid:
            os.waitpid(self._pid, 0)
            self._pid = 0

    def _call(self, thing: str, method: str, *arguments: object) -> Any:
        if os.getpid() != self._owner:
            return None  # a forked child has no switch
        files = [argument for argument in arguments if isinstance(argument, socket.socket)]
        rest = [_pack(argument) for argument in arguments if not isinstance(argument, socket.socket)]
        try:
            with self._lock:
                _send(self._socket, [thing, method, rest], files)
                return self._receive()
        except EOFError:
            if method in _DONE | _NOTHING_FOUND:
                return None if method in _DONE else {}
            raise OSError(errno.ECONNRESET, _ENDED) from None

    def _receive(self) -> Any:
        data, files = _read(self._socket, files=1)
        kind, *answer = json.loads(data, object_hook=_unpack)
        if kind == "OSError":
            raise OSError(*answer)
        if kind in _REFUSALS:
            raise _REFUSALS[kind](*answer)
        if kind == "PrivilegeError":
            raise PrivilegeError(*answer)
        return socket.socket(fileno=files[0]) if files else answer[0]


class _Far:
    """Stands for a thing of the helper's."""

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def __getattr__(self, method: str) -> Callable[..., Any]:
        return partial(self._call, method)


# -- in the helper --------------------------------------------------------------------------------


def _live(sock: socket.socket, things: dict[str, Any], names: Sequence[str]) -> None:
    """Do what is asked for, until the parent ends. If it was killed, remove the switches' control sockets."""
    parent = os.getppid()
    try:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
            signal.signal(number, signal.SIG_IGN)  # they are for the parent, which ends this process
        nothing = os.open(os.devnull, os.O_RDWR)
        for stream in range(3):
            os.dup2(nothing, stream)
        confine = partial(_confine, any(thing.name == "bpf" for _, thing in _of_kind(things, "hand")))
        for name, inside in _of_kind(things, "inside"):
            things[name] = Inside(inside.fd)  # its thread is the parent's
            things[name].run(confine)
        confine()
        _send(sock, ["", None])
        while True:
            _serve(sock, things)
    except (PrivilegeError, OSError) as error:
        _send(sock, ["PrivilegeError", f"the helper process cannot begin: {error}"])
    except EOFError:  # it alone has the other end
        for _, carriers in _of_kind(things, "carriers"):  # its parent may have been killed
            carriers.close()
        for name in filter(None, names):
            with contextlib.suppress(OSError, ConfigError):  # there is none, or it is another switch's by now
                path = socket_path(name)
                ends = time.monotonic() + _ENDING_SECONDS
                while listener(path) == parent and time.monotonic() < ends:  # it is dying: its files go one by one
                    time.sleep(0.01)
                remove_dead(path)
    finally:
        os._exit(0)


def _of_kind(things: Mapping[str, Any], kind: str) -> Sequence[tuple[str, Any]]:
    """Those of all switches, by their names."""
    return [(name, thing) for name, thing in things.items() if name.split()[0] == kind]


def _confine(bpf: bool) -> None:
    give_up(keep=(CAP_NET_ADMIN, CAP_NET_RAW))
    refuse_calls(but=BPF_COMMANDS if bpf else ())


def _serve(sock: socket.socket, things: Mapping[str, Any]) -> None:
    """Answer one request. Whatever is wrong with it is the answer. Raises EOFError.

    A socket that comes with it is its first argument.
    """
    data, came = _read(sock, files=1)
    theirs: Sequence[socket.socket] = ()
    files: Sequence[socket.socket] = ()
    try:
        theirs = [socket.socket(fileno=file) for file in came]
        thing, method, arguments = json.loads(data, object_hook=_unpack)
        if thing not in things or method not in _REQUESTS[thing.split()[0]]:
            raise ValueError(f"there is no request {thing}.{method}")
        found = getattr(things[thing], method)(*theirs, *arguments)
        files, found = ([found], None) if isinstance(found, socket.socket) else ((), found)
        answer = ["", _pack(found)]
    except RefusedError as error:
        answer = [type(error).__name__, str(error)]
    except OSError as error:
        answer = ["OSError", error.errno, error.strerror or str(error)]
    except Exception as error:  # a request that is none
        answer = ["OSError", errno.EINVAL, f"the helper refuses a request: {error}"]
    for each in theirs:
        each.detach()
    for number in came:
        os.close(number)
    _send(sock, answer, files)
    for file in files:
        file.close()


# -- messages: JSON, with the few types that a request may hold -----------------------------------

_TUPLES: Mapping[str, Any] = {kind.__name__: kind for kind in (Pair, PortEnds, Punt)}
_FIELDS = {name: get_type_hints(kind) for name, kind in _TUPLES.items()}


def _pack(value: Any) -> Any:
    """As JSON can have it."""
    if isinstance(value, bytes):
        return {"bytes": value.hex()}
    if isinstance(value, Look):
        return {"Look": value.name}
    if isinstance(value, Mapping):
        return {"map": [[_pack(key), _pack(each)] for key, each in value.items()]}
    if type(value).__name__ in _TUPLES:
        return {type(value).__name__: [_pack(each) for each in value]}
    if isinstance(value, Iterable) and not isinstance(value, str):
        return [_pack(each) for each in value]
    return value


def _unpack(packed: dict[str, Any]) -> Any:
    """An object of JSON as the value it stands for. Raises ValueError."""
    ((kind, value),) = packed.items()
    if kind == "bytes":
        return bytes.fromhex(value)
    if kind == "Look":
        return Look[value]
    if kind == "map":
        return {tuple(key) if isinstance(key, list) else key: each for key, each in value}
    for field, hint, each in zip(_FIELDS[kind], _FIELDS[kind].values(), value, strict=True):
        if not isinstance(each, hint):
            raise ValueError(f"{field} of {kind} is no {hint}")
    return _TUPLES[kind](*value)


def _send(sock: socket.socket, message: Any, files: Sequence[socket.socket] = ()) -> None:
    """Raises EOFError when the other one has ended."""
    data = json.dumps(message).encode()
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [file.fileno() for file in files]))]
    try:
        sock.sendmsg([_LENGTH.pack(len(data))], rights if files else [])
        sock.sendall(data)
    except OSError:
        raise EOFError from None


def _read(sock: socket.socket, files: int = 0) -> tuple[bytes, list[int]]:
    """A message, and the descriptors that came with it, so many at most. Raises EOFError."""
    with contextlib.suppress(OSError):
        head, came, _, _ = socket.recv_fds(sock, _LENGTH.size, files, socket.MSG_CMSG_CLOEXEC | socket.MSG_WAITALL)
        length = _LENGTH.unpack(head)[0] if len(head) == _LENGTH.size else 0
        if 0 < length <= _MOST_BYTES:
            data = bytearray()
            while len(data) < length and (piece := sock.recv(min(length - len(data), 1 << 20))):
                data += piece
            if len(data) == length:
                return bytes(data), came
    raise EOFError
