"""Labs that stay: what `up` made, `down` removes, and nothing else, whenever `up` died."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from effort import few, few_rows
from live import eventually

import fastbridge
from fastbridge import Switch
from fastbridge.addresses import MacAddress
from fastbridge.errors import ConfigError, LabError, PrivilegeError
from fastbridge.lab import persistent as lab_store
from fastbridge.lab.links import Links
from fastbridge.lab.namespaces import NamespaceHelper
from fastbridge.lab.topology import Topology

pytestmark = pytest.mark.live

NETNS = Path("/run/netns")


@pytest.fixture(autouse=True, scope="module")
def netns_directory() -> None:
    """/run/netns is a mount of its own; `ip netns`, too, makes it once and leaves it."""
    with NamespaceHelper() as helper:
        namespace = helper.create()
        namespace.pin("/run/netns/first")
        helper.unpin("/run/netns/first")
        namespace.close()


def links() -> set[str]:
    return {name for _, name in socket.if_nameindex()}


def names() -> set[str]:
    return {path.name for path in NETNS.iterdir()} if NETNS.exists() else set()


@pytest.fixture
def up() -> Iterator[lab_store.StoredLab]:
    before = links(), names()
    lab = lab_store.up("fb", Topology.of(3))
    yield lab
    if lab in lab_store.list_labs():
        lab_store.down("fb")
    assert (links(), names()) == before


def test_up_list_exec_down(up: lab_store.StoredLab) -> None:
    assert lab_store.list_labs() == [up] and up.complete
    assert lab_store.get("fb") == up
    assert set(up.ports) == {"fb-pod1", "fb-pod2", "fb-pod3"} <= links()
    assert set(up.ports) <= names()
    for port in up.ports:
        assert Path(f"/proc/sys/net/ipv6/conf/{port}/disable_ipv6").read_text() == "1\n"
        assert Path(f"/proc/sys/net/ipv4/conf/{port}/forwarding").read_text() == "0\n"
    shown = subprocess.run(up.command("pod2", ["cat", "/proc/net/if_inet6"]), capture_output=True, text=True).stdout
    assert "fd000000000000000000000000000002" in shown
    tentative = {line.split()[0] for line in shown.splitlines() if int(line.split()[4], 16) & 0x40}
    command = up.command("pod2", ["cat", "/sys/class/net/eth0/address"])
    assert subprocess.run(command, capture_output=True, text=True).stdout == "02:00:00:00:00:02\n"
    no_program = subprocess.run(up.command("pod2", ["no-such-program"]), capture_output=True, text=True)
    assert no_program.returncode == 127
    assert no_program.stderr == "there is no program 'no-such-program' on the PATH\n"
    assert subprocess.run(up.command("pod2", ["/etc/passwd"]), capture_output=True).returncode == 126
    assert not tentative and "fe80000000000000000000fffe000002" in shown
    listing = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout
    assert all(re.search(rf"^\d+: {port}@.* state UP ", listing, re.M) for port in up.ports)
    lab_store.down("fb")
    assert not lab_store.list_labs()
    with pytest.raises(LabError, match="there is no lab 'fb'"):
        lab_store.down("fb")


VISIT = """
from fastbridge.errors import PrivilegeError
from fastbridge.lab import persistent
from fastbridge.lab.visits import visit
try:
    with visit(persistent.get("fb")):
        pass
except PrivilegeError as error:
    print(error)
