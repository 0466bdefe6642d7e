"""Clients that flood, stall, lie and vanish harm nobody: a good client beside them always gets its answer."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from live import eventually
from talks import Asked, Raw, environment

from fastbridge.control import guest, server
from fastbridge.control.client import Client
from fastbridge.control.protocol import BUSY, RpcError
from fastbridge.open_files import reserve_files


@pytest.fixture(autouse=True)
def nothing_failed(looks_often: None, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    yield  # until the server has ended
    assert "failed; going on" not in caplog.text


@pytest.fixture
def good(client: Client) -> Client:
    return client


def is_served(client: Client, path: Path) -> None:
    """And so is somebody new."""
    assert client.call("echo", value="still") == "still"
    with Client(path=path, timeout=60) as new:
        assert new.call("echo", value="new") == "new"


GOOD_LINE = b'{"jsonrpc": "2.0", "id": 1, "method": "echo", "params": {"value": 1}}\n'
PIECES = st.lists(
    st.one_of(
        st.just(GOOD_LINE),
        st.integers(1, len(GOOD_LINE) - 1).map(lambda end: GOOD_LINE[:end]),
        st.binary(max_size=50),
        st.binary(max_size=50).map(lambda data: data + b"\n"),
        st.sampled_from([
            b"[]\n", b"{}\n", b"null\n", b"\n", b"[" * 5000 + b"\n", b'"' + b"x" * 70_000,
            b'{"jsonrpc": "2.0", "id": 1, "method": "ticks"}\n',
            b'{"jsonrpc": "2.0", "id": 1, "method": "stream.close", "params": {"stream": 1}}\n',
        ]),
    ),
    max_size=8,
)  # fmt: skip


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(PIECES, st.booleans(), st.booleans()), min_size=1, max_size=4))
def test_whatever_clients_send_each_is_answered_or_closed(
    there: Asked, good: Client, path: Path, clients: list[tuple[list[bytes], bool, bool]]
) -> None:
    with ExitStack() as stack:
        raws = [(stack.enter_context(Raw(path)), *client) for client in clients]
        for raw, pieces, _, _ in raws:
            for piece in pieces:
                with contextlib.suppress(OSError):  # closed already
                    raw.send(piece)
        assert good.call("echo", value=len(clients)) == len(clients)
        for raw, pieces, reads, ends in raws:
            subscribes = any(b'"ticks"' in piece for piece in pieces)
            if ends:
                with contextlib.suppress(OSError):
                    raw.sock.shutdown(1)
            if ends and reads and not subscribes:
                said = raw.rest()
                assert all(("error" in line) != ("result" in line) for line in said)
                data = b"".join(pieces)
                if data and not data.endswith(b"\n"):
                    assert said[-1]["id"] is None
    assert good.call("echo", value="after") == "after"


def test_a_thousand_clients(there: Asked, good: Client, path: Path) -> None:
    reserve_files(1100)
    with ExitStack() as stack:
        raws = []
        for number in range(1000):
            raws.append(raw := stack.enter_context(Raw(path)))
            with contextlib.suppress(OSError):
                raw.send([b"", b'{"half', b"\xff" * 100, GOOD_LINE][number % 4])
            if number % 100 == 0:
                is_served(good, path)
        is_served(good, path)
        ends = [raw for raw in raws if raw.sock.recv(1, 0x42)]  # MSG_PEEK, MSG_DONTWAIT
    assert len(ends) >= 900


def test_idle_clients_make_place_and_get_it_again(there: Asked, good: Client, path: Path) -> None:
    watching = good.stream("ticks")
    with ExitStack() as stack:
        others = [stack.enter_context(Client(path=path, timeout=60)) for _ in range(100)]
        for turn in range(3):
            for client in (good, *others):
                assert client.call("echo", value=turn) == turn
    there.streams[0].say(tick=1)
    assert next(watching) == {"tick": 1}  # whoever waits for events keeps its place
    watching.close()


def test_those_who_never_asked_go_first(there: Asked, good: Client, path: Path) -> None:
    with ExitStack() as stack:
        asks = stack.enter_context(Raw(path))
        asks.ask(1, "echo", value=1)
        asks.line()
        silent = [stack.enter_context(Raw(path)) for _ in range(200)]
        asks.ask(2, "echo", value=2)
        assert asks.line() == {"jsonrpc": "2.0", "id": 2, "result": 2}
        (line,) = silent[0].rest()
        text = "64 clients are connected, which is the most, and this one was silent longest; try again"
        assert line == {"jsonrpc": "2.0", "id": None, "error": {"code": BUSY, "message": text}}


def test_all_places_are_taken(there: Asked, path: Path) -> None:
    with ExitStack() as stack:
        streams = []
        for _ in range(64):
            raw = stack.enter_context(Raw(path))
            raw.ask(1, "ticks")
            raw.line()
            streams.append(raw)
        refused: list[RpcError] = []

        def busy() -> bool:  # a server that does not run meanwhile says nothing
            with Client(path=path, timeout=0.1) as late, pytest.raises(RpcError) as error:
                late.call("echo")
            refused.append(error.value)
            return error.value.code == BUSY

        eventually(busy, "a refusal")
        assert refused[-1].exit_status == 1
        assert str(refused[-1]) == "64 clients are connected, which is the most; try again"
        leaves = threading.Timer(0.2, streams[5].close)
        leaves.start()
        with Client(path=path, timeout=60) as late:
            assert late.call("echo", value=1) == 1
        leaves.join()


def test_a_flood_of_requests_whose_answers_nobody_reads(there: Asked, good: Client, path: Path) -> None:
    with Raw(path, seconds=0.5) as raw:
        sent = 0
        with contextlib.suppress(TimeoutError):
            while True:
                raw.send(GOOD_LINE * 100)
                sent += 100 * len(GOOD_LINE)
                assert sent < 4 << 20, "the server takes what it should leave to wait"
        is_served(good, path)


def test_requests_are_served_in_turn(there: Asked, good: Client, path: Path) -> None:
    with Raw(path) as blocks, Raw(path) as floods, Raw(path) as asks:
        blocks.ask(1, "wait")
        assert there.waits.wait(60)
        for number in range(60):
            floods.ask(number, "echo", value=number)
        asks.ask(1, "echo", value="asks")
        eventually(lambda: floods.on_its_way() == asks.on_its_way() == 0, "all requests read")
        there.go_on.set()
        assert asks.line() == {"jsonrpc": "2.0", "id": 1, "result": "asks"}
        assert floods.line() and there.echoed.index("asks") <= 2


def test_a_subscriber_that_never_reads(there: Asked, good: Client, path: Path) -> None:
    with good.stream("ticks") as reads, Raw(path) as never:
        never.ask(1, "ticks")
        eventually(lambda: len(there.streams) == 2, "two streams")
        for number in range(30):
            for stream in there.streams:
                for _ in range(100):
                    stream.say(number=number, text="x" * 200)
            eventually(lambda number=number: [e for e in reads.read() or () if e.get("number") == number], "events")
        is_served(good, path)
        never.line()
        lost = 0
        said = 0
        there.streams[1].end()
        while "end" not in (params := (never.line() or {})["params"]):
            lost += params["event"].get("count", 0)
            said += "number" in params["event"]
        assert lost > 0 and lost + said == 3000


STOPS = """
import sys
from fastbridge.control.client import Client
with Client(path=sys.argv[1], timeout=60) as client, client.stream("ticks") as stream:
    print("there", flush=True)
    for event in stream:
        print(event, flush=True)
