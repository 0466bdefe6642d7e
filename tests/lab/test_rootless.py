"""Without privileges, and without mercy: the lab of an ordinary user, and what SIGKILL leaves."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from effort import few
from live import eventually, holders_of, namespaces_of
from unprivileged import NOBODY

import fastbridge

pytestmark = pytest.mark.live

CAP_SETFCAP = 31

QUIET = """
import logging
logging.getLogger("fastbridge.switch.loops").setLevel(logging.ERROR)  # a busy machine is slow to send to pods
"""

LAB_AND_PING = """
import json, pathlib
import numpy  # its threads forbid to enter a namespace; a lab must not need to
from fastbridge import Lab, Switch
with Lab(2) as lab, Switch(lab.ports) as switch:
    pings = [bool(lab["pod1"].ping("pod2", family=family, timeout=60)) for family in (4, 6)]
    uid = lab["pod1"].run(["sh", "-c", "ls /proc/sys/net >/dev/null; id -u"]).stdout.strip()
    result = {"status": pathlib.Path("/proc/self/status").read_text(), "pings": pings, "uid": uid}
    result["address"] = lab["pod2"].run(["cat", "/sys/class/net/eth0/address"]).stdout.strip()
    result["flooded"] = switch.counters().total.flooded
print(json.dumps(result))
"""

TCP_IN_BULK = """
import socket, threading
from fastbridge import Lab, Switch
SIZE = 2 << 20
with Lab(2) as lab, Switch(lab.ports):
    one, two = lab
    assert one.ping(two, timeout=60)
    with two.socket(socket.AF_INET, socket.SOCK_STREAM, 0) as listener:
        listener.settimeout(60)
        listener.bind((str(two.ipv4.ip), 0))
        listener.listen()
        with one.socket(socket.AF_INET, socket.SOCK_STREAM, 0) as client:
            client.settimeout(60)
            client.connect(listener.getsockname())
            server, _ = listener.accept()
            sender = threading.Thread(target=client.sendall, args=(bytes(SIZE),))
            sender.start()
            with server:
                server.settimeout(60)
                received = 0
                while received < SIZE:
                    received += len(server.recv(SIZE))
            sender.join()
print(received)
"""

LAB_THAT_WAITS = """
import json, sys, time
from fastbridge import Lab, Switch
with Lab(3) as lab, Switch(lab.ports, fast_path=sys.argv[1]) as switch:
    assert lab["pod1"].ping("pod2", timeout=60)
    lab["pod1"].popen(["sleep", "1000"])
    lab["pod2"].popen([sys.executable, "-c", "import time; time.sleep(1000)"])
    lab.popen_host(["sleep", "1000"])
    inodes = [pod.run(["readlink", "/proc/self/ns/net"]).stdout.strip() for pod in lab]
    inodes.append(lab.run_host(["readlink", "/proc/self/ns/net"]).stdout.strip())
    print(json.dumps(inodes), flush=True)
    time.sleep(1000)
"""


def test_lab_and_switch_of_an_ordinary_user(unprivileged: list[str]) -> None:
    done = subprocess.run([*unprivileged, QUIET + LAB_AND_PING], capture_output=True, text=True, timeout=180, cwd="/")
    assert (done.returncode, done.stderr) == (0, "")
    result = json.loads(done.stdout)
    effective = re.search(r"^CapEff:\s+(\w+)$", result["status"], re.M)
    assert effective
    assert int(effective[1], 16) & ~(1 << CAP_SETFCAP) == 0
    assert result["pings"] == [True, True]
    assert result["address"] == "02:00:00:00:00:02"
    assert result["flooded"] > 0


def test_tcp_in_bulk_of_an_ordinary_user(unprivileged: list[str]) -> None:
    done = subprocess.run([*unprivileged, QUIET + TCP_IN_BULK], capture_output=True, text=True, timeout=180, cwd="/")
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout) == 2 << 20


OTHER_USERS = """
import os, signal, subprocess
from fastbridge import Lab
AS = ["setpriv", "--reuid=100", "--regid=101", "--clear-groups"]
with Lab(1) as lab:
    pod = lab["pod1"]
    print(os.geteuid(), pod.run([*AS, "sh", "-c", "echo $(id -u) $(id -g) $(id -G)"]).stdout.strip())
    script = "echo ready; exec sleep 1000"
    programs = [pod.popen([*AS, "sh", "-c", script], stdout=subprocess.PIPE) for _ in range(2)]
    for program in programs:
        with program.stdout:
            program.stdout.readline()
    programs[0].terminate()
    print(programs[0].wait())
