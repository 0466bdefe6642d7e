"""The way out of a lab, by each of the programs that make one."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from ipaddress import IPv4Network
from pathlib import Path

import pytest
from live import PATIENCE, eventually, holders_of, namespaces_of
from scapy.layers.dns import DNS, DNSRR

import fastbridge
from fastbridge import ConfigError, Lab, LabError, MacAddress, Pod, Switch, Topology
from fastbridge.lab import uplink
from fastbridge.lab.links import Links
from fastbridge.lab.namespaces import NamespaceHelper

pytestmark = pytest.mark.live

needs_slirp4netns = pytest.mark.skipif(
    shutil.which("slirp4netns") is None, reason="slirp4netns is not installed (package slirp4netns)"
)


@pytest.fixture(autouse=True)
def host() -> Iterator[None]:
    """What a machine has, and the sandbox has not: loopback, and a default route, which pasta wants."""
    with NamespaceHelper() as helper, Links() as links:
        elsewhere = helper.create()
        links.set("lo", state="up")
        links.add_pair("wan", None, "eth0", MacAddress(0x02000000AA01), elsewhere.fd, 1500)
        for words in ("addr add 192.0.2.1/24 dev wan", "link set wan up", "route add default via 192.0.2.2"):
            subprocess.run(["ip", *words.split()], check=True)
        with Links(elsewhere) as there:
            there.set("eth0", state="up")
        yield
        links.delete("wan")
        links.set("lo", state="down")
        elsewhere.close()


class Hello(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"hello")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[int]:
    """The port of a server on this host's loopback."""
    with HTTPServer(("127.0.0.1", 0), Hello) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def fetch(pod: Pod, url: str) -> bytes:
    """What the server says to a pod."""

    def read() -> bytes:  # goes by itself: the pod's Python need not import this module
        with urllib.request.urlopen(url, timeout=60) as answer:
            data: bytes = answer.read()
            return data

    return pod.call(read)


@needs_slirp4netns
def test_pods_reach_the_host_s_loopback_and_each_other(server: int) -> None:
    with Lab(2) as lab, Switch(lab.ports):
        one, two = lab
        resolver = one.run(["cat", "/etc/resolv.conf"]).stdout
        with lab.uplink() as host:
            assert str(host) == "10.0.2.2"
            for pod in lab:
                assert fetch(pod, f"http://{host}:{server}/") == b"hello"
                assert pod.run(["cat", "/etc/resolv.conf"]).stdout == "nameserver 10.0.2.3\n"
            assert one.ping(two, timeout=PATIENCE)
        for pod in lab:
            assert {name for _, name in pod.call(socket.if_nameindex)} == {"lo", "eth0"}
            assert pod.run(["ip", "route", "show", "default"]).stdout == ""
            assert pod.run(["cat", "/etc/resolv.conf"]).stdout == resolver


@needs_slirp4netns
def test_one_pod_alone(server: int) -> None:
    with Lab(2) as lab:
        with lab.uplink("pod2") as host:
            assert fetch(lab["pod2"], f"http://{host}:{server}/") == b"hello"
            assert {name for _, name in lab["pod1"].call(socket.if_nameindex)} == {"lo", "eth0"}
            with pytest.raises(LabError, match="pod2 has a default route by uplink already"), lab.uplink():
                pass
        with lab.uplink(lab["pod2"]):  # again
            pass


@pytest.fixture
def name_server() -> Iterator[None]:
    """A name server on this host, and nothing else in its resolv.conf."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 53))

        def answer() -> None:
            while True:
                data, client = sock.recvfrom(2048)
                if not data:
                    return
                asked = DNS(data)
                found = DNSRR(rrname=asked.qd[0].qname, rdata="198.51.100.7") if asked.qd[0].qtype == 1 else None
                sock.sendto(bytes(DNS(id=asked.id, qr=1, ra=1, qd=asked.qd, an=found)), client)

        file = Path("/run/resolv.conf")
        file.write_text("nameserver 127.0.0.1\n")
        subprocess.run(["mount", "--bind", file, "/etc/resolv.conf"], check=True)
        thread = threading.Thread(target=answer)
        thread.start()
        yield
        sock.sendto(b"", ("127.0.0.1", 53))
        thread.join()
        subprocess.run(["umount", "/etc/resolv.conf"], check=True)
        file.unlink()


SCRIPT = """
import http.server, json, sys, threading, time
from fastbridge import Lab
from fastbridge.lab import uplink
uplink._PROGRAMS = {sys.argv[1]: uplink._PROGRAMS[sys.argv[1]]}
class Silent(http.server.BaseHTTPRequestHandler):
    log_message = lambda *_: None
