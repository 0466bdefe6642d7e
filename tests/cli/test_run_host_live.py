"""What a run does to its host: nothing that outlives it, and nothing of the pods reaches the host meanwhile.

The ports are ordinary interfaces of the sandbox's namespace, with the settings a host may have; `ip` and /proc/sys are
the judges.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from shutil import which
from typing import Any

import pytest
from command import COMMAND, ROOT, complaint, complaints, next_complaint, run, say
from effort import few
from frames import GROUP, ethernet
from host import Host, ip
from live import PATIENCE, eventually

from fastbridge import Client, ConfigError, PortError, Switch
from fastbridge.control.protocol import RpcError
from fastbridge.lab.namespaces import NamespaceHelper

pytestmark = pytest.mark.live

ETH_P_ALL = 3


@pytest.fixture
def host() -> Iterator[Host]:
    with NamespaceHelper() as helper, closing(Host(helper)) as made:
        yield made


@pytest.fixture
def start(request: pytest.FixtureRequest) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts a run, and returns when it forwards."""
    started: list[subprocess.Popen[str]] = []
    hand = request.config.getoption("--fast-path")

    def start(*arguments: str, before: tuple[str, ...] = ()) -> subprocess.Popen[str]:
        command = [*before, *COMMAND, "run", "--json", *(["--fast-path", hand] if hand else []), *arguments]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)
        started.append(process)
        assert say(process)["event"] == "ready"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def end(process: subprocess.Popen[str], number: int = signal.SIGTERM) -> str:
    """End a run; returns what it said on stderr."""
    process.send_signal(number)
    out, err = process.communicate(timeout=PATIENCE)
    if number != signal.SIGKILL:
        assert (process.returncode, json.loads(out.splitlines()[-1])["event"]) == (0, "stopped"), err
    return err


SHOWN = (
    "-d addr",
    "-d link",
    "-4 route show table all",
    "-6 route show table all",
    "neigh",
    "neigh show proxy",
    "maddr",
)


def state() -> dict[str, str]:
    """All that can be seen of the namespace's interfaces, addresses, routes, neighbours and settings; but not the punt
    pairs of a fast path.
    """
    found = {command: re.sub(r"(expires|valid_lft|preferred_lft) \d+sec", r"\1", ip(command)) for command in SHOWN}
    found = {command: re.sub(r"(?m)^.*\bfbo\d.*\n(?:[ \t].*\n)*", "", text) for command, text in found.items()}
    found["neigh"] = "\n".join(sorted(line for line in found["neigh"].splitlines() if "PERM" in line))
    # Not rglob: that fails where an interface goes meanwhile.
    for setting in (Path(where, name) for where, _, names in os.walk("/proc/sys/net") for name in names):
        with suppress(OSError):  # one that can only be written, needs more than this process is, or goes just now
            if "/fbo" not in str(setting) and setting.stat().st_mode & 0o400:
                found[str(setting)] = setting.read_text()
    return found


def differences(before: dict[str, str], after: dict[str, str]) -> dict[str, tuple[str | None, str | None]]:
    keys = before.keys() | after.keys()
    return {key: (before.get(key), after.get(key)) for key in keys if before.get(key) != after.get(key)}


def settle() -> dict[str, str]:
    """The state, once the kernel changes it no more by itself."""
    last = state()

    def calm() -> bool:
        nonlocal last
        time.sleep(0.5)
        before, last = last, state()
        return not differences(before, last) and "tentative" not in last["-d addr"]

    eventually(calm, "the host's rest")
    return last


SETTINGS = """addr add 10.9.0.200/24 dev p1
-6 addr add fe80::1/64 dev p1 nodad
-6 addr add 2001:db8::1/64 dev p1 noprefixroute nodad
-6 addr add 2001:db8::2/64 dev p1 preferred_lft 0 nodad
-6 addr add 2001:db8:5::1 peer 2001:db8:5::2/128 dev p1 nodad
-6 addr add 2001:db8:6::1/64 dev p1 nodad valid_lft 3600 preferred_lft 1800
-6 route add 2001:db8:9::/48 via fe80::2 dev p1
-6 route add default via fe80::3 dev p1 metric 50
route add 203.0.113.0/24 via 10.9.0.201 dev p1
neigh add 10.9.0.9 lladdr 02:00:00:00:00:09 dev p1 nud permanent
-6 neigh add fe80::9 lladdr 02:00:00:00:00:09 dev p1 nud permanent
-6 neigh add proxy 2001:db8::5 dev p1"""


