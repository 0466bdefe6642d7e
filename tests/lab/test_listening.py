"""Waiting until something in a pod listens, without a connection."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator

import pytest
from live import PATIENCE

from fastbridge import ConfigError, Lab, LabError

pytestmark = pytest.mark.live


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab(2) as lab:
        yield lab


def test_a_program_that_takes_its_time_is_waited_for(lab: Lab) -> None:
    serve = "import socket, time; time.sleep(0.1); socket.create_server(('127.0.0.1', 8000)).accept()"
    server = lab["pod1"].popen([sys.executable, "-c", serve])
    lab["pod1"].wait_listening(8000, timeout=PATIENCE)
    assert server.poll() is None  # no one has connected
    server.kill()
    server.wait()


@pytest.mark.parametrize(
    ("family", "kind", "address"),
    [
        (socket.AF_INET, socket.SOCK_STREAM, "10.0.0.1"),
        (socket.AF_INET6, socket.SOCK_STREAM, "fd00::1"),
        (socket.AF_INET, socket.SOCK_DGRAM, "0.0.0.0"),
        (socket.AF_INET6, socket.SOCK_DGRAM, "::1"),
    ],
)
def test_each_family_and_protocol(lab: Lab, family: int, kind: int, address: str) -> None:
    udp = kind == socket.SOCK_DGRAM
    with lab["pod1"].socket(family, kind) as sock:
        sock.bind((address, 7000))
        if not udp:
            with pytest.raises(LabError, match="nothing listens on TCP port 7000 of pod pod1"):
                lab["pod1"].wait_listening(7000, timeout=0)  # it is bound alone
            sock.listen()
        lab["pod1"].wait_listening(7000, udp=udp, timeout=0)
        for pod, wrong in [("pod2", udp), ("pod1", not udp)]:
            with pytest.raises(LabError):
                lab[pod].wait_listening(7000, udp=wrong, timeout=0)


def test_the_error_says_what_does_listen(lab: Lab) -> None:
    with lab["pod2"].socket(socket.AF_INET, socket.SOCK_STREAM) as one:
        with pytest.raises(LabError) as caught:
            lab["pod2"].wait_listening(80, timeout=0.05)
        assert str(caught.value) == "nothing listens on TCP port 80 of pod pod2 after 0.05 s, nor on any other"
        one.bind(("10.0.0.2", 8080))
        one.listen()
        with lab["pod2"].socket(socket.AF_INET6, socket.SOCK_STREAM) as two, pytest.raises(LabError) as caught:
            two.bind(("::1", 8081))
            two.listen()
            lab["pod2"].wait_listening(80, timeout=0.05)
        assert str(caught.value).endswith("; listening are 10.0.0.2:8080, [::1]:8081")


@pytest.mark.parametrize("port", [0, 65536, -1])
def test_what_is_no_port(lab: Lab, port: int) -> None:
    with pytest.raises(ConfigError, match=f"^{port} is not a port: 1 to 65535$"):
        lab["pod1"].wait_listening(port)
