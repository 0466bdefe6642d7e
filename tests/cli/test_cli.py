"""The command line as others meet it: a process with arguments, an exit status, stdout and stderr."""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from arp_nd_frames import arp
from command import COMMAND, ROOT, complaint, complaints, run, say
from effort import few, few_rows
from hypothesis import given
from hypothesis import strategies as st
from live import PATIENCE, eventually, holders_of, namespaces_of

from fastbridge import Lab
from fastbridge.bench import Results
from fastbridge.cli import OneLine
from fastbridge.dissect import dissect

# -- what is wrong is said in one line ------------------------------------------------------------


WRONG: list[tuple[str, list[str]]] = [
    ("nonsense", ["nonsense", "fastbridge --help"]),
    ("--nonsense", ["--nonsense"]),
    ("run", ["IFACE", "fastbridge run --help"]),
    ("run lo", ["at least two interfaces"]),
    ("run x y x", ["x is named twice"]),
    ("run --ageing -1 x y", ["ageing", "-1"]),
    ("run --ageing soon x y", ["--ageing", "'soon'", "'never'"]),
    ("run --ageing nan x y", ["ageing", "nan"]),
    ("run --capacity 0 x y", ["capacity", "0"]),
    ("run --busy-poll -1 x y", ["--busy-poll", "-1"]),
    ("run --cpu 4095 x y", ["CPU 4095"]),
    ("run --interval 0 x y", ["--interval"]),
    ("run --arp nonsense x y", ["--arp", "'nonsense'", "suppress", "guard=strict", "ratelimit=RATE"]),
    ("run --arp guard,guard x y", ["guard", "twice"]),
    ("run --arp guard=strict,suppress x y", ["--arp", "guard=strict", "use guard", "[[neigh]]"]),
    ("run --fanout x y", ["--fanout", "--workers 2"]),
    ("run --workers 2 --cpu 0,0 x y", ["one CPU for each worker, 2 in all, not 0, 0"]),
    ("run --arp ratelimit=0 x y", ["--arp", "rate limit"]),
    ("run --arp-port x y z", ["--arp-port", "'x'", "IFACE=POLICY"]),
    ("run --arp-port x=gaurd x y", ["--arp-port", "'gaurd'", "guard=router"]),
    ("run --arp-port x=guard=strict x y", ["--arp-port", "guard=strict", "[[neigh]]"]),
    ("run --arp-port x=guard --arp-port x=flood x y", ["--arp-port", "x has two policies"]),
    ("run --arp-port z=guard x y", ["--arp-port", "z", "not among the interfaces"]),
    ("run --storm-control 0 x y", ["--storm-control"]),
    ("run --storm-control 2e9 x y", ["storm control", "2000000000"]),
    ("demo --arp nonsense", ["--arp", "'nonsense'"]),
    ("compare --arp nonsense", ["--arp", "'nonsense'"]),
    ("demo --pods 1", ["--pods"]),
    ("demo pod1", ["pod1"]),
    ("lab up --pods 0", ["--pods"]),
    ("lab up --mtu 10", ["MTU 10"]),
    ("lab up --name a/b", ["'a/b'"]),
    ("lab exec pod1", ["CMD"]),
    ("lab exec pod1 --", ["command"]),
    ("compare --seed x", ["--seed", "'x'"]),
    ("compare --profile fast", ["--profile", "'fast'", "quick"]),
    ("compare --engines fastbridge,brdge", ["--engines", "brdge", "linux-bridge"]),
    ("compare --engine-command prog", ["'prog'", "{ports}"]),
    ("compare --out here -o there.json", ["--out", "-o"]),
    ("compare --quick --profile standard", ["--quick", "--profile standard"]),
    ("compare --arp suppress --engines linux-bridge", ["--arp", "not among the engines"]),
    ("compare --arp guard=strict", ["--arp", "use guard"]),
    ("report", ["FILE"]),
    ("track --recent 0", ["--recent"]),
]


@pytest.mark.parametrize(("arguments", "words"), WRONG)
def test_wrong_request(arguments: str, words: list[str]) -> None:
    line = complaint(run(*arguments.split()), 2)
    assert all(word in line for word in words), line


