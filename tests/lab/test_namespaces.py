"""The namespace helper: what it makes, what it kills, what it leaves (nothing)."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from live import PATIENCE, eventually

from fastbridge.errors import LabError
from fastbridge.lab.namespaces import Namespace, NamespaceHelper

pytestmark = pytest.mark.live


@pytest.fixture
def helper() -> Iterator[NamespaceHelper]:
    with NamespaceHelper() as helper:
        yield helper


@pytest.fixture
def namespace(helper: NamespaceHelper) -> Iterator[Namespace]:
    namespace = helper.create()
    yield namespace
    namespace.close()


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_this_process_stays_where_it_is(namespace: Namespace) -> None:
    mine = Path("/proc/self/ns/net").stat().st_ino
    assert os.fstat(namespace.fd).st_ino != mine
    assert namespace.run(["readlink", "/proc/self/ns/net"], capture_output=True, text=True).stdout != f"net:[{mine}]\n"
    assert Path(namespace.path).stat().st_ino == os.fstat(namespace.fd).st_ino


def test_sockets_live_in_their_namespace(helper: NamespaceHelper, namespace: Namespace) -> None:
    other = helper.create()
    with (
        namespace.open_socket(socket.AF_INET, socket.SOCK_DGRAM) as here,
        other.open_socket(socket.AF_INET, socket.SOCK_DGRAM) as there,
    ):
        here.bind(("127.0.0.1", 5000))
        there.bind(("127.0.0.1", 5000))  # would be taken in one namespace
        assert not here.get_inheritable()
    other.close()


def test_a_socket_refused_is_an_os_error(namespace: Namespace) -> None:
    with pytest.raises(OSError, match="not supported"):
        namespace.open_socket(socket.AF_INET, socket.SOCK_STREAM, 200)
    namespace.open_socket(socket.AF_INET, socket.SOCK_STREAM).close()  # and the next one works


def test_sysctl(namespace: Namespace) -> None:
    assert namespace.write_sysctl("net/ipv4/ip_forward", 1)
    assert namespace.run(["cat", "/proc/sys/net/ipv4/ip_forward"], capture_output=True).stdout == b"1\n"
    assert not namespace.write_sysctl("net/no/such", 1)


def test_programs_and_what_they_started_die_with_the_helper() -> None:
    with NamespaceHelper() as helper:
        namespace = helper.create()
        script = "setsid sleep 1000 & echo $!; exec sleep 1000"
        program = namespace.popen(["sh", "-c", script], stdout=subprocess.PIPE, text=True)
        assert program.stdout is not None
        daemon = int(program.stdout.readline())
        program.stdout.close()
        assert alive(daemon) and alive(program.pid)
    assert program.returncode == -signal.SIGKILL
    assert inside(os.fstat(namespace.fd).st_ino) == []
    namespace.close()
    eventually(lambda: not alive(daemon), "the daemon's end")  # it has left the namespace a moment before


def test_programs_of_any_user_die_with_the_helper() -> None:
    if Path("/proc/self/uid_map").read_text().split() != ["0", "0", "4294967295"]:
        pytest.skip("there is no other user in the sandbox; test_rootless.py has users that are lent")
    with NamespaceHelper() as helper:
        namespace = helper.create()
        as_nobody = [
            "setpriv",
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            "sh",
            "-c",
            "id -u; exec sleep 1000",
        ]
        program = namespace.popen(as_nobody, stdout=subprocess.PIPE, text=True)
        assert program.stdout is not None
        with program.stdout:
            assert program.stdout.readline() == "65534\n"
    namespace.close()
    assert program.returncode == -signal.SIGKILL


def test_a_program_on_its_way_in_dies_too() -> None:
    for _ in range(20):
        with NamespaceHelper() as helper:
            namespace = helper.create()
            program = namespace.popen(["sleep", "1000"])
        namespace.close()
        assert program.returncode in (-signal.SIGKILL, 1)  # 1: it did not come in


@pytest.mark.parametrize("end", ["close", "kill"])
def test_a_program_that_starts_too_late_does_not_come_in(
    namespace: Namespace, helper: NamespaceHelper, end: str
) -> None:
    """As one does whose owner was killed between its fork and its exec."""
    with helper.command(namespace, ["sleep", "1000"], {"stderr": subprocess.PIPE}) as (command, options):
        if end == "kill":
            helper._process.kill()
            helper._process.wait()
        else:
            helper.close()
        late = subprocess.run(command, timeout=PATIENCE, **options)
    assert late.returncode == -signal.SIGKILL or b"cannot open" in late.stderr


def test_no_child_is_missed_that_is_born_meanwhile() -> None:
    """A program that goes from process to process: each makes the next one, and ends."""
    hops = "import os, time\nwhile True:\n  if os.fork(): os._exit(0)\n  time.sleep(0.005)"
    for _ in range(5):
        with NamespaceHelper() as helper:
            namespace = helper.create()
            namespace.popen([sys.executable, "-S", "-c", hops])
            inode = os.fstat(namespace.fd).st_ino
            eventually(lambda at=inode: inside(at), "the first hop")  # type: ignore[misc]
        assert inside(inode) == []
        namespace.close()


def inside(inode: int) -> list[str]:
    """The processes in a network namespace."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            with suppress(OSError):
                if (process / "ns/net").stat().st_ino == inode:
                    found.append(process.name)
    return found