server = http.server.HTTPServer(("127.0.0.1", 0), Silent)
threading.Thread(target=server.serve_forever, daemon=True).start()
ask = '''
import socket, sys, urllib.error, urllib.request
try:
    urllib.request.urlopen(sys.argv[1], timeout=60)
except urllib.error.HTTPError as error:
    print(error.code, socket.gethostbyname(sys.argv[2]))
'''
with Lab(1) as lab:
    with lab.uplink() as host:
        pod = lab["pod1"]
        command = [sys.executable, "-c", ask, f"http://{host}:{server.server_port}/", sys.argv[2]]
        said = pod.run(command).stdout.split()
        inode = pod.run(["readlink", "/proc/self/ns/net"]).stdout.strip()
        print(json.dumps([said, inode]), flush=True)
        if sys.argv[2] == "localhost":
            time.sleep(1000)
    print(pod.run(["ls", "/sys/class/net"]).stdout.split())
"""


@pytest.fixture(params=["privileged", "unprivileged"])
def who(request: pytest.FixtureRequest, unprivileged: list[str]) -> tuple[list[str], Path]:
    """The command line of a Python with or without privileges, and where to start it."""
    if request.param == "privileged":
        return [sys.executable, "-c"], Path(fastbridge.__file__).parents[1]  # type: ignore[arg-type]
    return unprivileged, Path("/")


@pytest.fixture(params=["pasta", "slirp4netns"])
def program(request: pytest.FixtureRequest, who: tuple[list[str], Path]) -> str:
    """A program that makes uplinks, and is installed."""
    name: str = request.param
    if shutil.which(name) is None:
        pytest.skip(f"there is no program {uplink._PACKAGES[name]}")
    if name == "pasta" and who[0][0] == sys.executable:
        pytest.skip("root has no uplink by pasta")
    return name


def test_who_ever_has_a_lab_reaches_the_host_s_loopback_and_its_name_servers(
    program: str, who: tuple[list[str], Path], name_server: None
) -> None:
    command, place = who
    command = [*command, SCRIPT, program, "away.example"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, cwd=place)
    assert (done.returncode, done.stderr) == (0, "")
    said, interfaces = done.stdout.splitlines()
    assert json.loads(said)[0] == ["501", "198.51.100.7"]  # 501: the server knows no method
    assert interfaces == "['eth0', 'lo']"


def test_sigkill_leaves_nothing(program: str, who: tuple[list[str], Path]) -> None:
    command, place = who
    command = [*command, SCRIPT, program, "localhost"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=place) as process:
        said, inode = json.loads(process.stdout.readline())  # type: ignore[union-attr]
        assert said == ["501", "127.0.0.1"]
        held = [at for at in namespaces_of(process.pid) if str(at.readlink()) == inode]
        (started,) = [pid for pid in children(process.pid) if name_of(pid).endswith(f"/{program}")]
        with holders_of(held) as holders:
            process.send_signal(signal.SIGKILL)
            eventually(lambda: not holders(), "the end of the namespace's last holder")
    eventually(lambda: not name_of(started).endswith(f"/{program}"), f"the end of {program}")


def children(pid: int) -> list[int]:
    return [
        int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()
    ]


def name_of(pid: int) -> str:
    """What a process is called; "" after its end."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode()
    except (FileNotFoundError, ProcessLookupError):
        return ""


@pytest.mark.parametrize(
    ("user", "wanted"), [("/proc/1/ns/user", "pasta (package passt) or slirp4netns"), (None, "slirp4netns")]
)
def test_without_a_program_the_packages_are_named(
    user: str | None, wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uplink, "find_program", lambda name: None)
    monkeypatch.setattr(NamespaceHelper, "user_door", user)
    with Lab(1) as lab, pytest.raises(LabError) as caught, lab.uplink():
        pass
    assert str(caught.value) == f"an uplink takes the program {wanted}: install it"


