"""Engines: every one that can run here joins, restarts, waits, dies and ends as the bench needs it to."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from effort import few
from live import PATIENCE, eventually, holders_of

import fastbridge
from fastbridge import ConfigError, Lab, Topology
from fastbridge.bench.engines import (
    ENGINES,
    CommandEngine,
    Engine,
    LinuxBridge,
    Running,
    parse_command,
    parse_engines,
)
from fastbridge.bench.machine.cpus import Layout
from fastbridge.bench.machine.offloads import read_offloads, turn_off_offloads
from fastbridge.errors import BenchError
from fastbridge.lab import topology
from fastbridge.lab.links import Links
from fastbridge.lab.pods import Pod, Port

FORWARDER = Path(fastbridge.__file__).parent / "bench/engines/forwarder.py"
PLAIN = CommandEngine(f"{sys.executable} -I -S {FORWARDER} {{ports}}", name="command-of-the-test")
WRAPPED = CommandEngine(f"sh -c '{sys.executable} -I -S {FORWARDER} $* & wait' sh {{ports}}", name="wrapped-command")
# The switch is built in several ways, and these take the bench's ways to it all the same.
USUAL = ("fastbridge", "linux-bridge", "direct", "python", PLAIN.name)
EVERY = [
    pytest.param(engine, id=engine.name, marks=[] if engine.name in USUAL else pytest.mark.slow)
    for engine in (*ENGINES.values(), PLAIN, WRAPPED)
]
CPU = Layout.of_machine().switch


@dataclass
class Stage:
    """An engine at work."""

    engine: Engine
    lab: Lab
    running: Running

    @property
    def pids(self) -> list[int]:
        return [child.process.pid for child in self.running.processes]

    def talks(self) -> bool:
        """Whether every pod reaches the next, there and back."""
        pods = self.lab.pods
        return all(bool(pod.ping(pods[n - 1], timeout=PATIENCE)) for n, pod in enumerate(pods))


@contextlib.contextmanager
def staged(engine: Engine) -> Iterator[Stage]:
    reason = engine.missing()
    if reason:
        pytest.skip(reason)
    with Lab(Topology.of(min(3, engine.most_ports or 3), ipv6=None)) as lab, engine.attach(lab, CPU) as running:
        yield Stage(engine, lab, running)


def descendants(pid: int) -> list[int]:
    children = [int(word) for task in Path(f"/proc/{pid}/task").iterdir() for word in read(task / "children").split()]
    return [pid, *(grandchild for child in children for grandchild in descendants(child))]


def read(path: Path) -> str:
    try:
        return path.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


# -- names and requests ---------------------------------------------------------------------------


def test_engines_are_found_by_name() -> None:
    assert [engine.name for engine in parse_engines("ovs, linux-bridge")] == ["ovs", "linux-bridge"]
    assert [name for name, engine in ENGINES.items() if engine.ceiling] == ["direct"]


def test_all_are_all_those_that_cannot_run_here_included(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    everyone = parse_engines("all")
    assert [engine.name for engine in everyone] == [name for name in ENGINES if "/" not in name]
    assert [engine for engine in everyone if engine.missing()]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ovs,olvs", r"there is no engine 'olvs'; choose from fastbridge, .*ovs.*, or all$"),
        ("", "there is no engine"),
        ("ovs,ovs", "named twice"),
    ],
)
def test_a_wrong_name_is_refused_with_the_right_ones(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_engines(text)


def test_a_command_is_told_the_interfaces() -> None:
    engine = CommandEngine("prog -v --on={ports} {ports} --cpu {cpu} 'a b'")
    assert engine.argv(["x", "y"], 3) == ["prog", "-v", "--on=x,y", "x", "y", "--cpu", "3", "a b"]
    assert engine.missing() == "there is no program 'prog' on the PATH"


@pytest.mark.parametrize(
    ("text", "name", "command"),
    [
        ("prog {ports}", "prog", "prog {ports}"),
        (" /opt/a=b/prog {ports}", "prog", " /opt/a=b/prog {ports}"),
        ("mine=prog {ports}", "mine", "prog {ports}"),
        (" my-1.0_x=/opt/prog --on={ports}", "my-1.0_x", "/opt/prog --on={ports}"),
        ("prog --on={ports}", "prog", "prog --on={ports}"),
        ("python3 -I /opt/hub.py {ports}", "hub.py", "python3 -I /opt/hub.py {ports}"),
        ("prog --setup=x.sh {ports}", "prog", "prog --setup=x.sh {ports}"),
        ("a=b=c {ports}", "a", "b=c {ports}"),
    ],
)
def test_a_command_can_be_named(text: str, name: str, command: str) -> None:
    assert parse_command(text) == CommandEngine(command, name)


@pytest.mark.parametrize("command", ["", "prog", "{ports}", "prog '{ports}"])
def test_a_command_without_a_place_for_the_interfaces_is_refused(command: str) -> None:
    for text in (command, f"name={command}"):
        with pytest.raises(ConfigError, match=rf"engine command {re.escape(repr(command))}"):
            parse_command(text)


def test_a_missing_program_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    for name, package in [("ovs", "openvswitch-switch"), ("testpmd", "dpdk-dev"), ("vde", "vde2")]:
        reason = ENGINES[name].missing()
        assert reason and ("tun" in reason or reason.endswith(f"install the Debian package {package}"))


@pytest.mark.parametrize("name", ["ovs", "vde"])
def test_a_tun_device_that_may_not_be_opened_is_missing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As for the root of a user namespace on a machine where the device is the first root's alone."""
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    monkeypatch.setattr(Path, "exists", lambda path: True)
    assert ENGINES[name].missing() == "/dev/net/tun is not yours to open: be root, or chmod 666 /dev/net/tun"


