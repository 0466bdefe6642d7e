"""`run` with several switches: one process, and each is found, changed and reported by its name."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from command import COMMAND, ROOT, complaint, next_complaint, run, say
from effort import few_rows
from live import PATIENCE, eventually

from fastbridge import Client, Lab

Start = Callable[..., subprocess.Popen[str]]

FILE = """\
policy = "suppress"

[switch.left]
ports = ["pod1", "pod2"]

[switch.right]
ports = ["pod3", "pod4"]

[port.pod3]
isolated = true

[link]
"*" = "lan"
"pod1>pod2" = "delay=1ms"

[[fdb]]
mac = "02:00:00:00:00:04"
ifname = "pod4"
"""


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab(4) as lab:
        yield lab


def ask(lab: Lab, *arguments: str) -> str:
    """A command beside the lab's host ends."""
    return lab.run_host([*COMMAND, *arguments], cwd=ROOT).stdout


def ready(process: subprocess.Popen[str], count: int) -> dict[str, list[str]]:
    """The ports of each switch, when all forward."""
    said = [say(process) for _ in range(count)]
    assert {one["event"] for one in said} == {"ready"} and all(one["switch"] == one["name"] for one in said)
    assert all(Path(one["socket"]).is_socket() for one in said)
    return {one["switch"]: one["ports"] for one in said}


@pytest.mark.live
@pytest.mark.both_paths
def test_ports_come_and_go_at_each(lab: Lab, start: Start, request: pytest.FixtureRequest) -> None:
    path = request.node.callspec.params["fast_path"]
    process = start(
        "run", "--json", "--fast-path", path, "--switch", "s1=pod1,pod2", "--switch", "s2=pod3", "--switch", "s3="
    )
    assert ready(process, 3) == {"s1": ["pod1", "pod2"], "s2": ["pod3"], "s3": []}
    for _ in range(3):
        assert lab["pod1"].ping("pod2", timeout=PATIENCE)
    with (
        Client("s1", timeout=PATIENCE) as one,
        Client("s2", timeout=PATIENCE) as two,
        Client("s3", timeout=PATIENCE) as three,
    ):
        one.call("port.remove", port="pod2")
        two.call("port.add", port="pod2")
        assert {(say(process)["switch"], say(process)["switch"])} <= {("s1", "s2"), ("s2", "s1")}
        assert lab["pod2"].ping("pod3", timeout=PATIENCE)
        two.call("link.set", places=["pod2"], link="cut=true")
        assert (one.call("link.show"), len(two.call("link.show"))) == ([], 1)
        three.call("port.add", port="pod4")
        assert say(process) == {"event": "port", "switch": "s3", "name": "pod4", "link": "up"}
        assert "02:00:00:00:00:03" in ask(lab, "fdb", "show", "--switch", "s2")
        assert [row["ifname"] for row in three.call("port.list")] == ["pod4"]
        assert {client.call("status")[0]["shield"] for client in (one, two, three)} == {"on"}
    process.terminate()
    stopped = [say(process) for _ in range(3)]
    assert [(one["event"], one["switch"], sorted(one["counters"]["ports"])) for one in stopped] == [
        ("stopped", "s1", ["pod1"]), ("stopped", "s2", ["pod2", "pod3"]), ("stopped", "s3", ["pod4"]),
    ]  # fmt: skip
    assert process.wait(PATIENCE) == 0


def privileges(pid: int) -> set[tuple[str, ...]]:
    """Of all threads of a process: effective capabilities, and whether it can gain any."""
    found = set()
    for task in Path(f"/proc/{pid}/task").iterdir():
        status = dict(line.split(":\t") for line in (task / "status").read_text().splitlines() if ":\t" in line)
        found.add((status["CapEff"].lstrip("0"), status["NoNewPrivs"]))
    return found