def test_a_program_that_left_its_namespace_dies_too(namespace: Namespace, helper: NamespaceHelper) -> None:
    other = helper.create()
    try:
        program = namespace.popen(["sleep", "1000"])
        helper.kill_programs()
        assert program.returncode == -signal.SIGKILL
    finally:
        other.close()


def test_a_program_outlives_the_thread_that_started_it(namespace: Namespace) -> None:
    programs: list[subprocess.Popen[bytes]] = []
    thread = threading.Thread(target=lambda: programs.append(namespace.popen(["sleep", "1000"])))
    thread.start()
    thread.join()
    time.sleep(0.1)
    assert programs[0].poll() is None
    assert namespace.run(["true"]).returncode == 0


def test_many_threads_ask_at_once(namespace: Namespace) -> None:
    failures: list[BaseException] = []

    def ask() -> None:
        try:
            for _ in range(50):
                namespace.open_socket(socket.AF_INET, socket.SOCK_DGRAM).close()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_an_unknown_program_is_named(namespace: Namespace) -> None:
    with pytest.raises(LabError, match="no-such-program"):
        namespace.popen(["no-such-program"])


def test_after_close_everything_says_so(helper: NamespaceHelper) -> None:
    namespace = helper.create()
    helper.close()
    helper.close()
    with pytest.raises(LabError, match="closed"):
        namespace.open_socket(socket.AF_INET, socket.SOCK_DGRAM)
    namespace.close()
    with pytest.raises(LabError, match="closed"):
        namespace.popen(["true"])


def test_a_dead_helper_is_an_error_not_a_hang(namespace: Namespace, helper: NamespaceHelper) -> None:
    helper._process.kill()
    helper._process.wait()
    with pytest.raises(LabError, match="helper process has died"):
        namespace.open_socket(socket.AF_INET, socket.SOCK_DGRAM)


def test_a_fork_does_not_end_the_lab(namespace: Namespace, helper: NamespaceHelper) -> None:
    script = """
import os, sys
from fastbridge.lab.namespaces import NamespaceHelper
with NamespaceHelper() as helper:
    namespace = helper.create()
    child = os.fork()
    if not child:
        sys.exit()  # runs the context's end in the child
    os.waitpid(child, 0)
    assert namespace.run(["true"]).returncode == 0
    namespace.close()
"""
    subprocess.run([sys.executable, "-c", script], check=True)


MOMENTS = [0.0, 0.02, 0.05, 0.1, 0.2]


