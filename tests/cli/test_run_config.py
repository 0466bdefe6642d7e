"""`run -c FILE`, SIGHUP and `fastbridge config`, as programs."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest
from command import COMMAND, ROOT, complaint, next_complaint, run, say
from live import eventually

from fastbridge import Lab

FILE = """\
ports = ["pod1", "pod2", "pod3"]
policy = "suppress"
ageing = 200
storm_control = 500

[port.pod1]
isolated = true

[[fdb]]
mac = "02:00:00:00:00:01"
ifname = "pod2"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "lab.toml"
    path.write_text(FILE)
    return path


def ask(lab: Lab, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command beside the lab's host ends."""
    with lab.popen_host(
        [*COMMAND, *arguments], text=True, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        out, err = process.communicate(timeout=180)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def test_check(file: Path) -> None:
    done = run("config", "check", str(file))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    file.write_text(FILE.replace("isolated", "isolted"))
    assert complaint(run("config", "check", str(file)), 2).startswith(f"{file}:7: there is no key port.pod1.isolted")


def test_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(json.loads(run("config", "schema").stdout))


@pytest.mark.parametrize(
    ("arguments", "text", "words"),
    [
        ([], FILE + "\nagein = 3", ":13: there is no key fdb.agein"),
        ([], 'ports = ["fbnone0", "fbnone1"]', "fbnone0"),
        (["x", "y"], FILE, ":6: there is no port 'pod1' here"),
        (["--workers", "1"], FILE.replace("ageing", "fanout = true\nageing"), ":3: fanout"),
    ],
)
def test_a_wrong_file_is_one_line(arguments: list[str], text: str, words: str, file: Path) -> None:
    file.write_text(text)
    done = run("run", "-c", str(file), *arguments)
    assert words in complaint(done, 1 if "fbnone" in words else 2)


def test_no_such_file() -> None:
    assert "cannot read /nonexistent.toml: No such file" in complaint(run("run", "-c", "/nonexistent.toml"), 2)


@pytest.mark.live
def test_a_run_follows_its_file(lab: Lab, start: Callable[..., subprocess.Popen[str]], file: Path) -> None:
    process = start("run", "--json", "-c", str(file), "--ageing", "100", "--name", "by-file")
    assert say(process)["ports"] == ["pod1", "pod2", "pod3"]

    dumped = ask(lab, "config", "dump", "--switch", "by-file").stdout
    assert 'policy = "suppress"' in dumped and "ageing = 100\n" in dumped and 'name = "by-file"' in dumped
    (again := file.with_name("again.toml")).write_text(dumped)
    assert run("config", "check", str(again)).returncode == 0

    file.write_text(FILE.replace("suppress", "direct").replace("isolated = true", "isolated = false"))
    process.send_signal(signal.SIGHUP)
    assert say(process) == {"event": "reloaded", "changes": ["policy direct", "pod1: isolated off"]}
    assert ask(lab, "config", "reload", "--switch", "by-file").stdout == ""

    file.write_text(FILE.replace("200", '"soon"'))
    refused = ask(lab, "config", "reload", "--switch", "by-file")
    assert refused.returncode == 2 and f"{file}:3: ageing is a number" in refused.stderr
    process.send_signal(signal.SIGHUP)
    assert f"{file}:3: ageing is a number" in next_complaint(process)

    file.write_text(FILE.replace("ageing = 200", "ageing = 300").replace("500", "600"))
    process.send_signal(signal.SIGHUP)
    changes = say(process)["changes"]
    assert "pod1: storm control" in changes, "the option --ageing still comes before the file"

    process.terminate()
    assert say(process)["event"] == "stopped"
    assert process.wait(60) == 0


@pytest.mark.live
def test_without_a_file_sighup_ends_a_run(lab: Lab, start: Callable[..., subprocess.Popen[str]]) -> None:
    process = start("run", "--json", "--name", "no-file", "pod1", "pod2")
    assert say(process)["event"] == "ready"
    refused = ask(lab, "config", "reload", "--switch", "no-file")
    assert refused.returncode == 2 and "run -c FILE" in refused.stderr
    process.send_signal(signal.SIGHUP)
    assert say(process)["event"] == "stopped"
    eventually(lambda: process.poll() == 0, "the end of the run")
