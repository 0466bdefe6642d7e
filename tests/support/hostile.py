"""Pods around a switch in memory, which answer and believe as kernels do. One of them may be hostile."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from functools import cache
from ipaddress import ip_address
from typing import Any

import arp_nd_frames as make
from arp_nd_frames import tagged
from clock import Clock
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether

from fastbridge import Kind, Switch
from fastbridge.arp_nd import read

SECRET = b"for the victim alone"
numbers = itertools.count()


@dataclass
class SimulatedPod:
    """Has one address of a family. Answers questions for it, and believes answers and announcements."""

    mac: str
    ip: str
    vids: tuple[int, ...] = ()
    answers: bool = True
    believes: dict[str, str] = field(default_factory=dict)
    heard: list[bytes] = field(default_factory=list)

    def announcement(self) -> bytes:
        return announcement(self.mac, self.ip, self.vids)

    def question(self, ip: str) -> bytes:
        return question(self.mac, self.ip, ip, self.vids)

    def data(self, to: str, ip: str) -> bytes:
        return data(self.mac, self.ip, to, ip, self.vids) + SECRET + b"%d" % next(numbers)

    def receive(self, frame: bytes) -> list[bytes]:
        """Its answers to a frame."""
        self.heard.append(frame)
        message = read(0, frame)
        to_me = message.to_group or message.eth_destination == make.mac(self.mac)
        if not to_me or message.vlan != vlan(self.vids) or message.kind in (Kind.MALFORMED, Kind.OTHER):
            return []
        if message.sender_ip is not None and message.sender_mac is not None:
            sender = text_of(message.sender_ip)
            if sender in self.believes or message.kind in (Kind.ARP_REPLY, Kind.NA):
                self.believes[sender] = mac_text(message.sender_mac)
        asked = message.kind in (Kind.ARP_REQUEST, Kind.ARP_PROBE, Kind.NS, Kind.NS_DAD)
        if not (asked and self.answers and message.target_ip == packed(self.ip)):
            return []
        asker = mac_text(message.sender_mac or message.eth_source)
        asker_ip = "" if message.sender_ip is None else text_of(message.sender_ip)
        return [answer(self.mac, self.ip, asker, asker_ip, self.vids)]


class Net:
    """A switch in memory with a pod behind each port."""

    def __init__(self, policy: str, pods: list[SimulatedPod], *, static: bool = False) -> None:
        self.clock = Clock()
        self.switch: Any = Switch.in_memory(len(pods), policy=policy, clock=self.clock)
        self.pods = pods
        for port, pod in enumerate(pods if static else []):
            self.switch.neighbours.add(pod.ip, pod.mac, port, vlan(pod.vids))
        for port, pod in enumerate(pods):
            self.send(port, pod.announcement())

    def send(self, port: int, *frames: bytes) -> None:
        """Send frames from a port, and all answers that follow from them."""
        self.deliver(self.switch.process(port, list(frames)))

    def deliver(self, copies: Any) -> None:
        for egress, frame in copies:
            for answer in self.pods[egress].receive(frame):
                self.send(egress, answer)

    def pass_time(self, seconds: float = 4.0) -> None:
        """Let time pass, so that doubts are settled."""
        for _ in range(round(seconds / 0.25)):
            self.clock.now += 0.25
            self.deliver(self.switch.tick())

    def reaches(self, one: int, two: int) -> bool:
        """Whether data gets from one pod to another, sent to the MAC that the sender finds for the other's address."""
        sender, receiver = self.pods[one], self.pods[two]
        if receiver.ip not in sender.believes:
            self.send(one, sender.question(receiver.ip))
        if receiver.ip not in sender.believes:
            return False
        frame = sender.data(sender.believes[receiver.ip], receiver.ip)
        self.send(one, frame)
        return receiver.heard[-1:] == [frame]

    def overheard(self, port: int) -> list[bytes]:
        return [frame for frame in self.pods[port].heard if SECRET in frame]


# Made once: scapy is slow.


@cache
def announcement(mac: str, ip: str, vids: tuple[int, ...]) -> bytes:
    return tagged(make.na(mac, ip) if ":" in ip else make.arp(1, mac, ip, ip), *vids)


@cache
def question(mac: str, ip: str, target: str, vids: tuple[int, ...]) -> bytes:
    return tagged(make.ns(mac, ip, target) if ":" in ip else make.arp(1, mac, ip, target), *vids)


@cache
def answer(mac: str, ip: str, asker: str, asker_ip: str, vids: tuple[int, ...]) -> bytes:
    """The answer, to the asker. To duplicate address detection it goes to all."""
    if ":" not in ip:
        return tagged(make.arp(2, mac, ip, asker_ip or "0.0.0.0", to=asker), *vids)
    return tagged(make.na(mac, ip, to=asker, to_ip=asker_ip, s=1) if asker_ip else make.na(mac, ip), *vids)


@cache
def data(mac: str, ip: str, to: str, to_ip: str, vids: tuple[int, ...]) -> bytes:
    header = IPv6(src=ip, dst=to_ip) if ":" in ip else IP(src=ip, dst=to_ip)
    return tagged(Ether(src=mac, dst=to) / header / UDP(), *vids)


@cache
def packed(ip: str) -> bytes:
    return ip_address(ip).packed


@cache
def text_of(ip: bytes) -> str:
    return str(ip_address(ip))


def mac_text(mac: bytes) -> str:
    return mac.hex(":")


def vlan(vids: tuple[int, ...]) -> int:
    """As Message.vlan."""
    return (vids[0] if vids else 0) | (vids[1] << 12 if len(vids) > 1 else 0)