"""


def test_a_visit_of_an_ordinary_user(up: lab_store.StoredLab, unprivileged: list[str]) -> None:
    done = subprocess.run([*unprivileged, VISIT], capture_output=True, text=True, timeout=180, cwd="/")
    assert (done.stdout, done.stderr) == ("lab fb is root's; run as root\n", "")


def test_from_another_network_namespace_it_is_whole(up: lab_store.StoredLab) -> None:
    """Its ports are not to be seen from there, but its pods can be visited."""
    there = ["unshare", "-n", sys.executable, "-m", "fastbridge", "lab"]
    environment = os.environ | {"PYTHONPATH": str(Path(fastbridge.__file__).parents[1]), "COLUMNS": "200"}

    def ask(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*there, *arguments], capture_output=True, text=True, timeout=180, env=environment)

    listed = ask("list")
    assert listed.returncode == 0 and "complete, its ports in another network namespace" in listed.stdout
    with Switch(up.ports):
        pinged = ask("pingall", "--name", "fb", "--timeout", "50")
        assert pinged.returncode == 0 and "6 of 6 pings answered" in pinged.stdout
    removed = ask("down", "--name", "fb")
    assert (removed.returncode, removed.stderr) == (0, "") and not links() & set(up.ports)


def test_down_ends_the_programs(up: lab_store.StoredLab) -> None:
    program = subprocess.Popen(up.command("pod1", ["sleep", "1000"]))
    while Path(f"/proc/{program.pid}/comm").read_text() != "sleep\n":
        time.sleep(0.001)
    lab_store.down("fb")
    assert program.wait() == -signal.SIGKILL


def test_down_when_somebody_holds_a_namespace_open(up: lab_store.StoredLab) -> None:
    with (NETNS / "fb-pod1").open():
        lab_store.down("fb")
        assert not links() & set(up.ports)


def test_wrong_requests(up: lab_store.StoredLab) -> None:
    with pytest.raises(LabError, match="already"):
        lab_store.up("fb", Topology.of(1))
    with pytest.raises(LabError, match="no pod 'pod9'"):
        up.command("pod9", ["true"])
    with pytest.raises(LabError, match="there are: fb"):
        lab_store.get("other")
    with pytest.raises(ConfigError, match="too long"):
        lab_store.up("twelve-chars", Topology.of(1))
    with pytest.raises(ConfigError, match="name"):
        lab_store.down("../fb")


def test_names_that_are_taken(up: lab_store.StoredLab) -> None:
    before = links(), names()
    plan = Topology.of(["x", "pod1"])
    lab_store._path("fb").rename("/run/fastbridge/fb.aside")
    try:
        with pytest.raises(LabError, match="fb-pod1"):
            lab_store.up("fb", plan)
        assert (links(), names()) == before
    finally:
        Path("/run/fastbridge/fb.aside").rename(lab_store._path("fb"))


def test_down_leaves_what_is_not_ours(up: lab_store.StoredLab) -> None:
    """Somebody removed a pod of ours and made something of the same name."""
    with NamespaceHelper() as helper, Links() as network:
        network.delete("fb-pod1")
        helper.unpin(str(NETNS / "fb-pod1"))
        foreign = helper.create()
        foreign.pin(str(NETNS / "fb-pod1"))
        network.add_pair("fb-pod1", None, "eth0", MacAddress(0x020000000001), foreign.fd, 1500)
        program = foreign.popen(["sleep", "1000"])
        while Path(f"/proc/{program.pid}/comm").read_text() != "sleep\n":
            time.sleep(0.001)
        lab_store.down("fb")
        assert "fb-pod1" in links() and "fb-pod1" in names() and "fb-pod2" not in links() | names()
        assert program.poll() is None
        network.delete("fb-pod1")
        helper.unpin(str(NETNS / "fb-pod1"))
        foreign.close()


def test_failure_half_way_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    before = links(), names()

    def fail_at_third(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        lab_store.up("fb", Topology.of(5), progress=fail_at_third)
    assert (links(), names()) == before
    assert not lab_store.list_labs()


def test_the_lock_is_root_s_alone_and_who_is_waited_for_is_said(
    up: lab_store.StoredLab, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lock = Path("/run/fastbridge/.lock")
    assert lock.stat().st_mode & 0o777 == 0o600
    lock.chmod(0o644)  # as an older fastbridge left it
    script = (
        "import fcntl, sys; f = open(sys.argv[1]); fcntl.flock(f, fcntl.LOCK_EX); print(flush=True); sys.stdin.read()"
    )
    holder = [sys.executable, "-c", script, str(lock)]
    with subprocess.Popen(holder, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdout.readline()
        waiting = threading.Thread(target=lab_store.down, args=["fb"])
        waiting.start()
        eventually(lambda: "waiting" in caplog.text, "a word on who is waited for")
        assert f"process {process.pid} (" in caplog.text and str(lock) in caplog.text
        assert lab_store.list_labs() == [up]
        process.stdin.close()
        waiting.join()
    assert not lab_store.list_labs() and lock.stat().st_mode & 0o777 == 0o600


def test_a_state_directory_that_others_may_write_to_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place, link = tmp_path / "state", tmp_path / "link"
    place.mkdir()
    place.chmod(0o777)
    link.symlink_to(tmp_path)
    for state in place, link:
        monkeypatch.setattr(lab_store, "_STATE", state)
        with pytest.raises(LabError, match="others may write to"):
            lab_store.up("fb", Topology.of(1))
    assert not (place / ".lock").exists() and not (tmp_path / ".lock").exists()


def test_an_ordinary_user_is_not_told_to_remove_root_s_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    lab_store.down(lab_store.up("fb", Topology.of(1)).name)  # the directory is there
    monkeypatch.setattr(os, "geteuid", lambda: 65534)
    with pytest.raises(PrivilegeError, match=r"^/run/fastbridge is root's, .*: labs that stay take root \(sudo\)$"):
        lab_store.up("mine", Topology.of(1))


GOOD = '{"name": "x", "identity": "fastbridge:1", "complete": true, "network": 1, "topology": {"pod": {"pod1": {}}}}'


@pytest.mark.parametrize(
    ("name", "text"),
    few_rows(
        2,
        [
            ("x", "[" * 100_000),
            ("x", "nothing"),
            ("x", "\udcff"),
            ("x", "[]"),
            ("x", "5"),
            ("x", GOOD.replace("{}", "5")),
            ("x", GOOD.replace('"pod1": {}', "")),
            ("[b]", GOOD),
            ("x", GOOD.replace('"x"', '"[/]"')),
            ("a\x1b[31mb", GOOD),
            ("x", GOOD.replace('"x"', "7")),
            ("x", GOOD.replace('"x"', '"../../x"')),
            ("x", GOOD.replace("true", '"\x1b"')),
        ],
    ),
)
def test_a_state_file_that_is_none_is_one_line(up: lab_store.StoredLab, name: str, text: str) -> None:
    path = Path(f"/run/fastbridge/{name}.json")
    path.write_text(text, encoding="utf-8", errors="surrogateescape")
    try:
        done = subprocess.run([sys.executable, "-m", "fastbridge", "lab", "list"], capture_output=True, text=True)
        assert lab_store.list_labs() == [up]
    finally:
        path.unlink()
    assert done.returncode == 0 and "fb-pod1 … fb-pod3" in done.stdout
    (line,) = done.stderr.splitlines()
    assert line.startswith("fastbridge: /run/fastbridge/") and "is not a lab's file" in line
    assert line.isprintable()


def test_a_list_of_nothing_but_such_files_does_not_say_that_there_is_no_lab() -> None:
    path = Path("/run/fastbridge/x.json")
    path.parent.mkdir(exist_ok=True)
    path.write_text("[]")
    try:
        done = subprocess.run([sys.executable, "-m", "fastbridge", "lab", "list"], capture_output=True, text=True)
    finally:
        path.unlink()
    assert (done.returncode, done.stdout) == (0, "no lab can be read\n")
    assert "is not a lab's file" in done.stderr


def test_a_lab_of_another_version_can_be_removed_by_hand(up: lab_store.StoredLab) -> None:
    path = Path("/run/fastbridge/fb.json")
    ours = path.read_text()
    path.write_text('{"name": "fb", "identity": "fastbridge:0", "complete": true, "pods": 3, "mtu": 1500}')
    try:
        with pytest.raises(LabError, match=r"delete its namespaces fb-… .* interfaces fb-… .* and then the file$"):
            lab_store.down("fb")
        assert path.exists() and set(up.ports) <= links()
    finally:
        path.write_text(ours)


@pytest.mark.parametrize("pods", [0, 1, 4, 9])
def test_down_after_sigkill_of_up(pods: int) -> None:
    before = links(), names()
    script = f"""
