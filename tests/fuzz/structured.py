"""Structured fuzzing: frames and histories as they may come, for as long as there is time, with oracles that know what
is right. Meant for a core built with sanitizers:

    FASTBRIDGE_SANITIZE=1 pip install '.[test]'
    LD_PRELOAD="$(gcc -print-file-name=libasan.so) $(gcc -print-file-name=libubsan.so)" ASAN_OPTIONS=detect_leaks=0 \\
        python tests/fuzz/structured.py --seconds 60

core: any history does the same to the core as to the model. links: so it does in virtual time, with links and with GSO
frames. policies: every frame has its fate whatever the policies,
and a strict guard lets nobody speak for another. coalescing: what leaves, segmented, is what came in, by the tests'
segmentation. kernel: the same by the kernel's own, through a tap (root, or a user namespace).

The seed is printed. Each round has one of its own, so a failure is replayed, alone, by the command that is printed.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import fcntl
import logging
import os
import random
import socket
import struct
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from ipaddress import ip_address
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

import arp_nd_frames as make
import coalescing
import hypothesis
from accounts import check_policy_fates
from clock import Clock
from frames import ethernet, tag
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from linked import LinkedHistory, LinkedPair, gso_stories, linked_histories, live_gso
from pair import one_by_one, pair, whole
from segmentation import GSO_NONE, UDP_L4, VNET, segment
from strategies import histories

from fastbridge import MacAddress, Switch

EXAMPLES = 50  # of one property in a round
CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x0002, 0x1000
SIOCSIFFLAGS, SIOCSIFMTU, IFF_UP = 0x8914, 0x8922, 0x1
SOL_PACKET, PACKET_VNET_HDR = 263, 15


# -- core ----------------------------------------------------------------------------------------------


@given(histories(), st.booleans())
def core(history: Any, by_one: bool) -> None:
    both = pair(history, one_by_one if by_one else whole)
    for step in history.steps:
        both.live(step)


# -- links ---------------------------------------------------------------------------------------------


@given(linked_histories() | linked_histories(policed=True))
def links(history: LinkedHistory) -> None:
    both = LinkedPair(history.ports)
    for step in history.steps:
        both.live(step)


@given(gso_stories)
def gso(story: list[Any]) -> None:
    live_gso(story)


# -- policies ------------------------------------------------------------------------------------------

OWNERS = [(f"02:00:00:00:00:0{n}", f"10.0.0.{n}", f"fd00::{n}") for n in (1, 2, 3)]
POLICIES = ["flood", "suppress", "direct", "guard", "guard=strict", "ratelimit=9", "guard=strict,suppress"]
POLICIES += ["suppress,guard,ratelimit=9", "guard,direct", "guard=strict,ratelimit=50,direct"]
owners = st.integers(0, 2)
macs = st.sampled_from([mac for mac, _, _ in OWNERS] + ["02:00:00:00:00:99"])


KINDS: dict[str, Callable[..., Any]] = {
    "request": lambda mac, other, ip4, to4, ip6, to6: make.arp(1, mac, ip4, to4),
    "reply": lambda mac, other, ip4, to4, ip6, to6: make.arp(2, mac, ip4, to4, to=other),
    "announcement": lambda mac, other, ip4, to4, ip6, to6: make.arp(1, mac, ip4, ip4),
    "probe": lambda mac, other, ip4, to4, ip6, to6: make.arp(1, mac, "0.0.0.0", to4),
    "request by another": lambda mac, other, ip4, to4, ip6, to6: make.arp(1, mac, ip4, to4, source=other),
    "solicitation": lambda mac, other, ip4, to4, ip6, to6: make.ns(mac, ip6, to6),
    "duplicate?": lambda mac, other, ip4, to4, ip6, to6: make.dad(mac, to6),
    "advertisement": lambda mac, other, ip4, to4, ip6, to6: make.na(mac, ip6, to=other, to_ip=to6, s=1),
    "no override": lambda mac, other, ip4, to4, ip6, to6: make.na(mac, ip6, o=0),
}


@cache  # Scapy takes a millisecond a frame
def say(kind: str, mac: str, other: str, owner: int, to: int) -> bytes:
    (_, ip4, ip6), (_, to4, to6) = OWNERS[owner], OWNERS[to]
    if kind.startswith("data"):
        return data(mac, other, ip4 if kind == "data4" else ip6, to4, to6)
    return bytes(KINDS[kind](mac, other, ip4, to4, ip6, to6))


@st.composite
def talk(draw: st.DrawFn) -> bytes:
    """ARP, ND or data, of anybody about anybody; sometimes tagged, flipped or cut."""
    mac, other, kind = draw(macs), draw(macs), draw(st.sampled_from([*KINDS, "data4", "data6", "data4", "data6"]))
    frame = say(kind, mac, other, draw(owners), draw(owners))
    change = draw(st.sampled_from(["", "", "", "", "tag", "flip", "cut", "noise"]))
    if change == "tag":
        vid = draw(st.sampled_from([0, 5, 4095]))
        return frame[:12] + tag(vid, tpid=draw(st.sampled_from([0x8100, 0x88A8]))) + frame[12:]
    if change == "flip":
        at = draw(st.integers(12, len(frame) - 1))
        return frame[:at] + bytes([frame[at] ^ draw(st.integers(1, 255))]) + frame[at + 1 :]
    if change == "cut":
        return frame[: draw(st.integers(0, len(frame)))]
    return frame + draw(st.binary(max_size=40)) if change == "noise" else frame


def data(mac: str, other: str, source: str, to4: str, to6: str) -> bytes:
    """The start of a UDP packet."""
    if ip_address(source).version == 4:
        ends = ip_address(source).packed + ip_address(to4).packed
        body, ethertype = bytes.fromhex("45000020000040004011 0000") + ends + bytes(12), 0x0800
    else:
        ends = ip_address(source).packed + ip_address(to6).packed
        body, ethertype = bytes.fromhex("60000000000c1140") + ends + bytes(12), 0x86DD
    return ethernet(int(MacAddress(other)), int(MacAddress(mac)), ethertype=ethertype, payload=body)


breaths = st.tuples(
    owners, st.lists(talk(), min_size=1, max_size=12), st.sampled_from([0.0, 0.1, 1.0, 30.0, 70.0]), st.booleans()
)


@given(st.sampled_from(POLICIES), st.lists(breaths, min_size=1, max_size=12))
def policies(policy: str, story: list[tuple[int, list[bytes], float, bool]]) -> None:
    clock = Clock()
    switch = Switch.in_memory(3, policy=policy, clock=clock)
    for port, (mac, ip4, ip6) in enumerate(OWNERS):
        switch.trust(port, [(MacAddress(mac), ip_address(ip)) for ip in (ip4, ip6)])
    for ingress, frames, seconds, tick in story:
        clock.now += seconds
        out = switch.process(ingress, frames)
        asked = switch.tick() if tick else []
        if "strict" in policy:
            others = [bytes(MacAddress(mac).packed) for port, (mac, _, _) in enumerate(OWNERS) if port != ingress]
            for egress in out:
                # An answer in an owner's name goes back to whoever asked; nothing else of another's MAC may leave.
                foreign = egress.frame[6:12] in others and egress.frame[12:14] not in (b"\x81\x00", b"\x88\xa8")
                assert egress.port == ingress or not foreign, (policy, egress)  # addresses are the owners' untagged
        assert all(0 <= egress.port < 3 for egress in [*out, *asked])
    check_policy_fates(switch.counters())


# -- coalescing ----------------------------------------------------------------------------------------


@given(coalescing.traffic())
def coalesce(sent: list[bytes]) -> None:
    merging, plain = coalescing.switch(), coalescing.switch(coalesce=False)
    got, wanted = merging.process_offloaded(0, sent), plain.process_offloaded(0, sent)
    for port in 0, 1, 2:
        coalescing.compare([e.frame for e in wanted if e.port == port], [e.frame for e in got if e.port == port])


class Tap:
    """An interface without offloads, in a namespace of its own: the kernel cuts up and completes what leaves by it."""

    def __init__(self) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.unshare(CLONE_NEWNET) and libc.unshare(CLONE_NEWNET | CLONE_NEWUSER):
            raise OSError(ctypes.get_errno(), "no private network namespace")
        Path("/proc/sys/net/ipv6/conf/default/disable_ipv6").write_text("1")
        self.file = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(self.file, TUNSETIFF, struct.pack("16sH22x", b"fuzz", IFF_TAP | IFF_NO_PI))
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        fcntl.ioctl(self.socket, SIOCSIFMTU, struct.pack("16si20x", b"fuzz", 9_000))
        fcntl.ioctl(self.socket, SIOCSIFFLAGS, struct.pack("16sH22x", b"fuzz", IFF_UP))
        self.socket.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
        self.socket.bind(("fuzz", 0))

    def segment(self, message: bytes) -> list[bytes]:
        """What the kernel makes of a message; it has done so when send() returns. A bad one raises OSError."""
        self.socket.send(message)
        frames = []
        with contextlib.suppress(BlockingIOError):
            while True:
                frames.append(os.read(self.file, 1 << 16))
        return frames


judged = Counter[str]()  # frames that the kernel cut up for us


def by_kernel(tap: Tap) -> Callable[[], None]:
    refused: set[int] = set()

    @given(coalescing.traffic())
    def kernel(sent: list[bytes]) -> None:
        for egress in coalescing.switch().process_offloaded(0, sent):
            gso_type = VNET.unpack_from(egress.frame)[1]
            if gso_type == GSO_NONE or gso_type in refused or egress.frame in sent:
                continue  # left as it came: not made by us
            try:
                made = tap.segment(egress.frame)
            except OSError as error:
                if gso_type != UDP_L4:
                    raise
                refused.add(gso_type)  # kernels before 6.2
                print(f"this kernel takes no UDP segments: {error.strerror}; without them")
                continue
            wanted = segment(egress.frame)
            assert made == wanted, (made, wanted)
            judged["UDP" if gso_type == UDP_L4 else "TCP"] += 1

    return kernel


# -- the run -------------------------------------------------------------------------------------------


def properties() -> Iterator[tuple[str, Callable[[], None]]]:
    yield "core", core
    yield "links", links
    yield "gso", gso
    yield "policies", policies
    yield "coalescing", coalesce
    try:
        tap = Tap()
    except OSError as error:
        print(f"kernel: skipped, there is no tap to be had ({error})", flush=True)
    else:
        yield "kernel", by_kernel(tap)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    seconds = float(os.environ.get("FASTBRIDGE_FUZZ_SECONDS", "60"))
    parser.add_argument("--seconds", type=float, default=seconds, help="how long  [default: %(default)s]")
    parser.add_argument("--seed", type=int, default=None, help="where to begin  [default: any]")
    parser.add_argument("--rounds", type=int, default=None, help="at most so many rounds")
    parser.add_argument("--only", default=None, help="one property: core, links, gso, policies, coalescing, kernel")
    given_ = parser.parse_args()
    seed = random.SystemRandom().randrange(1 << 30) if given_.seed is None else given_.seed
    print(f"seed {seed}", flush=True)
    logging.getLogger("fastbridge").addHandler(logging.NullHandler())
    profile = {"max_examples": EXAMPLES, "database": None, "deadline": None}
    hypothesis.settings.register_profile("fuzz", suppress_health_check=list(HealthCheck), **profile)
    hypothesis.settings.load_profile("fuzz")
    chosen = [(name, each) for name, each in properties() if given_.only in (None, name)]
    done, began = 0, time.monotonic()
    while time.monotonic() - began < given_.seconds and (given_.rounds is None or done < given_.rounds):
        for name, each in chosen:
            try:
                hypothesis.seed(seed + done)(each)()
            except BaseException:
                print(f"failed: {name}; again: {sys.argv[0]} --only {name} --seed {seed + done} --rounds 1", flush=True)
                raise
        done += 1
    print(f"{done} rounds of {EXAMPLES} examples of {', '.join(name for name, _ in chosen)}: nothing found")
    if judged:
        print(f"the kernel cut up {', '.join(f'{count} {kind}' for kind, count in judged.items())} frames")
    return 0


if __name__ == "__main__":
    sys.exit(main())
