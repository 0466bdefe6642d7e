"""The control socket: who asks properly gets an answer, and who does not is told so in one line."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import select
import socket
import stat
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from live import PATIENCE, eventually
from talks import Asked, Raw, asked, environment

from fastbridge.control import server
from fastbridge.control.client import Client, EventStream
from fastbridge.control.protocol import (
    CONFIG,
    ENDED,
    INTERNAL,
    MOST_BYTES,
    NO_VERB,
    OTHER,
    PARSE,
    PORT,
    PRIVILEGE,
    SILENT,
    WRONG_PARAMETERS,
    RpcError,
)  # fmt: skip
from fastbridge.control.server import ControlServer
from fastbridge.errors import ConfigError

pytestmark = pytest.mark.usefixtures("looks_often")


def refusal(client: Client, verb: str, **params: Any) -> RpcError:
    with pytest.raises(RpcError) as refused:
        client.call(verb, **params)
    return refused.value


def test_answers(client: Client) -> None:
    for value in (None, 0, 1.5, "", "\n\0é😀", [], {"a": [{}]}):
        assert client.call("echo", value=value) == value
    assert client.call("echo") is None
    assert client.call("side", port="a", names=["x"]) == {"port": "a", "number": 0, "side": "left", "names": ["x"]}


@pytest.mark.parametrize(
    ("how", "code", "status"), [("config", CONFIG, 2), ("port", PORT, 1), ("privilege", PRIVILEGE, 1)]
)
def test_errors_keep_their_text_and_kind(client: Client, how: str, code: int, status: int) -> None:
    error = refusal(client, "fail", how=how)
    assert (error.code, error.exit_status) == (code, status)
    assert str(error) in ("no such port; name one of these: a, b", "port a is gone", "the kernel refused")


def test_a_fault_of_the_switch_is_logged_and_told(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(3):
        error = refusal(client, "fail", how="other")
        assert (error.code, str(error)) == (INTERNAL, "fail failed in the switch: RuntimeError: two lines")
    eventually(lambda: caplog.text.count("Traceback") == 1, "one word in the log")
    assert client.call("echo", value=1) == 1


def test_wrong_requests_leave_the_connection_open(client: Client) -> None:
    assert refusal(client, "nothing").code == NO_VERB
    assert refusal(client, "side").code == WRONG_PARAMETERS
    assert refusal(client, "stream.close", stream=1).code == WRONG_PARAMETERS
    assert refusal(client, "not.a.stream").code == INTERNAL
    with pytest.raises(ConfigError, match="echo: the request has 70,"):
        client.call("echo", value="x" * 70_000)
    with pytest.raises(ConfigError, match="echo gives one answer and no stream"):
        client.stream("echo")
    assert client.call("echo", value=1) == 1


def test_requests_sent_at_once_are_answered_in_order(there: Asked, path: Path) -> None:
    with Raw(path) as raw:
        lines = [json.dumps({"jsonrpc": "2.0", "id": n, "method": "echo", "params": {"value": n}}) for n in range(1000)]
        threading.Thread(target=raw.send, args=("\n".join([*lines, ""]).encode(),), daemon=True).start()
        for number in range(1000):
            assert raw.line() == {"jsonrpc": "2.0", "id": number, "result": number}


def test_a_request_may_come_byte_by_byte_and_its_sender_may_stop_sending(there: Asked, path: Path) -> None:
    with Raw(path) as raw:
        for byte in b'{"jsonrpc": "2.0", "id": "a", "method": "echo"}\n':
            raw.send(bytes([byte]))
        raw.sock.shutdown(1)
        assert raw.rest() == [{"jsonrpc": "2.0", "id": "a", "result": None}]


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (b"hello\n", "this line is not JSON; send one JSON-RPC object a line"),
        (b"\n", "not JSON"),
        (b"\xff" + os.urandom(20000) + b"\n", "not JSON"),
        (b"x" * (MOST_BYTES + 1), "this line has more than 65536 bytes"),
        (b"x" * (1 << 20) + b"\n", "this line has more than 65536 bytes"),
        (b'{"jsonrpc": "2.0", "id": 1, "method": "echo"}', "this line has no end: a request ends with a newline"),
    ],
    ids=["text", "empty", "random", "long", "very long", "half"],
)
def test_what_is_no_request_is_answered_once_and_ends_the_connection(
    there: Asked, path: Path, sent: bytes, said: str
) -> None:
    with Raw(path) as raw:
        raw.ask(7, "echo", value="before")
        threading.Thread(target=_send_all, args=(raw, sent), daemon=True).start()
        before, error = raw.rest()
        assert before["result"] == "before"
        assert (error["id"], error["error"]["code"]) == (None, PARSE) and said in error["error"]["message"]


def _send_all(raw: Raw, data: bytes) -> None:
    try:
        raw.send(data)
        raw.sock.shutdown(1)
    except OSError:  # it is closed before all was sent
        pass


def test_a_line_of_the_most_bytes_is_a_request(client: Client) -> None:
    frame = len('{"jsonrpc": "2.0", "id": 1, "method": "echo", "params": {"value": ""}}\n')
    assert client.call("echo", value="x" * (MOST_BYTES - frame)) == "x" * (MOST_BYTES - frame)


def test_a_large_answer(client: Client) -> None:
    found = client.call("many", count=50_000)
    assert len(found) == 50_000 and found[-1]["number"] == 49_999


def test_a_stream(there: Asked, path: Path) -> None:
    with Client(path=path, timeout=PATIENCE) as client, client.stream("ticks") as stream:
        poll = select.poll()
        poll.register(stream, select.POLLIN)
        assert stream.read() == [] and not poll.poll(0)
        there.streams[0].say(number=1)
        assert poll.poll(60_000)
        eventually(lambda: stream.read() == [{"number": 1}], "the event")
        there.streams[0].say(number=2)
        assert next(stream) == {"number": 2}
        assert client.call("echo", value=3) == 3
        there.streams[0].say(number=4)
        there.streams[0].end()
        assert list(stream) == [{"number": 4}] and stream.read() is None
    assert there.streams[0].closed.wait(60)


def test_a_stream_that_fails_says_why(there: Asked, client: Client, caplog: pytest.LogCaptureFixture) -> None:
    told = {
        "the port has gone": ConfigError("the port has gone"),
        "the stream failed in the switch: KeyError: 1": KeyError(1),
    }
    for said, error in told.items():
        with client.stream("ticks") as stream:
            there.streams[-1].end(error)
            with pytest.raises(RpcError) as failed:
                next(stream)
            assert str(failed.value) == said and failed.value.code == OTHER
    eventually(lambda: caplog.text.count("Traceback") == 1, "one word in the log")


def test_streams_of_one_connection_are_told_apart_and_closed(there: Asked, path: Path) -> None:
    with Raw(path) as raw:
        numbers = []
        for _ in range(16):
            raw.ask(1, "ticks")
            numbers.append((raw.line() or {})["result"]["stream"])
        assert len(set(numbers)) == 16
        raw.ask(2, "ticks")
        assert "16 streams at most" in (raw.line() or {})["error"]["message"]
        there.streams[3].say(tick=3)
        assert raw.line() == {
            "jsonrpc": "2.0",
            "method": "event",
            "params": {"stream": numbers[3], "event": {"tick": 3}},
        }
        for wrong in ({}, {"stream": 0}, {"stream": True}, {"stream": [1]}, {"stream": numbers[0], "x": 1}):
            raw.ask(3, "stream.close", **wrong)
            assert "must be the number of an open stream" in (raw.line() or {})["error"]["message"]
        raw.ask(4, "stream.close", stream=numbers[3])
        assert raw.line() == {"jsonrpc": "2.0", "id": 4, "result": None}
        assert there.streams[3].closed.is_set() and not there.streams[2].closed.is_set()
    for stream in there.streams:
        assert stream.closed.wait(60)


def test_a_verb_that_takes_long_stops_no_stream(there: Asked, client: Client, path: Path) -> None:
    stream = client.stream("ticks")
    with ThreadPoolExecutor(1) as pool, Client(path=path, timeout=60) as other:
        late = pool.submit(other.call, "wait")
        assert there.waits.wait(60)
        there.streams[0].say(tick=1)
        assert next(stream) == {"tick": 1} and not late.done()
        there.go_on.set()
        assert late.result() == "done"
    stream.close()


def test_a_client_that_gave_up_gets_the_right_answer_next(there: Asked, path: Path) -> None:
    with Client(path=path, timeout=0.1) as client:
        error = refusal(client, "wait")
        assert (error.code, str(error)) == (SILENT, "the switch one did not answer wait within 0.1 s")
        there.go_on.set()

        def answered() -> bool:
            try:
                return bool(client.call("echo", value="next") == "next")
            except RpcError:
                return False

        eventually(answered, "the answer to the next request")


def test_an_event_loop_waits_for_events(there: Asked, client: Client) -> None:
    async def follow(stream: EventStream) -> list[int]:
        seen: list[int] = []
        over = asyncio.Event()

        def take() -> None:
            events = stream.read()
            if events is None:
                over.set()
            seen.extend(event["number"] for event in events or ())

        loop = asyncio.get_running_loop()
        loop.add_reader(stream, take)
        for number in range(50):
            there.streams[0].say(number=number)
            await asyncio.sleep(0)
        there.streams[0].end()
        await asyncio.wait_for(over.wait(), 60)
        loop.remove_reader(stream)
        return seen

    with client.stream("ticks") as stream:
        assert asyncio.run(follow(stream)) == list(range(50))


def test_threads_share_a_client(client: Client) -> None:
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda value: client.call("echo", value=value), range(200))) == list(range(200))


def test_a_stream_closed_by_another_thread_ends(there: Asked, client: Client) -> None:
    stream = client.stream("ticks")
    with ThreadPoolExecutor(1) as pool:
        there.streams[0].say(number=1)
        seen = pool.submit(list, stream)
        with client.stream("ticks"):  # by now the first event is sent
            stream.close()
        assert seen.result(60) in ([], [{"number": 1}])
    assert there.streams[0].closed.wait(60)


def test_close_ends_those_who_wait(path: Path) -> None:
    with ThreadPoolExecutor(2) as pool, asked(path) as there:
        client = Client(path=path, timeout=60)
        streamed = client.stream("ticks")
        late = pool.submit(client.call, "wait")
        assert there.waits.wait(60)
        next_event = pool.submit(next, streamed)

        def go_on() -> None:
            eventually(lambda: not path.exists(), "the end of the socket")
            there.go_on.set()

        threading.Thread(target=go_on).start()
    for ended in (late, next_event):
        with pytest.raises(RpcError, match="the switch one has ended") as error:
            ended.result()
        assert (error.value.code, error.value.exit_status) == (ENDED, 1)
    assert there.streams[0].closed.is_set() and not path.exists()
    client.close()
    streamed.close()


def test_a_client_finds_the_switch_that_was_started_again(path: Path) -> None:
    with asked(path):
        client = Client(path=path, timeout=60)
        assert client.call("echo", value=1) == 1
    with asked(path), client:
        assert refusal(client, "echo", value=1).code == ENDED
        assert client.call("echo", value=2) == 2


def test_two_of_one_name(path: Path, there: Asked) -> None:
    with pytest.raises(ConfigError, match="a switch named one runs already; give this one another name, with --name"):
        ControlServer(path, there.verbs).start()
    with Client(path=path, timeout=PATIENCE) as client:
        assert client.call("echo", value=1) == 1


def test_of_many_that_want_one_name_one_gets_it(path: Path) -> None:
    """They find the socket of a dead one."""
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(path))
    dead.close()
    servers = [ControlServer(path, Asked().verbs) for _ in range(20)]

    def start(server: ControlServer) -> bool:
        try:
            server.start()
        except ConfigError as error:
            assert "runs already" in str(error)
            return False
        return True

    with ThreadPoolExecutor(20) as pool:
        assert sum(pool.map(start, servers)) == 1
    with Client(path=path, timeout=PATIENCE) as client:
        assert client.call("echo", value=1) == 1
    for each in servers:
        each.close()
    assert not path.exists()


def test_the_socket_is_its_owner_s_alone(there: Asked, path: Path) -> None:
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.skipif(
    Path("/proc/self/uid_map").read_text().split() != ["0", "0", "4294967295"] or os.geteuid() != 0,
    reason="takes root, to be somebody else",
)
def test_another_user_is_refused(there: Asked, path: Path) -> None:
    for place in (path, *path.parents):
        if place.stat().st_uid == os.geteuid() and not place.is_mount():
            place.chmod(place.stat().st_mode | 0o077)
    script = f"""
