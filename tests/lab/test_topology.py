"""Topologies are data and are checked; a lab is what the topology says."""

from __future__ import annotations

import errno
import fcntl
import ipaddress
import os
import re
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
from live import PATIENCE, eventually

from fastbridge import Switch
from fastbridge.addresses import MacAddress
from fastbridge.errors import ConfigError, LabError
from fastbridge.lab import topology as topology_module
from fastbridge.lab.link_counters import interface_index
from fastbridge.lab.links import Links
from fastbridge.lab.namespaces import Namespace, NamespaceHelper
from fastbridge.lab.ping import PingResult
from fastbridge.lab.pods import Pod
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

    def test_link_local_addresses_are_of_use_at_once(self, lab: Lab) -> None:
        for n, pod in enumerate(lab, 1):
            with pod.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
                index = interface_index(sock, "eth0")
                sock.bind((f"fe80::ff:fe00:{n}", 0, 0, index))
            addresses = [line.split() for line in pod.run(["cat", "/proc/net/if_inet6"]).stdout.splitlines()]
            local = [line for line in addresses if line[0].startswith("fe80")]
            assert [line[0][-6:] for line in local] == [f"{n:06}"]  # and no second one that the kernel made
        with lab.bridge():
            assert lab["pod1"].ping("fd00::2", timeout=PATIENCE)
            script = "import socket as s; i = s.if_nametoindex('eth0'); s.socket(s.AF_INET6, s.SOCK_DGRAM)"
            script += ".sendto(b'hello', ('fe80::ff:fe00:3', 5000, 0, i))"
            with lab["pod3"].socket(socket.AF_INET6, socket.SOCK_DGRAM) as hearer:
                hearer.settimeout(PATIENCE)
                hearer.bind(("::", 5000))
                lab["pod1"].run([sys.executable, "-c", script])
                data, sender = hearer.recvfrom(100)
            assert (data, sender[0].split("%")[0]) == (b"hello", "fe80::ff:fe00:1")

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
        with pytest.raises(ConfigError, match="not an IPv6 address"):
            lab["pod1"].ping("10.0.0.2", family=6)

    @pytest.mark.parametrize("size", [-1, 65_508])
    def test_ping_has_no_such_size(self, lab: Lab, size: int) -> None:
        with pytest.raises(ConfigError, match=f"0 to 65,507 bytes, not {size:,}"):
            lab["pod1"].ping("pod2", size=size)

    @pytest.mark.parametrize("family", [4, 6])
    def test_ping_of_a_size(self, lab: Lab, family: Literal[4, 6]) -> None:
        """The payload is so many bytes, on the wire as well; what does not fit the MTU comes back in one piece."""
        headers = {4: 14 + 20 + 8, 6: 14 + 40 + 8}[family]
        with lab.bridge(), lab["pod2"].socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as wire:
            wire.bind(("eth0", {4: 0x0800, 6: 0x86DD}[family]))
            wire.settimeout(PATIENCE)
            for size in (0, 1, 333, 1000):
                assert lab["pod1"].ping("pod2", size=size, family=family, timeout=PATIENCE)
                echo = {4: bytes([8]), 6: bytes([128])}[family]
                while (frame := wire.recv(2048))[headers - 8 : headers - 7] != echo:
                    pass
                assert len(frame) == headers + size
            for size in (10_000, 65_507):
                assert lab["pod1"].ping("pod2", size=size, family=family, timeout=PATIENCE)

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

    def test_a_pod_that_was_down_has_its_addresses_again(self, lab: Lab) -> None:
        pod = lab["pod1"]
        before = read_pod(pod, "/proc/net/if_inet6")
        pod.set_down()
        pod.set_down()
        assert "eth0" not in read_pod(pod, "/proc/net/if_inet6")
        pod.set_up()
        pod.set_up()
        assert sorted(read_pod(pod, "/proc/net/if_inet6").splitlines()) == sorted(before.splitlines())
        with lab.bridge():
            assert pod.ping("pod2", family=6, timeout=PATIENCE)

    def test_programs(self, lab: Lab) -> None:
        assert lab["pod1"].run("echo $0 $HOME", shell=True, env={"HOME": "/x"}).stdout == "/bin/sh /x\n"
        assert lab["pod1"].run(["sh", "-c", "exit 3"], check=False).returncode == 3

    def test_a_program_that_fails_is_named_with_what_it_said(self, lab: Lab) -> None:
        wrong = "echo no such thing >&2; exit 3"
        with pytest.raises(subprocess.CalledProcessError) as failed:
            lab["pod1"].run(["sh", "-c", wrong])
        assert failed.value.cmd == ["sh", "-c", wrong] and failed.value.returncode == 3
        assert str(failed.value).endswith("returned non-zero exit status 3.\nno such thing")
        with pytest.raises(subprocess.CalledProcessError) as failed:
            lab.run_host(wrong, shell=True, text=False)
        assert failed.value.cmd == wrong and str(failed.value).endswith("exit status 3.\nno such thing")
        with pytest.raises(subprocess.CalledProcessError, match=r"'false'.* returned non-zero exit status 1\.$"):
            lab["pod1"].run(["false"])
        with pytest.raises(subprocess.TimeoutExpired, match=r"'sleep'.*timed out after 0\.05 seconds"):
            lab["pod1"].run(["sleep", "1000"], timeout=0.05)

    def test_programs_see_the_interfaces_of_their_pod_in_sys(self, lab: Lab, tmp_path: Path) -> None:
        pod = lab["pod2"]
        listing = sorted(pod.run(["ls", "/sys/class/net"]).stdout.split())
        assert listing == sorted(pod.run(["ls", "/sys/devices/virtual/net"]).stdout.split())
        assert "eth0" in listing and "pod2" not in listing
        assert read_pod(pod, "/sys/class/net/eth0/address") == f"{pod.mac}\n"
        assert "pod2" in lab.run_host(["ls", "/sys/class/net"]).stdout.split()
        # All else is what it is outside: the directory a program starts in, and every other mount.
        (tmp_path / "here").write_text("found\n")
        assert pod.run(["cat", "here"], cwd=tmp_path).stdout == "found\n"
        assert pod.run(["pwd"]).stdout == f"{Path.cwd()}\n"
        with pytest.raises(FileNotFoundError):
            pod.run(["pwd"], cwd=tmp_path / "nowhere")
        mounts = mount_points(read_pod(pod, "/proc/self/mountinfo"))
        outside = mount_points(Path("/proc/self/mountinfo").read_text())
        assert sorted(mounts) == sorted(
            [*outside, "/etc/hosts", "/sys/class/net", "/sys/class/net", "/sys/devices/virtual/net"]
        )

    def test_a_mount_made_inside_stays_inside(self, lab: Lab, tmp_path: Path) -> None:
        pod = lab["pod1"]
        assert read_pod(pod, "/sys/class/net/eth0/address") == f"{pod.mac}\n"
        pod.run(["mount", "-t", "tmpfs", "inside", str(tmp_path)])
        assert "inside" in read_pod(pod, "/proc/self/mounts")
        assert "inside" not in Path("/proc/self/mounts").read_text()

    def test_a_program_starts_in_a_directory_that_has_no_name_any_more(
        self, lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "gone").mkdir()
        monkeypatch.chdir(tmp_path / "gone")
        (tmp_path / "gone").rmdir()
        assert lab["pod1"].run(["true"]).returncode == 0

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


