"""Commands on a running switch: what they print, what they change, and what they say to wrong requests."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from command import COMMAND, ROOT, complaint, run, say
from live import PATIENCE, eventually

from fastbridge import Client, Lab, MemorySwitch
from fastbridge.control.directory import make_directory, running, socket_path
from fastbridge.control.server import ControlServer
from fastbridge.switch.verbs import switch_verbs

ONE, TWO, THREE = (f"02:00:00:00:00:0{n}" for n in (1, 2, 3))
PORTS = ("pod1", "pod2", "pod3")


def needs(*programs: str) -> None:
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        pytest.skip(f"no {missing[0]} on this machine")


def told(*arguments: str, **options: Any) -> str:
    """What a command prints; it succeeds."""
    done = run(*arguments, **options)
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


def rows(*arguments: str) -> list[dict[str, Any]]:
    """The one JSON array that a command prints."""
    found = json.loads(told(*arguments, "--json"))
    assert isinstance(found, list)
    return found


def batch(text: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run(*arguments, "-b", "-", input=text)


@pytest.fixture
def switch(lab: Lab, start: Callable[..., subprocess.Popen[str]]) -> Iterator[subprocess.Popen[str]]:
    """`fastbridge run` over the ports of a lab, ended at the end."""
    process = start("run", "--json", "--name", "here", *PORTS)
    assert say(process)["name"] == "here"
    yield process
    process.terminate()
    process.communicate(timeout=PATIENCE)
    assert process.returncode == 0 and running() == []


@pytest.mark.live
def test_what_is_seen(lab: Lab, switch: subprocess.Popen[str]) -> None:
    assert lab["pod1"].ping("pod2", timeout=PATIENCE)
    done = batch("fdb show --json\nstatus --json\nstats --json\nstats pod1 --interval 0.1 --json\n")
    assert (done.returncode, done.stderr) == (0, "")
    entries, (status,), (*ports, shared), rates = map(json.loads, done.stdout.splitlines())
    assert {(row["mac"], row["ifname"]) for row in entries} >= {(ONE, "pod1"), (TWO, "pod2")}
    assert (status["name"], status["pid"], status["ports"]["up"]) == ("here", switch.pid, 3)
    held = re.search(r"^CapEff:\s*(\w+)$", Path(f"/proc/{switch.pid}/status").read_text(), re.M)
    decoded = subprocess.run(["capsh", f"--decode={held and held[1]}"], capture_output=True, text=True, check=True)
    assert status["capabilities"] == [name for name in decoded.stdout.strip().partition("=")[2].split(",") if name]
    assert [port["ifname"] for port in ports] == list(PORTS) and shared["learned"] >= 2
    assert sum(port["rx_frames"] + port["fast"] for port in ports) == shared["rx_frames"] + shared["fast"] > 0
    assert [rate["ifname"] for rate in rates] == ["pod1"] and rates[0]["seconds"] >= 0.1
    words = batch(f"status\nfdb show {ONE}\nstats\nstats --interval 0.1\n").stdout
    assert re.search(r"^ports +3 up *$", words, re.M) and re.search(r"^capabilities +(cap_net_|none)", words, re.M)
    assert re.search(rf"^{ONE} +pod1 +[\d.]+ s ago *$", words, re.M)
    assert re.search(r"^total +[1-9]", words, re.M) and re.search("^Frames a second *$", words, re.M)


@pytest.mark.live
def test_what_is_changed(lab: Lab, switch: subprocess.Popen[str]) -> None:
    done = batch(
        """# a switch set up by lines
        port set pod3 isolated=on storm_broadcast=1000 learning=off
        port set pod2 isolated=on   # these two do not talk

        policy set guard,suppress
        policy set guard=router --port pod1
        fdb add 02:00:00:00:00:aa pod1 --vlan 7
        neigh add 10.0.0.3 02:00:00:00:00:03 pod3
        """
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    listed = batch("port list\nfdb show\nneigh show\npolicy show\n").stdout
    assert re.search(
        r"^pod3 +up +\d+ +guard,suppress +learning=off, isolated=on, storm_broadcast=1000 *$", listed, re.M
    )
    assert re.search(r"^pod1 +up +\d+ +guard=router *$", listed, re.M)
    assert not lab["pod2"].ping("pod3", timeout=1)
    assert re.search(r"^02:00:00:00:00:aa +7 +pod1 +static *$", listed, re.M)
    assert re.search(r"^10.0.0.3 +02:00:00:00:00:03 +pod3 +static *$", listed, re.M)
    assert re.search(r"^all others +guard,suppress *$", listed, re.M)
    assert rows("port", "set", "pod3", "isolated=off", "storm_broadcast=none") == rows("port", "list", "pod3")
    assert lab["pod2"].ping("pod3", timeout=PATIENCE)
    done = batch(
        """fdb delete 02:00:00:00:00:aa --vlan 7 --json
        neigh delete 10.0.0.3 --json
        fdb flush --port pod2 --json
        """
    )
    (entry,), (neighbour,), (flushed,) = map(json.loads, done.stdout.splitlines())
    assert (entry["state"], neighbour["dev"], flushed.keys()) == ("static", "pod3", {"flushed"})


@pytest.mark.live
def test_a_port_is_taken_out(lab: Lab, switch: subprocess.Popen[str]) -> None:
    assert told("port", "remove", "pod3") == ""
    assert say(switch) == {"event": "port", "name": "pod3", "link": "gone"}
    assert [port["ifname"] for port in rows("port", "list")] == ["pod1", "pod2"]
    assert lab["pod1"].ping("pod2", timeout=PATIENCE)
    assert "no port 'pod3'; it has: pod1, pod2" in complaint(run("port", "set", "pod3", "isolated=on"), 2)


WRONG = [
    ("port set pod9 isolated=on", "the switch has no port 'pod9'; it has: pod1, pod2, pod3"),
    ("port set pod1 iso=on", "no port flag is named iso; there are: learning"),
    ("port set pod1 isolated", "'isolated' is not KEY=VALUE, such as isolated=on"),
    ("port set pod1 isolated=yes", "'isolated=yes' is not KEY=VALUE"),
    ("port set pod1 storm_broadcast=x", "storm_broadcast is a number of frames a second, or none, not 'x'"),
    ("port set pod1 storm_broadcast=nan", "nan"),
    ("port set pod1", "KEY=VALUE"),
    ("port remove pod9", "the switch has no port 'pod9'"),
    ("port add pod1", "pod1 is a port of this switch already"),
    ("fdb show 02:00", "'02:00' is not a MAC address; write it as 02:00:00:00:00:01"),
    ("fdb add 02:00:00:00:00:09 pod9", "the switch has no port 'pod9'"),
    ("fdb delete 02:00:00:00:00:09", "the FDB has no entry of 02:00:00:00:00:09"),
    ("fdb add 02:00:00:00:00:09 pod1 --vlan 4095", "VLAN id 4095"),
    ("neigh add 10.0.0.300 02:00:00:00:00:09 pod1", "10.0.0.300"),
    ("neigh delete 10.0.0.9", "there is no neighbour 10.0.0.9"),
    ("policy set strict", "'strict' is not a policy"),
    ("policy set guard --port pod9", "the switch has no port 'pod9'"),
    ("stats pod9", "the switch has no port 'pod9'"),
    ("status --switch other", "this batch asks here; the option --switch goes before --batch"),
    ("run pod1 pod2", "'run' is no command of a batch; there are: status, port"),
    ("fdb add 'x", "No closing quotation"),
    ("fdb forget", "forget"),
]


@pytest.mark.live
def test_wrong_requests(lab: Lab, switch: subprocess.Popen[str]) -> None:
    """Each gets one line and status 2, and changes nothing; a batch names the line."""

    def settings() -> list[list[dict[str, Any]]]:
        ports = [{**row, "stations": 0} for row in rows("port", "list")]  # the pods themselves talk
        return [ports, rows("policy", "show"), rows("neigh", "show")]

    before = settings()
    done = batch("".join(f"{line}\n" for line, _ in WRONG), "--force")
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    for number, (line, (_, says)) in enumerate(zip(done.stderr.splitlines(), WRONG, strict=True), 1):
        assert line.startswith(f"fastbridge: stdin:{number}: ") and says.lower() in line.lower(), line
    assert settings() == before
    assert complaint(run("policy", "set", "strict"), 2).startswith("'strict' is not a policy")


@pytest.mark.live
def test_a_batch_stops_at_the_line_that_fails(switch: subprocess.Popen[str], tmp_path: Path) -> None:
    file = tmp_path / "Rules of\x1b[31mours"
    file.write_text("port set pod1 isolated=on\nport set pod9 isolated=on\nport set pod2 isolated=on\n")
    line = complaint(run("-b", str(file)), 2)
    assert line.endswith("Rules of\\x1b[31mours:2: the switch has no port 'pod9'; it has: pod1, pod2, pod3")
    flags = {row["ifname"]: "isolated" in row["flags"] for row in rows("port", "list")}
    assert flags == {"pod1": True, "pod2": False, "pod3": False}
    assert run("--force", "--batch", str(file)).returncode == 2
    assert {row["ifname"]: "isolated" in row["flags"] for row in rows("port", "list")}["pod2"]
    printed = batch("port list pod1 --json\nfdb show --json\n", "--switch", "here").stdout
    assert [type(json.loads(line)) for line in printed.splitlines()] == [list, list]
    assert "No such file" in complaint(run("-b", "/nonexistent"), 1)


@pytest.mark.slow
@pytest.mark.live
def test_which_switch(lab: Lab, switch: subprocess.Popen[str], start: Callable[..., subprocess.Popen[str]]) -> None:
    with Lab(2) as other:
        process = other.popen_host(
            [*COMMAND, "run", "--json", "--name", "there", "pod1", "pod2"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
        )  # fmt: skip
        assert say(process)["name"] == "there"
        assert complaint(run("status"), 2) == "several switches run: here, there; choose one with --switch NAME"
        assert [len(rows("port", "list", "--switch", name)) for name in ("here", "there")] == [3, 2]
        assert complaint(run("status", "--switch", "x"), 2) == "no switch named x runs; there are: here, there"
        assert "cannot be a switch's name" in complaint(run("fdb", "show", "--switch", "../here"), 2)
        process.kill()
        process.communicate()
    assert rows("status")[0]["name"] == "here"  # a dead one's socket stands in nobody's way
    second = start("run", "--name", "here", "pod1", "pod2")
    assert second.communicate(timeout=PATIENCE)[1] == (
        "fastbridge: a switch named here runs already; give this one another name\n"
    )
    assert second.returncode == 2


@pytest.mark.live
def test_no_switch_runs() -> None:
    assert "no switch runs" in complaint(run("status"), 2)
    assert "no switch runs" in complaint(run("-b", "-", input=""), 2)


@pytest.mark.live
def test_socat_and_jq(lab: Lab, switch: subprocess.Popen[str]) -> None:
    needs("socat", "jq")
    assert lab["pod1"].ping("pod2", timeout=PATIENCE)
    request = '{"jsonrpc": "2.0", "id": 1, "method": "fdb.show", "params": {"port": "pod1"}}'
    pipe = f"echo '{request}' | socat -t 60 - UNIX:{socket_path('here')} | jq -r '.result[].mac'"
    done = subprocess.run(["sh", "-c", pipe], capture_output=True, text=True, timeout=PATIENCE, check=True)
    assert done.stdout.splitlines() == [ONE]


@pytest.mark.live
def test_the_fdb_is_that_of_a_linux_bridge(lab: Lab, switch: subprocess.Popen[str]) -> None:
    """Twin labs, the same traffic: `bridge -j fdb` and `fdb show --json` agree on who is where."""
    needs("bridge")

    def talk(lab: Lab) -> None:
        for one, two in (("pod1", "pod2"), ("pod2", "pod3"), ("pod3", "pod1")):
            assert lab[one].ping(two, timeout=PATIENCE)

    with Lab(3) as twin, twin.bridge() as name:
        talk(twin)
        talk(lab)
        bridged = json.loads(twin.run_host(["bridge", "-j", "fdb", "show", "br", name]).stdout)
    learned = [row for row in bridged if row["state"] != "permanent" and not row["mac"].startswith("33:33")]
    ours = rows("fdb", "show")
    assert {(row["mac"], row["ifname"]) for row in ours} == {(row["mac"], row["ifname"]) for row in learned}
    assert {row["state"] for row in ours} == {row["state"] for row in learned} == {""}
    assert all(row.keys() >= learned[0].keys() - {"master"} for row in ours)


@pytest.mark.live
def test_neighbours_have_the_keys_of_ip(lab: Lab, switch: subprocess.Popen[str]) -> None:
    told("policy", "set", "suppress")
    assert lab["pod1"].ping("pod2", timeout=PATIENCE)
    theirs = {row["dst"]: row for row in json.loads(lab["pod1"].run(["ip", "-j", "neigh"]).stdout)}
    # The policies get a copy of the answer, which may come after the pod has it.
    eventually(lambda: "10.0.0.2" in {row["dst"] for row in rows("neigh", "show")}, "the neighbour")
    ours = {row["dst"]: row for row in rows("neigh", "show")}
    assert ours["10.0.0.2"].keys() >= theirs["10.0.0.2"].keys()
    assert ours["10.0.0.2"]["lladdr"] == theirs["10.0.0.2"]["lladdr"] == TWO
    assert (ours["10.0.0.1"]["dev"], ours["10.0.0.2"]["dev"]) == ("pod1", "pod2")
    assert isinstance(theirs["10.0.0.2"]["state"], list) and ours["10.0.0.2"]["state"] == ["REACHABLE"]


@pytest.mark.live
def test_tables_fit_80_columns(lab: Lab, switch: subprocess.Popen[str]) -> None:
    assert lab["pod1"].ping("pod2", timeout=PATIENCE)
    lines = """
        port set pod1 isolated=on hairpin=on learning=off storm_broadcast=1 storm_multicast=2
        policy set guard,ratelimit=50,suppress
        neigh add fd00:1234:5678:9abc:def0:1234:5678:9abc 02:00:00:00:00:01 pod1
        status\nport list\nfdb show\nneigh show\npolicy show\nstats\n"""
    done = run("-b", "-", input=lines, env=os.environ | {"COLUMNS": "80"})
    assert (done.returncode, done.stderr) == (0, "")
    heads = ("switch", "port ", "MAC", "fd00:", "Frames")
    assert all(re.search(f"^{head}", done.stdout, re.M) for head in heads)
    assert max(map(len, done.stdout.splitlines())) <= 80, done.stdout


@pytest.mark.live
def test_names_do_not_steer_the_terminal() -> None:
    """An interface may have any name but for blanks and slashes."""
    names = ["[red]x[/]", "\x1b[2Jx", "\u202ey"]
    make_directory()
    with ControlServer(socket_path("odd"), switch_verbs(MemorySwitch(names))):
        for command in ("port list", "policy show", "stats"):
            printed = told(*command.split())
            assert "[red]x[/]" in printed and printed.replace("\n", "").isprintable(), printed
        done = batch("port set \x1b[31mz isolated=on\nfdb add 02:00:00:00:00:01 [red]x[/]\nfdb show\n", "--force")
        assert "[red]x[/]" in done.stdout and done.stderr.count("\n") == 1 and done.stderr[:-1].isprintable()
        assert [row["ifname"] for row in rows("port", "list")] == names


def test_schema_needs_no_switch() -> None:
    schema = json.loads(told("schema"))
    assert schema["verbs"]["fdb.add"]["params"]["required"] == ["mac", "port"]


BASH = """
PATH={bin}:$PATH
eval "$(fastbridge completion bash)"
complete_it() {{ COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=(); _fastbridge_completion fastbridge
                 echo "${{COMPREPLY[*]}}"; }}