"""


def test_a_stopped_client(there: Asked, good: Client, path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", STOPS, path], stdout=subprocess.PIPE, text=True, env=environment()
    )
    try:
        assert process.stdout and process.stdout.readline() == "there\n"
        process.send_signal(signal.SIGSTOP)
        with Raw(path) as raw:
            raw.ask(1, "many", count=100_000)
            for _ in range(10_000):
                there.streams[0].say(text="x" * 200)
            is_served(good, path)
        process.send_signal(signal.SIGCONT)
        there.streams[0].end()
        said, _ = process.communicate(timeout=180)
        assert said.count("xxx") > 100 and "'lost'" in said and process.returncode == 0
    finally:
        process.kill()
        process.wait()


def test_an_answer_that_nobody_reads_is_given_up(
    there: Asked, good: Client, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guest, "_STALLED_SECONDS", 0.1)
    with Raw(path) as raw:
        raw.ask(1, "many", count=100_000)
        eventually(lambda: _hung_up(raw), "the end of the connection")
    is_served(good, path)


def test_answers_that_nobody_reads_take_little_memory(
    there: Asked, good: Client, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "_MOST_UNREAD", 5 << 20)
    with ExitStack() as stack:
        raws = [stack.enter_context(Raw(path)) for _ in range(6)]
        for raw in raws:
            raw.ask(1, "many", count=20_000)  # 2 MB
            eventually(lambda raw=raw: raw.sock.recv(1, 0x42), "the first byte of its answer")  # MSG_PEEK, MSG_DONTWAIT
        assert len(good.call("many", count=60_000)) == 60_000  # more than that, but somebody reads it
        for raw in raws:
            answer = b"".join(iter(lambda raw=raw: raw.sock.recv(1 << 20), b""))
            assert 0 < len(answer) < 2 << 20 and not answer.endswith(b"\n")
    is_served(good, path)


def _hung_up(raw: Raw) -> bool:
    try:
        raw.send(b"\n")
    except OSError:
        return True
    return False


FEW_FILES = """
import os, resource, socket, sys
from pathlib import Path
from live import eventually
from talks import Asked, asked
from fastbridge.control import server
from fastbridge.control.client import Client

server._LOOK_SECONDS = 0.1
path = Path(sys.argv[1])
with asked(path), Client(path=path, timeout=60) as good:
    assert good.call("echo", value=1) == 1
    waiting = [socket.socket(socket.AF_UNIX) for _ in range(30)]
    most = len(os.listdir("/proc/self/fd")) + 5  # so that it is the server that runs out
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    for sock in waiting:
        sock.connect(str(path))
    assert good.call("echo", value=2) == 2
    for sock in waiting:
        sock.close()
    with Client(path=path, timeout=60) as new:
        assert new.call("echo", value=3) == 3
    assert good.call("echo", value=4) == 4
"""


def test_no_more_descriptors(path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FEW_FILES, path], capture_output=True, text=True, timeout=180, env=environment()
    )
    assert done.returncode == 0, done.stderr
    assert "takes no more clients for now: Too many open files" in done.stderr


def test_clients_that_come_and_go(there: Asked, good: Client, path: Path) -> None:
    """Whoever is gone has left nothing: no descriptor, no stream."""

    def files() -> int:
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208

    good.call("echo")  # so it is connected at both ends
    before = files()
    for number in range(300):
        with Raw(path) as raw:
            raw.ask(1, "ticks" if number % 3 else "wait" if number == 0 else "echo")
            if number % 2:
                raw.line()
        if number == 0:
            there.go_on.set()
    is_served(good, path)
    for stream in there.streams:
        assert stream.closed.wait(60)
    eventually(lambda: files() == before, "as many descriptors as before")
