"""A run as a service: what the service manager hears, and the unit file."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path

import pytest
from command import ROOT, next_complaint, run, say
from live import PATIENCE, eventually

from fastbridge import Lab, Switch
from fastbridge.cli.service import Service
from fastbridge.sd_notify import Notifier

UNIT = Path(__file__).parents[2] / "docs/examples/fastbridge@.service"


class Manager:
    """What a service manager hears."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self.socket.settimeout(PATIENCE)
        self.environment = {"NOTIFY_SOCKET": address}

    def hear(self) -> dict[str, str]:
        words = self.socket.recv(4096).decode().split("\n")
        return dict(word.split("=", 1) for word in words)

    def hears_nothing(self, seconds: float) -> bool:
        self.socket.settimeout(seconds)
        try:
            self.socket.recv(4096)
        except TimeoutError:
            return True
        finally:
            self.socket.settimeout(PATIENCE)
        return False


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    address = str(tmp_path / "notify") if request.param == "path" else f"@fastbridge-test-{os.getpid()}"
    manager = Manager(address)
    with closing(manager.socket):
        yield manager


def test_what_is_said(manager: Manager) -> None:
    environment = {**manager.environment, "WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}
    with closing(Notifier(environment)) as notifier:
        assert environment == {}, "programs started from here do not speak for it"
        assert notifier.watchdog == 30
        notifier.ready("two\nlines")
        assert manager.hear() == {"READY": "1", "STATUS": "two lines"}
        before = time.monotonic_ns() // 1000
        notifier.reloading()
        heard = manager.hear()
        assert heard["RELOADING"] == "1" and before <= int(heard["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000
        notifier.status("well")
        notifier.ping()
        notifier.stopping()
        assert [manager.hear() for _ in range(3)] == [{"STATUS": "well"}, {"WATCHDOG": "1"}, {"STOPPING": "1"}]


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"NOTIFY_SOCKET": ""},
        {"NOTIFY_SOCKET": "vsock:2:1"},
        {"NOTIFY_SOCKET": "/nonexistent", "WATCHDOG_USEC": "soon"},
        {"NOTIFY_SOCKET": "/nonexistent", "WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"},
    ],
)
def test_without_a_manager_nothing_happens(environment: dict[str, str]) -> None:
    with closing(Notifier(environment)) as notifier:
        assert notifier.watchdog is None
        notifier.ready("")
        notifier.ping()


@contextmanager
def serving(
    lab: Lab, manager: Manager, *arguments: str, before: Sequence[str] = (), **environment: str
) -> Iterator[subprocess.Popen[str]]:
    command = [*before, sys.executable, "-W", "error", "-m", "fastbridge", "run", "--json", *arguments]
    process = lab.popen_host(
        command,
        text=True,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | manager.environment | environment,
    )
    try:
        assert say(process)["event"] == "ready"
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def by_path(tmp_path: Path) -> Iterator[Manager]:
    """An abstract address belongs to a network namespace, and a lab has its own."""
    manager = Manager(str(tmp_path / "notify"))
    with closing(manager.socket):
        yield manager


@pytest.mark.live
def test_a_run_says_how_it_does(lab: Lab, by_path: Manager, tmp_path: Path) -> None:
    (file := tmp_path / "lab.toml").write_text('ports = ["pod1", "pod2"]\nfast_path = "off"\n')
    with serving(lab, by_path, "-c", str(file)) as process:
        assert by_path.hear() == {"READY": "1", "STATUS": "forwarding, 2 of 2 ports up, fast path off"}
        process.send_signal(signal.SIGHUP)
        assert by_path.hear()["RELOADING"] == "1"
        assert by_path.hear()["READY"] == "1"
        process.terminate()
        assert by_path.hear() == {"STOPPING": "1"}
        assert process.wait(PATIENCE) == 0


PTRACE_SEIZE, PTRACE_INTERRUPT, PTRACE_DETACH, WALL = 0x4206, 0x4207, 17, 0x40000000


