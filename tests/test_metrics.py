"""Metrics: they are the counters, Prometheus reads them, and whoever asks for them harms nobody."""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import arp_nd_frames as make
import pytest
from arp_nd_frames import A, B
from command import COMMAND, ROOT, complaint, run, say
from fast import know_each_other
from frames import GROUP, ethernet
from live import PATIENCE, eventually
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics import exposition, parser

from fastbridge import Drop, Guard, Kind, Lab, Message, Neighbours, Policy, Punt, Switch, Topology, Verdict, Wants
from fastbridge.errors import ConfigError
from fastbridge.metrics import collector
from fastbridge.metrics.endpoint import _MOST_CLIENTS, Endpoint
from fastbridge.switch.counters import PortCounters

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]
OPENMETRICS = "Accept: application/openmetrics-text;version=1.0.0"


def parsed(text: str) -> Samples:
    """The samples, none twice."""
    found = [s for family in parser.text_string_to_metric_families(text) for s in family.samples]
    samples = {(s.name, frozenset(s.labels.items())): s.value for s in found}
    assert len(samples) == len(found)
    return samples


def collected(switch: Any) -> Samples:
    registry = CollectorRegistry()
    registry.register(collector(switch))
    return parsed(exposition.generate_latest(registry).decode())


def total(samples: Samples, metric: str, **labels: str) -> float:
    """The sum over all other labels."""
    return sum(
        value for (name, found), value in samples.items() if name == f"fastbridge_{metric}" and labels.items() <= found
    )


class Gossip(Policy):
    """Drops announcements, for a reason that names who sent them."""

    wants = Wants(arp_group=Punt.TAKE)

    def decide(self, message: Message, neighbours: Neighbours) -> Verdict | None:
        return Drop(f"gossip of {message.sender_mac}") if message.kind is Kind.ARP_ANNOUNCEMENT else None


def busy_switch(policy: Policy | str = "guard") -> Any:
    """One whose frames met many fates."""
    switch = Switch.in_memory(["one", "two", "three"], policy=policy)
    switch.set_link("three", "delay=60s")
    one, two = (int(mac.replace(":", ""), 16) for mac in (A, B))
    frames = [ethernet(GROUP, one), ethernet(two, one), b"short", bytes(60), ethernet(GROUP, GROUP)]
    switch.process("one", [*frames, bytes(make.arp(1, A, "10.0.0.1", "10.0.0.1"))])
    switch.process("two", [ethernet(one, two), ethernet(GROUP, one), bytes(make.arp(1, B, "10.0.0.1", "10.0.0.1"))])
    return switch


def test_the_metrics_are_the_counters() -> None:
    switch = busy_switch()
    samples, counters = collected(switch), switch.counters()
    assert counters.total.forwarded and counters.total.flooded and counters.total.consumed
    assert sum(counters.total.dropped.values()) >= 3
    for name, port in counters.ports.items():
        assert total(samples, "port_receive_frames_total", port=name) == port.rx_frames + port.fast
        assert total(samples, "port_receive_bytes_total", port=name) == port.rx_bytes + port.fast_bytes
        assert total(samples, "port_forwarded_frames_total", port=name, path="core") == port.forwarded
        assert total(samples, "port_forwarded_frames_total", port=name, path="kernel") == port.fast
        assert total(samples, "port_flooded_frames_total", port=name) == port.flooded
        assert total(samples, "port_consumed_frames_total", port=name) == port.consumed
        assert total(samples, "port_transmit_frames_total", port=name, path="core") == port.tx_frames
        assert total(samples, "port_transmit_frames_total", port=name, path="kernel") == port.fast_sent
        assert total(samples, "port_transmit_bytes_total", port=name) == port.tx_bytes
        drops = {"receive": {**port.dropped, "rx_missed": port.rx_missed}, "transmit": port.tx_dropped}
        for direction, reasons in drops.items():
            for reason, count in reasons.items():
                labels = {"port": name, "direction": direction, "reason": reason}
                assert total(samples, "port_dropped_frames_total", **labels) == count
        flying = {"receive": port.rx_in_flight, "transmit": port.tx_in_flight}
        for direction, count in flying.items():
            assert total(samples, "port_in_flight_frames", port=name, direction=direction) == count
        assert total(samples, "port_up", port=name) == 1
    accounted(samples)
    for event in "learned", "moved", "aged", "evicted", "refused":
        assert total(samples, "fdb_events_total", event=event) == getattr(counters, event)
    for fate, count in counters.policy.items():
        assert total(samples, "policy_frames_total", fate=fate) == count
    assert (total(samples, "fdb_entries"), total(samples, "fdb_entries_limit")) == (len(switch.fdb), 65536)
    assert total(samples, "neighbour_entries") == len(switch.neighbours) > 0
    assert (
        total(samples, "link_memory_bytes")
        == switch.link_memory[0]
        > 0
        == total(samples, "port_link_added_frames_total")
    )
    assert total(samples, "link_memory_limit_bytes") == switch.link_memory[1]
    assert total(samples, "fast_path_info", path="off") == 1
    assert total(samples, "build_info") == 1