FAILING: list[tuple[str, list[str]]] = [
    ("run fbnone0 fbnone1", ["fbnone0", "ip link"]),
    ("run lo fbnone0", ["lo is not an Ethernet interface"]),
    ("run interface-with-a-long-name y", ["interface-with-a-long-name"]),
    ("lab exec pod1 true", ["no lab 'fb'", "fastbridge lab up"]),
    ("lab down --name other", ["no lab 'other'"]),
    ("compare -o /nonexistent/results.json", ["/nonexistent/results.json", "-o"]),
    ("compare -o /", ["cannot write /"]),
    ("compare --out /dev/null/here", ["cannot write to /dev/null/here", "--out"]),
    ("report /nonexistent.json", ["/nonexistent.json", "No such file"]),
    ("track /nonexistent", ["/nonexistent", "--benchmark-autosave"]),
]


@pytest.mark.live
@pytest.mark.parametrize(("arguments", "words"), FAILING)
def test_right_request_that_fails(arguments: str, words: list[str]) -> None:
    line = complaint(run(*arguments.split()), 1)
    assert all(word in line for word in words), line


def test_ctrl_c_while_the_command_line_is_imported() -> None:
    code = """
import sys
class CtrlC:
    def find_spec(self, name, *_):
        if name == "fastbridge.cli":
            raise KeyboardInterrupt
sys.meta_path.insert(0, CtrlC())
from fastbridge.__main__ import main
main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=180, cwd=ROOT)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


@pytest.mark.live
@pytest.mark.parametrize("name", few(1, ["\x1b[31mred", "[red]x", "\x9b2J", "\u202ereversed", "\udcff"]))
def test_control_characters_of_a_name_do_not_steer_the_terminal(name: str) -> None:
    line = complaint(run("report", f"/nonexistent/{name}"), 1)
    assert line.isprintable() and ascii(name)[1:-1] in line.encode("ascii", "backslashreplace").decode()


def test_the_log_shows_control_characters_of_names() -> None:
    record = logging.LogRecord("x", logging.WARNING, "x", 1, "port %s is down", ("\x1b[31mp",), None)
    assert OneLine("fastbridge: %(message)s").format(record) == "fastbridge: port \\x1b[31mp is down"


def test_run_on_an_interface_that_is_down() -> None:
    with Lab(2) as lab:
        lab["pod2"].port.set_down()
        done = lab.run_host([*COMMAND, "run", "pod1", "pod2"], check=False, timeout=180, cwd=ROOT)
    assert "ip link set pod2 up" in complaint(done, 1)


# Unless PYTHONUNBUFFERED is set, Python buffers what goes to a file or a pipe. What cannot be written then shows at the
# last flush of all, and otherwise in the midst of a command.
WITH_BUFFER = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
BUFFERING = pytest.mark.parametrize("env", [WITH_BUFFER, WITH_BUFFER | {"PYTHONUNBUFFERED": "1"}], ids=["buffered", ""])


@BUFFERING
@pytest.mark.parametrize("arguments", ["--version", "run --help", ""])
def test_output_that_cannot_be_written(arguments: str, env: dict[str, str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = run(*arguments.split(), capture_output=False, stdout=full, stderr=subprocess.PIPE, env=env)
    assert done.returncode in (1, 2)
    assert re.fullmatch(r"fastbridge: .*no space left on device\n", done.stderr, re.IGNORECASE), done.stderr


@BUFFERING
@pytest.mark.parametrize("arguments", few(1, ["run --help", "--version", ""]))
def test_reader_that_has_seen_enough(arguments: str, env: dict[str, str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as broken:
        done = run(*arguments.split(), capture_output=False, stdout=broken, stderr=subprocess.PIPE, env=env)
        both = run(*arguments.split(), capture_output=False, stdout=broken, stderr=broken, env=env)
    assert done.stderr == ""
    assert done.returncode in (1, 2)
    assert both.returncode == done.returncode


@BUFFERING
@pytest.mark.parametrize("full", [True, False], ids=["full", "broken"])
def test_errors_that_nobody_hears(full: bool, env: dict[str, str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    if full:
        os.close(writer)
        writer = os.open("/dev/full", os.O_WRONLY)
    with os.fdopen(writer, "w") as stderr:
        wrong = run("nonsense", capture_output=False, stdout=subprocess.PIPE, stderr=stderr, env=env)
        right = run("--version", capture_output=False, stdout=subprocess.PIPE, stderr=stderr, env=env)
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert (right.returncode, right.stdout[:11]) == (0, "fastbridge ")


CLOSED = pytest.mark.parametrize("closed", few(1, ["<&- >&- 2>&-", "<&-", ">&-", "2>&-"]))


def close_and_run(closed: str, command: Sequence[str], **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command with streams closed."""
    shell = ["sh", "-c", f'exec "$@" {closed}', "sh", *command]
    return subprocess.run(shell, capture_output=True, text=True, timeout=PATIENCE, cwd=ROOT, **options)


