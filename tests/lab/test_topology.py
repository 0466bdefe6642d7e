"""Topologies are data and are checked; a lab is what the topology says."""

from __future__ import annotations

import errno
import fcntl
import ipaddress
import os
import socket
import struct
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from live import PATIENCE, eventually

from fastbridge.addresses import MacAddress
from fastbridge.errors import ConfigError, LabError
from fastbridge.lab import topology as topology_module
from fastbridge.lab.links import Links
from fastbridge.lab.namespaces import Namespace, NamespaceHelper
from fastbridge.lab.silence import silence
from fastbridge.lab.topology import Lab, PodPlan, Topology
from fastbridge.open_files import reserve_files


def test_the_usual_plan_is_deterministic() -> None:
    plan = Topology.of(300)
    assert plan == Topology.of(300)
    assert plan.pods[0] == PodPlan(
        "pod1",
        MacAddress("02:00:00:00:00:01"),
        ipaddress.IPv4Interface("10.0.0.1/16"),
        ipaddress.IPv6Interface("fd00::1/64"),
    )
    assert str(plan.pods[299].mac) == "02:00:00:00:01:2c"
    assert str(plan.pods[299].ipv4) == "10.0.1.44/16"
    assert [pod.name for pod in Topology.of(["a", "b"], ipv4=None).pods] == ["a", "b"]
    assert Topology.of(1, ipv4=None).pods[0].ipv4 is None


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"pods": 0}, "at least one pod"),
        ({"pods": -1}, "at least one pod"),
        ({"pods": ["a", "a"]}, "two pods have the name a"),
        ({"pods": ["x" * 16]}, "xxx"),
        ({"pods": ["a/b"]}, "a/b"),
        ({"pods": ["lo"]}, "lo"),
        ({"pods": [""]}, "name"),
        ({"pods": 2, "mtu": 1279}, "1280"),
        ({"pods": 2, "mtu": 65536}, "65536"),
        ({"pods": 255, "ipv4": "10.0.0.0/24"}, "no room for 255"),
        ({"pods": 2, "ipv4": "10.0.0.1/24"}, "10.0.0.1/24"),
        ({"pods": 2, "ipv6": "nonsense"}, "nonsense"),
    ],
)
def test_a_wrong_plan_is_refused(arguments: dict[str, object], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        Topology.of(**arguments)  # type: ignore[arg-type]


def test_a_plan_by_hand_is_checked_too() -> None:
    mac = MacAddress(0x02_00_00_00_00_01)
    with pytest.raises(ConfigError, match="two pods have the mac"):
        Topology((PodPlan("a", mac), PodPlan("b", mac)))
    with pytest.raises(ConfigError, match="01:00"):
        Topology((PodPlan("a", MacAddress("01:00:00:00:00:00")),))


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab(3) as lab:
        yield lab


@pytest.mark.live
class TestLab:
    def test_it_is_what_the_plan_says(self, lab: Lab) -> None:
        assert len(lab) == 3 and [pod.name for pod in lab] == ["pod1", "pod2", "pod3"]
        assert [port.name for port in lab.ports] == ["pod1", "pod2", "pod3"]
        shown = lab["pod2"].run(["cat", "/proc/net/dev", "/proc/net/if_inet6"]).stdout
        assert "eth0:" in shown and "fd000000000000000000000000000002" in shown
        with lab["pod2"].socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind(("10.0.0.2", 0))

    def test_an_unknown_pod_is_named_with_the_known(self, lab: Lab) -> None:
        with pytest.raises(LabError, match="'pod9'; the pods are pod1, pod2, pod3"):
            lab["pod9"]
        with pytest.raises(LabError, match="pod9"):
            lab["pod1"].ping("pod9")

    def test_without_a_switch_nothing_passes(self, lab: Lab) -> None:
        result = lab["pod1"].ping("pod2", timeout=0.05)
        assert not result and result.sent == 1 and result.received == 0

    def test_bridge(self, lab: Lab) -> None:
        with lab.bridge():
            for family in (4, 6):
                result = lab["pod1"].ping("pod3", count=3, interval=0.01, family=family, timeout=PATIENCE)
                assert result and result.received == 3 and len(result.rtts) == 3
            for target in (lab["pod2"], ipaddress.ip_address("fd00::2")):
                assert lab["pod1"].ping(target, timeout=PATIENCE)
            known = {str(entry.ip): entry for entry in lab["pod1"].neighbours()}
            assert known["10.0.0.3"].mac == lab["pod3"].mac
        assert not lab["pod1"].ping("pod2", timeout=0.05)
        with lab.bridge(call_iptables=True) as name:  # a second time, and gone after each
            assert name in lab.run_host(["cat", "/proc/net/dev"]).stdout
        assert name not in lab.run_host(["cat", "/proc/net/dev"]).stdout

    def test_ping_needs_sense(self, lab: Lab) -> None:
        with pytest.raises(ConfigError, match="count"):
            lab["pod1"].ping("pod2", count=0)
        with pytest.raises(ConfigError, match="no IPv6 address"):
            lab["pod1"].ping("10.0.0.2", family=6)

    def test_no_route_is_no_answer(self, lab: Lab) -> None:
        result = lab["pod1"].ping("192.0.2.1", timeout=PATIENCE)
        assert not result and result.error == "Network is unreachable"

    def test_counters_count(self, lab: Lab) -> None:
        pod = lab["pod2"]
        before = pod.counters()
        with lab["pod2"].port.open_socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
            raw.bind((pod.port.name, 0))
            for _ in range(5):
                raw.send(pod.mac.packed + bytes.fromhex("020000000099 88b5") + bytes(46))
        after = pod.counters()
        assert after.rx_frames - before.rx_frames >= 5
        assert pod.port.counters().tx_frames >= 5

    def test_up_and_down(self, lab: Lab) -> None:
        with lab.bridge():
            for end in (lab["pod1"], lab["pod1"].port):
                end.set_down()
                assert not lab["pod2"].ping("pod1", timeout=0.05)
                end.set_up()
                # The bridge waits for the link watch, and ARP asks again after a second.
                eventually(lambda: lab["pod2"].ping("pod1", timeout=0.5), "an answer by the link that is up again")

    def test_programs(self, lab: Lab) -> None:
        assert lab["pod1"].run("echo $0 $HOME", shell=True, env={"HOME": "/x"}).stdout == "/bin/sh /x\n"
        assert lab["pod1"].run(["sh", "-c", "exit 3"], check=False).returncode == 3
        with pytest.raises(subprocess.CalledProcessError):
            lab["pod1"].run(["false"])
        with pytest.raises(subprocess.TimeoutExpired):
            lab["pod1"].run(["sleep", "1000"], timeout=0.05)

    def test_af_packet_ring_on_a_host_end(self, lab: Lab) -> None:
        version, rx_ring = 10, 5
        with lab.ports[0].open_socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sock:
            sock.setsockopt(socket.SOL_PACKET if hasattr(socket, "SOL_PACKET") else 263, version, 1)
            sock.setsockopt(263, rx_ring, struct.pack("=IIII", 1 << 16, 4, 2048, 128))
            sock.bind((lab.ports[0].name, 3))
            assert sock.getsockname()[4] == lab.ports[0].mac.packed

    def test_host_ends_are_silent(self, lab: Lab) -> None:
        for port in lab.ports:
            text = lab.run_host(
                ["sh", "-c", "cat $0/ipv6/conf/$1/disable_ipv6 $0/ipv4/conf/$1/forwarding", "/proc/sys/net", port.name]
            ).stdout
            assert text.split() == ["1", "0"]
        with lab.ports[0].open_socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            assert interface_flags(sock, "pod1") & 0x80  # IFF_NOARP


def interface_flags(sock: socket.socket, name: str) -> int:
    answer = fcntl.ioctl(sock.fileno(), 0x8913, struct.pack("16s24x", name.encode()))  # SIOCGIFFLAGS
    return int(struct.unpack_from("=H", answer, 16)[0])


@pytest.mark.live
@pytest.mark.parametrize("pods", [1, 100])
def test_sizes(pods: int) -> None:
    seen: list[tuple[int, int]] = []
    with Lab(pods, progress=lambda done, total: seen.append((done, total))) as lab:
        assert len(lab.ports) == pods
        with lab.bridge():
            assert lab.pods[0].ping(lab.pods[-1], count=2, timeout=PATIENCE)
    assert seen == [(n, pods) for n in range(1, pods + 1)]


@pytest.mark.live
def test_mtu_and_a_family_left_out() -> None:
    with Lab(2, mtu=9000) as lab:
        assert lab["pod1"].run(["cat", "/proc/sys/net/ipv6/conf/eth0/mtu"]).stdout == "9000\n"
    plan = Topology.of(2, ipv6=None)
    with Lab(plan) as lab:
        assert lab["pod1"].ipv6 is None
        assert lab["pod1"].run(["cat", "/proc/net/if_inet6"]).stdout == ""
        with pytest.raises(ConfigError, match="no IPv6 address"):
            lab["pod1"].ping("pod2", family=6)
    with pytest.raises(ConfigError, match="contradicts"):
        Lab(plan, mtu=9000)


@pytest.mark.live
def test_failure_half_way_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0
    configure = topology_module.configure_pod

    def fail_at_third(*arguments: object) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        configure(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(topology_module, "configure_pod", fail_at_third)
    with pytest.raises(KeyboardInterrupt):
        Lab(5)  # the sandbox's own check looks for what is left


@pytest.mark.live
def test_close_while_programs_run_in_threads() -> None:
    lab = Lab(2)
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(lab["pod1"].run(["sleep", "1000"], check=False).returncode))
    thread.start()
    lab["pod2"].popen(["sleep", "1000"])
    while not any("sleep" in line for line in programs()):
        pass
    lab.close()
    lab.close()
    thread.join()
    assert codes == [-9]
    with pytest.raises(LabError, match="closed"):
        lab["pod1"].ping("pod2")


@pytest.mark.live
def test_ping_with_more_files_open_than_select_can_watch() -> None:
    reserve_files(1100)
    files = [os.open(os.devnull, os.O_RDONLY) for _ in range(1024)]
    try:
        with Lab(2) as lab, lab.bridge():
            assert lab["pod1"].ping("pod2", timeout=PATIENCE)
    finally:
        for file in files:
            os.close(file)


def programs() -> list[str]:
    children = Path(f"/proc/{os.getpid()}/task").glob("*/children")
    pids = [pid for path in children for pid in path.read_text().split()]
    return [path.read_text() for pid in pids if (path := Path(f"/proc/{pid}/comm")).exists()]


@pytest.mark.live
def test_silence_puts_back_what_was_there() -> None:
    with NamespaceHelper() as helper, Links() as links:
        elsewhere = helper.create()
        try:
            links.add_pair("quiet", None, "eth0", MacAddress(0x020000000001), elsewhere.fd, 1500)
            links.set("quiet", state="up")
            address = ipaddress.IPv6Interface("fd00:1::1/64")
            links.add_address(links.index("quiet"), address)
            disabled = Path("/proc/sys/net/ipv6/conf/quiet/disable_ipv6")
            with silence(["quiet"]):
                assert links.flags("quiet") & 0x80
                assert disabled.read_text() == "1\n"
            assert not links.flags("quiet") & 0x80
            assert disabled.read_text() == "0\n"
            assert links.ipv6_addresses()[links.index("quiet")] == [address]
            with silence(["quiet"]):
                links.delete("quiet")  # nothing to put back, and no complaint
        finally:
            elsewhere.close()


@pytest.mark.live
def test_silence_writes_nothing_that_is_right_already(monkeypatch: pytest.MonkeyPatch) -> None:
    with NamespaceHelper() as helper, Links() as links:
        elsewhere = helper.create()
        try:
            links.add_pair("quiet", None, "eth0", MacAddress(0x020000000001), elsewhere.fd, 1500)
            for setting in ("ipv4/conf/quiet/forwarding 0", "ipv6/conf/quiet/disable_ipv6 1"):
                path, value = setting.split()
                Path("/proc/sys/net", path).write_text(value)

            def refuse(self: Path, text: str) -> None:
                raise OSError(errno.EROFS, os.strerror(errno.EROFS))

            monkeypatch.setattr(Path, "write_text", refuse)  # a container's /proc/sys
            with silence(["quiet"]):
                assert links.flags("quiet") & 0x80
            links.delete("quiet")
        finally:
            elsewhere.close()


def test_all_links_carry_frames_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def not_up(namespace: Namespace, *names: str) -> set[str]:
        with Links(namespace) as links:
            return {name for name in names if links._get(name).get_attr("IFLA_OPERSTATE") != "UP"}

    for _ in range(5):
        with Lab(3) as lab:
            assert not not_up(lab.namespace, "pod1", "pod2", "pod3")
        with Lab(2) as lab:
            with lab.direct():
                assert not any(not_up(pod.namespace, "eth0") for pod in lab)
            assert not not_up(lab.namespace, "pod1", "pod2")
    with Lab(1) as lab, Links(lab.namespace) as links:
        lab["pod1"].set_down()
        monkeypatch.setattr("fastbridge.lab.links._PATIENCE", 0.0)
        with pytest.raises(LabError, match="pod1 does not come up"):
            links.wait_until_up(["pod1"])
