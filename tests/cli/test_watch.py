"""monitor, trace and top on a running switch: what they print, and what they say to wrong requests."""

from __future__ import annotations

import json
import re
import select
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command import COMMAND, ROOT, complaint, run
from frames import GROUP, ethernet
from live import PATIENCE, eventually, wires

from fastbridge import Lab, StormControl, Switch
from fastbridge.cli.top import Look, Sample
from fastbridge.feed import EVENTS
from fastbridge.waiting import wait_for

X, Y = "02:00:00:00:ff:01", "02:00:00:00:ff:02"


@pytest.fixture
def switch(lab: Lab) -> Iterator[Switch]:
    with Switch(lab.ports, control="watched", policy="suppress", loop_detection=False) as switch:
        yield switch


def words(*arguments: str) -> str:
    done = run(*arguments)
    assert done.returncode == 0, done
    return done.stdout


def rows(*arguments: str) -> list[dict[str, Any]]:
    found = json.loads(words(*arguments, "--json"))
    assert isinstance(found, list)
    return found


def lines_of(*arguments: str) -> subprocess.Popen[str]:
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([*COMMAND, *arguments], text=True, cwd=ROOT, **pipes)


@pytest.mark.live
def test_monitor(lab: Lab, switch: Switch) -> None:
    """JSON has the events asked for; words have all, a line each; both end with the switch, and say so."""
    with (
        wires(lab) as (one, *_),
        lines_of("monitor", "--json", "--event", "learned") as some,
        lines_of("monitor") as all_of_them,
    ):
        assert some.stdout and all_of_them.stdout
        eventually(lambda: len(switch._journal.feed._monitors) == 2, "two monitors")
        switch.remove_port("pod3")
        one.send(ethernet(GROUP, int(X.replace(":", ""), 16)))
        events = iter(some.stdout.readline, "")
        event = next(event for event in map(json.loads, events) if event["mac"] == X)
        assert event.items() >= {"event": "learned", "ifname": "pod1", "vlan": 0}.items()
        assert next(iter(event)) == "event"
        lines = iter(all_of_them.stdout.readline, "")
        assert re.fullmatch(
            r"\d\d:\d\d:\d\d\.\d{3}  port_removed  pod3\n", next(line for line in lines if "port" in line)
        )
        assert re.fullmatch(rf".{{12}}  learned       pod1          {X}\n", next(line for line in lines if X in line))
        switch.stop()
        for process in some, all_of_them:
            _, errors = process.communicate(timeout=PATIENCE)
            assert (process.returncode, errors.count("\n")) == (1, 1), errors
            assert errors.startswith("fastbridge: ")


@pytest.mark.live
def test_trace(lab: Lab, switch: Switch, tmp_path: Path) -> None:
    with wires(lab) as (_, two, _):
        assert lab["pod1"].ping("pod2", family=4, timeout=PATIENCE)
        both = {str(lab[name].ipv4.ip) for name in ("pod1", "pod2")}
        eventually(lambda: both <= {row["dst"] for row in rows("neigh", "show")}, "both neighbours")
        macs = [str(lab[name].mac) for name in ("pod1", "pod2")]
        shown = words("trace", "pod1", f"icmp {lab['pod1'].ipv4.ip} > {lab['pod2'].ipv4.ip}").splitlines()
        assert shown[0] == "pod1"
        assert [line[:11] for line in shown[1:]] == [
            "├─ parse   ",
            "├─ port    ",
            "├─ learn   ",
            "├─ look up ",
            "└─ copies  ",
        ]
        assert "ICMP echo request" in shown[1]
        assert f"{macs[1]} is behind pod2" in shown[4]
        *_, policy, copies = rows("trace", "pod3", f"arp who-has {lab['pod2'].ipv4.ip} tell 10.9.9.9", "--src", X)
        assert policy.items() >= {"stage": "policy", "result": "consume"}.items()
        assert macs[1] in policy["text"]
        assert copies.items() >= {"action": "consumed", "egress": ["pod3"], "learned": "new", "sent": False}.items()

        frame = ethernet(int(Y.replace(":", ""), 16), int(X.replace(":", ""), 16), payload=b"fastbridge")
        from scapy.layers.l2 import Ether
        from scapy.utils import wrpcap

        file = str(tmp_path / "some.pcap")
        wrpcap(file, [Ether(bytes(60)), Ether(frame)])
        for asked in ("trace", "pod1", frame.hex()), ("trace", "pod1", "--pcap", file, "--number", "2"):
            assert (
                rows(*asked)[-1].items() >= {"action": "flooded", "egress": ["pod2", "pod3"], "learned": "new"}.items()
            )
        assert rows("trace", "pod1", "--pcap", file)[0]["reason"] == "bad_source"
        assert switch.fdb.lookup(X) is None

        assert words("trace", "pod1", frame.hex(), "--send").startswith("pod1, sent in\n")
        assert switch.fdb.lookup(X) is not None
        while two.receive()[0] != frame:
            pass