@contextmanager
def stopped(thread: int) -> Iterator[None]:
    """One thread of another process, held."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    if libc.ptrace(PTRACE_SEIZE, thread, None, None) != 0:
        pytest.skip(f"ptrace(2) is not allowed here: {os.strerror(ctypes.get_errno())}")
    assert libc.ptrace(PTRACE_INTERRUPT, thread, None, None) == 0
    os.waitpid(thread, WALL)
    try:
        yield
    finally:
        libc.ptrace(PTRACE_DETACH, thread, None, None)


def worker_of(pid: int) -> int:
    """The thread of the data plane: it holds its own waiting times open."""
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            if found := re.fullmatch(r"/proc/\d+/task/(\d+)/schedstat", str(descriptor.readlink())):
                return int(found.group(1))
    raise AssertionError("no worker")


@pytest.mark.live
def test_a_hung_worker_is_not_reported_alive(lab: Lab, by_path: Manager) -> None:
    """The rest of the process runs on: only the worker is held, as by a debugger."""
    with serving(lab, by_path, "--fast-path", "off", "pod1", "pod2", WATCHDOG_USEC="200000") as process:
        assert by_path.hear()["READY"] == "1"
        for _ in range(3):
            assert by_path.hear() == {"WATCHDOG": "1"}, "an idle worker breathes, too"
        with stopped(worker_of(process.pid)):
            eventually(lambda: by_path.hears_nothing(1.0), "silence")
            assert "worker 0 is stuck" in next_complaint(process)
        assert by_path.hear() == {"WATCHDOG": "1"}, "it breathes again"


@pytest.mark.live
def test_a_switch_that_changes_for_long_is_reported_alive(by_path: Manager) -> None:
    environment = {**by_path.environment, "WATCHDOG_USEC": "100000"}
    with Lab(2) as lab, Switch(lab.ports, fast_path="off") as switch, closing(Notifier(environment)) as notifier:
        service = Service(notifier, [switch])
        with switch.still():
            service.ready()
            assert by_path.hear()["READY"] == "1"
            for _ in range(3):
                assert by_path.hear() == {"WATCHDOG": "1"}
        stopping = threading.Thread(target=service.stopping)
        stopping.start()
        eventually(lambda: by_path.hear() == {"STOPPING": "1"}, "the end")  # its socket may be full of WATCHDOG=1
        stopping.join()
        assert by_path.hears_nothing(0.2)


def breathed(switch: Switch, before: list[int]) -> bool:
    return all(was != breaths for was, breaths in zip(before, switch.breaths(), strict=True))


@pytest.mark.live
def test_breaths_stand_still_when_a_worker_does() -> None:
    with Lab(2) as lab, Switch(lab.ports, fast_path="off", workers=min(2, len(os.sched_getaffinity(0)))) as switch:
        for _ in range(3):
            before = switch.breaths()
            eventually(partial(breathed, switch, before), "a breath of each worker")
    before = switch.breaths()
    assert switch.breaths() == before, "a switch that has stopped breathes no more"


# -- the unit --------------------------------------------------------------------------------------


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit, for a program that there is here."""
    (program := tmp_path / "fastbridge").write_text("#!/bin/sh\n")
    program.chmod(0o755)
    path = tmp_path / "fastbridge@lab.service"
    path.write_text(UNIT.read_text().replace("/usr/bin/fastbridge", str(program)))
    return path


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    if not (program := shutil.which("systemd-analyze")):
        pytest.skip("systemd-analyze is not here")
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=False)


def test_the_unit_is_one(unit: Path) -> None:
    done = analyze("verify", str(unit))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_unit_is_hardened(unit: Path) -> None:
    done = analyze("security", "--offline=yes", "--no-pager", "--threshold=31", str(unit))
    assert done.returncode == 0, done.stdout.splitlines()[-1:]


def test_the_unit_says_options_that_there_are() -> None:
    command = next(line for line in UNIT.read_text().splitlines() if line.startswith("ExecStart="))
    helped = run("run", "--help").stdout
    assert all(option in helped for option in re.findall(r" (--?[a-z-]+)", command))


@pytest.mark.live
def test_a_run_works_with_what_the_unit_leaves_it(lab: Lab, by_path: Manager) -> None:
    if os.geteuid() != 0 or not shutil.which("setpriv"):
        pytest.skip("this needs root and setpriv")
    kept = next(line for line in UNIT.read_text().splitlines() if line.startswith("CapabilityBoundingSet="))
    names = [name.removeprefix("CAP_").lower() for name in kept.partition("=")[2].split()]
    limited = [shutil.which("setpriv"), "--bounding-set", ",".join(["-all", *(f"+{name}" for name in names)])]
    paths = []
    for before in ([], limited):
        with serving(lab, by_path, "pod1", "pod2", before=before):
            paths.append(by_path.hear()["STATUS"])
    assert paths[0] == paths[1], "the same fast path"