complete_it fastbridge fd
complete_it fastbridge port ""
complete_it fastbridge fdb show --sw
complete_it fastbridge status --switch ""
complete_it fastbridge port set --switch here pod
complete_it fastbridge port set pod1 iso
complete_it fastbridge fdb show --port ""
"""


@pytest.mark.live
def test_completion_in_bash(switch: subprocess.Popen[str], tmp_path: Path) -> None:
    needs("bash")
    command = tmp_path / "fastbridge"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m fastbridge "$@"\n')
    command.chmod(0o755)
    done = subprocess.run(
        ["bash", "-c", BASH.format(bin=tmp_path)], capture_output=True, text=True, timeout=PATIENCE, cwd=ROOT
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "fdb", "list add remove set mirror", "--switch", "here", "pod1 pod2 pod3",
        "isolated=on isolated=off", "pod1 pod2 pod3",
    ]  # fmt: skip


@pytest.mark.live
def test_completion_in_fish(switch: subprocess.Popen[str], tmp_path: Path) -> None:
    needs("fish")
    command = tmp_path / "fastbridge"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m fastbridge "$@"\n')
    command.chmod(0o755)
    script = (
        "fastbridge completion fish | source; complete -C 'fastbridge fd'; complete -C 'fastbridge port remove pod'"
    )
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "HOME": str(tmp_path)}
    done = subprocess.run(
        ["fish", "-c", script], capture_output=True, text=True, timeout=PATIENCE, cwd=ROOT, env=environment
    )
    assert [line.split("\t")[0] for line in done.stdout.splitlines()] == ["fdb", "pod1", "pod2", "pod3"], done


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_a_script_that_its_shell_reads(shell: str) -> None:
    needs(shell)
    script = told("completion", shell)
    assert "_FASTBRIDGE_COMPLETE" in script
    done = subprocess.run([shell, "-n"], input=script, capture_output=True, text=True, timeout=PATIENCE)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.live
def test_a_command_meets_a_switch_that_ends(lab: Lab, start: Callable[..., subprocess.Popen[str]]) -> None:
    process = start("run", "--json", "--name", "here", "pod1", "pod2")
    say(process)
    with Client("here", timeout=PATIENCE) as client:
        process.terminate()
        process.communicate(timeout=PATIENCE)
        eventually(lambda: running() == [], "the end of the socket")
        with pytest.raises(Exception, match="the switch here has ended"):
            client.call("status")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--force",), "--force and --switch go before --batch"),
        (("--switch", "x", "status"), "--force and --switch go before --batch"),
        (("-b", "x", "status"), "takes its commands from x; leave out status"),
        (("completion", "csh"), "csh"),
    ],
)
def test_options_that_do_not_belong_together(arguments: tuple[str, ...], says: str) -> None:
    done = run(*arguments)
    assert done.returncode == 2 and says.lower() in (done.stderr or done.stdout).lower(), done


OPERATE = Path(__file__).parents[2] / "docs/operate.md"
EMBEDDED = """
import json, sys
from fastbridge import Switch
with Switch(sys.argv[2:], control=sys.argv[1]) as switch:
    print(json.dumps(switch.name), flush=True)
    sys.stdin.read()