@pytest.mark.parametrize("moment", MOMENTS)
def test_sigkill_at_any_moment_leaves_nothing(moment: float) -> None:
    script = """
import itertools
from fastbridge.lab.namespaces import NamespaceHelper
helper = NamespaceHelper()
print(helper._process.pid, helper._tag, flush=True)
for n in itertools.count():
    namespace = helper.create()
    helper.create().popen(["sh", "-c", "sleep 1000 & sleep 1000"])
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        pid, tag = owner.stdout.readline().split()
        time.sleep(moment)
        descendants = family(owner.pid)
        owner.kill()
    eventually(lambda: not alive(int(pid)), "the end of the helper")
    eventually(lambda: not [line for line in command_lines() if tag in line], "the end of who comes too late")
    eventually(lambda: not any(map(alive, descendants)), "the end of the programs")


@pytest.mark.parametrize(
    "victims",
    [
        "the process and its helper",
        "the helper's group",
        "both, by SIGTERM",
        "all with fastbridge in their command line",
    ],
)
def test_programs_end_with_the_helper_however_it_ends(victims: str) -> None:
    script = """
import subprocess, sys
from fastbridge.lab.namespaces import NamespaceHelper
helper = NamespaceHelper()
for n in range(3):
    namespace = helper.create()
    script = "setsid sleep 1000 & echo ready; exec sleep 1000"
    namespace.popen(["sh", "-c", script], stdout=subprocess.PIPE).stdout.readline()
print(helper._process.pid, flush=True)
sys.stdin.read()
"""
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", script], stdin=pipe, stdout=pipe, text=True) as owner:
        assert owner.stdout is not None
        helper = int(owner.stdout.readline())
        descendants = family(owner.pid)
        assert len(descendants) == 2 + 3 * 2  # the helper, its guard, and two programs a namespace
        if victims == "the helper's group":
            os.killpg(helper, signal.SIGKILL)
        elif "command line" in victims:  # as `pkill -9 -f fastbridge` does
            lines = {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in [owner.pid, *descendants]}
            named = [pid for pid, line in lines.items() if b"fastbridge" in line]
            assert named == [owner.pid, helper]
            assert b"lab guard" in [line.rstrip(b"\0") for line in lines.values()]
            for pid in named:
                os.kill(pid, signal.SIGKILL)
        else:
            kind = signal.SIGTERM if "SIGTERM" in victims else signal.SIGKILL
            os.kill(owner.pid, kind)
            os.kill(helper, kind)
        programs = [pid for pid in descendants if pid != owner.pid]
        eventually(lambda: not any(map(alive, programs)), "the end of the programs")


@pytest.mark.parametrize("victims", ["the process", "the process and its helper"])
def test_programs_in_a_borrowed_namespace_end_after_sigkill_and_others_stay(victims: str) -> None:
    script = """
import subprocess, sys
from fastbridge.lab.namespaces import NamespaceHelper
helper = NamespaceHelper()
namespace = helper.borrow("/proc/self/ns/net")
script = "setsid sleep 1000 & echo ready; exec sleep 1000"
namespace.popen(["sh", "-c", script], stdout=subprocess.PIPE).stdout.readline()
print(helper._process.pid, flush=True)
sys.stdin.read()
"""
    pipe = subprocess.PIPE
    with (
        subprocess.Popen(["sleep", "1000"]) as neighbour,
        subprocess.Popen([sys.executable, "-c", script], stdin=pipe, stdout=pipe, text=True) as owner,
    ):
        assert owner.stdout is not None
        helper = int(owner.stdout.readline())
        descendants = family(owner.pid)
        assert len(descendants) == 2 + 2  # the helper, its guard, and two programs
        owner.kill()
        if victims != "the process":
            os.kill(helper, signal.SIGKILL)
        try:
            eventually(lambda: not any(map(alive, descendants)), "the end of the programs")
            assert neighbour.poll() is None
        finally:
            for pid in [neighbour.pid, *filter(alive, descendants)]:
                os.kill(pid, signal.SIGKILL)


def family(pid: int) -> list[int]:
    """The descendants of a process."""
    try:
        children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []
    return children + [pid for child in children for pid in family(child)]


def command_lines() -> list[str]:
    lines = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                lines.append((process / "cmdline").read_text(errors="replace"))
            except (FileNotFoundError, ProcessLookupError):
                continue  # it has just ended
    return lines