import os, signal
from fastbridge.lab import persistent as lab_store
from fastbridge.lab.links import Links
from fastbridge.lab.namespaces import NamespaceHelper
from fastbridge.lab.topology import Topology
def progress(done, total):
    if done == {pods}:
        os.kill(os.getpid(), signal.SIGKILL)
if {pods} == 0:
    lab_store._make = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
lab_store.up("fb", Topology.of(10), progress=progress)
"""
    assert subprocess.run([sys.executable, "-c", script]).returncode == -signal.SIGKILL
    (lab,) = lab_store.list_labs()
    assert not lab.complete
    lab_store.down("fb")
    assert (links(), names()) == before


@pytest.mark.parametrize("delay", few(4, [0.0, 0.02, 0.04, 0.07, 0.005, 0.01, 0.015, 0.025, 0.03, 0.035, 0.05, 0.06]))
def test_down_after_sigkill_of_up_at_any_moment(delay: float) -> None:
    before = links(), names()
    script = """
from fastbridge.lab import persistent as lab_store
from fastbridge.lab.links import Links
from fastbridge.lab.namespaces import NamespaceHelper
from fastbridge.lab.topology import Topology
save = lab_store._save
lab_store._save = lambda lab: (save(lab), print("saved", flush=True))
lab_store.up("fb", Topology.of(100))
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(delay)
        process.kill()
    lab_store.down("fb")
    assert (links(), names()) == before