@pytest.mark.parametrize(
    "number", few(1, [signal.SIGKILL, signal.SIGTERM, signal.SIGINT]), ids=lambda number: number.name
)
def test_nothing_differs_afterwards(
    host: Host, start: Callable[..., subprocess.Popen[str]], number: signal.Signals
) -> None:
    for line in SETTINGS.splitlines():
        ip(line)
    for setting in ("ipv4/conf/p1/forwarding", "ipv6/conf/p1/forwarding", "ipv6/conf/p2/accept_ra"):
        Path("/proc/sys/net", setting).write_text("1")
    before = settle()
    process = start("p1", "p2")
    assert host.ping(1, 2)
    meanwhile = differences(before, state()).keys()
    assert meanwhile <= {"-d addr", "-d link"}  # promiscuous
    end(process, number)
    assert differences(before, settle()) == {}
    eventually(lambda: not tables() and "fbo" not in ip("link"), "the end of its tables and pairs")


@pytest.mark.slow
@pytest.mark.parametrize("number", few(1, [signal.SIGKILL, signal.SIGTERM]), ids=lambda number: number.name)
def test_carriers_come_back_and_so_does_what_the_host_had_there(
    host: Host, start: Callable[..., subprocess.Popen[str]], number: signal.Signals
) -> None:
    """The process that holds no right asks its helper, which outlives it."""
    for line in SETTINGS.splitlines():
        ip(line)
    before = in_any_order(settle())
    process = start("--name", "carriers", "p1", "p2", "p3")
    with Client("carriers", timeout=PATIENCE) as client:
        assert client.call("link.down", ports=["p1"])[0]["state"] == "down"
        eventually(lambda: "NO-CARRIER" in host.ip(1, "link show eth0"), "a pod without a carrier")
        assert "2001:db8::1" not in ip("-6 addr show dev p1")
        assert host.ping(2, 3)
        assert client.call("link.up", ports=["p1"])[0]["state"] == "up"
        assert host.ping(1, 2)
        assert differences(before, in_any_order(settle())).keys() <= {"-d addr", "-d link"}  # promiscuous
        client.call("link.down", ports=["p1"])
        with pytest.raises(RpcError, match="the switch has no port 'p9'"):
            client.call("link.down", ports=["p9"])
    end(process, number)
    eventually(lambda: "NO-CARRIER" not in host.ip(1, "link show eth0"), "the carrier")
    assert differences(before, in_any_order(settle())) == {}


def in_any_order(state: dict[str, str]) -> dict[str, str]:
    return {key: "\n".join(sorted(text.splitlines())) for key, text in state.items()}


def tables() -> list[str]:
    """The nf_tables that are left, where there is a program to list them."""
    with suppress(FileNotFoundError):
        listed = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True).stdout
        return [line for line in listed.splitlines() if "fastbridge" in line]
    return []


@pytest.mark.slow
def test_an_mtu_too_small_for_ipv6(host: Host, start: Callable[..., subprocess.Popen[str]]) -> None:
    process = start("p1", "p2")
    host.links.set("p1", mtu=1200)  # the kernel takes its IPv6 settings away
    before = settle()
    assert complaints(end(process)) == []
    assert differences(before, settle()).keys() <= {"-d addr", "-d link"}  # promiscuous no more


# -- the shield -----------------------------------------------------------------------------------