WRONG = {
    ("trace", "pod9", "ff" * 60): "the switch has no port 'pod9'",
    ("trace", "pod1", "what is this"): "describes no frame",
    ("trace", "pod1", "fff"): "two digits for each byte",
    ("trace", "pod1", "ff" * 60, "--vlan", "5"): "give no others",
    ("trace", "pod1", "icmp 10.0.0.9 > 10.0.0.8"): "no neighbour has 10.0.0.9",
    ("trace", "pod1", "ff", "--pcap", "/etc/hostname"): "give one of them",
    ("trace", "pod1", "--pcap", "/etc/hostname"): "neither a pcap nor a pcapng file",
    ("trace", "pod1", "--number", "3"): "give --pcap",
    ("trace", "pod1", "--ethertype", "ip"): "0x0800",
    ("trace", "pod1"): "give --pcap, or --src and --dst",
    ("monitor", "--event", "lernt"): "lernt",
    ("top", "--interval", "0"): "0.1",
}


@pytest.mark.live
def test_wrong_requests(lab: Lab, switch: Switch) -> None:
    for wrong, why in WRONG.items():
        assert why in complaint(run(*wrong), 2)


@pytest.mark.live
def test_one_look_without_a_terminal(lab: Lab, switch: Switch) -> None:
    done = run("top", "--interval", "0.1", stdin=subprocess.DEVNULL)
    assert (done.returncode, done.stderr.count("\n")) == (0, 1), done
    assert "in a terminal" in done.stderr
    assert re.search(r"^watched  pid \d+  ports: 3 up", done.stdout)
    assert [line.split()[0] for line in done.stdout.splitlines()[4:9]] == ["port", "pod1", "pod2", "pod3", "total"]
    *ports, total = rows("top", "--interval", "0.1")
    assert [port["ifname"] for port in ports] == ["pod1", "pod2", "pod3"]
    assert total["ifname"] is None and [worker["worker"] for worker in total["workers"]] == [0]


@pytest.mark.live
@pytest.mark.skipif(shutil.which("tmux") is None, reason="no tmux")
def test_a_full_screen(lab: Lab, switch: Switch, tmp_path: Path) -> None:
    """At 80 by 24, with a drop: what it shows, sorts by and pauses at; q ends it and gives the screen back."""
    switch.set_storm_control(StormControl(broadcast=1), "pod1")
    command = ["tmux", "-S", str(tmp_path / "tmux"), "-f", "/dev/null"]

    def tmux(*arguments: str) -> str:
        return subprocess.run([*command, *arguments], check=True, capture_output=True, text=True).stdout

    def screen() -> str:
        return tmux("capture-pane", "-p")

    top = " ".join([*COMMAND, "top", "--interval", "0.2"])
    environment = {"LC_ALL": "C.UTF-8", "TERM": "screen"}
    tmux(
        "new-session",
        "-d",
        "-x",
        "80",
        "-y",
        "24",
        f"cd {ROOT}; env {' '.join('='.join(e) for e in environment.items())} {top}; echo ended $?; cat",
    )
    try:
        with wires(lab) as (one, *_):

            def flooding() -> bool:
                for _ in range(20):
                    one.send(ethernet(GROUP, int(X.replace(":", ""), 16)))
                shown[:] = screen().splitlines()
                return any("storm_broadcast" in line for line in shown) and "q quit" in shown[-1]

            shown: list[str] = []
            eventually(flooding, "a drop on the screen")
        assert len(shown) <= 24 and max(map(len, shown)) <= 80
        assert shown[0].startswith("watched") and shown[4].split()[0] == "port" and "q quit" in shown[23]
        assert "sort: name" in shown[23]
        tmux("send-keys", "s")
        eventually(lambda: "sort: in/s" in screen())
        tmux("send-keys", "Space")
        eventually(lambda: "paused" in screen())
        tmux("send-keys", "q")
        eventually(lambda: "ended 0" in screen())
        assert "watched" not in screen()
    finally:
        tmux("kill-server")


