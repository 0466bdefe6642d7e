"""Ordinary interfaces of the sandbox's namespace, as a host has them, with a pod behind each."""

from __future__ import annotations

import socket
import subprocess
import time
from contextlib import suppress
from ipaddress import IPv4Interface

from live import PATIENCE

from fastbridge import MacAddress
from fastbridge.lab.links import Links
from fastbridge.lab.namespaces import Namespace, NamespaceHelper


class Host:
    """p1, p2, p3 in the sandbox's namespace, up; the other end of each, eth0 with 10.9.0.N, in one of its own."""

    def __init__(self, helper: NamespaceHelper) -> None:
        self.links = Links()
        self.pods: list[Namespace] = []
        for n in (1, 2, 3):
            self.pods.append(helper.create())
            self.connect(n)
            with Links(self.pods[-1]) as inside:
                inside.set("lo", state="up")
        self.links.set("lo", state="up")

    def connect(self, n: int) -> None:
        """Make the interface of pod N, up at both ends."""
        pod = self.pods[n - 1]
        self.links.add_pair(f"p{n}", MacAddress(0x0200000000A0 + n), "eth0", MacAddress(n << 8 | 2 << 40), pod.fd, 1500)
        with Links(pod) as inside:
            inside.add_address(inside.index("eth0"), IPv4Interface(f"10.9.0.{n}/24"))
            inside.set("eth0", state="up")
        self.links.set(f"p{n}", state="up", arp=True)

    def close(self) -> None:
        for name in {"br0", "p1", "p2", "p3", "other"} & {name for _, name in socket.if_nameindex()}:
            with suppress(Exception):  # went with its peer
                self.links.delete(name)
        self.links.close()
        for pod in self.pods:
            pod.close()

    def ip(self, n: int, command: str) -> str:
        """What `ip` says in pod N."""
        return self.pods[n - 1].run(["ip", *command.split()], stdout=subprocess.PIPE, text=True).stdout

    def ping(self, one: int, other: int) -> bool:
        """Whether pod `one` reaches pod `other` in the end."""
        command = ["ping", "-c1", "-W1", f"10.9.0.{other}"]
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            if self.pods[one - 1].run(command, stdout=subprocess.DEVNULL, check=False).returncode == 0:
                return True
        return False


def ip(command: str, *, check: bool = True) -> str:
    """What `ip` says."""
    return subprocess.run(["ip", *command.split()], check=check, capture_output=True, text=True).stdout