def test_the_host_hears_nothing(host: Host, start: Callable[..., subprocess.Popen[str]]) -> None:
    """Neither broadcasts, nor what is sent to a host end's own MAC, for an address the host has elsewhere."""
    ip("addr add 192.168.77.1/32 dev lo")
    frames = [
        (destination, target)
        for destination in (GROUP, 0x0200000000A1)
        for target in ("255.255.255.255", "192.168.77.1", "10.9.0.200")
    ]
    ip("addr add 10.9.0.200/24 dev p1")
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as daemon:
            daemon.bind(("0.0.0.0", 6767))
            daemon.settimeout(PATIENCE)
            with host.pods[0].open_socket(socket.AF_PACKET, socket.SOCK_RAW) as wire:
                wire.bind(("eth0", 0))

                def send_all() -> None:
                    for destination, target in frames:
                        wire.send(ethernet(destination, 2 << 40 | 0x100, ethertype=0x0800, payload=datagram(target)))

                send_all()
                assert daemon.recv(99) == b"fastbridge"  # what would be heard
                process = start("p1", "p2")
                daemon.setblocking(False)
                with suppress(BlockingIOError):
                    while True:
                        daemon.recv(99)
                send_all()
                assert host.ping(1, 2)
                with pytest.raises(BlockingIOError):
                    daemon.recv(99)
                end(process)
                daemon.settimeout(PATIENCE)
                send_all()
                assert daemon.recv(99) == b"fastbridge"
    finally:
        ip("addr del 192.168.77.1/32 dev lo")


def datagram(target: str) -> bytes:
    """IPv4 and UDP, port 6767, from 10.9.0.1."""
    header = bytearray.fromhex("4500 0026 0001 0000 4011 0000 0a090001") + socket.inet_aton(target)
    total = sum(int.from_bytes(header[n : n + 2], "big") for n in range(0, 20, 2))
    header[10:12] = (~(total % 0xFFFF) & 0xFFFF).to_bytes(2, "big")
    return bytes(header) + bytes.fromhex("1234 1a6f 0012 0000") + b"fastbridge"


def test_the_host_says_nothing(host: Host, start: Callable[..., subprocess.Popen[str]]) -> None:
    """IPv6 and ARP are on, and it wants to speak."""
    ip("addr add 10.9.0.200/24 dev p1")
    process = start("p1", "p2")
    with host.pods[0].open_socket(socket.AF_PACKET, socket.SOCK_RAW) as wire:
        wire.bind(("eth0", ETH_P_ALL))
        for _ in range(3):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as speaker, suppress(OSError):
                speaker.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
                speaker.sendto(b"host", ("10.9.0.255", 9))
                speaker.sendto(b"host", ("10.9.0.1", 9))  # asks by ARP first
        ip("link set p1 down")
        ip("link set p1 up")  # multicast reports, router solicitations
        assert host.ping(2, 1)
        wire.setblocking(False)
        heard = []
        with suppress(BlockingIOError):
            while True:
                heard.append(wire.recv(2048))
    assert any(frame[6:12] == bytes.fromhex("020000000200") for frame in heard)
    assert not [frame for frame in heard if frame[6:11] == bytes.fromhex("0200000000")]
    end(process)


def test_ports_that_come_and_go_are_shielded(host: Host) -> None:
    ip("addr add 10.9.0.200/24 dev p3")
    assert host.ping(3, 200)
    with Switch(["p1", "p2"], shield=True) as switch:
        switch.add_port("p3")
        assert host.ping(3, 1)
        assert host.pods[2].run(["ping", "-c1", "-W1", "10.9.0.200"], stdout=subprocess.DEVNULL).returncode == 1
        switch.remove_port("p3")
        assert host.ping(3, 200)