def accounted(samples: Samples) -> None:
    """Every frame has its fate."""
    drops = total(samples, "port_dropped_frames_total", direction="receive")
    drops -= total(samples, "port_dropped_frames_total", reason="rx_missed")
    fates = sum(total(samples, f"port_{fate}_frames_total") for fate in ("forwarded", "flooded", "consumed"))
    flying = total(samples, "port_in_flight_frames", direction="receive")
    assert total(samples, "port_receive_frames_total") == fates + drops + flying


def test_no_counter_is_left_out() -> None:
    """Each one, of a port where all others are 0, is a metric."""

    class Fake:
        ports = ()

        def __init__(self, port: PortCounters) -> None:
            self.switch = Switch.in_memory(1)
            self.port = port

        def counters(self) -> Any:
            return type("Fakes", (), {**dict.fromkeys(("learned", "moved", "aged", "evicted", "refused"), 0),
                                      "ports": {"p": self.port}, "policy": {}})  # fmt: skip

        def vitals(self) -> Any:
            return self.switch.vitals()

    for name in PortCounters.__slots__:
        counters = PortCounters(**{name: {"some_reason": 7} if name in ("dropped", "tx_dropped") else 7})
        samples = collected(Fake(counters))
        assert [value for (_, labels), value in samples.items() if ("port", "p") in labels and value] == [7] * (
            2 if name == "fast" else 1  # received, and forwarded by the kernel
        ) or name == "forwarded", name


def test_any_name_of_a_port_is_a_label() -> None:
    names = ['a"b\\c{}', "x=y,z", "été", "\udcff\udcfe", "#"]
    samples = collected(Switch.in_memory(names))
    found = {dict(labels)["port"] for (name, labels) in samples if name == "fastbridge_port_up"}
    assert found == {*names[:3], "\\xff\\xfe", "#"}


@pytest.mark.parametrize("policy", [Guard(), Gossip()], ids=["guard", "gossip"])
def test_no_address_is_a_label(policy: Policy) -> None:
    switch = busy_switch(policy)
    assert len(switch.fdb) >= 2
    labels = {value for _, labels in collected(switch) for _, value in labels}
    assert not [value for value in labels if re.search(r"[0-9a-f]{2}:[0-9a-f]{2}|\d+\.\d+\.\d+\.\d+", value)]
    if isinstance(policy, Gossip):
        assert total(collected(switch), "policy_frames_total", fate="dropped:other") == 2


def test_a_policy_makes_only_so_many_labels() -> None:
    switch = Switch.in_memory(2)
    for number in range(1000):
        name = "".join(chr(ord("a") + int(digit)) for digit in str(number))
        switch._policing._counts[f"dropped:{name}"] += 1
    fates = {dict(labels)["fate"]: value for (n, labels), value in collected(switch).items() if "policy_frames" in n}
    assert len(fates) < 60 and sum(fates.values()) == 1000


# -- the endpoint -----------------------------------------------------------------------------------


