"""Where the sockets lie: found by name, and never in a directory that others can write to."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from live import PATIENCE, eventually
from talks import asked, environment

from fastbridge.control import directory, server
from fastbridge.control.client import Client
from fastbridge.control.directory import make_directory, running, socket_path, the_one
from fastbridge.errors import ConfigError


@pytest.fixture(autouse=True)
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """As for a user who is not root."""
    monkeypatch.setattr(directory, "_ROOT", tmp_path / "none" / "fastbridge")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path / "fastbridge"


def test_it_is_made_for_its_owner_alone(runtime: Path) -> None:
    assert running() == [] and not runtime.exists()
    before = os.umask(0)
    try:
        make_directory()
    finally:
        os.umask(before)
    assert runtime.stat().st_mode & 0o777 == 0o700
    make_directory()


def test_each_user_has_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uid = Path("/proc/self/uid_map").read_text().split()[1] if os.geteuid() == 0 else os.geteuid()
    assert directory.directory() == tmp_path / "fastbridge"
    for unfit in ("relative", str(tmp_path / "missing")):
        monkeypatch.setenv("XDG_RUNTIME_DIR", unfit)
        assert directory.directory() == Path(f"/tmp/fastbridge-{uid}")
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert directory.directory() in (Path(f"/tmp/fastbridge-{uid}"), Path(f"/run/user/{uid}/fastbridge"))
    if os.geteuid() == 0:
        monkeypatch.setattr(directory, "_ROOT", tmp_path / "fastbridge")
        assert directory.directory() == tmp_path / "fastbridge"


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda place: place.symlink_to(place.parent), "it is a link"),
        (lambda place: place.symlink_to("/nowhere"), "it is a link"),
        (lambda place: place.write_text(""), "it is no directory"),
        (lambda place: (place.mkdir(), place.chmod(0o777)), "it is open to others"),
        (lambda place: (place.mkdir(), place.chmod(0o770)), "it is open to others"),
    ],
    ids=["link", "broken link", "file", "world", "group"],
)
def test_one_that_is_unsafe_is_refused(made, said: str, runtime: Path) -> None:  # type: ignore[no-untyped-def]
    made(runtime)
    for ask in (make_directory, running, the_one, lambda: socket_path("a"), lambda: Client("a")):
        with pytest.raises(ConfigError, match=re.escape(f"no control sockets in {runtime}: {said}")) as refused:
            ask()
        assert "\n" not in str(refused.value)


@pytest.mark.skipif(
    os.geteuid() != 0 or Path("/proc/self/uid_map").read_text().split() != ["0", "0", "4294967295"],
    reason="takes root, to be somebody else",
)
def test_somebody_else_s_is_refused(runtime: Path) -> None:
    runtime.mkdir(mode=0o700)
    os.chown(runtime, 65534, 65534)
    with pytest.raises(ConfigError, match="it belongs to user 65534; remove it"):
        make_directory()


def test_who_asks_for_a_switch_of_root_is_told_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory, "_ROOT", tmp_path / "root")
    monkeypatch.setattr(directory, "directory", lambda: tmp_path / "own")
    for name in (None, "br0"):
        with pytest.raises(ConfigError, match=r"own; start one with: fastbridge run --name NAME$"):
            the_one(name)
    (tmp_path / "root").mkdir()
    for each in ("br1", "br0"):
        (tmp_path / "root" / f"{each}.sock").touch()
    with pytest.raises(
        ConfigError, match=r"^no switch runs: there is no socket in .*own; those of root need sudo: br0, br1$"
    ):
        the_one()
    with pytest.raises(ConfigError, match=r"^no switch named br0 runs: .*own; those of root need sudo: br0, br1$"):
        the_one("br0")


def test_one_that_cannot_be_made_is_named(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory, "directory", lambda: runtime / "no" / "such")
    with pytest.raises(ConfigError, match=r"cannot make .*no/such, the directory of the control sockets: No such file"):
        make_directory()


@pytest.mark.parametrize("name", ["", ".", "..", "../a", "a/b", "-a", ".a", "a b", "a\n", "a\0", "é", "a" * 65])
def test_what_cannot_be_a_name(name: str) -> None:
    for ask in (socket_path, the_one, Client):
        with pytest.raises(ConfigError, match="cannot be a switch's name: 1 to 64 of A-Z a-z 0-9") as refused:
            ask(name)
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["a", "0", "run-4711", "A.b_c-d", "a" * 64])
def test_what_can_be_a_name(name: str, runtime: Path) -> None:
    assert socket_path(name) == runtime / f"{name}.sock"


@pytest.fixture
def switches() -> Iterator[ExitStack]:
    make_directory()
    with ExitStack() as stack:
        yield stack


def test_the_only_one_needs_no_name(switches: ExitStack) -> None:
    with pytest.raises(ConfigError, match=r"no switch runs: .*; start one with: fastbridge run"):
        Client()
    with pytest.raises(ConfigError, match=r"no switch named b runs: .*; start one with"):
        Client("b")
    switches.enter_context(asked(socket_path("a")))
    assert running() == ["a"] and the_one() == "a"
    with Client(timeout=PATIENCE) as client:
        assert client.call("echo", value=1) == 1
    with pytest.raises(ConfigError, match="no switch named b runs; there are: a"):
        Client("b")
    switches.enter_context(asked(socket_path("b")))
    with pytest.raises(ConfigError, match="several switches run: a, b; choose one with --switch NAME"):
        Client()
    with Client("b", timeout=PATIENCE) as client:
        assert client.call("echo", value=2) == 2


DIES = """
import sys, time
from pathlib import Path
from talks import Asked
from fastbridge.control.server import ControlServer
ControlServer(Path(sys.argv[1]), Asked().verbs).start()
print("there", flush=True)
time.sleep(600)
"""


def test_the_socket_of_a_killed_switch_is_not_in_the_way(switches: ExitStack) -> None:
    path = socket_path("a")
    process = subprocess.Popen([sys.executable, "-c", DIES, path], stdout=subprocess.PIPE, env=environment())
    assert process.stdout and process.stdout.readline() == b"there\n"
    assert running() == ["a"]
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert path.exists() and running() == []
    with pytest.raises(ConfigError, match="no switch runs"):
        Client()
    with asked(path), Client(timeout=PATIENCE) as client:
        assert client.call("echo", value=1) == 1
    assert not path.exists()


def test_a_directory_that_was_removed_is_there_again(switches: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_LOOK_SECONDS", 0.05)
    switches.enter_context(asked(socket_path("a")))
    place = directory.directory()
    shutil.rmtree(place.rename(place.with_name("gone")))  # away at once: the switch looks often
    eventually(lambda: running() == ["a"], "the switch, found again")
    assert directory.directory().stat().st_mode & 0o777 == 0o700


def test_what_lies_beside_is_no_switch(switches: ExitStack) -> None:
    place = directory.directory()
    (place / "lab.json").write_text("{}")
    (place / "file.sock").write_text("")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(place / "-odd.sock"))
        sock.listen()
        switches.enter_context(asked(socket_path("a")))
        assert running() == ["a"]
