"""Without privileges, and without mercy: the lab of an ordinary user, and what SIGKILL leaves."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from live import eventually, holders

import fastbridge
from fastbridge.switch.io_modes import IO_MODES

pytestmark = pytest.mark.live

CAP_SETFCAP = 31

LAB_AND_PING = """
import json, pathlib
import numpy  # its threads forbid to enter a namespace; a lab must not need to
from fastbridge import Lab, Switch
with Lab(2) as lab, Switch(lab.ports) as switch:
    pings = [bool(lab["pod1"].ping("pod2", family=family, timeout=60)) for family in (4, 6)]
    uid = lab["pod1"].run(["sh", "-c", "ls /sys/class/net /proc/sys/net >/dev/null; id -u"]).stdout.strip()
    result = {"status": pathlib.Path("/proc/self/status").read_text(), "pings": pings, "uid": uid}
    result["flooded"] = switch.counters().total.flooded
print(json.dumps(result))
"""

TCP_IN_EVERY_MODE = """
import socket, threading
from fastbridge import Lab, Switch
from fastbridge.switch.io_modes import IO_MODES
SIZE = 2 << 20
for io in IO_MODES:
    with Lab(2) as lab, Switch(lab.ports, io=io):
        one, two = lab
        assert one.ping(two, timeout=60), io
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
    print(io)
"""

LAB_THAT_WAITS = """
import json, sys, time
from fastbridge import Lab, Switch
with Lab(3) as lab, Switch(lab.ports) as switch:
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
    done = subprocess.run([*unprivileged, LAB_AND_PING], capture_output=True, text=True, timeout=60, cwd="/")
    assert (done.returncode, done.stderr) == (0, "")
    result = json.loads(done.stdout)
    effective = re.search(r"^CapEff:\s+(\w+)$", result["status"], re.M)
    assert effective
    assert int(effective[1], 16) & ~(1 << CAP_SETFCAP) == 0
    assert result["pings"] == [True, True]
    assert result["flooded"] > 0


def test_every_io_mode_of_an_ordinary_user(unprivileged: list[str]) -> None:
    done = subprocess.run([*unprivileged, TCP_IN_EVERY_MODE], capture_output=True, text=True, timeout=120, cwd="/")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == list(IO_MODES)


@pytest.mark.parametrize("who", ["privileged", "unprivileged"])
def test_sigkill_leaves_nothing(who: str, request: pytest.FixtureRequest) -> None:
    command = [sys.executable, "-c"] if who == "privileged" else request.getfixturevalue("unprivileged")
    place = Path(fastbridge.__file__).parents[1] if who == "privileged" else "/"  # type: ignore[arg-type]
    with subprocess.Popen([*command, LAB_THAT_WAITS], stdout=subprocess.PIPE, text=True, cwd=place) as process:
        namespaces = set(json.loads(process.stdout.readline()))  # type: ignore[union-attr]
        assert len(namespaces) == 4
        assert holders(namespaces) >= {process.pid}
        process.send_signal(signal.SIGKILL)
    eventually(lambda: not holders(namespaces), "the end of the namespaces' last holder")