@contextmanager
def serving(directory: Path, switch: Any = None) -> Iterator[str]:
    """A Unix socket that serves a switch's metrics."""
    path = directory / "metrics"
    with closing(Endpoint(f"unix:{path}")) as endpoint:
        endpoint.start(switch or busy_switch())
        yield str(path)
    assert not path.exists()


@contextmanager
def connected(path: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(PATIENCE)
        sock.connect(path)
        yield sock


def read_all(sock: socket.socket) -> bytes:
    return b"".join(iter(lambda: sock.recv(1 << 16), b""))


def ask(sock: socket.socket, path: str = "/metrics", *fields: str, method: str = "GET") -> tuple[int, str, str]:
    """The status, the head and the body of the answer."""
    sock.sendall("\r\n".join([f"{method} {path} HTTP/1.1", "Host: x", *fields, "", ""]).encode())
    head, _, body = read_all(sock).decode().partition("\r\n\r\n")
    return int(head.split()[1]), head, body


def test_who_asks_for_openmetrics_gets_it_and_others_plain_text(tmp_path: Path) -> None:
    switch = busy_switch()
    with serving(tmp_path, switch) as path:
        with connected(path) as sock:
            status, head, body = ask(sock, "/metrics", OPENMETRICS)
        assert status == 200 and "application/openmetrics-text; version=1.0.0" in head
        samples = parsed(body)
        assert collected(switch).items() <= samples.items()
        assert samples["process_cpu_seconds_total", frozenset()] > 0
        with connected(path) as sock:
            status, head, body = ask(sock, "/metrics?x=y")
        assert status == 200 and "text/plain; version=0.0.4" in head and "# EOF" not in body
        with connected(path) as sock:
            status, head, none = ask(sock, method="HEAD")
        assert (status, none) == (200, "") and re.search(r"^Content-Length: \d{4,}\r?$", head, re.M)


def test_promtool_has_nothing_to_say_against_them(tmp_path: Path) -> None:
    if not shutil.which("promtool"):
        pytest.skip("no promtool (Debian package prometheus)")
    with serving(tmp_path) as path, connected(path) as sock:
        _, _, body = ask(sock)
    mine = re.sub(r"^(# \w+ )?process_.*\n", "", body, flags=re.M)
    done = subprocess.run(["promtool", "check", "metrics"], input=mine, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 404),
        (b"POST /metrics HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello", 405),
        (b"\0\xff\x13\x37\r\n\r\n", 400),
        (b"GET /metrics\r\n\r\n", 400),
        (b"GET /metrics HTTP/1.1\r\n" + b"X: y\r\n" * 2000, 431),
    ],
    ids=["elsewhere", "post", "bytes", "version", "long"],
)
def test_a_wrong_request_gets_one_line_and_the_door(tmp_path: Path, request_bytes: bytes, status: int) -> None:
    with serving(tmp_path) as path:
        with connected(path) as sock:
            sock.sendall(request_bytes)
            answer = b""
            try:
                while piece := sock.recv(4096):
                    answer += piece
            except ConnectionResetError:  # after the answer: it was not asked for the rest
                pass
        head, _, body = answer.decode().partition("\r\n\r\n")
        assert int(head.split()[1]) == status and body.count("\n") == 1
        with connected(path) as sock:
            assert ask(sock)[0] == 200


def test_who_is_silent_slow_or_many_harms_nobody(tmp_path: Path) -> None:
    """The good client is answered, though there are more others than there is room for; one thread serves all."""
    with serving(tmp_path) as path:
        threads = threading.active_count()
        others = []
        for number in range(3 * _MOST_CLIENTS):
            other = socket.socket(socket.AF_UNIX)
            other.settimeout(PATIENCE)
            other.connect(path)
            others.append(other)
            match number % 3:
                case 0:
                    other.send(b"GET /metr")
                case 1:  # and never reads
                    other.send(b"GET /metrics HTTP/1.1\r\n\r\n")
        for _ in range(5):
            with connected(path) as sock:
                assert ask(sock)[0] == 200
        assert threading.active_count() == threads
        for other in others:
            other.close()