def counted(name: str | None, count: int, dropped: int = 0) -> dict[str, Any]:
    zero = dict.fromkeys(("flooded", "fast", "fast_sent", "rx_missed", "tx_bytes"), 0)
    frames = {"rx_frames": count, "tx_frames": count, "dropped": {"runt": dropped}, "tx_dropped": {}}
    return {"ifname": name, "time": float(bool(count)), **zero, **frames}


def sample(ports: int, busy: bool) -> Sample:
    names = [f"a-port-with-a-long-name-{n}" for n in range(ports)]
    stats = [counted(name, n * busy, n * busy) for n, name in enumerate(names, 1)]
    return Sample(
        {
            "name": "watched",
            "pid": 1,
            "ports": {"up": ports, "down": 0},
            "fdb": {"entries": 65_536, "capacity": 65_536},
            "neighbours": {"entries": 7},
            "fast_path": "nft",
        },
        [*stats, counted(None, int(busy) * 10**7)],
        {
            "time": float(busy),
            "cpu": 1.5 * busy,
            "workers": [{"worker": n, "cpu": 0.5 * busy, "punted": 3} for n in range(2)],
            "rings": {name: {"waiting": 1, "slots": 4} for name in names},
        },
        {name: {"state": "up", "stations": 1_000_000} for name in names},
    )


@pytest.mark.parametrize("ports", [0, 1, 13, 500])
@pytest.mark.parametrize("size", [(80, 24), (40, 12), (200, 60)])
def test_the_screen_has_its_size(ports: int, size: tuple[int, int]) -> None:
    width, height = size
    look = Look.between(sample(ports, False), sample(ports, True))
    for sort in "name", "in/s", "out/s", "drop/s":
        lines = look.lines(width, height, sort, " q quit ").plain.splitlines()
        assert len(lines) == height and max(map(len, lines)) <= width
        assert lines[-1] == " q quit "
        assert any(line.startswith("total") for line in lines)
        if ports == 500 and sort != "name":
            assert f"{500:,}" in lines[5]
        if ports == 500 and width >= 80:
            assert any("more ports" in line for line in lines)
    everything = look.lines(width, None, "name", "").plain.splitlines()
    assert len(everything) >= ports


def test_what_one_look_says() -> None:
    *ports, total = Look.between(sample(2, False), sample(2, True)).rows
    assert (
        ports[1].items()
        >= {"received": 2.0, "sent": 2.0, "dropped": 2.0, "reasons": {"runt": 2.0}, "ring": 0.25}.items()
    )
    assert (total["cpu"], total["workers"][1]) == (1.5, {"worker": 1, "cpu": 0.5, "punted": 3})


@pytest.mark.live
@pytest.mark.parametrize("command", ["monitor", "capture"])
def test_the_end_of_the_switch_is_told(lab: Lab, command: str) -> None:
    with Switch(lab.ports, control="ends") as switch:
        process = subprocess.Popen(
            [*COMMAND, command, "--switch", "ends"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
        )
        assert process.stdout is not None
        output = process.stdout.fileno()

        def follows() -> bool:
            switch.fdb.flush()
            lab["pod1"].ping("pod2")
            return wait_for(output, select.POLLIN, 0.1)

        try:
            eventually(follows, "a line")
            switch.stop()
            _, err = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
            process.wait()
    assert (process.returncode, err) == (1, "fastbridge: the switch ends has ended\n")


def test_every_event_is_in_the_docs() -> None:
    text = Path(__file__).parents[2].joinpath("docs/watch.md").read_text()
    assert [name for name in EVENTS if f"`{name}`" not in text] == []