@CLOSED
@pytest.mark.parametrize(("arguments", "status"), [("--version", 0), ("run --help", 0), ("", 2), ("run x", 2)])
def test_closed_streams_are_as_dev_null(closed: str, arguments: str, status: int) -> None:
    done = close_and_run(closed, [*COMMAND, *arguments.split()])
    whole = run(*arguments.split())
    assert done.returncode == whole.returncode == status
    assert done.stdout == ("" if ">&-" in closed.split() else whole.stdout)
    assert done.stderr == ("" if "2>&-" in closed.split() else whole.stderr)


@pytest.mark.live
@CLOSED
def test_a_run_with_closed_streams(closed: str, lab: Lab) -> None:
    """It forwards, ends by a signal with status 0, and no file of its own gets the number of a stream."""
    shell = f'exec "$@" {closed}'
    process = lab.popen_host(
        ["sh", "-c", shell, "sh", *COMMAND, "run", "--json", "pod1", "pod2"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip
    try:
        eventually(lambda: lab["pod1"].ping("pod2", timeout=0.2), "forwarding")
        files = [Path(f"/proc/{process.pid}/fd/{number}").readlink().name for number in range(3)]
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
        process.communicate()
    assert (process.returncode, complaints(err)) == (0, [])
    assert [name == "null" for name in files] == [word in closed.split() for word in ("<&-", ">&-", "2>&-")]
    events = [json.loads(line)["event"] for line in out.splitlines()]
    assert events == ([] if ">&-" in closed.split() else ["ready", "stopped"])


def test_version_and_help() -> None:
    assert run("--version").stdout.startswith("fastbridge ")
    commands: list[tuple[str, ...]] = [(), ("demo",), ("run",), ("compare",), ("report",), ("track",), ("lab",)]
    commands += [("lab", each) for each in ("up", "list", "exec", "shell", "down")]
    for command in commands:
        done = run(*command, "--help")
        assert (done.returncode, done.stderr) == (0, "")
        assert f"Usage: {' '.join(['fastbridge', *command])}" in done.stdout
        assert not command or re.search(rf"Example: .*fastbridge {command[0]}", done.stdout)


# -- run ------------------------------------------------------------------------------------------


@pytest.mark.live
def test_a_run_ends_when_no_interface_is_left(lab: Lab, start: Callable[..., subprocess.Popen[str]]) -> None:
    process = start("run", "--json", "pod1", "pod2")
    assert say(process)["event"] == "ready"
    for pod in "pod1", "pod2":
        lab[pod].port.delete()
    out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, json.loads(out.splitlines()[-1])["event"]) == (1, "stopped")
    assert "all interfaces are gone" in err.splitlines()[-1]


@pytest.mark.live
def test_json_contract(lab: Lab, start: Callable[..., subprocess.Popen[str]]) -> None:
    process = start("run", "--json", "pod1", "pod2", "pod3")
    ready = say(process)
    assert ready.pop("fast_path") in ("bpf", "nft", "off")
    assert ready == {"event": "ready", "ports": ["pod1", "pod2", "pod3"], "name": f"run-{process.pid}"}
    assert lab["pod1"].ping("pod2", count=3, timeout=PATIENCE)  # ready means that it forwards
    assert lab["pod2"].ping("pod3", family=6, timeout=PATIENCE)
    lab["pod3"].port.set_down()
    assert say(process) == {"event": "port", "name": "pod3", "link": "down"}
    lab["pod3"].port.set_up()
    assert say(process) == {"event": "port", "name": "pod3", "link": "up"}
    lab["pod3"].set_down()  # no carrier
    assert say(process) == {"event": "port", "name": "pod3", "link": "down"}
    lab["pod3"].set_up()
    assert say(process) == {"event": "port", "name": "pod3", "link": "up"}
    lab["pod3"].port.delete()
    links = iter(lambda: say(process)["link"], "gone")  # it may be seen going down before it is gone
    assert set(links) <= {"down"}
    assert lab["pod1"].ping("pod2", timeout=PATIENCE)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=PATIENCE)
    (last,) = [json.loads(line) for line in out.splitlines()]
    assert (process.returncode, last["event"]) == (0, "stopped")
    counters = last["counters"]
    assert list(counters["ports"]) == ["pod1", "pod2", "pod3"]
    for port in [*counters["ports"].values(), counters["total"]]:
        assert port["rx_frames"] == port["forwarded"] + port["flooded"] + port["consumed"] + sum(
            port["dropped"].values()
        )
    assert counters["total"]["forwarded"] + counters["total"]["fast"] >= 10
    assert counters["learned"] >= 3
    said = [line.removeprefix("fastbridge: port pod3 is ") for line in complaints(err)]
    # The lines are by another thread than the events: it may see two changes as one.
    without = "down: no carrier (its far end is down, or its cable is out)"
    assert said[0] in ("down", without) and set(said[:-1]) <= {"down", without, "up again"}
    assert said[-1] == "gone: its interface was deleted"