def test_one_that_asks_all_the_time_gets_few_snapshots(tmp_path: Path) -> None:
    """An answer is made again after 20 times what it took: a share of 5 % of a CPU at most."""
    switch = busy_switch()
    taken = [0]
    counters = switch.counters

    def slow() -> Any:
        taken[0] += 1
        until = time.thread_time() + 0.02
        while time.thread_time() < until:
            pass
        return counters()

    switch.counters = slow
    with serving(tmp_path, switch) as path:
        began = time.monotonic()
        for _ in range(20):
            with connected(path) as sock:
                assert ask(sock)[0] == 200
        assert taken[0] <= 1 + (time.monotonic() - began) / 0.4


def test_a_switch_that_fails_is_an_error_and_not_the_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    switch = busy_switch()
    counters, switch.counters = switch.counters, lambda: 1 / 0
    with serving(tmp_path, switch) as path:
        with connected(path) as sock:
            assert ask(sock)[0] == 500
        assert "metrics failed" in caplog.text
        switch.counters = counters
        with connected(path) as sock:
            assert ask(sock)[0] == 200


FORKS = """
import os, sys
from fastbridge import Switch
from fastbridge.metrics.endpoint import Endpoint
endpoint = Endpoint("unix:" + sys.argv[1])
endpoint.start(Switch.in_memory(2))
if not (child := os.fork()):
    endpoint.close()  # it is the parent's
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
print("forked", flush=True)
sys.stdin.read()
endpoint.close()
"""


def test_a_forked_child_leaves_it_to_the_parent(tmp_path: Path) -> None:
    path = tmp_path / "metrics"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", FORKS, str(path)], text=True, cwd=ROOT, **pipes) as process:
        assert process.stdout is not None and process.stdout.readline() == "forked\n"
        with connected(str(path)) as sock:
            assert ask(sock)[0] == 200
        assert process.communicate(timeout=PATIENCE) == ("", "")
        assert process.returncode == 0
    assert not path.exists()


@pytest.mark.parametrize(
    "address", ["", "x", "1:2:3", "::1:9000", "[::1:9000", "127.0.0.1]:1", "[]:1", "70000", "a b:1", "unix:"]
)
def test_a_wrong_address_is_one_line(address: str) -> None:
    with pytest.raises(ConfigError, match="metrics") as raised:
        Endpoint(address).close()
    assert "\n" not in str(raised.value)


def test_a_stale_socket_is_replaced_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "metrics"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    Endpoint(f"unix:{path}").close()  # replaces it, and leaves nothing
    path.write_text("mine")
    with pytest.raises(ConfigError, match="a file that is no socket"):
        Endpoint(f"unix:{path}")
    assert path.read_text() == "mine"
    path.unlink()
    with closing(Endpoint(f"unix:{path}")), pytest.raises(ConfigError, match="already in use"):
        Endpoint(f"unix:{path}")
    assert not path.exists()


@pytest.mark.parametrize("first_ends", ["before", "after"])
def test_who_takes_over_has_the_socket_from_its_start_on(tmp_path: Path, first_ends: str) -> None:
    path = tmp_path / "metrics"
    first = Endpoint(f"unix:{path}")
    with closing(Endpoint(f"unix:{path}", take_over=True)) as second:
        assert second.url == f"unix:{path}"
        if first_ends == "before":
            first.close()
        second.start(busy_switch())
        first.close()
        with connected(str(path)) as sock:
            assert ask(sock)[0] == 200
    assert not list(tmp_path.iterdir())


def test_who_fails_to_take_over_leaves_the_socket(tmp_path: Path) -> None:
    path = tmp_path / "metrics"
    with closing(Endpoint(f"unix:{path}")) as first:
        Endpoint(f"unix:{path}", take_over=True).close()
        first.start(busy_switch())
        with connected(str(path)) as sock:
            assert ask(sock)[0] == 200
        assert list(tmp_path.iterdir()) == [path]


TAKES_OVER = """
from contextlib import closing
from fastbridge import ConfigError
from fastbridge.metrics.endpoint import Endpoint
with closing(Endpoint("0")) as first:
    port = first.url.split(":")[2].partition("/")[0]
    try:
        Endpoint(port)
    except ConfigError as error:
        print(error)
    for _ in range(2):  # one after the other
        Endpoint(port, take_over=True).close()
    print("done")
"""


