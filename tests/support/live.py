"""Common parts of the live tests: a lab with a running switch, raw sockets in pods, waiting for an event."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import struct
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accounts import check_fates
from frames import GROUP, ethernet

from fastbridge import Lab, Switch, Topology

PATIENCE = 60.0  # seconds to wait for something that must happen; says nothing about how long it may take

ETH_P_ALL = 3
SOL_PACKET, PACKET_AUXDATA, PACKET_VNET_HDR, PACKET_IGNORE_OUTGOING = 263, 8, 15, 23
AUXDATA = struct.Struct("=IIIHHHH")  # struct tpacket_auxdata: status, len, snaplen, mac, net, vlan_tci, vlan_tpid
VLAN_VALID = 1 << 4
MARK = b"mark of a live test"


def eventually(condition: Callable[[], Any], what: str = "the condition") -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come true in {PATIENCE:.0f} s"
        time.sleep(0.005)


@dataclass(frozen=True)
class VnetHeader:
    """struct virtio_net_hdr: the work on a frame that is left to the kernel (linux/virtio_net.h)."""

    flags: int = 0
    gso_type: int = 0
    header_length: int = 0
    gso_size: int = 0
    csum_start: int = 0
    csum_offset: int = 0

    LAYOUT = struct.Struct("=BBHHHH")

    def pack(self) -> bytes:
        return self.LAYOUT.pack(*vars(self).values())


class Wire:
    """A raw socket on a pod end. It sends and hears whole frames, with their tags."""

    numbers = itertools.count()

    def __init__(self, pod: Any) -> None:
        self.socket = pod.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        for option in (PACKET_AUXDATA, PACKET_VNET_HDR, PACKET_IGNORE_OUTGOING):
            self.socket.setsockopt(SOL_PACKET, option, 1)
        self.socket.bind((pod.interface, ETH_P_ALL))
        self.socket.settimeout(PATIENCE)
        # A source that nothing else in a test has.
        self.mac = int(pod.mac) | 0xAA << 32

    def send(self, frame: bytes, header: VnetHeader = VnetHeader()) -> None:
        self.send_message(header.pack() + frame)

    def send_message(self, message: bytes) -> None:
        """Send a vnet header and a frame. All that the wires of this process send by one pod's end stays in order."""
        with on_one_cpu():
            self.socket.send(message)

    def receive(self) -> tuple[bytes, VnetHeader]:
        data, control, _, _ = self.socket.recvmsg(1 << 17, 256)
        header = VnetHeader(*VnetHeader.LAYOUT.unpack_from(data))
        frame = data[VnetHeader.LAYOUT.size :]
        for level, kind, value in control:
            if (level, kind) == (SOL_PACKET, PACKET_AUXDATA):
                status, *_, tci, tpid = AUXDATA.unpack_from(value)
                if status & VLAN_VALID:
                    frame = frame[:12] + struct.pack("!HH", tpid, tci) + frame[12:]
        return frame, header

    def arrived(self) -> list[bytes]:
        """What has arrived by now, and was not read yet."""
        found = []
        self.socket.setblocking(False)
        try:
            while True:
                found.append(self.receive()[0])
        except BlockingIOError:
            return found
        finally:
            self.socket.settimeout(PATIENCE)

    def mark(self) -> bytes:
        """Send a unique broadcast frame. A wire that has heard it has heard all that was sent before it."""
        frame = ethernet(GROUP, self.mac, payload=MARK + b" %d" % next(self.numbers))
        self.send(frame)
        return frame

    def send_in_order(self, frames: Iterable[bytes]) -> bytes:
        """Send frames, and a mark."""
        for frame in frames:
            self.send(frame)
        return self.mark()

    def heard_before(self, mark: bytes, containing: bytes = b"fastbridge") -> list[bytes]:
        """The test's own frames, without those of the pods' kernels, that came before `mark`."""
        heard = []
        while (frame := self.receive()[0]) != mark:
            if containing in frame and MARK not in frame:
                heard.append(frame)
        return heard


@contextmanager
def wires(lab: Lab) -> Iterator[list[Wire]]:
    opened = [Wire(pod) for pod in lab]
    try:
        yield opened
    finally:
        for wire in opened:
            wire.socket.close()


@contextmanager
def on_one_cpu() -> Iterator[None]:
    """What this thread sends meanwhile stays in order: veth has a queue for each CPU, and two of them overtake."""
    before = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {before[os.getpid() % len(before)]})  # not the same one for all that run tests
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def stage(
    pods: int | Topology = 3, *, mtu: int = 1500, ports_fail: bool = False, **options: Any
) -> Iterator[tuple[Lab, Switch]]:
    """A lab with a running switch. At the end every frame must be accounted for."""
    options.setdefault("loop_detection", False)  # frames made by hand let stations flap
    with Lab(pods, mtu=mtu) as lab, Switch(lab.ports, **options) as switch:
        ports = len(switch.ports)
        yield lab, switch
        if switch.fast_path == "off":
            check_accounts(switch, ports_fail, ports)
        else:  # what the kernel counts is not read at one moment
            in_the_end(check_accounts, switch, ports_fail, ports)