@pytest.mark.live
def test_they_share_one_helper_and_keep_no_privilege(lab: Lab, start: Start) -> None:
    process = start("run", "--json", "--switch", "s1=pod1,pod2", "--switch", "s2=pod3,pod4")
    sockets = [Path(say(process)["socket"]) for _ in range(2)]
    (helper,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert privileges(process.pid) == {("", "1")}
    assert privileges(int(helper)) == {("3000", "1")}  # NET_ADMIN and NET_RAW
    process.kill()
    process.wait()
    eventually(lambda: not any(socket.exists() for socket in sockets), "the end of the sockets of a killed process")
    with start("run", "--json", "--switch", "s1=pod1,pod2", "--switch", "s2=pod3,pod4") as again:
        ready(again, 2)
        assert lab["pod3"].ping("pod4", timeout=PATIENCE)
        again.terminate()
        again.communicate(timeout=PATIENCE)
        assert again.returncode == 0


@pytest.mark.live
def test_it_ends_when_all_interfaces_of_all_are_gone(lab: Lab, start: Start) -> None:
    process = start("run", "--json", "--switch", "s1=pod1,pod2", "--switch", "s2=pod3", "--switch", "s3=")
    ready(process, 3)
    lab["pod1"].port.delete()
    lab["pod2"].port.delete()
    gone: set[str] = set()
    while len(gone) < 2:  # each may be down at first
        event = say(process)
        gone |= {event["name"]} if event["link"] == "gone" else set()
    assert gone == {"pod1", "pod2"}
    assert process.poll() is None
    lab["pod3"].port.delete()
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1 and "all interfaces are gone" in err
    events = [event for event in map(json.loads, out.splitlines()) if event.get("link") != "down"]
    assert [event["event"] for event in events] == ["port", "stopped", "stopped", "stopped"]


@pytest.mark.live
@pytest.mark.parametrize("how", ["one", "several"])
def test_it_ends_with_stdin(lab: Lab, how: str) -> None:
    ports = ["pod1", "pod2"] if how == "one" else ["--switch", "s1=pod1", "--switch", "s2=pod2"]
    command = [*COMMAND, "run", "--json", "--until-eof", *ports]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = lab.popen_host(command, text=True, cwd=ROOT, **pipes)
    assert process.stdin is not None
    process.stdin.write("what comes says nothing\n")
    process.stdin.flush()
    assert say(process)["event"] == "ready" and process.poll() is None
    out, _ = process.communicate(timeout=PATIENCE)  # closes it
    assert (process.returncode, json.loads(out.splitlines()[-1])["event"]) == (0, "stopped")


@pytest.mark.live
def test_a_file_describes_several(lab: Lab, start: Start, tmp_path: Path) -> None:
    file = tmp_path / "lab.toml"
    file.write_text(FILE)
    process = start("run", "--json", "-c", str(file))
    assert ready(process, 2) == {"left": ["pod1", "pod2"], "right": ["pod3", "pod4"]}
    with Client("left", timeout=PATIENCE) as left, Client("right", timeout=PATIENCE) as right:
        assert {row["ifname"] for row in left.call("link.show")} == {"pod1", "pod2", "pod1>pod2"}
        assert {row["ifname"] for row in right.call("link.show")} == {"pod3", "pod4"}
        assert [row["ifname"] for row in right.call("fdb.show", mac="02:00:00:00:00:04")] == ["pod4"]
        assert "isolated" in right.call("port.list", port="pod3")[0]["flags"]
        assert 'ports = ["pod1", "pod2"]' in left.call("config.dump")[0]["toml"]
        file.write_text(FILE.replace('"pod3", "pod4"', '"pod4"').replace("[port.pod3]\nisolated = true", ""))
        process.send_signal(signal.SIGHUP)
        said = [say(process) for _ in range(3)]
        assert [(one["event"], one["switch"]) for one in said] == [
            ("reloaded", "left"), ("reloaded", "right"), ("port", "right"),
        ]  # fmt: skip
        assert said[0]["changes"] == [] and said[2] == {
            "event": "port", "switch": "right", "name": "pod3", "link": "gone",
        }  # fmt: skip
        for other, known in (
            (FILE.replace("switch.right", "switch.wrong"), "left, wrong"),
            (FILE + "[switch.new]", "left, right, new"),
            ('ports = ["pod1", "pod2"]', "none"),
        ):
            file.write_text(other)
            process.send_signal(signal.SIGHUP)
            assert f"has other switches: {known}, not left, right; restart" in next_complaint(process)
        assert [row["ifname"] for row in right.call("port.list")] == ["pod4"]
    process.terminate()
    process.communicate(timeout=PATIENCE)
    assert process.returncode == 0


@pytest.mark.live
@pytest.mark.both_paths
def test_ports_move_between_switches_with_the_file(
    lab: Lab, start: Start, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Also both ways at once. Where one cannot follow, none does."""

    def say_ports(left: str, right: str) -> None:
        lists = {name: json.dumps(ports.split()) for name, ports in (("left", left), ("right", right))}
        file.write_text("".join(f"[switch.{name}]\nports = {ports}\n" for name, ports in lists.items()))

    def reload() -> list[list[str]]:
        process.send_signal(signal.SIGHUP)
        said: list[dict[str, list[str]]] = []
        while sum("changes" in one for one in said) < 2:
            said.append(say(process))
        return [one["changes"] for one in said if "changes" in one]

    def ports() -> list[list[str]]:
        with Client("left", timeout=PATIENCE) as left, Client("right", timeout=PATIENCE) as right:
            return [sorted(row["ifname"] for row in client.call("port.list")) for client in (left, right)]

    file = tmp_path / "lab.toml"
    say_ports("pod1", "pod2 pod3 pod4")
    process = start("run", "--json", "--fast-path", request.node.callspec.params["fast_path"], "-c", str(file))
    ready(process, 2)
    say_ports("pod1 pod2", "pod3 pod4")  # the first takes what the second has
    assert reload() == [["port pod2 added"], ["port pod2 removed"]]
    eventually(lambda: lab["pod1"].ping("pod2"), "an answer by the port that has moved")
    say_ports("pod1 pod3", "pod2 pod4")
    assert reload() == [["port pod2 removed", "port pod3 added"], ["port pod3 removed", "port pod2 added"]]
    eventually(lambda: lab["pod1"].ping("pod3") and lab["pod2"].ping("pod4"), "answers by ports that have moved")
    say_ports("pod1 pod2 pod3", "pod4 fbnone0")
    process.send_signal(signal.SIGHUP)
    said = next_complaint(process)
    assert "'fbnone0'" in said and said.endswith("; the switches go on as they are\n")
    assert ports() == [["pod1", "pod3"], ["pod2", "pod4"]]
    eventually(lambda: lab["pod2"].ping("pod4"), "an answer by a port that went back")


WRONG = {
    ("--switch", "s1"): "is not NAME=IFACE,IFACE, such as s1=veth1,veth2",
    ("--switch", "s1=a,b", "--switch", "s1=c"): "s1 is named twice",
    ("--switch", "s1=a,b", "--switch", "s2=c,a"): "a is named twice",
    ("--switch", "s1=a,,b"): "a port has no name",
    ("--switch", "s/1=a,b"): "'s/1' cannot be a switch's name",
    ("--switch", "s1=a,b", "c"): "leave out --name, --match and IFACE",
    ("--switch", "s1=a,b", "--name", "c"): "leave out --name, --match and IFACE",
    ("--switch", "s1=a,b", "--state", "f"): "--state is for a run of one switch",
    ("--switch", "s1=a,b", "--metrics", "9"): "--metrics is for a run of one switch",
    ("--switch", "s1=a,b", "--take-over"): "--take-over is for a run of one switch",
    ("--switch", "s1=a,b", "--switch", "s2=c", "--link", "a>c:loss=1%"): "a>c are of different switches: s1, s2",
    ("--switch", "s1=a,b", "--link", "c:loss=1%"): "there is no port 'c' here",
    ("--switch", "s1=a,b", "--arp-port", "c=guard"): "--arp-port names c",
}


def test_what_is_wrong_is_one_line() -> None:
    """Before anything is opened."""
    for arguments, said in WRONG.items():
        assert said in complaint(run("run", *arguments), 2)


def test_a_scenario_is_for_one_switch(tmp_path: Path) -> None:
    (file := tmp_path / "heals.toml").write_text('[[at]]\ntime = "0s"\nheal = true\n')
    said = complaint(run("run", "--switch", "s1=a,b", "--scenario", str(file)), 2)
    assert said.startswith("--scenario is for a run of one switch")


@pytest.mark.live
def test_one_that_cannot_be_opened_is_named() -> None:
    said = complaint(run("run", "--switch", "s1=", "--switch", "s2=fbnone0"), 1)
    assert said.startswith("switch s2: there is no interface 'fbnone0'")


@pytest.mark.parametrize(
    ("text", "said"),
    few_rows(
        2,
        [
            ('ports = ["a", "b"]\n[switch.s1]\nports = ["c"]', ":1: several switches have their own names and ports"),
            ('[switch.s1]\nports = ["a"]\n[switch.s2]\nports = ["b", "a"]', ":4: a is named twice"),
            ('[switch."s 1"]\nports = ["a"]', ":1: 's 1' cannot be a switch's name"),
            ('[switch.s1]\nport = ["a"]', ":2: there is no key switch.s1.port"),
            ('[switch.s1]\nports = ["a"]\n[link]\nb = "lan"', ":4: there is no port 'b' here"),
        ],
    ),
)
def test_a_wrong_file_is_one_line(text: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "lab.toml"
    file.write_text(text)
    assert said in complaint(run("config", "check", str(file)), 2)
    assert os.fspath(file) in complaint(run("run", "-c", str(file)), 2)