@pytest.mark.live
def test_a_tcp_port_is_shared_with_who_takes_over_alone(lab: Lab) -> None:
    refused, done = lab.run_host([sys.executable, "-c", TAKES_OVER]).stdout.splitlines()
    assert re.fullmatch(r"no metrics on \d+: Address already in use; give another port or address", refused)
    assert done == "done"


def test_without_the_extra_one_line_says_what_to_install() -> None:
    script = (
        "import sys; sys.modules['prometheus_client'] = None\n"
        "from fastbridge.cli import main\n"
        "sys.argv = ['fastbridge', 'run', '--metrics', '0', 'a', 'b']; main()"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=180, cwd=ROOT)
    assert "pip install -e '.[metrics]'" in complaint(done, 2)


def test_a_wrong_address_of_a_run_is_one_line() -> None:
    assert "is no address for metrics" in complaint(run("run", "--metrics", "nowhere", "a", "b"), 2)


# -- the dashboard ----------------------------------------------------------------------------------

DASHBOARD = Path(__file__).parents[1] / "docs/grafana.json"


@pytest.mark.skipif(not DASHBOARD.exists(), reason="the tests were copied without docs/")
def test_every_expression_of_the_dashboard_names_a_metric_that_exists() -> None:
    registry = CollectorRegistry()
    registry.register(collector(busy_switch()))
    known: dict[str, set[str]] = {}
    for family in registry.collect():
        for sample in family.samples:
            known.setdefault(sample.name, {"instance", "le"}).update(sample.labels)
    known["fastbridge_worker_cpu_seconds_total"] = {"instance", "worker"}  # none in memory
    board = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    expressions = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    expressions += [v["query"] for v in board["templating"]["list"] if v["type"] == "query"]
    assert len(expressions) > 20
    for expression in expressions:
        names = re.findall(r"fastbridge_\w+", expression)
        assert names and set(names) <= set(known), expression
        wanted = re.findall(r"(\w+)=~", expression)
        wanted += [label for group in re.findall(r"by \(([^)]*)\)", expression) for label in group.split(", ")]
        assert all(set(wanted) <= known[name] for name in names), expression


# -- by real programs -------------------------------------------------------------------------------

Started = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab(Topology.of(3, ipv6=None)) as lab:
        lab.run_host(["ip", "link", "set", "lo", "up"])
        yield lab


@pytest.fixture
def start(lab: Lab) -> Iterator[Started]:
    """Starts a program in the namespace of the lab's host ends."""
    started: list[subprocess.Popen[str]] = []

    def start(*command: str) -> subprocess.Popen[str]:
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        started.append(lab.popen_host(list(command), text=True, cwd=ROOT, **pipes))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def scrape(lab: Lab, url: str) -> Samples:
    address, _, port = url.removeprefix("http://").removesuffix("/metrics").partition(":")
    with lab.ports[0].open_socket(socket.AF_INET, socket.SOCK_STREAM, 0) as sock:
        sock.settimeout(PATIENCE)
        sock.connect((address, int(port)))
        status, _, body = ask(sock, "/metrics", OPENMETRICS)
    assert status == 200
    return parsed(body)