def failing(script: str) -> dict[str, object]:
    """Programs that make no uplink: each is sh with this script."""
    return {"pasta": lambda _: ["-c", script], "slirp4netns": lambda _: ["-c", script]}


def test_what_the_programs_say_is_said_when_none_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uplink, "find_program", lambda name: "/bin/sh")
    monkeypatch.setattr(NamespaceHelper, "user_door", "/proc/self/ns/user")
    monkeypatch.setattr(uplink, "_PROGRAMS", failing("echo first >&2; echo no tap >&2; exit 1"))
    with Lab(1) as lab:
        with pytest.raises(LabError) as caught, lab.uplink():
            pass
        assert str(caught.value) == "pod pod1 gets no uplink: pasta: no tap; slirp4netns: no tap"
        monkeypatch.setattr(uplink, "_PROGRAMS", failing("exec sleep 1000"))
        monkeypatch.setattr(uplink, "_PATIENCE", 0.05)
        with pytest.raises(LabError, match="pasta: it says nothing; slirp4netns: it says nothing"), lab.uplink():
            pass


def test_addresses_of_the_uplink_s_network_are_refused() -> None:
    with (
        Lab(Topology.of(2, ipv4="10.0.2.0/24")) as lab,
        pytest.raises(ConfigError, match=r"pod pod1 has 10\.0\.2\.1, and 10\.0\.2\.0/24 is the uplink's"),
        lab.uplink(),
    ):
        pass


def test_addresses_of_the_uplink_s_network_are_refused_in_other_pods_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames to them would leave by the uplink."""
    with Lab(2) as lab:
        monkeypatch.setattr(uplink, "NETWORK", IPv4Network(lab["pod2"].ipv4.ip))
        with pytest.raises(ConfigError, match="pod pod2 has "), lab.uplink("pod1"):
            pass


def test_a_cover_is_for_all_to_read_and_needs_no_directory_for_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", "/nonexistent")
    before = os.umask(0o077)
    try:
        lab = Lab(1)
    finally:
        os.umask(before)
    with lab:
        (pod,) = lab
        pod.namespace.cover("/etc/hosts", "192.0.2.1 one\n")
        assert pod.run(["stat", "-c", "%a", "/etc/hosts"]).stdout == "644\n"
        assert pod.run(["cat", "/etc/hosts"]).stdout == "192.0.2.1 one\n"
        assert "one" not in Path("/etc/hosts").read_text()


@needs_slirp4netns
def test_a_name_server_file_that_the_host_replaces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    file, fresh = tmp_path / "resolv.conf", tmp_path / "fresh"
    for path in file, fresh:
        path.write_text("")
    monkeypatch.setattr(uplink, "_RESOLVER", str(file))
    uplink._tell_rewrite.cache_clear()
    with Lab(2) as lab, pytest.raises(ZeroDivisionError), lab.uplink():
        assert lab["pod1"].run(["cat", file]).stdout == "nameserver 10.0.2.3\n"
        fresh.replace(file)
        _ = 1 / 0
    assert caplog.text.count("the host has replaced its own") == 1


FORK = """
import os, sys
from fastbridge import Lab
with Lab(1) as lab, lab.uplink():
    pid = os.fork()
    if not pid:
        sys.exit(7)  # runs the end of both contexts in the child
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    print(lab["pod1"].run("ls /sys/class/net; cat /etc/resolv.conf", shell=True).stdout)
"""


@needs_slirp4netns
def test_a_forked_child_that_ends_leaves_it() -> None:
    done = subprocess.run([sys.executable, "-c", FORK], capture_output=True, text=True, timeout=180)
    assert done.stdout.split() == ["eth0", "lo", "uplink", "nameserver", "10.0.2.3"], done.stderr


@needs_slirp4netns
def test_a_lab_that_is_closed_inside() -> None:
    lab = Lab(1)
    with lab.uplink():
        lab.close()
