"""Mininet, where it can do no harm: `mn` sets the machine's limits, and `mn -c` kills by name and empties /tmp.

So it runs in network, mount and process namespaces of its own, with an empty /tmp and /run, settings that can only be
read, and without Open vSwitch: each of its programs fails there.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

from command import COMMAND, ROOT
from live import PATIENCE

PYTHON = "/usr/bin/python3"  # the distribution's, which Mininet is for
_ENTER = """
for program in /usr/bin/ovs-*; do [ ! -e "$program" ] || mount --bind /bin/false "$program"; done
mount -t tmpfs tmpfs /run; mkdir /run/netns /run/tmp
mount --bind /tmp /run/tmp; mount -t tmpfs tmpfs /tmp
{kept}umount /run/tmp; rmdir /run/tmp
mount --bind /proc/sys /proc/sys; mount -o remount,bind,ro /proc/sys
ip link set lo up
"$@" >/tmp/custom
set +e
CUSTOM=$(cat /tmp/custom)
"""
#: Python that Mininet's scripts begin with. `left()` is what fastbridge and Mininet have left of themselves.
_BEGIN = """
import os, re, runpy, signal, subprocess, sys, time
from pathlib import Path
from mininet.link import Link, Intf, TCIntf, TCLink
from mininet.log import setLogLevel
from mininet.net import Mininet
from mininet.topo import LinearTopo, SingleSwitchTopo, Topo
from mininet.topolib import TreeTopo

setLogLevel("warning")
globals().update((name, value) for name, value in runpy.run_path(sys.argv[1]).items() if name[0] != "_")

def processes():
    "The process ids of fastbridge's processes, but for the one of these tests."
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\\0")
        except OSError:
            continue
        if b"run" in words and any(word.endswith(b"fastbridge") for word in words):
            found.append(int(process.name))
    return found

def left():
    links = re.findall(r"^\\d+: ([^:@]+)", subprocess.check_output(["ip", "-o", "link"], text=True), re.M)
    return [*(link for link in links if link != "lo"), *processes(), *map(str, Path("/run/fastbridge").glob("*.sock"))]

def eventually(condition, what):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come true"
        time.sleep(0.02)

def network(topo, link=Link, switch=FastbridgeSwitch, **options):
    net = Mininet(topo=topo, switch=switch, link=link, controller=None, waitConnected=True, **options)
    net.start()
    return net

def reaches(one, other):
    "Whether a ping gets through in the end."
    eventually(lambda: " 0% packet loss" in one.cmd("ping -c1 -W1", other.IP()), f"{one} reaches {other}")
    return True

def misses(one, other):
    return "100% packet loss" in one.cmd("ping -c1 -W1", other.IP())
"""


def why_not() -> str:
    """Why there is no Mininet to be tested with; "": there is."""
    if not Path(PYTHON).exists() or subprocess.run([PYTHON, "-c", "import mininet"], capture_output=True).returncode:
        return "the distribution's Python has no mininet: apt-get install mininet"
    if os.geteuid() != 0 or Path("/proc/self/uid_map").read_text().split() != ["0", "0", str((1 << 32) - 1)]:
        return "Mininet needs root, and not only in a user namespace"
    if missing := [name for name in ("mn", "mnexec", "ifconfig", "telnet", "iperf") if not shutil.which(name)]:
        return f"Mininet needs {', '.join(missing)}"
    return ""


def enter() -> str:
    """What makes the box. What these tests run by is there, also where it is below /tmp."""
    kept = ""
    for path in sorted({sys.prefix, str(ROOT)}):
        if path.startswith("/tmp/"):
            there, here = shlex.quote(f"/run{path}"), shlex.quote(path)
            kept += f"mkdir -p {here}; mount --bind {there} {here}\n"
    return _ENTER.format(kept=kept)


def box(script: str, *, timeout: float = 4 * PATIENCE) -> subprocess.CompletedProcess[str]:
    """Run a shell script there; $CUSTOM is the file that `fastbridge mininet` has written."""
    namespaces = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    environment = os.environ | {"HOME": "/tmp", "TERM": "dumb"}
    return subprocess.run(
        [*namespaces, "sh", "-euc", enter() + script, "box", *COMMAND, "mininet"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
        env=environment,
        cwd=ROOT,
    )


def in_python(script: str, *, timeout: float = 4 * PATIENCE) -> str:
    """What a Python script with a network says. It must end well, and with `left()` empty."""
    text = (
        _BEGIN + textwrap.dedent(script) + '\neventually(lambda: not left(), "that nothing is left")\nprint("well")\n'
    )
    done = box(f"cat >/tmp/script.py <<'END'\n{text}\nEND\n{PYTHON} /tmp/script.py \"$CUSTOM\"", timeout=timeout)
    assert (done.returncode, done.stdout.splitlines()[-1:]) == (0, ["well"]), done.stdout
    return done.stdout