@pytest.mark.live
@pytest.mark.parametrize("fast_path", ["off", "auto"])
def test_what_a_run_serves_is_what_it_counts(lab: Lab, start: Started, fast_path: str) -> None:
    ports = [port.name for port in lab.ports]
    command = ["run", "--json", "--metrics", "0", "--arp", "guard", "--fast-path", fast_path]
    process = start(*COMMAND, *command, *ports)
    ready = say(process)
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/metrics", ready["metrics"])
    statuses = [status.read_text() for status in Path(f"/proc/{process.pid}/task").glob("*/status")]
    kept = {re.findall(r"^CapPrm:.*$", status, re.M)[0] for status in statuses}
    assert len(kept) == 1  # the thread that serves has no more than the others
    eventually(lambda: lab["pod1"].ping("pod2", count=20, interval=0.005, timeout=5).received == 20, "twenty answers")
    before = scrape(lab, ready["metrics"])
    assert total(before, "port_receive_frames_total") >= 40
    assert total(before, "worker_breaths_total", worker="0") > 0
    assert total(before, "worker_cpu_seconds_total", worker="0") > 0
    assert total(before, "fast_path_info", path=ready["fast_path"]) == 1
    assert total(before, "port_consumed_frames_total") > 0

    def waits_counted() -> bool:
        now = scrape(lab, ready["metrics"])
        return total(now, "policy_wait_seconds_count") == total(now, "port_consumed_frames_total")

    eventually(waits_counted, "the wait of each frame that the policy took")
    assert 0 < total(before, "policy_wait_seconds_sum") < PATIENCE
    if ready["fast_path"] != "off":

        def some_by_the_kernel() -> bool:
            lab["pod1"].ping("pod2", count=5, interval=0.01, timeout=1)
            now = scrape(lab, ready["metrics"])
            promoted = total(now, "fast_path_changes_total", change="promoted")
            return promoted >= 2 and total(now, "port_forwarded_frames_total", path="kernel") > 20

        eventually(some_by_the_kernel, "frames that the kernel forwards, both ways")
    process.terminate()
    final = json.loads(process.communicate(timeout=PATIENCE)[0].splitlines()[-1])["counters"]["total"]
    assert total(before, "port_receive_frames_total") <= final["rx_frames"] + final["fast"]
    assert final["fast_bytes"] >= 98 * final["fast"]  # an echo is 98 bytes, an IP packet


@pytest.mark.live
def test_a_run_serves_on_ipv6_too(lab: Lab, start: Started) -> None:
    switched_on = ["sh", "-c", "echo 0 >/proc/sys/net/ipv6/conf/lo/disable_ipv6"]
    if lab.run_host(switched_on, check=False, stderr=subprocess.DEVNULL).returncode:
        pytest.skip("no IPv6, or /proc/sys is read-only")
    url = say(start(*COMMAND, "run", "--json", "--metrics", "[::1]:0", "pod1", "pod2"))["metrics"]
    host, port = re.fullmatch(r"http://\[(.*)\]:(\d+)/metrics", url).groups()  # type: ignore[union-attr]
    with lab.ports[0].open_socket(socket.AF_INET6, socket.SOCK_STREAM, 0) as sock:
        sock.settimeout(PATIENCE)
        sock.connect((host, int(port)))
        assert ask(sock)[0] == 200


@pytest.mark.live
def test_the_unix_socket_of_a_killed_run_is_replaced_and_goes_with_the_next(
    lab: Lab, start: Started, tmp_path: Path
) -> None:
    path = tmp_path / "metrics"
    command = [*COMMAND, "run", "--json", "--metrics", f"unix:{path}", "pod1", "pod2"]
    for end in signal.SIGKILL, signal.SIGTERM:
        process = start(*command)
        assert say(process)["metrics"] == f"unix:{path}"
        with connected(str(path)) as sock:
            assert ask(sock)[0] == 200
        process.send_signal(end)
        process.communicate(timeout=PATIENCE)
        assert path.exists() == (end == signal.SIGKILL)
    refused = start(*COMMAND, "run", "--metrics", f"unix:{path}", "pod1", "absent")  # it opens the socket first
    assert "there is no interface 'absent'" in refused.communicate(timeout=PATIENCE)[1]
    assert not path.exists()


@pytest.mark.live
def test_a_run_that_fails_to_take_over_leaves_the_metrics(lab: Lab, start: Started, tmp_path: Path) -> None:
    path = tmp_path / "metrics"
    command = [*COMMAND, "run", "--json", "--metrics", f"unix:{path}"]
    first = start(*command, "pod1", "pod2")
    assert say(first)["event"] == "ready"
    refused = start(*command, "--take-over", "pod1", "absent")
    assert "there is no interface 'absent'" in refused.communicate(timeout=PATIENCE)[1]
    with connected(str(path)) as sock:
        assert ask(sock)[0] == 200
    assert list(tmp_path.iterdir()) == [path]
    second = start(*command, "--take-over", "pod1", "pod2")
    assert say(second)["metrics"] == f"unix:{path}"
    first.communicate(timeout=PATIENCE)
    with connected(str(path)) as sock:
        assert ask(sock)[0] == 200


