"""A running switch has no more privileges than it needs; it forwards, follows links and ends as before."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from command import say
from effort import few
from live import PATIENCE, eventually

from fastbridge import Lab, PrivilegeError
from fastbridge.privileges import _AUDIT_ARCH, _REFUSED, BPF_COMMANDS, CAP_SYS_NICE, _filter
from fastbridge.real_time import allow_real_time, may_be_real_time

NET_ADMIN_AND_RAW = 1 << 12 | 1 << 13
TRY = """
import ctypes, errno, os, socket, sys
from fastbridge.privileges import *
give_up(keep=())
print("filter", refuse_calls())
def outcome(name, action):
    try:
        action()
    except OSError as error:
        print(name, errno.errorcode[error.errno])
    else:
        print(name, "done")
libc = ctypes.CDLL(None, use_errno=True)
def call(name, *arguments):
    if getattr(libc, name)(*arguments) < 0:
        raise OSError(ctypes.get_errno(), name)
outcome("exec", lambda: os.execv("/bin/true", ["true"]))
outcome("raw socket", lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0))
outcome("netlink socket", lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, 0).close())
outcome("unshare", lambda: call("unshare", 0x40000000))
outcome("mount", lambda: call("mount", b"x", b"/mnt", b"tmpfs", 0, None))
outcome("ptrace", lambda: call("ptrace", 16, os.getppid(), 0, 0))
outcome("again", lambda: give_up(keep=(CAP_NET_ADMIN,)))
"""


def statuses(pid: int) -> list[dict[str, str]]:
    """Of every thread."""
    texts = [(task / "status").read_text() for task in Path(f"/proc/{pid}/task").iterdir()]
    return [dict(re.findall(r"^(\w+):\s*(.*)$", text, re.M)) for text in texts]


def capabilities(pid: int) -> list[dict[str, int]]:
    """Of every thread; each of them can gain none, and makes no call that it never makes."""
    found = statuses(pid)
    assert {(status["NoNewPrivs"], status["Seccomp"]) for status in found} == {("1", "2")}
    return [
        {which: int(status[which], 16) for which in ("CapEff", "CapPrm", "CapBnd", "CapInh", "CapAmb")}
        for status in found
    ]


def helper_of(pid: int) -> int:
    (helper,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(helper)


NONE = {"CapEff": 0, "CapPrm": 0, "CapBnd": 0, "CapInh": 0, "CapAmb": 0}
HELPERS = NONE | {"CapEff": NET_ADMIN_AND_RAW, "CapPrm": NET_ADMIN_AND_RAW}


@pytest.mark.live
@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("path", few(1, ["auto", "nft", "off"]))
def test_a_run_keeps_nothing_and_its_helper_little(
    lab: Lab, start: Callable[..., subprocess.Popen[str]], workers: str, path: str, tmp_path: Path
) -> None:
    """Not even where something is said before: the log has a thread of its own."""
    if int(workers) > len(os.sched_getaffinity(0)):
        pytest.skip("one CPU")
    options = "--arp", "guard,suppress", "--workers", workers, "--fast-path", path, "--state", str(tmp_path / "state")
    process = start("run", "--json", *options, "pod1", "pod2", "pod3")
    assert say(process)["event"] == "ready"
    eventually(lambda: len(statuses(process.pid)) >= 3 + int(workers))
    helper = helper_of(process.pid)
    assert all(held == NONE for held in capabilities(process.pid))
    assert all(held == HELPERS for held in capabilities(helper))
    assert lab["pod1"].ping("pod2", timeout=PATIENCE)
    lab["pod1"].port.set_down()
    assert say(process) == {"event": "port", "name": "pod1", "link": "down"}
    lab["pod1"].port.set_up()
    assert say(process) == {"event": "port", "name": "pod1", "link": "up"}
    assert lab["pod1"].ping("pod2", timeout=PATIENCE)
    lab["pod1"].port.delete()
    while (event := say(process))["link"] != "gone":  # it may be down at first
        assert event == {"event": "port", "name": "pod1", "link": "down"}
    process.send_signal(signal.SIGTERM)
    assert say(process)["event"] == "stopped" and process.wait(timeout=PATIENCE) == 0
    assert not Path(f"/proc/{helper}").exists()


@pytest.mark.live
def test_a_run_in_real_time_keeps_what_that_takes_at_most(
    lab: Lab, start: Callable[..., subprocess.Popen[str]]
) -> None:
    try:
        allow_real_time()
    except PrivilegeError as error:
        pytest.skip(str(error))
    process = start("run", "--json", "--real-time", "pod1", "pod2")
    assert say(process)["event"] == "ready"
    of_threads = [int(task.name) for task in Path(f"/proc/{process.pid}/task").iterdir()]
    eventually(lambda: [os.sched_getscheduler(task) for task in of_threads].count(os.SCHED_RR) == 1, "one worker")
    kept = 0 if may_be_real_time() else 1 << CAP_SYS_NICE
    assert all(held == NONE | {"CapEff": kept, "CapPrm": kept} for held in capabilities(process.pid))
    assert lab["pod1"].ping("pod2", timeout=PATIENCE)


@pytest.mark.live
def test_a_run_ends_with_its_helper_and_a_helper_with_its_run(
    lab: Lab, start: Callable[..., subprocess.Popen[str]]
) -> None:
    process = start("run", "--json", "pod1", "pod2")
    assert say(process)["event"] == "ready"
    os.kill(helper_of(process.pid), signal.SIGKILL)
    _, err = process.communicate(timeout=PATIENCE)
    line = "fastbridge: the helper process has ended, so this one ends, too: it could change nothing any more"
    assert (process.returncode, err.splitlines()[-1]) == (1, line)
    assert "Traceback" not in err
    process = start("run", "--json", "pod1", "pod2")
    assert say(process)["event"] == "ready"
    helper = helper_of(process.pid)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        os.kill(helper, number)  # as a terminal and systemd do, which mean all of a service's processes
    assert lab["pod1"].ping("pod2", timeout=PATIENCE)
    process.kill()
    eventually(lambda: not Path(f"/proc/{helper}").exists(), "the helper's end")


@pytest.mark.live
def test_what_was_given_up_is_gone() -> None:
    done = subprocess.run([sys.executable, "-c", TRY], capture_output=True, text=True)
    assert done.stderr == ""
    assert dict(line.rsplit(" ", 1) for line in done.stdout.splitlines()) == {
        "filter": "True",
        "exec": "EPERM",
        "raw socket": "EPERM",
        "netlink socket": "done",
        "unshare": "EPERM",
        "mount": "EPERM",
        "ptrace": "EPERM",
        "again": "done",
    }


@pytest.mark.parametrize("machine", list(_REFUSED))
@pytest.mark.parametrize("some_bpf", [False, True])
def test_the_filter_refuses_what_it_names_and_nothing_else(machine: str, some_bpf: bool) -> None:
    refused = sorted(_REFUSED[machine].values())
    assert len(set(refused)) == len(refused)
    bpf = _REFUSED[machine]["bpf"]
    program = _filter(_AUDIT_ARCH[machine], refused, {bpf: BPF_COMMANDS} if some_bpf else {})

    def judge(call: int, architecture: int = _AUDIT_ARCH[machine], first: int = 0) -> str:
        at, value = 0, 0
        while True:
            code, yes, no, k = program[at]
            at += 1
            if code == 0x20:
                value = {0: call, 4: architecture, 16: first}[k]
            elif code == 0x06:
                return {0x7FFF0000: "allowed", 0x00050001: "EPERM"}[k]
            else:
                at += yes if (value == k if code == 0x15 else value >= k) else no

    assert {call for call in range(600) if judge(call) == "EPERM"} == set(refused)
    passed = {command for command in range(64) if judge(bpf, first=command) == "allowed"}
    assert passed == (set(BPF_COMMANDS) if some_bpf else set())
    assert judge(0, architecture=0x40000003) == judge(0x40000000) == judge(0x40000000 + 59) == "EPERM"


def test_the_numbers_of_the_calls_are_those_of_this_machine() -> None:
    machine = os.uname().machine
    header = next(Path("/usr/include").glob(f"{machine}-linux-gnu/asm/unistd_64.h"), None)
    if header is None:
        pytest.skip("no kernel headers of this machine")
    numbers = dict(re.findall(r"#define __NR_(\w+) (\d+)", header.read_text()))
    assert {name: int(numbers[name]) for name in _REFUSED[machine] if name in numbers} == {
        name: number for name, number in _REFUSED[machine].items() if name in numbers
    }
