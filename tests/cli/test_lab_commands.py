"""`fastbridge lab` at work in a lab that stays: shells, and what the Tab key offers."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete
from command import COMMAND, ROOT, complaint, complaints, run, say
from live import PATIENCE, eventually

from fastbridge import Client, Switch
from fastbridge.cli import group
from fastbridge.lab import persistent as lab_store
from fastbridge.lab.trials import ping_all
from fastbridge.lab.visits import visit

pytestmark = pytest.mark.live


@pytest.fixture(scope="module")
def stored(netns_directory: None) -> Iterator[str]:
    """The name of a lab that stays."""
    assert run("lab", "up", "--pods", "3", "--name", "tst").returncode == 0
    yield "tst"
    assert run("lab", "down", "--name", "tst").returncode == 0


def in_a_terminal(*arguments: str, typed: str, **variables: str) -> tuple[int, str]:
    """The exit status of a command in a terminal, and what is to be seen there."""
    ours, theirs = os.openpty()
    command = ["setsid", "--ctty", "--wait", *COMMAND, *arguments]
    process = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, cwd=ROOT, env=os.environ | {"TERM": "dumb"} | variables
    )
    os.close(theirs)
    os.write(ours, typed.encode())
    seen = b""
    try:
        while data := os.read(ours, 4096):
            seen += data
    except OSError:  # EIO: nobody has the other end any more
        pass
    os.close(ours)
    return process.wait(PATIENCE), seen.decode()


@pytest.mark.slow
def test_a_shell_says_in_which_pod_it_is(stored: str, tmp_path: Path) -> None:
    (tmp_path / ".bashrc").write_text("PS1='mine> '; alias three='echo one two three'\n")
    typed = "three\ncat /sys/class/net/eth0/address\nls /proc/self/fd\nexit 7\n"
    status, seen = in_a_terminal("lab", "shell", "--name", stored, "pod2", typed=typed, HOME=str(tmp_path))
    assert status == 7
    lines = [line.strip() for line in seen.splitlines()]
    assert any(line.startswith("[pod2] mine> ") for line in lines)
    assert "one two three" in lines and "02:00:00:00:00:02" in lines
    assert [line.split() for line in lines if line.startswith("0 ")] == [
        ["0", "1", "2", "3"]
    ]  # 3: the directory itself


def test_a_shell_without_bash(stored: str, tmp_path: Path) -> None:
    for name in ("sh", "cat"):
        (tmp_path / name).symlink_to(f"/bin/{name}")
    hidden = "from fastbridge import programs; programs._SYSTEM = (); from fastbridge.cli import main; main()"
    command = [COMMAND[0], "-c", hidden, "lab", "shell", "--name", stored, "pod2"]
    done = subprocess.run(
        command, input="cat /sys/class/net/eth0/address\n", capture_output=True, text=True, cwd=ROOT,
        env=os.environ | {"PATH": str(tmp_path), "ENV": ""},
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "02:00:00:00:00:02\n")
    assert "[pod2] # " in done.stderr


def test_a_shell_in_no_pod(stored: str) -> None:
    line = complaint(run("lab", "shell", "--name", stored, "pod9"), 1)
    assert line == "lab tst has no pod 'pod9'; its pods are pod1, pod2, pod3"


def offered(*words: str) -> list[str]:
    """What the Tab key offers for the last word."""
    *before, last = words
    return [item.value for item in ShellComplete(group, {}, "fastbridge", "").get_completions(before, last)]


def test_the_tab_key_knows_labs_and_their_pods(stored: str, routed: str) -> None:
    assert offered("lab", "down", "--name", "t") == offered("run", "--lab", "") == ["tst"]
    for command in "exec", "shell", "iperf":
        assert offered("lab", command, "--name", "tst", "pod") == ["pod1", "pod2", "pod3"]
        assert offered("lab", command, "pod") == []  # there is no lab fb
    assert offered("lab", "iperf", "-f", routed, "h1", "") == ["h1", "h2", "r1"]


# -- graph, pingall, iperf ------------------------------------------------------------------------

ROUTED = """
[switch.lan1]
[switch.lan2]
trunks = ["lan3"]
[switch.lan3]
[pod.h1]
interfaces = { eth0 = "lan1" }
[pod.h2]
interfaces = { eth0 = "lan3" }
[pod.r1]
interfaces = { eth0 = "lan1", eth1 = "lan2" }
forward = true
[link]
h1 = "delay=1ms"
"lan2-lan3" = "loss=0.1%,seed=7"
"r1.eth1>lan2-lan3" = "delay=2ms"
"""


@pytest.fixture
def routed(tmp_path: Path) -> str:
    """The file of a topology with a router and a trunk."""
    file = tmp_path / "routed.toml"
    file.write_text(ROUTED)
    return str(file)


def test_a_topology_as_mermaid(routed: str) -> None:
    assert run("lab", "graph", "-f", routed).stdout.splitlines() == [
        "flowchart LR",
        '  switch1["lan1"]',
        '  switch2["lan2"]',
        '  switch3["lan3"]',
        '  node1(["h1<br>10.1.0.1/16"])',
        '  node2(["h2<br>10.2.0.1/16"])',
        '  node3{{"r1<br>10.1.0.2/16<br>10.2.0.2/16"}}',
        '  node1 ---|"delay=1ms"| switch1',
        "  node2 --- switch3",
        '  node3 ---|"eth0"| switch1',
        '  node3 ---|"eth1"| switch2',
        '  switch2 ---|"lan2-lan3: loss=0.1%,seed=7"| switch3',
        '  node3 -.->|"delay=2ms"| switch3',
    ]


def test_a_topology_as_dot(routed: str) -> None:
    drawn = run("lab", "graph", "-f", routed, "--format", "dot").stdout
    lines = drawn.splitlines()
    assert lines[0] == "graph lab {" and lines[-1] == "}"
    assert '  node3 [label="r1\\n10.1.0.2/16\\n10.2.0.2/16", shape=hexagon];' in lines
    assert '  node1 -- switch1 [label="delay=1ms"];' in lines
    assert '  node3 -- switch3 [label="delay=2ms", style=dotted, dir=forward];' in lines
    if shutil.which("dot"):
        subprocess.run(["dot", "-Tsvg"], input=drawn, text=True, check=True, stdout=subprocess.DEVNULL)


def test_a_lab_that_stays_is_drawn(stored: str) -> None:
    lines = run("lab", "graph", "--name", stored).stdout.splitlines()
    assert '  node2(["pod2<br>10.0.0.2/16"])' in lines and "  node2 --- switch1" in lines


def test_all_pods_of_a_lab_of_a_file_ping_each_other(routed: str) -> None:
    done = run("lab", "pingall", "-f", routed, "--timeout", "20")
    assert (done.returncode, complaints(done.stderr)) == (0, [])
    assert done.stdout.splitlines() == [
        "h1 → h2 r1", "h2 → h1 r1", "r1 → h1 h2", "6 of 6 pings answered, 0% lost",
    ]  # fmt: skip


def answered(lab: str) -> set[tuple[str, str]]:
    """The pairs of pods of which the second answers the first, where some do not."""
    some = run("lab", "pingall", "--name", lab, "--timeout", "2", "--json")
    found = json.loads(some.stdout)
    pairs = {(ping["from"], ping["to"]) for ping in found["pings"] if ping["rtt"] is not None}
    assert some.returncode == 1 and (found["sent"], found["received"]) == (6, len(pairs))
    return pairs


def test_pods_of_a_lab_that_stays_ping_each_other(stored: str) -> None:
    """What runs in them goes on."""
    sleeper = subprocess.Popen([*COMMAND, "lab", "exec", "--name", stored, "pod1", "sleep", "1000"], cwd=ROOT)
    try:
        nobody = run("lab", "pingall", "--name", stored, "--timeout", "0.05")
        way = f"no switch joins them? Start one: fastbridge run --lab {stored}\n"
        assert (nobody.returncode, nobody.stderr) == (1, way)
        assert nobody.stdout.splitlines() == [
            "pod1 → X X", "pod2 → X X", "pod3 → X X", "0 of 6 pings answered, 100% lost",
        ]  # fmt: skip
        with Switch([f"{stored}-pod{n}" for n in (1, 2)]):
            eventually(lambda: answered(stored) == {("pod1", "pod2"), ("pod2", "pod1")}, "answers of two pods")
        assert sleeper.poll() is None
    finally:
        sleeper.kill()
        sleeper.wait()


@pytest.mark.skipif(shutil.which("iperf3") is None, reason="iperf3 is not installed (package iperf3)")
def test_iperf_between_two_pods(stored: str, routed: str) -> None:
    # Whom nobody answered a moment ago, the kernel looks for until 3 s have passed, and fails who connects meanwhile.
    run("lab", "exec", "--name", stored, "pod1", "ip", "neigh", "flush", "all")
    with Switch([f"{stored}-pod{n}" for n in (1, 2, 3)]):
        done = run("lab", "iperf", "--name", stored, "--seconds", "1", "pod1", "pod3")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"pod1 → pod3: [\d.]+ Gbit/s over [\d.]+ s, \d+ resent\n", done.stdout)
    done = run("lab", "iperf", "-f", routed, "--seconds", "1", "h1", "h2", "--json")
    assert (done.returncode, complaints(done.stderr)) == (0, [])
    found = json.loads(done.stdout)
    assert (found["from"], found["to"]) == ("h1", "h2") and found["bits_per_second"] > 0


def test_wrong_requests_of_labs(stored: str, routed: str) -> None:
    asked = {
        ("lab", "pingall", "--name", stored, "-f", routed): (
            2,
            f"that stays, and {routed} is none; leave out one",
        ),
        ("lab", "iperf", "-f", routed, "h1", "pod9"): (1, "there is no pod 'pod9'; the pods are h1, h2, r1"),
        ("lab", "up", "-f", routed, "--pods", "3"): (2, "leave out --pods and --mtu"),
        ("lab", "up", "-f", "/no/such/file"): (2, "/no/such/file cannot be read: No such file or directory"),
    }
    for arguments, (status, words) in asked.items():
        assert words in complaint(run(*arguments), status)


@contextlib.contextmanager
def running(*arguments: str, switches: int) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """A run with so many switches, and their names."""
    command = [*COMMAND, "run", "--json", *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, text=True, cwd=ROOT, **pipes) as process:
        try:
            yield process, sorted(say(process)["name"] for _ in range(switches))
        finally:
            process.terminate()
            process.communicate(timeout=PATIENCE)


def test_a_run_joins_a_lab_with_its_links_and_ends_with_it(routed: str, netns_directory: None) -> None:
    assert run("lab", "up", "-f", routed, "--name", "rou", "--link", "h2:delay=3ms").returncode == 0
    lab = lab_store.get("rou")
    try:
        with running("--lab", "rou", switches=3) as (process, names):
            assert names == ["rou-lan1", "rou-lan2", "rou-lan3"]
            with visit(lab) as pods:
                found = {(reach.source, reach.target): reach.result for reach in ping_all(pods, PATIENCE)}
            assert len(found) == 6 and all(found.values())
            assert found["h1", "r1"].rtts[0] >= 0.002 and found["h1", "h2"].rtts[0] >= 0.008  # h1's link, and h2's
            with Client("rou-lan3", timeout=PATIENCE) as client:
                assert "rou-h2" in [link["ifname"] for link in client.call("link.show")]
            lab_store.down("rou")
            assert process.wait(PATIENCE) == 1  # all interfaces are gone
    finally:
        if lab in lab_store.list_labs():
            lab_store.down("rou")


def test_a_run_of_one_switch_joins_a_lab_and_plays_a_scenario(stored: str, tmp_path: Path) -> None:
    (tmp_path / "scenario").write_text('[[at]]\ntime = "0s"\nlink = "tst-pod3"\ncut = true\n')
    with running("--lab", stored, "--scenario", str(tmp_path / "scenario"), switches=1) as (_, names):
        assert names == ["tst-s1"]
        with visit(lab_store.get(stored)) as (one, two, three):
            assert one.ping(two, timeout=PATIENCE)
            eventually(lambda: not one.ping(three, timeout=0.2), "the cut")


def test_what_a_run_of_a_lab_does_not_take(stored: str) -> None:
    more = ["veth1"], ["--match", "veth*"], ["--switch", "s1=a,b"], ["--name", "x"], ["-c", "/dev/null"]
    for words in more:
        assert "--lab brings its switches; leave out" in complaint(run("run", "--lab", stored, *words), 2)
    assert "there is no lab 'xyz'" in complaint(run("run", "--lab", "xyz"), 1)


def test_a_pod_that_is_gone_is_named(netns_directory: None) -> None:
    assert run("lab", "up", "--name", "gon").returncode == 0
    try:
        subprocess.run(["ip", "netns", "del", "gon-pod2"], check=True)
        line = complaint(run("lab", "pingall", "--name", "gon"), 1)
        assert line == "lab gon is not whole, pod2 gone; remove it: fastbridge lab down --name gon"
    finally:
        assert run("lab", "down", "--name", "gon").returncode == 0