@pytest.mark.live
def test_a_port_that_is_taken_is_one_line(lab: Lab, start: Started) -> None:
    port = say(start(*COMMAND, "run", "--json", "--metrics", "0", "pod1", "pod2"))["metrics"].split(":")[2][:-8]
    other = start(*COMMAND, "run", "--metrics", port, "pod2", "pod3")
    out, err = other.communicate(timeout=PATIENCE)
    assert (other.returncode, out) == (2, "")
    assert err == f"fastbridge: no metrics on {port}: Address already in use; give another port or address\n"


@pytest.mark.live
def test_the_kernels_bytes_are_those_of_its_frames(lab: Lab) -> None:
    """Where no frame was lost, and none was tagged."""
    with Switch(lab.ports, loop_detection=False) as switch:
        if switch.fast_path == "off":
            pytest.skip("no fast path here")
        know_each_other(lab, switch)
        assert lab["pod1"].ping("pod2", family=4, count=10, interval=0.01, timeout=PATIENCE).received == 10

        def exact() -> bool:
            counters = switch.counters().ports
            said = {name: port.rx_bytes + port.fast_bytes for name, port in counters.items()}
            return said == {pod.name: pod.counters().tx_bytes for pod in lab} and counters["pod1"].fast > 0

        eventually(exact, "the bytes that the pods' ends sent")


@pytest.mark.live
@pytest.mark.slow
def test_a_real_prometheus_scrapes_a_run(lab: Lab, start: Started, tmp_path: Path) -> None:
    if not shutil.which("prometheus"):
        pytest.skip("no prometheus (Debian package prometheus)")
    run = start(*COMMAND, "run", "--json", "--metrics", "0", "--arp", "guard", *(port.name for port in lab.ports))
    url = say(run)["metrics"]
    with lab.ports[0].open_socket(socket.AF_INET, socket.SOCK_STREAM, 0) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    target = url.removeprefix("http://").removesuffix("/metrics")
    job = {"job_name": "fastbridge", "static_configs": [{"targets": [target]}]}
    config = {"global": {"scrape_interval": "1s"}, "scrape_configs": [job]}
    (tmp_path / "config.yml").write_text(json.dumps(config))  # JSON is YAML
    start(
        "prometheus",
        f"--config.file={tmp_path}/config.yml",
        f"--storage.tsdb.path={tmp_path}/data",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=error",
    )

    def query(text: str) -> list[Any]:
        with lab.ports[0].open_socket(socket.AF_INET, socket.SOCK_STREAM, 0) as sock:
            sock.settimeout(PATIENCE)
            try:
                sock.connect(("127.0.0.1", port))
                sock.sendall(f"GET /api/v1/{text} HTTP/1.0\r\n\r\n".encode())
                answer = json.loads(read_all(sock).partition(b"\r\n\r\n")[2] or b"null")
            except (ConnectionError, ValueError):  # not yet ready
                return []
        data = answer["data"]
        return data["activeTargets"] if "activeTargets" in data else data["result"]

    eventually(lambda: [(t["health"], t["lastError"]) for t in query("targets")] == [("up", "")], "a scrape")
    assert lab["pod1"].ping("pod2", count=3, interval=0.05, timeout=PATIENCE).received == 3

    def agrees() -> bool:
        now = scrape(lab, url)
        rows = query("query?query=fastbridge_port_receive_frames_total")
        found = {row["metric"]["port"]: float(row["value"][1]) for row in rows}
        said = {pod.name: total(now, "port_receive_frames_total", port=pod.name) for pod in lab}
        return found == said and found["pod1"] > 0

    eventually(agrees, "the same counts in Prometheus")

    def named() -> bool:
        rows = query("query?query=fastbridge_build_info")
        return {row["metric"]["__name__"] for row in rows} == {"fastbridge_build_info"}

    eventually(named, "what was built, in Prometheus")