def in_the_end(check: Callable[..., None], *arguments: Any) -> None:
    """Wait until what a check asserts is so. It fails as the check does."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return check(*arguments)
        except AssertionError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.005)


def check_accounts(switch: Switch, ports_fail: bool = False, ports: int = 0) -> None:
    """Check that every frame received has its fate, and every copy is sent, or dropped for a reason.

    ports: how many there were at the beginning, where some may have gone.
    """
    counters = switch.counters()
    check_fates(counters)
    total = counters.total
    gone = switch._departed if switch._final is None else type(total)()  # stopped: counted before the ports went
    assert total == sum(counters.ports.values(), gone)
    copies = total.tx_frames + total.fast_sent + sum(total.tx_dropped.values()) + total.tx_in_flight - total.link_added
    with_all_up = total.forwarded + total.fast + total.flooded * (max(ports, len(counters.ports)) - 1)
    assert total.forwarded <= copies <= with_all_up if ports_fail else copies == with_all_up


def hear_each_other(wires: list[Wire]) -> None:
    """Return when each wire reaches every other one."""
    for sender in wires:
        mark = sender.mark()
        for hearer in wires:
            if hearer is not sender:
                hearer.heard_before(mark)


def heard_by_a_mark(one: Wire, two: Wire, containing: bytes = b"fastbridge") -> list[bytes]:
    """The test's frames that came before a mark. Some marks may be lost: a busy machine makes a port costly."""
    marks, came = set[bytes](), list[bytes]()

    def heard() -> bool:
        marks.add(one.mark())
        came.extend(two.arrived())
        return bool(marks & set(came))

    eventually(heard, "a mark")
    return [frame for frame in came if containing in frame and MARK not in frame]


def bursts_keep_their_order(wires: list[Wire], bursts: int, *, one_path: bool) -> None:
    """Bursts much longer than a batch: nothing lost, doubled or overtaken, on known unicast and on floods.

    one_path: nor among both. With a fast path they go different ways.
    """
    one, two, three = wires
    for burst in range(bursts):
        sent = [
            ethernet((two.mac, GROUP)[n % 2], one.mac, payload=b"fastbridge %d %d" % (burst, n)) for n in range(100)
        ]
        mark = one.send_in_order(sent)
        heard = two.heard_before(mark)
        assert not one_path or heard == sent
        for n, destination in enumerate([two.mac, GROUP]):
            assert [f for f in heard if f[:6] == destination.to_bytes(6, "big")] == sent[n::2]
        assert three.heard_before(mark) == sent[1::2]


def next_own(wire: Wire) -> tuple[bytes, VnetHeader]:
    while True:
        frame, header = wire.receive()
        if b"fastbridge" in frame:
            return frame, header


def seen(switch: Switch, name: str) -> int:
    port = switch.counters().ports[name]
    return port.rx_frames + port.fast + port.rx_missed


def came_in(switch: Switch, name: str) -> int:
    """How many frames of a port have arrived: those that wait for the core, too."""
    return seen(switch, name) + switch.load().rings[name].waiting


def settled(switch: Switch) -> None:
    """Return when the kernel forwards nothing that the FDB does not say: a move takes some moments to get there."""

    def agree() -> bool:
        if switch._fast.lane is None or switch._fast.lane.head is None:
            return True
        names = {port.index: port.name for port in switch.ports}
        ends = [
            (mac, at)
            for pair, egress in switch._fast.lane.head.pairs.items()
            for mac, at in ((pair.source, pair.ingress), (pair.destination, egress))
        ]
        known = [switch.fdb.lookup(mac) for mac, _ in ends]
        return all(entry and entry.port == names.get(at) for entry, (_, at) in zip(known, ends, strict=True))

    eventually(agree, "the end of pairs whose station is elsewhere")


def state(switch: Switch, name: str) -> str:
    return next(port.state for port in switch.ports if port.name == name)


def namespaces_of(pid: int) -> list[Path]:
    """The descriptors by which a process holds network namespaces."""
    held = []
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            if str(descriptor.readlink()).startswith("net:"):
                held.append(descriptor)
    return held


@contextmanager
def holders_of(namespaces: Iterable[Path]) -> Iterator[Callable[[], set[int]]]:
    """Who else stands in one of these namespaces, or has a descriptor of one, each time it is called.

    They are held open here: the number of one that has ended is the next one's, and that may be another test's.
    """
    with contextlib.ExitStack() as held:
        ours = [held.enter_context(path.open()) for path in namespaces]
        numbers = {str(Path(f"/proc/self/fd/{file.fileno()}").readlink()) for file in ours}
        yield lambda: _holders(numbers) - {os.getpid()}


def _holders(numbers: set[str]) -> set[int]:
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            links = [process / "ns/net", process / "ns/mnt", *(process / "fd").iterdir()]
            if any(str(link.readlink()) in numbers for link in links):
                found.add(int(process.name))
        except (FileNotFoundError, ProcessLookupError, PermissionError):  # gone meanwhile, or not ours
            continue
    return found