import socket
sock = socket.socket(socket.AF_UNIX)
sock.connect({str(path)!r})
print(sock.makefile().read())
"""
    other = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "/usr/bin/python3", "-c", script]
    done = subprocess.run(other, capture_output=True, text=True, timeout=180, check=True)
    error = json.loads(done.stdout)["error"]
    assert error == {"code": PRIVILEGE, "message": "this switch is another user's: only that user and root may ask it"}


def test_the_socket_is_there_again_when_its_file_was_removed(
    there: Asked, client: Client, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path.unlink()
    eventually(path.exists, "the socket again")
    assert client.call("echo", value=1) == 1  # those who were connected still are
    with Client(path=path, timeout=PATIENCE) as new:
        assert new.call("echo", value=2) == 2
    eventually(lambda: f"the control socket {path} was removed; it is there again" in caplog.text, "a word in the log")


def test_what_takes_its_place_at_once_is_not_taken_for_its_own(
    path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, bound = path.with_name("mine"), server._identity

    def replaced(at: Path) -> tuple[int, int] | None:
        monkeypatch.undo()
        mine.write_text("mine")
        mine.replace(at)
        return bound(at)

    monkeypatch.setattr(server, "_identity", replaced)
    with asked(path):
        eventually(lambda: "one.sock is no socket" in caplog.text, "a word in the log")
    assert path.read_text() == "mine"


def test_what_is_in_its_place_is_left_alone(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with asked(path), Client(path=path, timeout=PATIENCE) as client:
        with ExitStack() as theirs:

            def taken() -> bool:
                path.unlink(missing_ok=True)
                with suppress(ConfigError):  # the first one was quicker
                    theirs.enter_context(asked(path))
                    return True
                return False

            eventually(taken, "another in its place")
            second = theirs.enter_context(Client(path=path))
            eventually(
                lambda: "cannot be made again: a switch named one runs already" in caplog.text, "a word in the log"
            )
            assert client.call("echo", value=1) == second.call("echo", value=1) == 1
        eventually(path.exists, "the first one's socket again")
        mine = path.with_name("mine")
        mine.write_text("mine")
        mine.replace(path)
        eventually(lambda: "one.sock is no socket" in caplog.text, "a word in the log")
    assert path.read_text() == "mine"


def test_a_file_in_its_place_is_named(path: Path) -> None:
    path.write_text("mine")
    with pytest.raises(ConfigError, match=r"one\.sock is no socket: remove it, or give the switch another name"):
        ControlServer(path, Asked().verbs).start()
    assert path.read_text() == "mine"


def test_a_path_that_cannot_be(tmp_path: Path) -> None:
    for place, why in ((tmp_path / "no" / "x.sock", "No such file"), (tmp_path / ("x" * 200), "too long")):
        with pytest.raises(ConfigError, match=f"cannot make the control socket .*{why}"):
            ControlServer(place, Asked().verbs).start()


FORK = """
import os, sys, threading
from pathlib import Path
from talks import Asked, Raw
from fastbridge.control.client import Client
from fastbridge.control.server import ControlServer