SEVERAL = Topology.from_dict(
    {
        "switch": {"a": {"trunks": ["b"]}, "b": {}, "c": {}},
        "pod": {
            "one": {"interfaces": {"eth0": "a"}},
            "r": {"interfaces": {"eth0": "b", "eth1": "c"}, "forward": True},
            "two": {"interfaces": {"wan": "c"}},
        },
        "link": {"a-b": "delay=1ms", "one>a-b": "delay=2ms", "r.eth1": "delay=3ms"},
    }
)


def test_a_lab_of_several_switches_stays() -> None:
    before = links(), names()
    lab = lab_store.up("fb", SEVERAL)
    try:
        assert lab_store.get("fb") == lab and lab.complete and not lab.missing()
        assert lab.switches == {
            "a": ["fb-one", "fb-a-b"],
            "b": ["fb-r", "fb-b-a"],
            "c": ["fb-r-eth1", "fb-two"],
        }
        assert {place: str(link) for place, link in lab.links.items()} == {
            "fb-a-b": "delay=1ms",
            ("fb-one", "fb-a-b"): "delay=2ms",
            "fb-r-eth1": "delay=3ms",
        }
        listing = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout
        assert all(re.search(rf"^\d+: {port}@.*NOARP.* state UP ", listing, re.M) for port in lab.ports)
        with contextlib.ExitStack() as stack:
            for ports in lab.switches.values():
                stack.enter_context(Switch(ports))
            ping = "import socket as s; c = s.create_connection(('two', 9), 60)"
            refused = subprocess.run(lab.command("one", [sys.executable, "-c", ping]), capture_output=True, text=True)
            assert "ConnectionRefusedError" in refused.stderr  # by name, over trunk and router, there and back
        with Links() as network:
            network.delete("fb-b-a")
            assert lab.missing() == ["a-b", "b-a"]
            network.delete("fb-r-eth1")
            assert lab.missing() == ["r", "a-b", "b-a"]
    finally:
        lab_store.down("fb")
    assert (links(), names()) == before and not list(Path("/run/fastbridge").glob("fb.*"))


@pytest.mark.parametrize("calls", [4, 13, 14, 15, 16, 20])
def test_down_after_sigkill_between_any_two_steps(calls: int) -> None:
    """In a pod, with a trunk not yet marked, marked, with one end here, and with both."""
    before = links(), names()
    script = f"""
import os, signal
from fastbridge.lab import persistent as lab_store
from fastbridge.lab.links import Links
from fastbridge.lab.topology import Topology
left, set_link = {calls}, Links.set
def set_or_die(*arguments, **settings):
    global left
    left -= 1
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)
    set_link(*arguments, **settings)
Links.set = set_or_die
lab_store.up("fb", Topology.linear(2, 1))
"""
    assert subprocess.run([sys.executable, "-c", script]).returncode == -signal.SIGKILL
    lab_store.down("fb")
    assert (links(), names()) == before


def test_a_link_may_go_while_it_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel removes the links of a killed lab's namespace some time after its end."""
    with Links() as links:
        monkeypatch.setattr(Links, "index", lambda *_: 1 << 30)  # as it was a moment ago
        assert links.alias("gone") is None
        links.delete("gone", missing_ok=True)
        with pytest.raises(LabError, match=r"^gone: No such device$"):
            links.delete("gone")