@pytest.mark.live
def test_both_ends_of_every_link_are_active_at_once() -> None:
    """The kernel is slowest where both ends have the same index: so it is with the first pod, mostly."""
    with Lab(2) as lab:
        assert set(states([pod.namespace for pod in lab], "eth0")) == {"UP"}
        assert [states([lab.namespace], port.name) for port in lab.ports] == [["UP"]] * 2
        with lab.direct():
            assert set(states([pod.namespace for pod in lab], "eth0")) == {"UP"}
        assert set(states([pod.namespace for pod in lab], "eth0")) == {"UP"}


def states(namespaces: list[Namespace], interface: str) -> list[str]:
    """The operational states as the kernel lists them: to ask for one link alone would hurry it on."""
    listings = [namespace.run(["ip", "-o", "link"], capture_output=True, text=True).stdout for namespace in namespaces]
    return [re.findall(rf"^\d+: {interface}@.* state (\w+)", listing, re.M)[0] for listing in listings]


def read_pod(pod: Pod, path: str) -> str:
    return pod.run(["cat", path]).stdout


def mount_points(mountinfo: str) -> list[str]:
    return [line.split()[4] for line in mountinfo.splitlines()]


def interface_flags(sock: socket.socket, name: str) -> int:
    answer = fcntl.ioctl(sock.fileno(), 0x8913, struct.pack("16s24x", name.encode()))  # SIOCGIFFLAGS
    return int(struct.unpack_from("=H", answer, 16)[0])


def fill_neighbour_table(links: Links, version: int) -> bool:
    """Until the kernel, with one table for the whole machine, takes no more; False where it takes very many."""
    first, index = (
        {4: ipaddress.IPv4Address("10.0.128.1"), 6: ipaddress.IPv6Address("fd00::1:0")}[version],
        links.index("eth0"),
    )
    for n in range(8192):
        try:
            links._ip.neigh("add", ifindex=index, dst=str(first + n), lladdr="02:00:00:00:00:01", state="stale")
        except OSError as error:
            assert error.errno == errno.ENOBUFS
            return True
    return False


@pytest.mark.live
@pytest.mark.alone
@pytest.mark.parametrize("version", [4, 6])
def test_a_full_neighbour_table_is_named(version: Literal[4, 6]) -> None:
    with Lab(2) as lab, Switch(lab.ports):
        assert lab["pod1"].ping("pod2", family=version, timeout=PATIENCE).error is None
        unused = {4: "10.0.9.9", 6: "fd00::9:9"}[version]
        assert lab["pod1"].ping(unused, timeout=0.01) == PingResult(1, (), None)  # nobody is there, that is all
        assert unused in {str(entry.ip) for entry in lab["pod1"].neighbours()}
        with Links(lab["pod2"].namespace) as links:
            if not fill_neighbour_table(links, version):
                pytest.skip("this machine has a large neighbour table")
        result = lab["pod1"].ping({4: "10.0.9.8", 6: "fd00::9:8"}[version], timeout=0.01)
    assert result.error is not None and result.error.endswith(f"net.ipv{version}.neigh.default.gc_thresh3"), result


@pytest.mark.live
@pytest.mark.parametrize("pods", [1, 100])
def test_sizes(pods: int) -> None:
    seen: list[tuple[int, int]] = []
    plan = Topology.of(pods, ipv6=None)  # a hundred with IPv6 take half of the neighbours that a machine has room for
    with Lab(plan, progress=lambda done, total: seen.append((done, total))) as lab:
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
    eventually(lambda: programs().count("sleep\n") >= 2, "both programs")
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