path = Path(sys.argv[1])
there = Asked()
server = ControlServer(path, there.verbs)
server.start()
client = Client(path=path, timeout=60)
assert client.call("echo", value=1) == 1
raw = Raw(path)
go_on, begin = os.pipe()
child = os.fork()
if not child:
    os.close(begin)
    server.close()
    os.read(go_on, 1)
    os._exit(0)
os.close(go_on)
assert client.call("echo", value=2) == 2
with Client(path=path, timeout=60) as second:
    assert second.call("echo", value=3) == 3
server.close()
assert raw.line() is None  # though the child lives
assert not path.exists()
os.close(begin)
assert os.waitpid(child, 0)[1] == 0
pid = os.fork()  # after close() nothing is left to let go of
if not pid:
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
"""


def test_a_forked_child_leaves_it_to_the_parent(path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORK, str(path)], capture_output=True, text=True, timeout=180, env=environment()
    )
    assert done.returncode == 0, done.stderr


def test_a_server_is_closed_twice_and_never_started(path: Path) -> None:
    server = ControlServer(path, Asked().verbs)
    server.close()
    with server:
        pass
    server.close()
    assert not path.exists()


class Blocks(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.go_on = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.go_on.wait(60)


def test_a_handler_of_the_log_that_blocks_stops_nothing(there: Asked, client: Client, path: Path) -> None:
    handler = Blocks()
    logging.getLogger("fastbridge").addHandler(handler)
    try:
        assert refusal(client, "fail", how="other").code == INTERNAL
        path.unlink()
        eventually(path.exists, "the socket again")
        assert client.call("echo", value=1) == 1
    finally:
        handler.go_on.set()
        logging.getLogger("fastbridge").removeHandler(handler)