@pytest.mark.live
def test_json_interval(start: Callable[..., subprocess.Popen[str]]) -> None:
    process = start("run", "--json", "--interval", "0.1", "pod1", "pod2")
    assert [say(process)["event"] for _ in range(4)] == ["ready", "counters", "counters", "counters"]


@pytest.mark.live
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_ends_a_run(number: int, lab: Lab, start: Callable[..., subprocess.Popen[str]]) -> None:
    process = start("run", "--ageing", "never", "--filter-link-local", "--interval", "0.1", "pod1", "pod2")
    assert process.stdout is not None
    assert process.stdout.readline().startswith("forwarding between pod1, pod2; ")
    assert lab["pod1"].ping("pod2", timeout=PATIENCE)
    assert "frames/s" in process.stdout.readline()
    process.send_signal(number)
    out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, complaints(err)) == (0, [])
    rows = {line.split()[0]: line.split()[1:] for line in out.splitlines() if line}
    assert list(rows)[-4:] == ["pod1", "pod2", "total", "MAC"]
    assert int(rows["total"][0]) == int(rows["pod1"][0]) + int(rows["pod2"][0]) >= 4


@pytest.mark.live
def test_signals_that_are_ignored_from_the_start(lab: Lab) -> None:
    """As nohup and the background of a script have it."""
    shell = ["sh", "-c", "trap '' INT HUP; exec \"$@\"", "sh"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = lab.popen_host([*shell, *COMMAND, "run", "--json", "pod1", "pod2"], text=True, cwd=ROOT, **pipes)
    try:
        assert say(process)["event"] == "ready"
        for number in signal.SIGINT, signal.SIGHUP:
            process.send_signal(number)
        lab["pod1"].port.set_down()  # seen after the signals
        assert say(process) == {"event": "port", "name": "pod1", "link": "down"}
        lab["pod1"].port.set_up()
        assert say(process) == {"event": "port", "name": "pod1", "link": "up"}
        assert lab["pod1"].ping("pod2", timeout=PATIENCE)
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
        process.communicate()
    assert (process.returncode, json.loads(out)["event"]) == (0, "stopped")


@pytest.mark.live
@pytest.mark.parametrize("policy", few(1, ["guard,suppress", "flood"]))
@pytest.mark.parametrize("ageing", ["300", "0.1"])  # longer than it is stopped, and shorter
def test_a_run_that_is_stopped_and_continued(
    policy: str, ageing: str, lab: Lab, start: Callable[..., subprocess.Popen[str]]
) -> None:
    """What came meanwhile goes on its way, nothing is forgotten that is not old, and nothing is complained of."""
    options = "--arp", policy, "--ageing", ageing, "--fast-path", "off"  # which a stopped switch does not stop
    process = start("run", "--json", *options, "pod1", "pod2")
    assert say(process)["event"] == "ready"
    assert lab["pod1"].ping("pod2", timeout=PATIENCE)
    threads = Path(f"/proc/{process.pid}/task")
    for _ in range(2):
        process.send_signal(signal.SIGSTOP)
        eventually(lambda: {thread_state(thread) for thread in threads.iterdir()} == {"T"}, "a stop")
        assert not lab["pod1"].ping("pod2", timeout=0.5)
        process.send_signal(signal.SIGCONT)
        assert lab["pod1"].ping("pod2", timeout=PATIENCE)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, complaints(err)) == (0, [])
    counters = json.loads(out.splitlines()[-1])["counters"]
    assert (
        counters["total"]["rx_missed"] == 0 and counters["total"]["rx_frames"] >= 10
    )  # those of while it was stopped, too
    assert (counters["aged"] == 0 and counters["learned"] == 2) is (ageing == "300"), counters


def thread_state(thread: Path) -> str:
    return (thread / "stat").read_text().rpartition(")")[2].split()[0]


