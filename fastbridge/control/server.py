"""The server, a running switch's control socket.

One thread reads and writes. Another calls the verbs, one at a time: a verb that takes long stops no stream. A client
harms nobody: its requests wait in a short queue, are served in turn with those of others and only so many a second, and
each when the answer to the last was read. Events that it does not read stay in the Stream, which drops the oldest.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import logging
import os
import queue
import select
import socket
import stat
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fastbridge.errors import ConfigError, FastbridgeError
from fastbridge.forks import in_child
from fastbridge.journal import Journal
from fastbridge.threads import start_thread

from .directory import answers, directory, make_directory
from .guest import Guest, Subscription
from .protocol import (
    BUSY,
    CONFIG,
    INTERNAL,
    PARSE,
    PRIVILEGE,
    WRONG_PARAMETERS,
    Request,
    RpcError,
    answer,
    event,
    parse,
    refusal,
)
from .verbs import Stream, Verbs

_log = logging.getLogger(__name__)

_MOST_CLIENTS, _MOST_STREAMS = 64, 16
_MOST_UNREAD = 64 << 20  # bytes of answers, of all clients
_BACKLOG = 128  # clients that wait to be accepted
_LOOK_SECONDS = 2.0  # between two looks at the socket's file and at clients that do not read
_PATIENCE = 2.0  # seconds that close() waits for the verb being called
_CREDENTIALS = struct.Struct("=iII")  # struct ucred: pid, uid, gid

_ours: set[Path] = set()  # sockets that this process listens on: nobody needs to ask whether they are dead


class ControlServer:
    """The control socket of one switch, from start() to close().

    path: of the socket. verbs: what can be asked. owner_uid: who may ask, beside root; None: this process's user. It is
    started once.
    """

    def __init__(self, path: Path, verbs: Verbs, owner_uid: int | None = None) -> None:
        self.path = path
        self._verbs = verbs
        self._may_ask = {0, os.geteuid() if owner_uid is None else owner_uid}
        self._journal = Journal()
        self._threads: list[threading.Thread] = []
        self._closing = False
        self._guests: dict[int, Guest] = {}  # by descriptor; the one served longest ago is the first
        self._followed: dict[int, tuple[Guest, Subscription]] = {}  # by descriptor
        self._numbers = itertools.count(1)
        self._calling: Guest | None = None
        self._to_call: queue.SimpleQueue[Request | None] = queue.SimpleQueue()
        self._result: Sequence[bytes] | tuple[Request, Stream] | None = None
        self._looked = 0.0

    def start(self) -> None:
        """Listen. Raises ConfigError where another switch has the name, or the socket cannot be made."""
        self._listener, self._file = _listen(self.path)
        _ours.add(self.path)
        self._epoll = select.epoll()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._epoll.register(self._listener, select.EPOLLIN)
        self._epoll.register(self._wake, select.EPOLLIN)
        self._journal.start()
        in_child(self, ControlServer._leave_to_parent)
        try:
            self._threads.append(start_thread("fastbridge-socket", self._serve))
            self._threads.append(start_thread("fastbridge-verbs", self._call))
        except FastbridgeError:
            if not self._threads:
                self._leave()
                os.close(self._wake)
                self._journal.stop()
            self.close()
            raise

    def close(self) -> None:
        """End all connections and remove the socket."""
        threads, self._threads = self._threads, []
        if not threads:
            return
        self._closing = True
        os.eventfd_write(self._wake, 1)
        self._to_call.put(None)
        threads[0].join()
        for calling in threads[1:]:
            calling.join(_PATIENCE)
        if not threads[-1].is_alive():  # else it will write to its descriptor
            os.close(self._wake)
            self._drop(self._result)
        self._journal.stop()

    def __enter__(self) -> ControlServer:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _leave_to_parent(self) -> None:
        """In a forked child: the threads, the socket and its file are the parent's."""
        if not self._threads:  # not started, or closed
            return
        self._threads = []
        _ours.discard(self.path)
        self._epoll.close()
        os.close(self._wake)
        for sock in (self._listener, *(guest.sock for guest in self._guests.values())):
            sock.close()
        self._guests, self._followed = {}, {}

    # The thread that calls verbs

    def _call(self) -> None:
        while (request := self._to_call.get()) is not None:
            result = self._answer(request)
            if self._closing:
                self._drop(result)
                return
            self._result = result
            os.eventfd_write(self._wake, 1)

    def _answer(self, request: Request) -> Sequence[bytes] | tuple[Request, Stream]:
        try:
            result = self._verbs.call(request.verb, request.params)
            if self._verbs[request.verb].stream:
                return request, result
            return list(answer(request.id, result))
        except FastbridgeError as error:
            return [refusal(request.id, RpcError.of(error))]
        except Exception as error:
            text = f"{request.verb} failed in the switch: {_told(error)}"
            self._report("verbs that failed", text)
            return [refusal(request.id, RpcError(INTERNAL, text))]

    def _drop(self, result: Sequence[bytes] | tuple[Request, Stream] | None) -> None:
        """Nobody is there to take it."""
        if isinstance(result, tuple):
            self._close(result[1])

    def _close(self, stream: Stream) -> None:
        try:
            stream.close()
        except Exception as error:  # foreign code
            self._report("streams that failed", f"closing a stream failed: {_told(error)}")

    def _report(self, kind: str, text: str) -> None:
        """Log the exception being handled."""
        self._journal.warn(_log, kind, text, thing=text, level=logging.ERROR)

    # The thread that reads and writes: what follows is its own

    def _serve(self) -> None:
        while not self._closing:
            try:
                self._turn()
            except Exception:  # nothing may end this thread
                self._report("failures of the control socket", f"the control socket {self.path} failed; going on")
                time.sleep(0.1)
        for guest in list(self._guests.values()):
            self._dismiss(guest)
        self._leave()

    def _leave(self) -> None:
        """Listen no more."""
        self._epoll.close()
        self._listener.close()
        _ours.discard(self.path)
        if self._file and self._file == _identity(self.path):
            self.path.unlink(missing_ok=True)  # another switch that starts removes it, too

    def _turn(self) -> None:
        happened = dict(self._epoll.poll(self._patience()))
        new = happened.pop(self._listener.fileno(), 0)
        for descriptor, what in happened.items():
            if descriptor == self._wake:
                os.eventfd_read(self._wake)
                self._take_result()
            elif guest := self._guests.get(descriptor):
                self._hear(guest, what)
            elif descriptor in self._followed:
                self._tell(*self._followed[descriptor])
        if new:  # last: a new client can have the descriptor of one that has just gone
            self._accept()
        self._call_next()
        now = time.monotonic()
        if now - self._looked >= _LOOK_SECONDS:
            self._looked = now
            self._look_after(now)

    def _patience(self) -> float:
        now = time.monotonic()
        dues = [] if self._calling else [guest.due(now) for guest in self._guests.values()]
        return min([_LOOK_SECONDS, *dues])

    def _accept(self) -> None:
        for _ in range(_MOST_CLIENTS):
            try:
                sock, _ = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:  # no descriptor is left
                text = f"the control socket {self.path} takes no more clients for now: {error.strerror}"
                self._journal.warn(_log, "failures of the control socket", text, thing=text)
                self._epoll.modify(self._listener, 0)  # until _look_after()
                return
            guest = Guest(sock)
            _, uid, _ = _CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
            if uid not in self._may_ask:
                _send_away(guest, PRIVILEGE, "this switch is another user's: only that user and root may ask it")
            elif len(self._guests) >= _MOST_CLIENTS and not self._make_place():
                _send_away(guest, BUSY, f"{_MOST_CLIENTS} clients are connected, which is the most; try again")
            else:
                self._guests[guest.descriptor] = guest
                self._epoll.register(sock, guest.interest)

    def _make_place(self) -> bool:
        """Send away the idle client that has been silent longest; False: none is idle. A Client comes back."""
        for guest in list(self._guests.values()):
            if guest.idle:
                self._hear(guest, select.EPOLLIN)  # what has come just now counts
        if len(self._guests) < _MOST_CLIENTS:
            return True
        now = time.monotonic()
        idle = [guest for guest in self._guests.values() if guest.idle or guest.stalled(now)]
        if not idle:
            return False
        guest = min(idle, key=lambda guest: (guest.asked, guest.heard))
        text = f"{_MOST_CLIENTS} clients are connected, which is the most, and this one was silent longest; try again"
        guest.write([refusal(None, RpcError(BUSY, text))])
        self._dismiss(guest)
        return True

    def _hear(self, guest: Guest, what: int) -> None:
        if what & (select.EPOLLHUP | select.EPOLLERR):
            self._dismiss(guest)
            return
        if what & select.EPOLLOUT:
            guest.flush()
        if what & select.EPOLLIN & guest.wanted:
            guest.read()
        self._settle(guest)

    def _settle(self, guest: Guest) -> None:
        """Have epoll tell what matters of a client now, or close its connection."""
        if guest.over:
            self._dismiss(guest)
            return
        if guest.wanted != guest.interest:
            guest.interest = guest.wanted
            self._epoll.modify(guest.sock, guest.interest)
        for one in guest.subscriptions.values():
            if guest.reads != one.followed:
                self._follow(guest, one, guest.reads)

    def _follow(self, guest: Guest, one: Subscription, wanted: bool) -> None:
        """Have epoll tell of a stream's events, or not: while the client does not read, it keeps them."""
        one.followed = wanted
        if wanted:
            self._epoll.register(one.descriptor, select.EPOLLIN)
            self._followed[one.descriptor] = guest, one
        else:
            del self._followed[one.descriptor]
            with contextlib.suppress(OSError):  # closed, though it should not be
                self._epoll.unregister(one.descriptor)

    def _dismiss(self, guest: Guest) -> None:
        del self._guests[guest.descriptor]
        self._epoll.unregister(guest.sock)
        for one in list(guest.subscriptions.values()):
            self._end(guest, one)
        guest.sock.close()

    def _call_next(self) -> None:
        """Have the next request served, in turn."""
        now = time.monotonic()
        for _ in range(_MOST_CLIENTS):  # then it is the turn of streams again
            if self._calling is not None:
                return
            guest = next((guest for guest in self._guests.values() if guest.due(now) <= 0), None)
            if guest is None:
                return
            self._guests[guest.descriptor] = self._guests.pop(guest.descriptor)
            try:
                self._ask(guest, parse(guest.next_line(now)))
            except RpcError as error:
                guest.leaving = error.code == PARSE
                guest.write([refusal(error.number, error)])
            self._settle(guest)

    def _ask(self, guest: Guest, request: Request) -> None:
        guest.asked = True
        verb = self._verbs.get(request.verb)
        try:
            if request.verb == "stream.close":
                self._close_stream(guest, request.params)
                guest.write(answer(request.id, None))
            elif verb is not None and verb.stream and len(guest.subscriptions) >= _MOST_STREAMS:
                raise RpcError(CONFIG, f"a client has {_MOST_STREAMS} streams at most: close one of them")
            else:
                self._calling, guest.calling = guest, True
                self._to_call.put(request)
        except RpcError as error:
            guest.write([refusal(request.id, error)])

    def _take_result(self) -> None:
        guest, result = self._calling, self._result
        self._calling = self._result = None
        if guest is None or result is None:
            return
        guest.calling = False
        if self._guests.get(guest.descriptor) is not guest:
            self._drop(result)
            return
        if isinstance(result, tuple):
            result = list(self._subscribe(guest, *result))
        guest.write(result)
        self._settle(guest)
        self._save_memory()

    def _save_memory(self) -> None:
        """Close those who have read nothing for longest, until what the others do not read is little enough."""
        late = sorted((guest for guest in self._guests.values() if guest.unread), key=lambda guest: guest.moved)
        while len(late) > 1 and sum(guest.unread for guest in late) > _MOST_UNREAD:
            self._dismiss(late.pop(0))

    def _subscribe(self, guest: Guest, request: Request, stream: Stream) -> Iterator[bytes]:
        try:
            one = Subscription(next(self._numbers), stream, stream.fileno())
            self._follow(guest, one, True)
        except Exception as error:  # foreign code
            text = f"{request.verb} failed in the switch: {_told(error)}"
            self._report("streams that failed", text)
            self._close(stream)
            return iter([refusal(request.id, RpcError(INTERNAL, text))])
        guest.subscriptions[one.number] = one
        return answer(request.id, {"stream": one.number})

    def _tell(self, guest: Guest, one: Subscription) -> None:
        """Pass on a stream's events."""
        events, why = None, None
        try:
            events = one.stream.read()
            lines = [event(one.number, event=said) for said in events or ()]
        except Exception as error:
            events, lines, why = None, [], str(error)
            if not isinstance(error, FastbridgeError):
                why = f"the stream failed in the switch: {_told(error)}"
                self._report("streams that failed", why)
        if events is None:
            self._end(guest, one)
            lines.append(event(one.number, end=why))
        guest.write(lines)
        self._settle(guest)

    def _end(self, guest: Guest, one: Subscription) -> None:
        del guest.subscriptions[one.number]
        if one.followed:
            self._follow(guest, one, False)
        self._close(one.stream)

    def _close_stream(self, guest: Guest, params: dict[str, Any]) -> None:
        number = params.get("stream") if len(params) == 1 else None
        one = guest.subscriptions.get(number) if type(number) is int else None
        if one is None:
            open_ones = ", ".join(map(str, guest.subscriptions)) or "none is open"
            raise RpcError(WRONG_PARAMETERS, f"stream.close: stream must be the number of an open stream: {open_ones}")
        self._end(guest, one)

    def _look_after(self, now: float) -> None:
        self._journal.tick()
        self._epoll.modify(self._listener, select.EPOLLIN)
        for guest in list(self._guests.values()):
            if guest.stalled(now) and not guest.subscriptions:
                self._dismiss(guest)
        if self._file is None or self._file != _identity(self.path):
            self._listen_again()

    def _listen_again(self) -> None:
        """After somebody removed the socket."""
        try:
            listener, file = _listen(self.path)
        except ConfigError as error:
            text = f"the control socket {self.path} was removed, and cannot be made again: {error}"
        else:
            self._epoll.unregister(self._listener)
            self._listener.close()
            self._listener, self._file = listener, file
            self._epoll.register(listener, select.EPOLLIN)
            text = f"the control socket {self.path} was removed; it is there again"
        self._journal.warn(_log, "failures of the control socket", text, thing=text)


