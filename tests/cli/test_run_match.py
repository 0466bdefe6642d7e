"""`run` with interfaces that come and go."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
from command import COMMAND, ROOT, complaint, run, say
from host import Host
from live import PATIENCE

from fastbridge.lab.namespaces import NamespaceHelper


@pytest.fixture
def host() -> Iterator[Host]:
    with NamespaceHelper() as helper, closing(Host(helper)) as made:
        yield made


@pytest.fixture
def begin() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts `fastbridge run --json`."""
    started: list[subprocess.Popen[str]] = []

    def begin(*arguments: str) -> subprocess.Popen[str]:
        command = [*COMMAND, "run", "--json", *arguments]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT))
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def events(process: subprocess.Popen[str], *wanted: dict[str, Any]) -> None:
    """Return when all of these were said; a port may be seen going down before it is gone."""
    missing = list(wanted)
    while missing:
        event = say(process)
        if event in missing:
            missing.remove(event)


def port(name: str, link: str) -> dict[str, Any]:
    return {"event": "port", "name": name, "link": link}


@pytest.mark.live
def test_a_run_of_what_matches(host: Host, begin: Callable[..., subprocess.Popen[str]]) -> None:
    for n in (1, 2, 3):
        host.links.delete(f"p{n}")
    process = begin("--match", "p1", "--match", "p[23]", "--arp-port", "p2=guard")
    ready = say(process)
    assert (ready["event"], ready["ports"]) == ("ready", [])
    host.connect(1)
    host.connect(2)
    events(process, port("p1", "up"), port("p2", "up"))
    assert host.ping(1, 2)
    for n in (1, 2):
        host.links.delete(f"p{n}")
    events(process, port("p1", "gone"), port("p2", "gone"))
    host.connect(2)
    host.connect(3)
    events(process, port("p2", "up"), port("p3", "up"))
    assert host.ping(2, 3)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=PATIENCE)
    last = json.loads(out.splitlines()[-1])
    assert (process.returncode, last["event"], sorted(last["counters"]["ports"])) == (0, "stopped", ["p2", "p3"]), err
    assert last["counters"]["total"]["rx_frames"] > 0


@pytest.mark.live
def test_a_run_of_named_and_matching_interfaces(host: Host, begin: Callable[..., subprocess.Popen[str]]) -> None:
    process = begin("p1", "--match", "p*")
    assert sorted(say(process)["ports"]) == ["p1", "p2", "p3"]
    assert host.ping(1, 2)
    host.links.delete("p1")
    events(process, port("p1", "gone"))
    host.connect(1)
    events(process, port("p1", "up"))
    assert host.ping(1, 3)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("p1",), "a pattern: --match"),
        (("--match", ""), "an empty pattern matches no interface"),
        (("--match", "p*", "--arp-port", "q1=guard"), "--arp-port names q1"),
        (("--match", "p*", "x", "x"), "x is named twice"),
    ],
)
def test_wrong_requests(arguments: tuple[str, ...], words: str) -> None:
    done = run("run", *arguments)
    assert done.returncode == 2 and words in done.stderr and "Traceback" not in done.stderr


@pytest.mark.live
def test_a_named_interface_must_be_there_at_start(host: Host) -> None:
    line = complaint(run("run", "p1", "absent", "--match", "p*"), 1)
    assert line == "there is no interface 'absent'; `ip link` lists those there are"
