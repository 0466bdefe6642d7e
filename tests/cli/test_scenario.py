"""`fastbridge scenario`, `link down|up|flap`, `run --scenario`: what they print, change, and say to wrong requests."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from command import COMMAND, ROOT, complaint, run, say
from host import Host
from live import PATIENCE, eventually

from fastbridge import Client, MemorySwitch
from fastbridge.control.directory import make_directory, socket_path
from fastbridge.control.server import ControlServer
from fastbridge.lab.namespaces import NamespaceHelper
from fastbridge.switch.verbs import switch_verbs

pytestmark = pytest.mark.live

OUTAGE = """
[[at]]
time = "0s"
link = "p1"
set = "delay=5ms"

[[at]]
time = "50ms"
link = "p2"
flap = "50ms/50ms"

[[at]]
time = "1h"
heal = true
""".replace("1h", "3600s")


@pytest.fixture
def switch() -> Iterator[MemorySwitch]:
    """One in memory that commands can ask; its time stands still."""
    made = MemorySwitch(["p1", "p2", "p3"], clock=None)
    make_directory()
    with ControlServer(socket_path("memory"), switch_verbs(made)):
        yield made


@pytest.fixture
def host() -> Iterator[Host]:
    with NamespaceHelper() as helper, closing(Host(helper)) as made:
        yield made


def told(*arguments: str) -> str:
    done = run(*arguments)
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


def test_carriers_and_scenarios_by_commands(switch: MemorySwitch, tmp_path: Path) -> None:
    assert told("link", "down", "p1", "p3") == ""
    assert [port.state for port in switch.ports] == ["down", "up", "down"]
    assert [row["state"] for row in json.loads(told("link", "up", "p1", "--json"))] == ["up"]
    file = tmp_path / "outage.toml"
    file.write_text(OUTAGE)
    (row,) = json.loads(told("scenario", "play", str(file), "--json"))
    assert row == {"scenario": str(file), "next": "p2 down", "at": 0.1}
    assert list(switch.links) == ["p1"]
    assert told("link", "flap", "p1", "p3", "10s/2s", "--cut") == ""
    shown = told("scenario", "show")
    assert str(file) in shown.replace("\n", "") and "p1 cut" in shown and "10 s" in shown
    switch.advance(0.1)
    assert switch.ports[1].state == "down"
    told("scenario", "stop", str(file))
    assert switch.ports[1].state == "up" and [each.scenario.source for each in switch.playing] == ["flap"]
    told("scenario", "stop")
    assert json.loads(told("scenario", "show", "--json")) == [] and list(switch.links) == ["p1"]


@pytest.mark.parametrize(
    ("command", "line"),
    [
        ("link down", "missing argument 'PORT...' (see fastbridge link down --help)"),
        ("link down p9", "the switch has no port 'p9'; it has: p1, p2, p3"),
        ("link up p1 p9", "the switch has no port 'p9'; it has: p1, p2, p3"),
        ("link flap p1 10s", 'flap must be the times up and down, such as "10s/2s" or "10s/2s cut", not \'10s\''),
        ("link flap p9 10s/2s", "the switch has no port 'p9'; it has: p1, p2, p3"),
        ("link flap p1>p2 10s/2s", "p1>p2 is a pair, which has no carrier: cut it, or flap one of its ports"),
        ("scenario play there.toml", "scenario: there.toml cannot be read: No such file or directory"),
        ("scenario stop some", "no scenario 'some' is played; `scenario show` lists those that are"),
    ],
)
def test_what_is_wrong_is_one_line(switch: MemorySwitch, command: str, line: str) -> None:
    done = run(*command.split())
    assert complaint(done, done.returncode) == line and done.returncode
    assert [port.state for port in switch.ports] == ["up"] * 3 and switch.playing == ()


def test_a_wrong_file_is_said_with_its_line(switch: MemorySwitch, tmp_path: Path) -> None:
    file = tmp_path / "outage.toml"
    file.write_text(OUTAGE.replace('"p2"', '"p9"'))
    assert complaint(run("scenario", "play", str(file)), 2) == (
        f"{file}:7: the switch has no port 'p9'; it has: p1, p2, p3"
    )
    file.write_text(OUTAGE.replace('"p2"', "2"))
    assert complaint(run("scenario", "play", str(file)), 2).startswith(f"{file}:9: link must be a port")
    assert switch.links == {}


@pytest.mark.slow
def test_a_run_plays_a_scenario(host: Host, tmp_path: Path) -> None:
    """It takes rights that the run has given up. At its end nothing is left."""
    file = tmp_path / "outage.toml"
    file.write_text(OUTAGE)
    command = [*COMMAND, "run", "--json", "--name", "played", "--scenario", str(file), "p1", "p2", "p3"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT) as process:
        try:
            assert say(process)["event"] == "ready"
            seen = [say(process) for _ in range(4)]
            assert {event["name"] for event in seen} == {"p2"} and {event["link"] for event in seen} == {"up", "down"}
            with Client("played", timeout=PATIENCE) as client:
                assert [row["ifname"] for row in client.call("link.show")] == ["p1"]
            process.terminate()
            _, err = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
    assert process.returncode == 0
    assert "fastbridge: scenario at 0: p1 set delay=5ms\n" in err and "fastbridge: scenario at 100ms: p2 down\n" in err
    eventually(lambda: "NO-CARRIER" not in host.ip(2, "link show eth0"), "the carrier")
    assert host.links.flags("p2") & 1


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (OUTAGE.replace("heal = true", "heal = 5"), "{file}:14: heal must be true, not 5"),
        (OUTAGE.replace('"p1"', '"p3"'), "{file}:2: the switch has no port 'p3'; it has: p1, p2"),
    ],
)
def test_a_run_with_a_wrong_scenario_does_not_begin(host: Host, tmp_path: Path, text: str, line: str) -> None:
    file = tmp_path / "outage.toml"
    file.write_text(text)
    done = run("run", "--scenario", str(file), "p1", "p2")
    assert complaint(done, 2) == line.format(file=file)
