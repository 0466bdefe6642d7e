"""A switch is restarted under a TCP stream: the connection lives on, and nothing known is flooded afterwards."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from command import COMMAND, ROOT, next_complaint, say
from effort import few
from live import PATIENCE, Wire, eventually

from fastbridge import Lab, Topology

pytestmark = pytest.mark.live

Begin = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def lab() -> Iterator[Lab]:
    """Pods that ask nobody anything: whatever is flooded is the switch's doing."""
    with Lab(Topology.of(4, ipv6=None)) as lab:
        for pod in lab:
            for other in lab:
                if other is not pod:
                    address = f"{other.ipv4.ip} lladdr {other.mac} dev {pod.interface} nud permanent"
                    pod.run(["ip", "neigh", "replace", *address.split()])
        yield lab


class Stream:
    """A TCP stream from one pod to another: every byte is checked."""

    def __init__(self, lab: Lab) -> None:
        self.received = 0
        self.failure = ""
        self._ends = threading.Event()
        with lab["pod2"].socket(socket.AF_INET, socket.SOCK_STREAM, 0) as listener:
            listener.bind(("", 0))
            listener.listen()
            self._sender = lab["pod1"].socket(socket.AF_INET, socket.SOCK_STREAM, 0)
            self._sender.settimeout(PATIENCE)
            self._sender.connect((str(lab["pod2"].ipv4.ip), listener.getsockname()[1]))
            self._receiver, _ = listener.accept()
        self._receiver.settimeout(PATIENCE)
        self._threads = [threading.Thread(target=work) for work in (self._send, self._receive)]
        for thread in self._threads:
            thread.start()

    def _send(self) -> None:
        piece = bytes(range(256)) * 16
        try:
            while not self._ends.wait(0.001):
                self._sender.sendall(piece)
        except OSError as error:
            self.failure = f"sender: {error}"
        self._sender.shutdown(socket.SHUT_WR)

    def _receive(self) -> None:
        try:
            while data := self._receiver.recv(1 << 16):
                expected = bytes((self.received + n) % 256 for n in range(len(data)))
                if data != expected:
                    self.failure = f"other bytes after {self.received}"
                self.received += len(data)
        except OSError as error:
            self.failure = f"receiver: {error}"

    def goes_on(self) -> None:
        """Return when bytes have come that were sent from now on."""
        before = self.received
        eventually(lambda: self.failure or self.received > before + (1 << 20) // 8, "the stream")
        assert not self.failure

    def close(self) -> None:
        self._ends.set()
        for thread in self._threads:
            thread.join()
        self._sender.close()
        self._receiver.close()


@contextmanager
def streaming(lab: Lab) -> Iterator[Stream]:
    stream = Stream(lab)
    try:
        yield stream
    finally:
        stream.close()


@pytest.fixture
def begin(lab: Lab) -> Iterator[Begin]:
    """Begins a run over some ports; all end with the test."""
    begun: list[subprocess.Popen[str]] = []

    def begin(
        *arguments: str, ports: Sequence[str] = ("pod1", "pod2", "pod3"), name: str = "restarted"
    ) -> subprocess.Popen[str]:
        command = [*COMMAND, "run", "--json", "--name", name, *arguments, *ports]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        begun.append(lab.popen_host(command, text=True, cwd=ROOT, **pipes))
        return begun[-1]

    yield begin
    for process in begun:
        with process:
            process.kill()


def end(process: subprocess.Popen[str]) -> dict[str, Any]:
    """Its counters."""
    out, err = process.communicate(timeout=PATIENCE)
    stopped: dict[str, Any] = json.loads(out.splitlines()[-1])
    assert (process.returncode, stopped["event"]) == (0, "stopped"), err
    counters: dict[str, Any] = stopped["counters"]
    return counters


def stop_and_start(before: subprocess.Popen[str], start: Begin) -> subprocess.Popen[str]:
    before.send_signal(signal.SIGTERM)
    end(before)
    after = start()
    assert say(after)["event"] == "ready"
    return after


def take_over(before: subprocess.Popen[str], start: Begin) -> subprocess.Popen[str]:
    after = start("--take-over")
    assert say(after)["event"] == "ready"
    end(before)
    return after


@pytest.mark.parametrize("path", [pytest.param("off", marks=pytest.mark.slow), "nft"])
@pytest.mark.parametrize("restart", few(1, [take_over, stop_and_start]))
def test_a_restart_under_tcp(
    restart: Callable[[subprocess.Popen[str], Begin], subprocess.Popen[str]],
    path: str,
    lab: Lab,
    begin: Begin,
    tmp_path: Path,
) -> None:
    start = partial(begin, "--state", str(tmp_path / "state.json"), "--fast-path", path)
    process = start()
    assert say(process)["event"] == "ready"
    with streaming(lab) as stream:
        stream.goes_on()
        bystander = Wire(lab["pod3"])
        for _ in range(2):
            process = restart(process, start)
            stream.goes_on()
        bystander.socket.setblocking(False)
        with pytest.raises(BlockingIOError):  # it has heard nothing at all
            bystander.receive()
        bystander.socket.close()
    process.terminate()
    counters = end(process)
    assert counters["total"]["flooded"] == 0
    assert counters["total"]["forwarded"] + counters["total"]["fast"] > 0


def test_a_run_that_ends_by_an_error_keeps_its_state(begin: Begin, tmp_path: Path) -> None:
    state = tmp_path / "state.json"
    process = begin("--state", str(state), "--interval", "0.1")
    assert say(process)["event"] == "ready"
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()  # nobody reads its counters
    assert process.wait(PATIENCE) == 1, process.stderr.read()
    assert [port["ifname"] for port in json.loads(state.read_text())["ports"]] == ["pod1", "pod2", "pod3"]


def test_nothing_to_take_over(begin: Begin) -> None:
    process = begin("--take-over")
    assert say(process)["event"] == "ready"
    process.terminate()
    end(process)


def test_ports_that_match_are_taken_over(begin: Begin) -> None:
    before = begin("--match", "pod*", ports=())
    assert say(before)["event"] == "ready"
    after = begin("--match", "pod*", "--take-over", ports=())
    ready = say(after)
    assert sorted(ready["ports"]) == ["pod1", "pod2", "pod3", "pod4"]
    end(before)
    after.terminate()
    end(after)


def test_only_its_first_ports_are_taken_over(lab: Lab, begin: Begin) -> None:
    """Later on a port of another switch is refused, and that switch goes on."""
    one = begin(ports=("pod1", "pod2"))
    two = begin("--take-over", ports=("pod3", "pod4"), name="another")
    assert say(one)["event"] == say(two)["event"] == "ready"
    asked = [*COMMAND, "port", "add", "pod1", "--switch", "another"]
    with lab.popen_host(asked, text=True, cwd=ROOT, stderr=subprocess.PIPE) as process:
        assert "pod1 is a port of another switch" in process.communicate(timeout=PATIENCE)[1]
    for each in (one, two):
        each.terminate()
        end(each)


def test_a_port_that_is_down_is_refused_before_any_ends(lab: Lab, begin: Begin) -> None:
    before = begin(ports=("pod1", "pod2"))
    assert say(before)["event"] == "ready"
    lab["pod3"].port.set_down()
    refused = begin("--take-over", ports=("pod1", "pod2", "pod3"))
    assert "pod3 is down; bring it up first: ip link set pod3 up" in refused.communicate(timeout=PATIENCE)[1]
    assert refused.returncode == 1 and before.poll() is None
    before.terminate()
    end(before)


@pytest.mark.parametrize("who", ["the switch before", "somebody else"])
def test_a_port_of_the_switch_before_is_taken_over_though_it_is_down(who: str, lab: Lab, begin: Begin) -> None:
    """What that switch has switched off it switches on when it ends."""
    before = begin(ports=("pod1", "pod2"))
    assert say(before)["event"] == "ready"
    if who == "somebody else":
        lab["pod1"].port.set_down()
    else:
        run_beside(lab, "link", "down", "pod1", "--switch", "restarted")
    after = begin("--take-over", ports=("pod1", "pod2"))
    assert say(after)["event"] == "ready"
    end(before)
    if who == "somebody else":
        assert json.loads(run_beside(lab, "port", "list", "--json", "--switch", "restarted"))[0]["state"] == "down"
        lab["pod1"].port.set_up()
    eventually(lambda: lab["pod1"].ping("pod2", timeout=0.5), "an answer")  # no ARP here that would ask again
    after.terminate()
    end(after)


def run_beside(lab: Lab, *arguments: str) -> str:
    with lab.popen_host([*COMMAND, *arguments], text=True, cwd=ROOT, stdout=subprocess.PIPE) as process:
        said = process.communicate(timeout=PATIENCE)[0]
    assert process.returncode == 0
    return str(said)


def test_a_name_of_a_third_switch_is_refused_before_any_ends(begin: Begin) -> None:
    one, two = begin(ports=("pod1", "pod2")), begin(ports=("pod3", "pod4"), name="another")
    assert say(one)["event"] == say(two)["event"] == "ready"
    refused = begin("--take-over", ports=("pod1", "pod2"), name="another")
    error = refused.communicate(timeout=PATIENCE)[1]
    assert f"a switch named another runs already, in process {two.pid}, and has none of these ports" in error
    assert refused.returncode == 2
    for each in (one, two):
        assert each.poll() is None
        each.terminate()
        end(each)


@pytest.mark.slow  # waits for the patience of who takes over
def test_a_switch_that_does_not_let_go(begin: Begin) -> None:
    """One that was stopped, as by a debugger, is said to hold the port; and it still has it."""
    before = begin()
    assert say(before)["event"] == "ready"
    before.send_signal(signal.SIGSTOP)
    after = begin("--take-over")
    assert after.stderr is not None
    assert f"process {before.pid} was asked to end, and still holds pod1" in next_complaint(after)
    assert after.wait(PATIENCE) == 1