def test_without_nf_tables(host: Host) -> None:
    """Today's settings instead, with one line that says so; put back as far as can be."""
    code = """
import os
import fastbridge.switch.shield
def refuse(*arguments): raise PermissionError(1, os.strerror(1))
fastbridge.switch.shield.Nftables = refuse
from fastbridge.cli import main
main()"""
    command = [sys.executable, "-c", code, "run", "--json", "p1", "p2"]
    for altname in ("other", "all"):
        ip(f"link property add dev p1 altname {altname}")
    ip("-6 addr add 2001:db8:5::1 peer 2001:db8:5::2/128 dev p1 nodad")
    disabled = [Path(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6") for name in ("p1", "p2", "all")]
    command[-2] = "all"
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert say(process)["event"] == "ready"
        assert [path.read_text() for path in disabled] == ["1\n", "1\n", "0\n"]
        assert "NOARP" in ip("link show p1")
        assert host.ping(1, 2)
        host.links.set("p2", mtu=1200)  # no setting of IPv6 is there to be put back
        err = end(process)
    assert err.count("\n") == 1 and "nf_tables" in err and "Operation not permitted" in err
    assert disabled[0].read_text() == "0\n"
    assert not disabled[1].exists()
    assert "NOARP" not in ip("link show p1") + ip("link show p2")
    assert "2001:db8:5::1" in ip("-6 addr show dev p1")
    assert "2001:db8:5::2/128 scope" not in ip("-6 -o addr show dev p1").replace("peer 2001:db8:5::2/128", "")


def test_with_a_proc_that_cannot_be_written(host: Host, start: Callable[..., subprocess.Popen[str]]) -> None:
    """As in a container: what is needed is no setting."""
    options = "remount,bind,ro,nosuid,nodev,noexec"
    shell = f'mount --bind /proc/sys /proc/sys && mount -o {options} /proc/sys && exec "$@"'
    process = start("p1", "p2", before=("unshare", "-m", "sh", "-c", shell, "sh"))
    assert host.ping(1, 2)
    assert complaints(end(process)) == []


# -- a port is one interface ----------------------------------------------------------------------

LONG = "a_rather_long_alternative_name"


@pytest.mark.slow
def test_an_interface_by_any_of_its_names(host: Host, start: Callable[..., subprocess.Popen[str]]) -> None:
    for altname in ("lan0", "all", LONG):
        ip(f"link property add dev p1 altname {altname}")
    before = settle()
    for name in ("all", LONG):
        process = start(name, "p2")
        assert host.ping(1, 2)
        end(process)
    assert differences(before, settle()) == {}
    for other in ("p1", LONG):
        line = complaint(run("run", other, "lan0", "p2"), 2)
        assert line == f"lan0 is the interface p1, which is port {other} already; a switch has each port once"


def test_a_member_of_a_bridge_is_refused(host: Host) -> None:
    host.links.add_bridge("br0", ["p1", "p2"])
    line = complaint(run("run", "p3", "p1", "p2"), 1)
    assert line == "p1 belongs to br0; take it out first: ip link set p1 nomaster"
    assert host.ping(1, 2)


def test_a_port_of_another_switch_is_refused(host: Host, start: Callable[..., subprocess.Popen[str]]) -> None:
    process = start("p1", "p2")
    line = complaint(run("run", "p3", "p2"), 1)
    assert line == f"p2 is a port of another switch, in process {process.pid}; stop that one first"
    with pytest.raises(PortError, match=f"process {process.pid}"):
        Switch(["p3", "p2"])
    with Switch(["p3"]), pytest.raises(PortError, match="p3 is a port of another switch, in this process"):
        Switch(["p3"])
    assert host.ping(1, 2)
    end(process, signal.SIGKILL)
    with Switch(["p1", "p2", "p3"]):  # what was refused has left nothing held
        assert host.ping(1, 3)


@pytest.mark.parametrize("ports", [["p1", "p2"], ["--match", "p*"], ["--match", "none*"]])
def test_run_without_privilege(ports: list[str], host: Host, unprivileged: list[str]) -> None:
    main = "from fastbridge.cli import main; main()"
    done = subprocess.run([*unprivileged, main, "run", *ports], capture_output=True, text=True, timeout=180, cwd="/")
    assert "no right to open a raw socket" in complaint(done, 1)


@pytest.mark.parametrize("listens", [True, False])
def test_who_cannot_be_a_switch_holds_no_port(
    listens: bool,
    host: Host,
    unprivileged: list[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Any user may take the name that stands for a port."""
    if not unprivileged[1].startswith("--bounding-set=-all") or "+setfcap" in unprivileged[1]:
        pytest.skip("there is but one user in this sandbox")
    code = """
import socket, sys
claim = socket.socket(socket.AF_UNIX)
claim.bind(chr(0) + sys.argv[1])
if sys.argv[2] == "True":
    claim.listen()
print("held", flush=True)
sys.stdin.read()"""
    name = f"fastbridge-port-{host.links.index('p1')}"
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([*unprivileged, code, name, str(listens)], text=True, **pipes) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with Switch(["p1", "p2"]):
            assert host.ping(1, 2)
        process.communicate()
    assert ("does not listen pretends" in caplog.text) != listens
    assert "pretends to hold port p1" in caplog.text


# -- interfaces that change during a run ----------------------------------------------------------


def said_until(process: subprocess.Popen[str], last: str) -> list[str]:
    """The lines of stderr, up to this one. What comes and goes between two looks at it has no line."""
    said: list[str] = []
    while last not in said:
        line = next_complaint(process)
        assert line, f"{last!r} was not said; {said} was"
        said.append(line.strip())
    return said


def test_a_renamed_interface_is_followed(host: Host, start: Callable[..., subprocess.Popen[str]]) -> None:
    ip("addr add 10.9.0.200/24 dev p1")
    process = start("p1", "p2")
    ip("link set p1 down")
    ip("link set p1 name other")
    ip("link set other up")
    said_until(process, "fastbridge: port p1: its interface p1 is named other now")
    assert host.ping(1, 2)
    assert host.pods[0].run(["ping", "-c1", "-W1", "10.9.0.200"], stdout=subprocess.DEVNULL).returncode == 1
    ip("link set p3 down")
    ip("link set p3 name p1")  # a stranger
    ip("link set p1 up")
    ip("addr add 10.9.0.201/24 dev p1")
    ip("addr del 10.9.0.200/24 dev other")
    before = settle()
    assert host.ping(3, 201)
    end(process)
    assert differences(before, settle()).keys() <= {"-d addr", "-d link"}  # other is promiscuous no more


@pytest.mark.parametrize(
    ("what", "why"),
    [
        ("link set p1 master br0", "its interface was put under br0 (ip link set p1 nomaster takes it out again)"),
        ("link set p1 netns {pod}", "its interface was moved to another network namespace"),
        ("link del p1", "its interface was deleted"),
    ],
    ids=["enslaved", "moved", "deleted"],
)
def test_an_interface_is_let_go(host: Host, start: Callable[..., subprocess.Popen[str]], what: str, why: str) -> None:
    host.links.add_bridge("br0", [])
    process = start("p1", "p2", "p3")
    assert host.ping(1, 2)
    ip(what.format(pod=host.pods[1].path))
    event = say(process)
    while event.get("link") != "gone":
        event = say(process)
    assert event == {"event": "port", "name": "p1", "link": "gone"}
    *before, _ = said_until(process, f"fastbridge: port p1 is gone: {why}")
    assert before in ([], ["fastbridge: port p1 is down"])
    assert host.ping(2, 3)
    if "br0" in what:
        assert "promiscuity 1 " in ip("-d link show p1")  # the bridge's own
        ip("link set br0 arp on")
        ip("addr add 10.9.0.200/24 dev br0")
        assert host.ping(1, 200)
        assert host.pods[0].run(["ping", "-c1", "-W1", "10.9.0.2"], stdout=subprocess.DEVNULL).returncode == 1
    else:  # another one of its name takes its place, and the host is shielded from it
        ip("link add p1 type veth peer name other")
        ip("link set other up")
        assert "p1" not in shielded()
        ip("link set p1 up")
        assert say(process) == {"event": "port", "name": "p1", "link": "up"}
        said_until(process, "fastbridge: p1 is a port now")
        assert "promiscuity 1 " in ip("-d link show p1")
        assert "p1" in shielded() or not which("nft")
        ip("link del p1")
        said_until(process, "fastbridge: port p1 is gone: its interface was deleted")
    assert complaints(end(process)) == []


def shielded() -> str:
    """The interfaces that chains are bound to, where there is a program to list them."""
    with suppress(FileNotFoundError):
        rules = subprocess.run(["nft", "list", "chains"], capture_output=True, text=True, check=True).stdout
        return " ".join(re.findall(r'device "([^"]*)"', rules))
    return ""


def test_a_port_let_go_can_be_added_again(host: Host) -> None:
    host.links.add_bridge("br0", [])
    with Switch(["p1", "p2"], shield=True) as switch:
        ip("link set p1 master br0")
        eventually(lambda: switch.ports[0].state == "gone", "the port let go")
        with pytest.raises(PortError, match="belongs to br0"):
            switch.add_port("p1")
        ip("link set p1 nomaster")
        switch.add_port("p1")
        assert host.ping(1, 2)
        with pytest.raises(ConfigError, match="p2 is a port of this switch already"):
            switch.add_port("p2")
