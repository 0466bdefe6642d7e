"""`fastbridge capture`, `port mirror` and `extcap`, with a running switch."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from accounts import unsent
from capture_files import needs_libpcap, statistics, tshark
from command import COMMAND, ROOT, complaint, run
from effort import few
from frames import GROUP, ethernet
from live import PATIENCE, eventually, wires

from fastbridge import Lab, Switch, Topology

pytestmark = pytest.mark.live

X = 0x02_00_00_00_AA_01
NAME = "captured"


@pytest.fixture(scope="module")
def stage() -> Iterator[tuple[Lab, Switch]]:
    with Lab(Topology.of(3, ipv6=None)) as lab, Switch(lab.ports, control=NAME, loop_detection=False) as switch:
        yield lab, switch


@contextmanager
def started(switch: Switch, *arguments: str, **options: object) -> Iterator[subprocess.Popen[str]]:
    """A capture that has begun."""
    before = len(switch._watching)
    command = [*COMMAND, "capture", "--switch", NAME, *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process: subprocess.Popen[str] = subprocess.Popen(command, cwd=ROOT, **(pipes | options))  # type: ignore[call-overload]
    try:
        eventually(lambda: len(switch._watching) > before or process.poll() is not None, "the capture")
        yield process
    finally:
        process.kill()
        process.communicate()
        eventually(lambda: len(switch._watching) == before, "the capture's end")


def recorded(switch: Switch) -> int:
    """What a capture has: the frames received, and the copies not sent."""
    total = switch.counters().total
    return total.rx_frames + unsent(total)


def pings(lab: Lab, count: int) -> None:
    assert lab["pod1"].ping("pod2", count=count, timeout=PATIENCE).received == count


@pytest.mark.parametrize("number", few(1, [signal.SIGTERM, signal.SIGINT]))
def test_a_signal_ends_it_and_all_that_was_seen_is_in_the_file(
    stage: tuple[Lab, Switch], tmp_path: Path, number: int
) -> None:
    lab, switch = stage
    path = tmp_path / "all.pcapng"
    begun = recorded(switch)
    with started(switch, "-w", str(path)) as process:
        eventually(path.exists, "the file")
        before = recorded(switch)
        pings(lab, 20)
        seen = recorded(switch) - before
        process.send_signal(number)
        _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, said
    count = int(said.split()[0])  # the pods may have asked for each other before, or afterwards
    assert seen <= count <= recorded(switch) - begun
    assert said == f"{count} frames captured, 0 lost by the capture\n"
    assert sum(written for _, _, written in statistics(path).values()) == count == len(tshark(path, "frame.number"))


def test_a_pipe_gets_it_as_it_comes(stage: tuple[Lab, Switch]) -> None:
    lab, switch = stage
    with started(switch, "-w", "-", "-c", "4", text=False) as process:
        reader = subprocess.Popen(
            ["tshark", "-l", "-n", "-r", "-", "-T", "fields", "-e", "frame.comment"],
            stdin=process.stdout, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        pings(lab, 3)
        told, _ = reader.communicate(timeout=PATIENCE)
    assert len(told.splitlines()) == 4


@needs_libpcap
def test_without_a_file_a_line_a_frame(stage: tuple[Lab, Switch]) -> None:
    lab, switch = stage
    with started(switch, "--filter", "icmp", "-c", "2") as process:
        pings(lab, 1)
        out, err = process.communicate(timeout=PATIENCE)
    first, second = out.splitlines()
    assert "pod1 → ICMP echo request, 10.0.0.1 > 10.0.0.2" in first and "to pod2" in first
    assert "pod2 → ICMP echo reply" in second
    assert err == "2 frames captured, 0 lost by the capture\n"


def test_json_lines(stage: tuple[Lab, Switch]) -> None:
    lab, switch = stage
    with started(switch, "--json", "--drops", "-c", "1") as process, wires(lab) as (one, *_):
        one.send(ethernet(GROUP, 0))
        out, err = process.communicate(timeout=PATIENCE)
    seen, end = map(json.loads, out.splitlines())
    assert (seen["ifname"], seen["action"], seen["reason"], seen["to"]) == ("pod1", "dropped", "bad_source", [])
    assert (end, err) == ({"event": "ended", "frames": 1, "lost": 0}, "")


@pytest.mark.parametrize("how", few(1, [signal.SIGSTOP, signal.SIGKILL]))
def test_a_client_that_dies_or_stops_harms_nobody(stage: tuple[Lab, Switch], tmp_path: Path, how: int) -> None:
    lab, switch = stage
    with started(switch, "-w", str(tmp_path / "file")) as process:
        process.send_signal(how)
        pings(lab, 50)
        if how == signal.SIGKILL:
            eventually(lambda: not switch._watching, "the capture's end")
    assert run("status", "--switch", NAME).returncode == 0


def test_a_reader_that_leaves_ends_it(stage: tuple[Lab, Switch]) -> None:
    lab, switch = stage
    with started(switch, "-w", "-", text=False) as process:
        assert process.stdout is not None
        process.stdout.close()

        def ended() -> bool:
            lab["pod1"].ping("pod2", timeout=1)
            return process.poll() is not None

        eventually(ended, "the end")
        assert process.returncode == 1


@needs_libpcap
def test_what_cannot_be_captured(stage: tuple[Lab, Switch]) -> None:
    complaints = {
        ("--port", "pod9"): "the switch has no port 'pod9'; it has: pod1, pod2, pod3",
        ("--reason", "rust"): "there is no drop reason 'rust'; there are: runt",
        ("--reason", "dropped:late"): "what a policy drops is told by: fastbridge monitor --event guard",
        ("-c", "0"): "0 is not in the range x>=1",
        ("-C", "5x", "-w", "-"): "'5x' is not a number of bytes",
        ("-C", "5M"): "add -w FILE",
        ("-w", "/nonexistent/file"): "cannot write /nonexistent/file: No such file",
        ("--filter", "tcp port"): "'tcp port' is no filter",
    }
    for arguments, why in complaints.items():
        assert why in complaint(run("capture", "--switch", NAME, *arguments), 2)


def test_a_file_is_not_emptied_for_a_capture_that_cannot_be(stage: tuple[Lab, Switch], tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("precious")
    complaint(run("capture", "--switch", NAME, "--port", "pod9", "-w", str(path)), 2)
    assert path.read_text() == "precious"


def test_mirrors_are_made_listed_and_ended(stage: tuple[Lab, Switch]) -> None:
    _, switch = stage
    command = ("port", "mirror", "--switch", NAME)
    assert run(*command, "pod1", "pod3").returncode == 0
    assert "is not up, or a mirror already" in complaint(run(*command, "pod2", "pod3"), 2)
    assert "name the ports to copy from" in complaint(run(*command, "pod1"), 2)
    (row,) = json.loads(run(*command, "--json").stdout)
    assert (row["to"], row["ports"], row["lost"]) == ("pod3", ["pod1"], 0)
    assert run(*command, "--off", "pod3").returncode == 0
    assert "nothing is copied to 'pod3'" in complaint(run(*command, "--off", "pod3"), 2)
    assert switch.mirrors == ()


# Wireshark.


@pytest.fixture
def wireshark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    try:
        subprocess.run(["tshark", "-v"], capture_output=True, check=True)
    except FileNotFoundError:
        pytest.skip("tshark is not installed")
    assert "running switches now appear" in run("extcap", "--install").stdout


@pytest.mark.usefixtures("wireshark")
def test_tshark_finds_running_switches_and_captures(stage: tuple[Lab, Switch]) -> None:
    lab, switch = stage
    listed = subprocess.run(["tshark", "-D"], capture_output=True, text=True, check=True).stdout
    assert f"fastbridge-{NAME} (the switch {NAME})" in listed
    command = ["tshark", "-n", "-i", f"fastbridge-{NAME}", "-c", "4", "-T", "fields"]
    fields = ["-e", "frame.interface_name", "-e", "frame.comment"]
    process = subprocess.Popen([*command, *fields], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    eventually(lambda: switch._watching or process.poll() is not None, "the capture")

    def ended() -> bool:
        lab["pod1"].ping("pod2", timeout=1)
        return process.poll() is not None

    eventually(ended, "the end")
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert {tuple(line.split("\t")) for line in out.splitlines()} >= {
        ("pod1", "forwarded → pod2"), ("pod2", "forwarded → pod1"),
    }  # fmt: skip
    eventually(lambda: not switch._watching, "the capture's end")


@needs_libpcap
def test_what_wireshark_asks(stage: tuple[Lab, Switch]) -> None:
    name = f"fastbridge-{NAME}"
    assert f"interface {{value={name}}}" in run("extcap", "--extcap-interfaces", "--extcap-version=4.0").stdout
    asked = ("extcap", "--extcap-interface", name)
    assert "{name=EN10MB}" in run(*asked, "--extcap-dlts").stdout
    options = run(*asked, "--extcap-config").stdout
    assert all(f"{{value={port}}}" in options for port in ("pod1", "pod2", "pod3"))
    assert "--capture needs --fifo" in complaint(run(*asked, "--capture"), 2)
    unknown = run("extcap", "--extcap-interface", "fastbridge-none", "--capture", "--fifo", os.devnull)
    assert "no switch named" in complaint(unknown, 2)
    assert run(*asked, "--extcap-capture-filter", "tcp port 80").stdout == ""
    assert "is no filter" in run(*asked, "--extcap-capture-filter", "tcp port").stdout
