"""The helper does what it is asked for, and nothing else, whoever asks."""

from __future__ import annotations

import array
import json
import os
import random
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest

from fastbridge.switch.fast_path.hand import Look, Pair, RefusedError
from fastbridge.switch.fast_path.nft import PortEnds
from fastbridge.switch.fast_path.punts import Punt
from fastbridge.switch.helper import _MOST_BYTES, Helper, _pack, _read, _send, _serve, _unpack


class Hand:
    """Notes what it is asked for."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    def promote(self, pairs: Any) -> None:
        self.asked.append(pairs)
        if len(pairs) > 1:
            raise RefusedError("full")

    def idle(self) -> Any:
        return {PAIR: 1.5}

    def look(self, sock: socket.socket, number: int) -> None:
        self.asked.append((sock.getsockname(), number))

    def secret(self) -> None:
        self.asked.append("secret")


PAIR = Pair(1, 0x020000000001, 0x020000000002, 0x0800, b"\x0a\x09\x00\x01" + bytes(12))


@pytest.fixture
def desk() -> Iterator[tuple[socket.socket, Hand, threading.Thread]]:
    """A helper's side, as a thread; it ends when the socket does."""
    ours, theirs = socket.socketpair()
    hand = Hand()
    things = {"hand": hand, "sockets": SimpleNamespace(open=lambda: socket.socket(socket.AF_UNIX))}

    def work() -> None:
        with theirs, suppress(EOFError):
            while True:
                _serve(theirs, things)

    thread = threading.Thread(target=work)
    thread.start()
    with ours:
        yield ours, hand, thread
    thread.join()


def ask(sock: socket.socket, *request: Any) -> list[Any]:
    _send(sock, request)
    data, files = _read(sock, files=1)
    for file in files:
        os.close(file)
    answer: list[Any] = json.loads(data, object_hook=_unpack)
    return [*answer, *("a file" for _ in files)]


@pytest.mark.parametrize(
    "value",
    [
        None,
        5,
        -1.5,
        "p1",
        b"\0\xff",
        Look.SOURCES,
        PAIR,
        PortEnds("p1", 5, 6, None, 7),
        [Punt("fbo5", 6, "fbo5"), Punt("fbo7", 8, "fbo7")],
        {PAIR: 3, Pair(2, 3, 4, 5): 6},
        {1: PortEnds("p1", 5, 6, 0x02 << 40)},
        {},
        {"p1": [["p2", 3], {4: b""}]},
    ],
    ids=lambda value: type(value).__name__,
)
def test_values_arrive_as_they_were(value: Any) -> None:
    again = json.loads(json.dumps(_pack(value)), object_hook=_unpack)
    assert (again, type(again)) == (value, type(value))


def test_requests(desk: tuple[socket.socket, Hand, threading.Thread]) -> None:
    sock, hand, _ = desk
    assert ask(sock, "hand", "promote", [_pack({PAIR: 3})]) == ["", None]
    assert hand.asked == [{PAIR: 3}]
    assert ask(sock, "hand", "promote", [_pack({PAIR: 3, PAIR._replace(ip=b""): 4})]) == ["RefusedError", "full"]
    assert ask(sock, "hand", "idle", []) == ["", {PAIR: 1.5}]
    assert ask(sock, "sockets", "open", []) == ["", None, "a file"]


@pytest.mark.parametrize(
    "request_",
    [
        ["hand", "secret", []],
        ["hand", "__init__", []],
        ["hand", "asked", []],
        ["shield", "add", [[[1, "p1"]]]],  # which there is not
        ["nothing", "add", []],
        ["hand", "promote", []],
        ["hand", "promote", [1, 2, 3]],
        ["hand", "promote", [{"Pair": [1, 2, 3, 4, "no bytes"]}]],
        ["hand", "promote", [{"Pair": [1, 2, 3]}]],
        ["hand", "promote", [{"PortEnds": [1, 2, 3, None, 0]}]],
        ["hand", "promote", [{"socket": [1]}]],
        ["hand", "promote", [{"bytes": "xy"}]],
        ["hand", "promote", [{"Look": "__class__"}]],
        ["hand", "promote", [{"a": 1, "b": 2}]],
        ["hand"],
        [[], {}, 5],
        5,
        None,
        {},
    ],
    ids=str,
)
def test_wrong_requests_are_refused(desk: tuple[socket.socket, Hand, threading.Thread], request_: Any) -> None:
    sock, hand, _ = desk
    _send(sock, request_)
    kind, number, text = json.loads(_read(sock)[0])
    assert (kind, number) == ("OSError", 22) and text.startswith("the helper refuses a request: ")
    assert hand.asked == []
    assert ask(sock, "hand", "idle", []) == ["", {PAIR: 1.5}]


@pytest.mark.parametrize(
    "data",
    [b"", b"\0", struct.pack("=I", 0), struct.pack("=I", _MOST_BYTES + 1), struct.pack("=I", 100) + b"half"],
    ids=["nothing", "half a length", "no message", "too long", "half a message"],
)
def test_what_is_no_message_ends_it(desk: tuple[socket.socket, Hand, threading.Thread], data: bytes) -> None:
    sock, hand, thread = desk
    sock.sendall(data)
    sock.shutdown(socket.SHUT_WR)
    thread.join()
    assert hand.asked == []


def test_random_messages(desk: tuple[socket.socket, Hand, threading.Thread]) -> None:
    sock, hand, _ = desk
    some = random.Random(1)
    for _ in range(300):
        data = some.randbytes(some.randrange(1, 40)) if some.random() < 0.5 else b'["hand",' + some.randbytes(9)
        sock.sendall(struct.pack("=I", len(data)) + data)
        assert json.loads(_read(sock)[0])[0] == "OSError"
    assert hand.asked == []


def test_descriptors_that_are_sent_along_are_not_taken(desk: tuple[socket.socket, Hand, threading.Thread]) -> None:
    sock, _, _ = desk
    here, there = socket.socketpair()
    with here:
        data = json.dumps(["hand", "idle", []]).encode()
        files = array.array("i", [there.fileno()])
        sock.sendmsg([struct.pack("=I", len(data))], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, files)])
        sock.sendall(data)
        there.close()
        _read(sock)
        here.settimeout(60)
        assert here.recv(1) == b""  # nobody holds the other end


def test_a_socket_goes_along_and_is_not_kept(desk: tuple[socket.socket, Hand, threading.Thread]) -> None:
    sock, hand, _ = desk
    helper = Helper.__new__(Helper)
    helper._socket, helper._lock, helper._owner = sock, threading.Lock(), os.getpid()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("")
        name = listener.getsockname()
        listener.listen()
        helper._call("hand", "look", listener, 5)
        assert hand.asked == [(name, 5)]
    with socket.socket(socket.AF_UNIX) as asking, pytest.raises(ConnectionRefusedError):
        asking.connect(name)


def test_a_file_that_is_no_socket_is_refused(desk: tuple[socket.socket, Hand, threading.Thread]) -> None:
    sock, hand, _ = desk
    reader, writer = os.pipe()
    data = json.dumps(["hand", "look", [5]]).encode()
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [writer]))]
    sock.sendmsg([struct.pack("=I", len(data))], rights)
    sock.sendall(data)
    os.close(writer)
    assert json.loads(_read(sock)[0])[0] == "OSError"
    assert hand.asked == []
    assert os.read(reader, 1) == b""  # nobody holds the other end
    os.close(reader)
