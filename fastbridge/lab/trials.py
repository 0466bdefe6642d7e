"""Trials of a lab that people know from Mininet: each pod pings each other one, and iperf3 between two."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from socket import AF_INET, AF_INET6, SOCK_STREAM

from fastbridge.errors import ConfigError, LabError
from fastbridge.programs import find_program

from .ping import PingResult
from .pods import Pod

_AT_A_TIME = 16  #: pings; more would only wait for each other


@dataclass(frozen=True, slots=True)
class Reach:
    """One ping of one pod by another."""

    source: str
    target: str
    result: PingResult


@dataclass(frozen=True, slots=True)
class Throughput:
    """What iperf3 has measured over TCP."""

    bits_per_second: float  #: received, payload
    retransmits: int  #: segments sent again
    seconds: float


def ping_all(pods: Sequence[Pod], timeout: float) -> list[Reach]:
    """Let each pod ping each other one once, over IPv4 if it has an address, else IPv6. timeout: seconds, of each."""
    if len(pods) < 2:
        raise ConfigError("one pod has nobody to ping; a lab of two or more has")
    pairs = [(one, other) for one in pods for other in pods if one is not other]
    with ThreadPoolExecutor(_AT_A_TIME) as pool:
        results = pool.map(lambda pair: pair[0].ping(pair[1], timeout=timeout), pairs)
        return [Reach(one.name, other.name, result) for (one, other), result in zip(pairs, results, strict=True)]


def iperf(client: Pod, server: Pod, seconds: int) -> Throughput:
    """Measure TCP from one pod to another, by iperf3. Raises LabError where it is missing or fails."""
    if find_program("iperf3") is None:
        raise LabError("there is no program iperf3 on the PATH: install iperf3")
    if client is server:
        raise ConfigError(f"iperf measures between two pods, not from {client.name} to itself")
    target = server.ipv4 or server.ipv6
    if target is None:
        raise ConfigError(f"pod {server.name} has no IP address")
    port = _free_port(server, AF_INET if target.version == 4 else AF_INET6)
    listening = server.popen(["iperf3", "-s", "-1", "-p", str(port)], stdout=subprocess.DEVNULL)
    try:
        server.wait_listening(port)
        command = ["iperf3", "-c", str(target.ip), "-p", str(port), "-t", str(seconds), "-J"]
        return _measured(client.run(command, check=False), client.name)
    finally:
        listening.kill()
        listening.wait()


def _measured(done: subprocess.CompletedProcess[str], pod: str) -> Throughput:
    try:
        report = json.loads(done.stdout)
    except ValueError:
        why = done.stderr.strip() or f"it ended with exit status {done.returncode}"
        raise LabError(f"iperf3 in pod {pod}: {why}") from None
    if "error" in report:
        raise LabError(f"iperf3 in pod {pod}: {report['error']}")
    received, sent = report["end"]["sum_received"], report["end"]["sum_sent"]
    return Throughput(received["bits_per_second"], sent.get("retransmits", 0), received["seconds"])


def _free_port(pod: Pod, family: int) -> int:
    with pod.socket(family, SOCK_STREAM) as sock:
        sock.bind(("", 0))
        port: int = sock.getsockname()[1]
        return port
