"""`fastbridge link` and --link: what they print, what they change, and what they say to wrong requests."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from command import complaint, run, say
from live import PATIENCE, eventually

from fastbridge import Client, Lab, MemorySwitch
from fastbridge.cli.link import _split
from fastbridge.control.directory import make_directory, running, socket_path
from fastbridge.control.server import ControlServer
from fastbridge.lab.topology import kernel_has_ipv6
from fastbridge.switch.verbs import switch_verbs

PORTS = ("pod1", "pod2", "pod3")
Started = Callable[..., "subprocess.Popen[str]"]


def told(*arguments: str, **options: Any) -> str:
    """What a command prints; it succeeds."""
    done = run(*arguments, **options)
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


def links(*places: str) -> dict[str, str]:
    return {row["ifname"]: row["link"] for row in json.loads(told("link", "show", *places, "--json"))}


@pytest.fixture
def switch() -> Iterator[MemorySwitch]:
    """One in memory that commands can ask."""
    made = MemorySwitch(PORTS)
    make_directory()
    with ControlServer(socket_path("memory"), switch_verbs(made)):
        yield made


@pytest.mark.live
def test_links_by_commands(switch: MemorySwitch) -> None:
    assert told("link", "set", "pod1", "pod1>pod2", "delay=20ms,loss=1%", "seed=7") == ""
    assert links() == {"pod1": "delay=20ms,loss=1%,seed=7", "pod1>pod2": "delay=20ms,loss=1%,seed=7"}
    assert links("pod2") == {"pod2": ""}
    told("link", "change", "pod1", "to_pod.rate=1mbit")
    told("link", "cut", "pod3", "--direction", "to_pod")
    told("link", "partition", "pod1,pod2", "pod3")
    shown = told("link", "show", env=os.environ | {"COLUMNS": "100"})
    assert re.search(r"^pod1 +delay=20ms,loss=1%,seed=7,to_pod.rate=1mbit +0 +0 +0 +0 +0 *$", shown, re.M), shown
    assert re.search(r"^pod2 +perfect +.* 0 *$", shown, re.M) and re.search(r"^pod3 +cut to_pod +.* 1 *$", shown, re.M)
    assert re.search(r"^pod1>pod2 +delay", shown, re.M)
    told("link", "heal")
    told("link", "mend", "*")
    assert links() == {"pod1": "delay=20ms,loss=1%,seed=7,to_pod.rate=1mbit", "pod1>pod2": "delay=20ms,loss=1%,seed=7"}
    batch = "link set pod2 4g\nlink reset pod1 'pod1>pod2'\nlink show --json\nlink reset\nlink show --json\n"
    shown, empty = told("-b", "-", input=batch).splitlines()
    assert [row["ifname"] for row in json.loads(shown)] == ["pod2"] and json.loads(empty) == []


def test_words_begin_at_the_first_equals_sign_or_are_the_last_argument() -> None:
    assert _split(["a", "b", "delay=1ms", "loss=1%"]) == (["a", "b"], "delay=1ms,loss=1%")
    assert _split(["a", "4g"]) == (["a"], "4g") and _split(["a", "4g,loss=1%"]) == (["a"], "4g,loss=1%")


@pytest.mark.live
@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("link set pod1", "name a port and its words, such as veth1 delay=20ms,loss=1%"),
        ("link set delay=20ms", "name a port and its words"),
        ("link set pod9 4g", "the switch has no port 'pod9'; it has: pod1, pod2, pod3"),
        ("link set pod1 pod1>pod9 4g", "the switch has no port 'pod9'"),
        ("link set pod1 delay=20", "20"),
        ("link change pod1 delya=20ms", "delya"),
        ("link cut pod1 --direction up", "up"),
        ("link partition pod1,pod2 pod2", "pod2 is named twice"),
        ("link mend", "PORT"),
    ],
)
def test_wrong_requests(switch: MemorySwitch, command: str, says: str) -> None:
    switch.set_link("pod1", "delay=5ms")
    assert says in complaint(run(*command.split()), 2)
    assert {place: str(link) for place, link in switch.own_links.items()} == {"pod1": "delay=5ms"}


WRONG_OPTIONS = [
    ("run --link x a b", "'x' is not PORT:WORDS, such as veth1:delay=20ms,loss=1%"),
    ("run --link a: a b", "a link must be words"),
    ("run --link a:delay=20 a b", "20"),
    ("run --link a:4g --link a:4g a b", "a has two links"),
    ("run --link c:4g a b", "there is no port 'c' here; `ports` and `match` have: a, b"),
    ("run --link a>c:4g a b", "there is no port 'c' here"),
    ("run --link a>a:4g a b", "'a>a' is no pair of ports"),
    ("demo --link pod9:4g", "--link names pod9, and there are: pod1, pod2, pod3"),
    ("demo --link pod1:5g", "5g"),
    ("lab up --link pod9:4g", "a link names 'pod9', which is no port of the lab"),
]


@pytest.mark.parametrize(("arguments", "says"), WRONG_OPTIONS)
def test_wrong_options(arguments: str, says: str) -> None:
    assert says in complaint(run(*arguments.split()), 2)


@pytest.mark.slow
@pytest.mark.live
def test_a_run_with_links_says_them_follows_its_file_and_keeps_seeds(lab: Lab, start: Started, tmp_path: Path) -> None:
    file, state = tmp_path / "lab.toml", tmp_path / "state.json"
    text = (
        'ports = ["pod1", "pod2", "pod3"]\nageing = "never"\n[link]\n"*" = "delay=1ms"\npod2 = "loss=1%,delay=20ms"\n'
    )
    file.write_text(text)
    command = [
        "run",
        "--json",
        "--name",
        "here",
        "-c",
        str(file),
        "--state",
        str(state),
        "--link",
        "pod3>pod1:delay=9ms",
    ]
    process = start(*command)
    assert say(process)["name"] == "here"
    first = links()
    assert {place: re.sub(",seed=.*", "", link) for place, link in first.items()} == {
        "pod1": "delay=1ms", "pod2": "delay=20ms,loss=1%", "pod3": "delay=1ms", "pod3>pod1": "delay=9ms",
    }  # fmt: skip
    assert min(lab["pod1"].ping("pod2", count=3, timeout=PATIENCE).rtts) >= 0.042
    entered = json.loads(told("link", "show", "pod2", "--json"))[0]["to_pod"]["entered"]

    def reloaded(changed: str) -> list[str]:
        file.write_text(changed)
        process.send_signal(signal.SIGHUP)
        found: list[str] = say(process)["changes"]
        return found

    assert reloaded(text) == []
    assert reloaded(text.replace("delay=1ms", "delay=2ms")) == ["pod1: link delay=2ms", "pod3: link delay=2ms"]
    told("link", "set", "pod2", "delay=7ms")
    told("link", "change", "pod3", "delay=3ms")  # by hand: the file's word is back at the next reload
    (back, other) = reloaded(text.replace("delay=1ms", "delay=2ms"))
    assert back.startswith("pod2: link delay=20ms,loss=1%,seed=") and other == "pod3: link delay=2ms"
    assert reloaded(text.replace('"*" = "delay=1ms"\n', "")) == ["pod1: link perfect", "pod3: link perfect"]
    told("link", "set", "pod1", "jitter=1ms,delay=5ms")
    told("link", "cut", "pod3")
    told("link", "partition", "pod1", "pod2")
    before, dumped = links(), told("config", "dump")
    assert json.loads(told("link", "show", "pod2", "--json"))[0]["to_pod"]["entered"] >= entered
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=PATIENCE)[1].count("\n") <= 2 and process.returncode == 0
    second = start(*command, "--take-over")
    assert say(second)["name"] == "here"
    assert links() == before
    rows = {row["ifname"]: row for row in json.loads(told("link", "show", "--json"))}
    assert rows["pod3"]["cut"] == ["to_pod", "from_pod"] and [rows[port]["group"] for port in PORTS] == [0, 1, None]
    file.write_text(dumped)
    assert run("config", "check", str(file)).returncode == 0 and 'pod1 = "delay=5ms,jitter=1ms,seed=' in dumped
    second.terminate()
    second.communicate(timeout=PATIENCE)
    eventually(lambda: running() == [], "the end")


@pytest.mark.live
def test_links_of_ports_to_come(lab: Lab, start: Started) -> None:
    process = start("run", "--json", "--name", "here", "--match", "pod*", "--link", "*:delay=20ms", "--link", "pod3:4g")
    say(process)
    with Client("here", timeout=PATIENCE) as client:
        eventually(lambda: len(client.call("port.list")) == 3, "the ports")
        assert [row["link"] for row in client.call("link.show")] == ["delay=20ms", "delay=20ms", links("pod3")["pod3"]]
    assert min(lab["pod1"].ping("pod2", timeout=PATIENCE).rtts) >= 0.080
    process.terminate()
    out, _ = process.communicate(timeout=PATIENCE)
    final = json.loads(out.splitlines()[-1])["counters"]["total"]
    assert final["rx_in_flight"] == final["tx_in_flight"] == 0 and "link_added" in final


@pytest.mark.live
@pytest.mark.slow
def test_the_demo_plays_a_scenario_in_each_of_its_labs(tmp_path: Path) -> None:
    file = tmp_path / "slower.toml"
    file.write_text('[[at]]\ntime = "0s"\nlink = "*"\nset = "delay=1ms"\n')
    done = run("demo", "--scenario", str(file), timeout=PATIENCE)
    said = "fastbridge: scenario at 0: pod1 pod2 pod3 set delay=1ms\n"
    assert done.returncode == 0 and done.stderr == said * (2 if kernel_has_ipv6() else 1)
    file.write_text('[[at]]\ntime = "1h"\nlink = "pod4"\ncut = true\n')
    line = f"{file}:2: time '1h'"  # nothing is made before all of it is checked
    assert complaint(run("demo", "--scenario", str(file)), 2).startswith(line)
    file.write_text('[[at]]\ntime = "1s"\nlink = "pod4"\ncut = true\n')
    line = f"{file}:1: the switch has no port 'pod4'; it has: pod1, pod2, pod3"
    assert complaint(run("demo", "--scenario", str(file)), 2) == line


@pytest.mark.live
@pytest.mark.slow
def test_the_demo_over_links() -> None:
    story = told("demo", "--link", "pod1:delay=5ms", timeout=PATIENCE)
    assert [float(time) for time in re.findall(r"answered in ([\d.]+) ms", story)][1] >= 10