# -- live -----------------------------------------------------------------------------------------


@pytest.mark.live
@pytest.mark.parametrize("engine", EVERY)
def test_an_engine_joins_pauses_restarts_and_ends(engine: Engine) -> None:
    assert engine.missing() or engine.version()
    with staged(engine) as stage:
        running, before = stage.running, stage.pids
        assert running.command and running.buffers
        assert stage.talks()
        check_tcp(stage.lab)
        check_cpu(stage)
        for kill in (False, True):
            running.restart(kill)
            assert not before or not set(before) & set(stage.pids)
            assert stage.talks(), f"after restart(kill={kill})"
            before = stage.pids
        running.check()
        check_pause(stage)
        running.stop()
        running.stop()
        assert not stage.pids
        assert engine.ceiling or not stage.lab.pods[0].ping(stage.lab.pods[1], timeout=0.05)
        assert not any(Path(f"/proc/{pid}").exists() for pid in before)
        check_paths(stage)


def check_tcp(lab: Lab) -> None:
    """A connection and some frames' worth, which takes right checksums, and no frames too large for the switch."""
    one, two, *_ = lab.pods
    data = os.urandom(1 << 18)
    assert two.ipv4
    with two.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.bind((str(two.ipv4.ip), 0))
        listener.listen()
        listener.settimeout(PATIENCE)
        with one.socket(socket.AF_INET, socket.SOCK_STREAM) as client:
            client.settimeout(PATIENCE)
            client.connect(listener.getsockname())
            server, _ = listener.accept()
            with server:
                server.settimeout(PATIENCE)
                client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, len(data))
                client.sendall(data[: len(data) // 2])  # no more than what fits the buffers on both sides
                client.shutdown(socket.SHUT_WR)
                heard = b""
                while part := server.recv(1 << 16):
                    heard += part
    assert heard == data[: len(data) // 2]


def check_paths(stage: Stage) -> None:
    """At its end fastbridge says which way frames went, over all its lives but one that was killed."""
    paths = stage.running.paths
    if not stage.engine.name.startswith("fastbridge"):
        assert paths is None
        return
    assert paths is not None and paths[1] > 0  # broadcasts, whatever else goes
    if stage.engine.name in ("fastbridge/nft", "fastbridge/bpf"):
        assert paths[0] > 0
    elif stage.engine.name != "fastbridge":
        assert paths[0] == 0


def check_cpu(stage: Stage) -> None:
    """CPU time is counted, on the one CPU it was given."""
    used = stage.running.cpu_seconds()
    if not stage.pids:
        assert used is None
        return
    assert used and used > 0
    assert stage.talks()
    eventually(lambda: (stage.running.cpu_seconds() or 0) > used, "CPU time to grow")
    if "workers" in stage.engine.name:
        return  # they share the CPUs there are
    for pid in {process for child in stage.pids for process in descendants(child)}:
        for task in Path(f"/proc/{pid}/task").iterdir():
            assert f"Cpus_allowed_list:\t{CPU}\n" in read(task / "status"), task


def check_pause(stage: Stage) -> None:
    """Held still, it forwards nothing and takes no time; afterwards it goes on.

    By its fast path the kernel forwards what is known, without it.
    """
    stage.running.pause()
    if stage.pids:
        kernel = stage.engine.name in ("fastbridge", "fastbridge/nft", "fastbridge/bpf")
        assert kernel or not stage.lab.pods[0].ping(stage.lab.pods[1], timeout=0.1)
        used = stage.running.cpu_seconds()
        assert kernel or not stage.lab.pods[0].ping(stage.lab.pods[1], timeout=0.1)
        assert stage.running.cpu_seconds() == used
    stage.running.resume()
    eventually(stage.talks, "what was paused to go on")
    stage.running.pause()  # and it must end in this state, too


@pytest.mark.live
@pytest.mark.parametrize("engine", EVERY)
def test_offloads_are_off_where_the_engine_says_so(engine: Engine) -> None:
    with staged(engine) as stage:
        for pod in stage.lab:
            with pod.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                offloads = read_offloads(sock, pod.interface)
            state = "off" if engine.offloads_off else "on"
            assert f"tx {state}" in offloads and f"tso {state}" in offloads


@pytest.mark.live
@pytest.mark.parametrize("name", few(3, ["fastbridge", "ovs", "vde", "testpmd", "vde/wirefilter"]))
@pytest.mark.parametrize("which", [0, -1])
def test_an_engine_that_dies_is_noticed(name: str, which: int) -> None:
    with staged(ENGINES[name]) as stage:
        victim = stage.running.processes[which].process
        os.kill(victim.pid, signal.SIGKILL)
        victim.wait(PATIENCE)
        with pytest.raises(BenchError, match=rf"^{name}\b.*killed by signal 9"):
            stage.running.check()
        with pytest.raises(BenchError, match=name):
            stage.running.cpu_seconds()


@pytest.mark.live
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("fastbridge", "fastbridge ended with status 1: fastbridge: there is no interface 'nowhere'"),
        ("python", r"python ended with status 1: OSError: \[Errno 19\] No such device$"),
        ("ovs", r"ovs: could not open network device nowhere \(No such device\)$"),
        ("testpmd", "nowhere: cannot turn tso off: No such device$"),
        ("testpmd-xdp", "nowhere: cannot turn tso off: No such device$"),
        ("vde", "there is no interface nowhere"),
    ],
)
def test_one_that_cannot_start_says_why(name: str, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastbridge.bench.engines.ovs.turn_off_offloads", lambda lab: None)  # it shall say it itself
    engine = ENGINES[name]
    if engine.missing():
        pytest.skip(str(engine.missing()))
    with Lab(Topology.of(2, ipv6=None)) as lab:
        lab.ports[1].interface = "nowhere"
        with pytest.raises((BenchError, fastbridge.LabError), match=f"^{reason}"), engine.attach(lab, CPU):
            pass


@pytest.mark.live
def test_one_that_would_take_another_path_than_its_name_says_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without root the switch itself would go on by nf_tables."""
    engine = ENGINES["fastbridge/bpf"]
    reason = engine.missing()
    if reason and "not permitted" not in reason:
        pytest.skip(reason)  # an old kernel says something else
    real = Lab.popen_host

    def unprivileged(lab: Lab, argv: list[str], **options: Any) -> Any:
        return real(lab, ["setpriv", "--bounding-set=-bpf,-sys_admin", "--", *argv], **options)

    monkeypatch.setattr(Lab, "popen_host", unprivileged)
    with Lab(Topology.of(2, ipv6=None)) as lab:
        message = r"fastbridge/bpf ended with status 1: fastbridge: no fast path by bpf: .*Operation not permitted"
        with pytest.raises(BenchError, match=message), engine.attach(lab, CPU):
            pass


def end(running: Any) -> None:
    """Of a command that is not waited for long enough to see its end."""
    running.processes[0].process.wait(PATIENCE)
    running.check()


@pytest.mark.live
def test_a_command_that_dies_says_its_last_words_and_one_that_is_deaf_is_waited_for_no_longer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("fastbridge.bench.engines.command.READY_SECONDS", 0.3)
    with Lab(Topology.of(2, ipv6=None)) as lab:
        mortal = CommandEngine("sh -c 'echo it was too much; exit 3' sh {ports}", name="mortal")
        with (
            pytest.raises(BenchError, match=r"^mortal ended with status 3: it was too much$"),
            mortal.attach(lab, CPU) as running,
        ):
            end(running)
        with CommandEngine("sh -c 'sleep 1000' {ports}").attach(lab, CPU) as running:
            running.check()
            running.restart(kill=True)
            running.check()


@pytest.mark.live
def test_a_command_is_started_where_its_user_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("fastbridge.bench.engines.command.READY_SECONDS", 0.3)
    monkeypatch.chdir(tmp_path)
    with Lab(Topology.of(2, ipv6=None)) as lab:
        mine = CommandEngine("sh -c 'pwd >&2; exit 1' sh {ports}", name="mine")
        with (
            pytest.raises(BenchError, match=f"^mine ended with status 1: {tmp_path}$"),
            mine.attach(lab, CPU) as running,
        ):
            end(running)


@pytest.mark.live
@pytest.mark.parametrize("wait", ["", "sleep 0.2;"])  # a daemon's parent may leave before or after the first probe
def test_a_command_that_leaves_for_the_background_is_told_to_stay(wait: str) -> None:
    daemon = f"setsid {sys.executable} -I -S {FORWARDER} $* >/dev/null & {wait} exit 0"
    message = "^daemon ended with status 0; it must stay in the foreground"
    engine = parse_command(f"daemon=sh -c '{daemon}' sh {{ports}}")
    with (
        Lab(Topology.of(2, ipv6=None)) as lab,
        pytest.raises(BenchError, match=message),
        engine.attach(lab, CPU) as running,
    ):
        running.processes[0].process.wait(PATIENCE)
        running.check()


@pytest.mark.live
@pytest.mark.parametrize("netfilter", [False, True])
def test_the_bridge_says_that_it_cannot_be_killed(netfilter: bool) -> None:
    with staged(LinuxBridge(netfilter)) as stage:
        assert not stage.running.processes
        assert "it has no process" in stage.running.command


@pytest.mark.live
@pytest.mark.parametrize("name", ["direct", "testpmd"])
def test_two_ports_are_two(name: str) -> None:
    with Lab(Topology.of(3, ipv6=None)) as lab, pytest.raises(BenchError, match="two ports, not 3"):
        ENGINES[name].attach(lab, CPU).__enter__()


@pytest.mark.live
def test_the_direct_pair_comes_and_goes() -> None:
    with Lab(2) as lab:
        one, two = lab
        assert one.counters() and two.port.counters()  # what they remember of the old interfaces must not stick
        with lab.direct():
            assert one.ping(two, timeout=PATIENCE) and (one.ipv6 is None or one.ping(two, family=6, timeout=PATIENCE))
            eventually(lambda: one.counters().tx_frames == two.counters().rx_frames > 0, "both ends' counts to agree")
            assert not lab.run_host(["ls", "/proc/sys/net/ipv4/conf"]).stdout.count("pod")
            assert f" {two.mac} " in two.run(["ip", "link", "show", two.interface]).stdout
        assert not one.ping(two, timeout=0.05)
        with lab.bridge():
            assert one.ping(two, timeout=PATIENCE)
            agree(one)
    with Lab(3) as lab, pytest.raises(ConfigError, match="two pods, not 3"), lab.direct():
        pass


@pytest.mark.live
@pytest.mark.parametrize(
    ("owner", "step", "time"),
    [
        (Port, "delete", 1),
        (Port, "delete", 2),
        (Links, "add_pair", 1),
        (topology, "configure_pod", 1),
        (topology, "configure_pod", 2),
    ],
)
def test_ctrl_c_on_the_way_to_the_direct_pair_leaves_the_lab_with_its_links(
    owner: object, step: str, time: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = getattr(owner, step)
    calls = itertools.count(1)

    def interrupted(*arguments: object) -> object:
        if next(calls) == time:
            raise KeyboardInterrupt
        return real(*arguments)

    with Lab(2) as lab:
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(owner, step, interrupted)
            lab.direct().__enter__()
        check_links(lab)


@pytest.mark.live
def test_the_links_come_back_when_the_direct_pair_is_gone_already() -> None:
    with Lab(2) as lab:
        with lab.direct():
            lab.pods[0].run(["ip", "link", "delete", "eth0"])
        check_links(lab)


def check_links(lab: Lab) -> None:
    one, two = lab.pods
    with lab.bridge():
        assert one.ping(two, timeout=PATIENCE)
        agree(one)


def agree(pod: Pod) -> None:
    """Both ends count the same, once nothing passes between the one reading and the other."""
    eventually(lambda: pod.counters().tx_frames == pod.port.counters().rx_frames > 0, "both ends' counts to agree")


@pytest.mark.live
def test_offloads_do_not_survive_the_direct_pair() -> None:
    def are_on() -> bool:
        with lab.pods[0].socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            return "tso on" in read_offloads(sock, lab.pods[0].interface)

    with Lab(2) as lab:
        turn_off_offloads(lab)
        assert not are_on()
        with lab.direct():
            assert are_on()
        assert are_on()


BENCH_THAT_WAITS = """
import sys, time
from fastbridge import Lab, Topology
from fastbridge.bench.engines import ENGINES, fastbridge, testpmd, vde
fastbridge.READY_SECONDS = testpmd.READY_SECONDS = vde.READY_SECONDS = 60.0
engine = ENGINES[sys.argv[1]]
with Lab(Topology.of(2, ipv6=None)) as lab, engine.attach(lab, 0) as running:
    print(*(child.process.pid for child in running.processes), flush=True)
    time.sleep(1000)
"""
PLACES = ("run/*", "run/*/*", "tmp/*dpdk*", "tmp/*ovs*", "tmp/*vde*", "sys/fs/bpf/*", "dev/shm/*", "dev/hugepages/*")


@pytest.mark.live
@pytest.mark.parametrize("name", few(2, ["fastbridge", "ovs", "testpmd", "testpmd-xdp", "vde", "vde/wirefilter"]))
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_nothing_is_left_when_the_bench_is_killed(name: str, end: signal.Signals) -> None:
    if ENGINES[name].missing():
        pytest.skip(str(ENGINES[name].missing()))
    before = files()
    command = [sys.executable, "-c", BENCH_THAT_WAITS, name]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as bench:
        assert bench.stdout
        pids = [int(word) for word in bench.stdout.readline().split()]
        assert pids
        places = [Path(f"/proc/{pid}/ns/{kind}") for pid in pids for kind in ("net", "mnt")]
        ours = {Path(f"/proc/self/ns/{kind}").readlink() for kind in ("net", "mnt")}
        with holders_of([place for place in places if place.readlink() not in ours]) as holders:
            assert holders() >= set(pids)
            bench.send_signal(end)
            eventually(lambda: not holders(), "the end of the namespaces' last holder")
    # Those of another bench on the machine, too. A killed switch's control socket stays until another switch starts.
    eventually(lambda: not {file for file in files() - before if "run/fastbridge" not in str(file)}, "its files to go")


def files() -> set[str]:
    return {str(path) for place in PLACES for path in Path("/").glob(place)}