"""


@pytest.mark.live
@pytest.mark.slow  # its commands one by one, as a person types them
@pytest.mark.skipif(not OPERATE.exists(), reason="the tests were copied without docs/")
def test_the_page_runs_as_written(tmp_path: Path) -> None:
    """All its commands, in their order, by a shell that stops at the first that fails."""
    needs("bash", "jq")
    text = OPERATE.read_text(encoding="utf-8")
    begin, *blocks = re.findall(r"^```sh\n(.*?)^```$", text, re.M | re.S)
    blocks = [re.sub(r"^fastbridge capture .*\n", "", block, flags=re.M) for block in blocks]  # it goes on until Ctrl-C
    (changes,) = re.findall(r"^```text\n(# changes.txt\n.*?)^```$", text, re.M | re.S)
    (tmp_path / "changes.txt").write_text(changes)
    (tmp_path / "outage.toml").write_text('[[at]]\ntime = "60s"\nlink = "veth1"\ncut = true\n')
    (tmp_path / ".config/fish/completions").mkdir(parents=True)
    command = tmp_path / "fastbridge"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m fastbridge "$@"\n')
    command.chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "HOME": str(tmp_path)}
    environment["PYTHONPATH"] = str(ROOT)
    _, _, _, name, *ports = begin.split()
    with Lab(ports) as lab:
        process = lab.popen_host(
            [sys.executable, "-c", EMBEDDED, name, *ports],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
        )  # fmt: skip
        assert say(process) == "blue"
        assert lab["veth1"].ping("veth2", timeout=PATIENCE)
        done = subprocess.run(
            ["bash", "-e", "-o", "pipefail"], input="\n".join(blocks), env=environment, cwd=tmp_path,
            capture_output=True, text=True, timeout=4.5 * PATIENCE,
        )  # fmt: skip
        process.communicate(timeout=PATIENCE)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert f"{ONE}  " in done.stdout and '"fdb.show"' in done.stdout