@pytest.mark.live
def test_run_with_a_policy(lab: Lab, start: Callable[..., subprocess.Popen[str]]) -> None:
    options = ["--arp", "guard,ratelimit=500,suppress", "--storm-control", "1000", "--no-loop-detection"]
    process = start("run", *options, "pod1", "pod2", "pod3")
    assert process.stdout is not None
    assert process.stdout.readline().startswith("forwarding between ")
    for asker, owner in itertools.permutations(("pod1", "pod2", "pod3"), 2):
        assert lab[asker].ping(owner, family=4, timeout=PATIENCE)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, complaints(err)) == (0, [])
    story = " ".join(out.split())
    assert "policy: " in story and re.search(r"\banswered [1-9]", story), story


@pytest.mark.live
def test_storm_control_of_a_run(lab: Lab, start: Callable[..., subprocess.Popen[str]]) -> None:
    process = start("run", "--json", "--interval", "0.1", "--storm-control", "4", "pod1", "pod2", "pod3")
    assert say(process)["event"] == "ready"
    with lab["pod1"].socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sender:
        sender.bind((lab["pod1"].interface, 0))
        for _ in range(100):
            sender.send(bytes.fromhex("ffffffffffff 02aa00000001 88b5").ljust(60, b"\0"))
    eventually(lambda: say(process)["counters"]["ports"]["pod1"]["dropped"].get("storm_broadcast", 0) > 50)