def _told(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def _send_away(guest: Guest, code: int, why: str) -> None:
    guest.write([refusal(None, RpcError(code, why))])
    guest.sock.close()


def _identity(path: Path) -> tuple[int, int] | None:
    """Which socket it is; None: there is none, or something else."""
    try:
        found = path.lstat()
    except OSError:
        return None
    return (found.st_dev, found.st_ino) if stat.S_ISSOCK(found.st_mode) else None


def _listen(path: Path) -> tuple[socket.socket, tuple[int, int] | None]:
    """A socket at this path, in place of a dead switch's, and its file (None: somebody took it away at once).

    Raises ConfigError.
    """
    if path.parent == directory():
        make_directory()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _alone(path.parent):
            _clear(path)
            if path.parent == directory():
                for other in path.parent.glob("*.sock"):  # of switches that were killed with all their processes
                    with contextlib.suppress(FileNotFoundError):  # one that ends just now
                        if other not in _ours and stat.S_ISSOCK(other.lstat().st_mode) and not answers(other):
                            other.unlink()
            os.fchmod(listener.fileno(), 0o600)  # its file's mode, from the start (net/unix/af_unix.c: unix_bind_bsd())
            listener.bind(str(path))
            file = _identity(path)
            listener.listen(_BACKLOG)  # until now nobody can connect
    except OSError as error:
        listener.close()
        raise ConfigError(f"cannot make the control socket {path}: {error.strerror or error}") from None
    except BaseException:
        listener.close()
        raise
    listener.setblocking(False)
    return listener, file


def remove_dead(path: Path) -> None:
    """Remove the socket of a switch that was killed, if it is there, and no other's. Raises OSError, ConfigError."""
    with _alone(path.parent):
        _clear(path)


@contextlib.contextmanager
def _alone(place: Path) -> Iterator[None]:
    """Let one switch at a time make its socket: two of one name must not both find a dead one's."""
    lock = os.open(place / ".control.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _clear(path: Path) -> None:
    """Remove the socket of a dead switch. Raises ConfigError where something else is in the way."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ConfigError(f"{path} is no socket: remove it, or give the switch another name")
    if answers(path):
        raise ConfigError(f"a switch named {path.stem} runs already; give this one another name, with --name")
    path.unlink()