print(programs[1].returncode)
"""


@pytest.mark.skipif(shutil.which("newuidmap") is None, reason="newuidmap is not installed (package uidmap)")
def test_users_of_their_own_where_some_are_lent(unprivileged: list[str], tmp_path: Path) -> None:
    if "--no-new-privs" not in unprivileged or f"--reuid={NOBODY}" not in unprivileged:
        pytest.skip("newuidmap needs to be root's, and there is no other user in the sandbox")
    (tmp_path / "lent").write_text(f"someone:1:1\n{NOBODY}:200000:1000\n")
    if not (Path("/etc/subuid").exists() and Path("/etc/subgid").exists()):
        pytest.skip("there is no /etc/subuid to put another one over")
    script = 'for file in /etc/subuid /etc/subgid; do mount --bind "$0" $file; done; exec "$@"'
    # newuidmap gains its privilege as it is executed: neither may be forbidden.
    command = [word for word in unprivileged if word not in ("--bounding-set=-all", "--no-new-privs")]
    lending = ["unshare", "--mount", "sh", "-c", script, str(tmp_path / "lent")]
    done = subprocess.run([*lending, *command, OTHER_USERS], capture_output=True, text=True, timeout=180, cwd="/")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [f"{NOBODY} 100 101 101", "-15", "-9"]


WHERE_SYS_IS_MASKED = """
import logging
from fastbridge import Lab
logging.basicConfig(level=logging.INFO, format="%(message)s")
with Lab(1) as lab:
    for _ in range(2):
        print(lab["pod1"].run(["sh", "-c", "pwd; ls /sys/firmware | wc -l"]).stdout.split())
"""


def test_where_no_sysfs_is_to_be_had_programs_run_all_the_same(unprivileged: list[str]) -> None:
    """As in a container, which hides parts of /sys: there the kernel gives an ordinary user no whole one."""
    masked = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs masked /sys/firmware && exec "$@"', "sh"]
    command = [*masked, *unprivileged, WHERE_SYS_IS_MASKED]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, cwd="/")
    assert (done.returncode, done.stdout) == (0, "['/', '0']\n" * 2)
    assert done.stderr.count("\n") == 1 and "/sys and /etc/hosts in pods are those of this process" in done.stderr


@pytest.mark.parametrize("path", few(1, ["nft", "off"]))
@pytest.mark.parametrize("who", ["privileged", "unprivileged"])
def test_sigkill_leaves_nothing(who: str, path: str, unprivileged: list[str]) -> None:
    command = [sys.executable, "-c"] if who == "privileged" else unprivileged
    place = Path(fastbridge.__file__).parents[1] if who == "privileged" else "/"  # type: ignore[arg-type]
    with subprocess.Popen([*command, LAB_THAT_WAITS, path], stdout=subprocess.PIPE, text=True, cwd=place) as process:
        numbers = set(json.loads(process.stdout.readline()))  # type: ignore[union-attr]
        held = [place for place in namespaces_of(process.pid) if str(place.readlink()) in numbers]
        assert len(numbers) == len({place.readlink() for place in held}) == 4
        with holders_of(held) as holders:
            assert holders() >= {process.pid}
            process.send_signal(signal.SIGKILL)
            eventually(lambda: not holders(), "the end of the namespaces' last holder")