@pytest.mark.live
@pytest.mark.parametrize("stalled", few(1, ["stderr", "stdout"]))
@pytest.mark.parametrize("number", few(1, [signal.SIGTERM, signal.SIGINT]))
def test_a_run_ends_though_nobody_reads(stalled: str, number: int, lab: Lab) -> None:
    """A pipe that is full from the beginning; on stderr there is something to say."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer, bytes(1))
    os.set_blocking(writer, True)
    pipes: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL} | {stalled: writer}
    arguments = ["run", "--json", "--interval", "0.1", "--arp", "guard,suppress", "pod1", "pod2", "pod3"]
    process = lab.popen_host([*COMMAND, *arguments], cwd=ROOT, **pipes)
    try:
        eventually(lambda: lab["pod1"].ping("pod2", timeout=0.5), "forwarding")
        with lab["pod3"].socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as liar:
            liar.bind((lab["pod3"].interface, 0))
            for _ in range(3):
                liar.send(bytes(arp(1, str(lab["pod3"].mac), "10.0.0.2", "10.0.0.2")))
        for one, other in ("pod3", "pod1"), ("pod2", "pod3"):  # by ARP, which goes on
            assert lab[one].ping(other, family=4, timeout=PATIENCE)
        process.send_signal(number)
        assert process.wait(timeout=PATIENCE) == (1 if stalled == "stdout" else 0)
    finally:
        process.kill()
        process.wait()
        os.close(reader)
        os.close(writer)


# -- demo -----------------------------------------------------------------------------------------


def check_story(done: subprocess.CompletedProcess[str], pods: int) -> None:
    assert (done.returncode, complaints(done.stderr)) == (0, [])
    story = " ".join(done.stdout.split())
    others = "pod2" if pods == 2 else "pod2, pod3"
    for words in (
        "pod1 → ARP request: who has 10.0.0.2? tell 10.0.0.1",
        f"flooded to {others}: broadcast",
        "learned: 02:00:00:00:00:01 is behind pod1",
        "pod2 → ARP reply: 10.0.0.2 is at 02:00:00:00:00:02",
        "forwarded to pod1: the FDB knows this MAC address",
        "ICMP echo reply, 10.0.0.2 > 10.0.0.1",
        "pod1 10.0.0.2 02:00:00:00:00:02",
    ):
        assert words in story, words
    assert ("pod3 → ARP request" in story) == (pods > 2)
    assert "\x1b" not in done.stdout


@pytest.mark.live
@pytest.mark.parametrize("pods", [2, 3])
def test_demo(pods: int) -> None:
    check_story(run("demo", "--pods", str(pods)), pods)


@pytest.mark.live
@pytest.mark.parametrize(
    ("policy", "words"),
    few_rows(
        1,
        [
            ("suppress", ["answered by the switch, for the owner: ARP reply: 10.0.0.1 is at 02:00:00:00:00:01"]),
            ("direct", ["sent to pod1 alone: the policy knows the owner"]),
            ("guard=strict", ["taken, and sent on as by a plain bridge: the policy has nothing to say", "answered in"]),
        ],
    ),
)
def test_demo_of_a_policy(policy: str, words: list[str]) -> None:
    done = run("demo", "--arp", policy)
    assert (done.returncode, complaints(done.stderr)) == (0, [])
    story = " ".join(done.stdout.split())
    for text in (*words, f"up to the policy, {policy}"):
        assert text in story, text


@pytest.mark.live
def test_demo_of_many_pods_fits_a_narrow_terminal() -> None:
    done = run("demo", "--pods", "9", env={**os.environ, "COLUMNS": "60"})
    assert done.returncode == 0
    assert "… and 8 more" in done.stdout
    assert "pod6 and 3 more" in " ".join(done.stdout.split())  # of the ports of a flooded frame
    assert max(map(len, done.stdout.splitlines())) <= 60


@pytest.mark.live
def test_demo_of_an_ordinary_user(unprivileged: list[str]) -> None:
    main = "from fastbridge.cli import main; main()"
    done = subprocess.run([*unprivileged, main, "demo"], capture_output=True, text=True, timeout=180, cwd="/")
    check_story(done, 3)


@pytest.mark.live
def test_demo_without_unicode() -> None:
    done = run("demo", "--pods", "2", env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert (done.returncode, complaints(done.stderr)) == (0, [])
    assert "who has 10.0.0.2? tell 10.0.0.1" in done.stdout


@pytest.mark.live
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_demo_that_is_killed_leaves_nothing(number: int) -> None:
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([*COMMAND, "demo", "--pause", "60"], cwd=ROOT, **pipes) as process:  # type: ignore[call-overload]
        eventually(lambda: len(namespaces_of(process.pid)) >= 4, "the demo's namespaces")
        with holders_of(namespaces_of(process.pid)) as holders:
            process.send_signal(number)
            _, err = process.communicate(timeout=PATIENCE)
            eventually(lambda: not holders(), "the end of the namespaces' last holder")
    assert process.returncode == (-signal.SIGKILL if number == signal.SIGKILL else 130)
    assert err.strip() == ""


# -- lab ------------------------------------------------------------------------------------------


@pytest.mark.live
def test_lab_up_list_exec_down(netns_directory: None) -> None:
    made = run("lab", "up", "--pods", "3", "--name", "tst")
    try:
        assert (made.returncode, made.stderr) == (0, "")
        assert "fastbridge run --lab tst" in made.stdout
        assert "02:00:00:00:00:03  10.0.0.3/16" in made.stdout
        assert "there is a lab 'tst' already" in complaint(run("lab", "up", "--name", "tst"), 1)
        assert "tst 3 tst-pod1 … tst-pod3 1500 complete" in " ".join(run("lab", "list").stdout.split())
        inside = run("lab", "exec", "--name", "tst", "pod2", "sh", "-c", "cat /proc/net/if_inet6; exit 7")
        assert inside.returncode == 7
        assert "fd000000000000000000000000000002" in inside.stdout
        assert run("lab", "exec", "--name", "tst", "pod2", "--", "echo", "--name").stdout == "--name\n"
        assert "pod1, pod2, pod3" in complaint(run("lab", "exec", "--name", "tst", "pod4", "true"), 1)
    finally:
        gone = run("lab", "down", "--name", "tst")
    assert (gone.returncode, gone.stdout) == (0, "removed lab tst, 3 pods\n")
    assert run("lab", "list").stdout == "there is no lab; make one: fastbridge lab up\n"


@pytest.mark.slow
@pytest.mark.live
def test_lab_list_looks_before_it_says_complete(netns_directory: None) -> None:
    def state() -> str:
        return " ".join(run("lab", "list").stdout.split()).partition("1500 ")[2]

    assert run("lab", "up", "--pods", "3", "--name", "tst").returncode == 0
    try:
        assert state() == "complete"
        for removed, what in (("netns del tst-pod2", "pod2 gone"), ("link del tst-pod3", "pod2, pod3 gone")):
            subprocess.run(["ip", *removed.split()], check=True)
            assert state() == f"{what}; fastbridge lab down --name tst"
        subprocess.run(["ip", "link", "set", "tst-pod1", "alias", "of somebody else"], check=True)
        assert state() == "gone; fastbridge lab down --name tst"
        subprocess.run(["ip", "link", "del", "tst-pod1"], check=True)
        line = complaint(run("lab", "exec", "--name", "tst", "pod2", "true"), 1)
        assert line == "pod pod2 is gone: its namespace was removed; remove the rest: fastbridge lab down --name tst"
    finally:
        assert run("lab", "down", "--name", "tst").returncode == 0


# -- compare --------------------------------------------------------------------------------------

SMALL_COMPARE = """
from fastbridge.bench import profiles
from fastbridge.bench.methods.forwarding_rate import ForwardingRate
task = profiles.Task(ForwardingRate((64,), seconds=0.2), BLOCKS, ceiling=True)
profiles.PROFILES = {"quick": profiles.Profile("small", (task,))}
from fastbridge.cli import main
main()
"""


def small_compare(blocks: int, *arguments: str) -> list[str]:
    script = SMALL_COMPARE.replace("BLOCKS", str(blocks))
    return [sys.executable, "-W", "error", "-c", script, "compare", "--engines", "linux-bridge", *arguments]


@pytest.mark.live
@pytest.mark.slow
def test_compare_and_report(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    command = small_compare(2, "--quick", "--seed", "7", "-o", str(path))
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    results = Results.load(path)
    assert (results.seed, results.interrupted, len(results.runs)) == (7, False, 6)
    for words in ("64 B", "baseline", "control", "ceiling", "Noise floor", f"written to {path}"):
        assert words in done.stdout
    assert "  0%" in done.stderr and "2 ports: starting direct" in done.stderr
    again = run("report", str(path))
    assert (again.returncode, again.stderr) == (0, "")
    assert again.stdout == done.stdout.replace(f"written to {path}\n", "")


@pytest.mark.live
def test_compare_leaves_a_report(tmp_path: Path) -> None:
    place = tmp_path / "out" / "here"
    command = small_compare(2, "--out", str(place))
    done = subprocess.run(command, capture_output=True, text=True, timeout=4 * PATIENCE, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(f"written to {place}; open {place / 'report.html'}\n")
    again = subprocess.run(command, capture_output=True, text=True, timeout=180, cwd=ROOT)
    assert "holds an earlier report" in complaint(again, 2)
    names = {"results.json", "report.html", "report.md", "pytest-benchmark.json", "pictures"}
    assert {each.name for each in place.iterdir()} == names
    assert "forwarding rate, 64 B" in (place / "report.html").read_text()
    assert len(Results.load(place / "results.json").runs) == 6
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]


@pytest.mark.live
@pytest.mark.slow
def test_compare_with_a_command_of_the_user_s(tmp_path: Path) -> None:
    forwarder = f"{sys.executable} -I -S {ROOT}/fastbridge/bench/engines/forwarder.py {{ports}}"
    command = small_compare(2, "--engine-command", forwarder, "-o", str(tmp_path / "results.json"))
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    results = Results.load(tmp_path / "results.json")
    assert not results.unfit
    assert {run.engine for run in results.runs} == {"linux-bridge", "linux-bridge (control)", "direct", "forwarder.py"}


@pytest.mark.slow
@pytest.mark.live
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_compare_keeps_what_was_measured(tmp_path: Path, number: signal.Signals) -> None:
    place = tmp_path / "fastbridge-compare"
    place.mkdir()
    (place / "report.html").write_text("of an earlier run")
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    elsewhere = {"cwd": tmp_path, "env": os.environ | {"PYTHONPATH": str(ROOT)}}
    with subprocess.Popen(small_compare(90), **pipes, **elsewhere) as process:  # type: ignore[call-overload]
        assert any(re.search(r"block (?!1 )\d", line) for line in process.stderr)
        process.send_signal(number)
        out, _ = process.communicate(timeout=5 * PATIENCE)  # pictures are drawn meanwhile
    assert process.returncode == 128 + number
    assert (place / "report.html").read_text() == "of an earlier run"
    (place,) = tmp_path.glob("fastbridge-compare-*")
    results = Results.load(place / "results.json")
    assert results.interrupted and results.runs
    assert "Interrupted" in out and "forwarding rate, 64 B" in (place / "report.html").read_text()


@pytest.mark.live
@pytest.mark.slow
def test_compare_outlives_its_terminal(tmp_path: Path) -> None:
    controller, terminal = os.openpty()
    elsewhere = {"cwd": tmp_path, "env": os.environ | {"PYTHONPATH": str(ROOT), "TERM": "xterm"}}
    command = small_compare(90)
    with subprocess.Popen(command, stdout=terminal, stderr=terminal, **elsewhere) as process:  # type: ignore[call-overload]
        os.close(terminal)
        shown = b""
        while b"block 2" not in shown:
            shown += os.read(controller, 4096)
        os.close(controller)
        process.send_signal(signal.SIGHUP)
        assert process.wait(timeout=5 * PATIENCE) == 128 + signal.SIGHUP  # pictures are drawn meanwhile
    assert (tmp_path / "fastbridge-compare" / "report.html").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    few_rows(
        1,
        [
            ('{"schema": 2}', ["profile", "missing"]),
            ("{", ["not a JSON document"]),
            ("[" * 100_000, ["nested too deeply"]),
            ('{"schema": 1}', ["schema", "version 1"]),
        ],
    ),
)
def test_report_of_a_broken_file(tmp_path: Path, content: str, words: list[str]) -> None:
    path = tmp_path / "broken.json"
    path.write_text(content)
    line = complaint(run("report", str(path)), 1)
    assert all(word in line for word in ("broken.json", *words)), line


def test_report_shows_its_schema() -> None:
    done = run("report", "--schema")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["$defs"]["Trial"]["properties"]["sent"]["description"]


# -- frames in words ------------------------------------------------------------------------------

ARP = bytes.fromhex("ffffffffffff 020000000001 0806 0001 0800 06 04 0001 020000000001 0a000001 000000000000 0a000002")
PING = bytes.fromhex("020000000002 020000000001 0800 45000054 00004000 4001 0000 0a000001 0a000002 0800 0000 00010001")
UDP = PING[:23] + b"\x11" + PING[24:34] + bytes.fromhex("1151 0050")
SYN = PING[:23] + b"\x06" + PING[24:34] + bytes.fromhex("1151 0050 00000000 00000000 5012")
FD1, FD2 = "fd00" + "00" * 13 + "01", "fd00" + "00" * 13 + "02"
ADVERTISEMENT = bytes.fromhex(
    f"020000000001 020000000002 86dd 60000000 0020 3a ff {FD2} {FD1} 88000000 60000000 {FD2} 0201 020000000002"
)
DAD = bytes.fromhex(f"3333ff000002 020000000002 86dd 60000000 0018 3a ff {'00' * 16} {FD2} 87000000 00000000 {FD2}")
REPORT = bytes.fromhex(
    f"333300000016 020000000002 86dd 60000000 0024 00 01 {FD2} {FD1} 3a00 050200000100 8f000000 00000001"
)


@pytest.mark.parametrize(
    ("frame", "protocol", "text"),
    [
        (ARP, "ARP", "request: who has 10.0.0.2? tell 10.0.0.1"),
        (ARP[:21] + b"\2" + ARP[22:], "ARP", "reply: 10.0.0.1 is at 02:00:00:00:00:01"),
        (ARP[:12] + bytes.fromhex("8100 6005") + ARP[12:], "ARP", "VLAN 5, request: who has 10.0.0.2? tell 10.0.0.1"),
        (ARP[:-4] + ARP[28:32], "ARP", "announcement: 10.0.0.1 is at 02:00:00:00:00:01"),
        (PING, "ICMP", "echo request, 10.0.0.1 > 10.0.0.2"),
        (UDP, "UDP", "10.0.0.1:4433 > 10.0.0.2:80"),
        (UDP[:20] + b"\x20\x10" + UDP[22:], "IPv4", "protocol 17, 10.0.0.1 > 10.0.0.2"),  # a later fragment
        (SYN, "TCP", "10.0.0.1:4433 > 10.0.0.2:80 SYN"),
        (DAD[:20] + b"\x11" + ADVERTISEMENT[21:54] + UDP[34:], "UDP", "[fd00::2]:4433 > [fd00::1]:80"),
        (ADVERTISEMENT, "ND", "advertisement: fd00::2 is at 02:00:00:00:00:02"),
        (DAD, "ND", "solicitation: does anybody else have fd00::2?"),
        (REPORT, "ICMPv6", "multicast listener report"),
        (ARP[:12] + b"\x88\xcc", "0x88cc", "0 bytes"),
        (ARP[:30], "0x0806", "cut short"),
    ],
)
def test_frames_in_words(frame: bytes, protocol: str, text: str) -> None:
    assert dissect(frame)[:2] == (protocol, text)


@given(st.sampled_from([ARP, PING, UDP, SYN, ADVERTISEMENT, DAD, REPORT]), st.binary(max_size=80), st.integers(12, 90))
def test_no_frame_is_too_odd_for_words(frame: bytes, noise: bytes, cut: int) -> None:
    assert dissect((frame[:cut] + noise).ljust(14, b"\0"))


@pytest.mark.parametrize(
    ("command", "said"),
    [("capture", "one object a line"), ("monitor", "one object a line"), ("status", "one JSON array")],
)
def test_help_says_which_json_is_printed(command: str, said: str) -> None:
    assert said in " ".join(run(command, "--help").stdout.replace("│", " ").split())
