"""What the live tests share: a lab with a running switch, raw sockets in pods, waiting for an event."""

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

from frames import GROUP, ethernet

from fastbridge import Lab, Switch, Topology

PATIENCE = 60.0  # seconds to wait for what must happen; not a measure of how long it may take

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
    """struct virtio_net_hdr: what the kernel still has to do to a frame (linux/virtio_net.h)."""

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
    """A raw socket on a pod end: sends and hears frames as they are, tags included."""

    numbers = itertools.count()

    def __init__(self, pod: Any) -> None:
        self.socket = pod.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        for option in (PACKET_AUXDATA, PACKET_VNET_HDR, PACKET_IGNORE_OUTGOING):
            self.socket.setsockopt(SOL_PACKET, option, 1)
        self.socket.bind((pod.interface, ETH_P_ALL))
        self.socket.settimeout(PATIENCE)
        # A source of its own, one that nothing else in a test has.
        self.mac = int(pod.mac) | 0xAA << 32

    def send(self, frame: bytes, header: VnetHeader = VnetHeader()) -> None:
        self.socket.send(header.pack() + frame)

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

    def mark(self) -> bytes:
        """Send a broadcast frame that is like no other; whoever hears it has heard all that was sent before it."""
        frame = ethernet(GROUP, self.mac, payload=MARK + b" %d" % next(self.numbers))
        self.send(frame)
        return frame

    def heard_before(self, mark: bytes, containing: bytes = b"fastbridge") -> list[bytes]:
        """The test's own frames (not what the pods' kernels say) that came before `mark`."""
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
def stage(
    pods: int | Topology = 3, *, mtu: int = 1500, ports_fail: bool = False, **options: Any
) -> Iterator[tuple[Lab, Switch]]:
    """A lab with a switch running; at the end every frame must be accounted for."""
    options.setdefault("loop_detection", False)  # frames made by hand let stations flap
    with Lab(pods, mtu=mtu) as lab, Switch(lab.ports, **options) as switch:
        yield lab, switch
        check_accounts(switch, ports_fail)


def check_accounts(switch: Switch, ports_fail: bool = False) -> None:
    """Every frame received has its fate, every copy made is sent or dropped with a reason."""
    counters = switch.counters()
    for name, port in [*counters.ports.items(), ("total", counters.total)]:
        assert port.rx_frames == port.forwarded + port.flooded + port.consumed + sum(port.dropped.values()), name
    total = counters.total
    assert total == sum(counters.ports.values(), type(total)())
    copies = total.tx_frames + sum(total.tx_dropped.values())
    with_all_up = total.forwarded + total.flooded * (len(counters.ports) - 1)
    assert total.forwarded <= copies <= with_all_up if ports_fail else copies == with_all_up


def hear_each_other(wires: list[Wire]) -> None:
    """Return when each wire reaches every other one."""
    for sender in wires:
        mark = sender.mark()
        for hearer in wires:
            if hearer is not sender:
                hearer.heard_before(mark)


def next_own(wire: Wire) -> tuple[bytes, VnetHeader]:
    while True:
        frame, header = wire.receive()
        if b"fastbridge" in frame:
            return frame, header


def seen(switch: Switch, name: str) -> int:
    port = switch.counters().ports[name]
    return port.rx_frames + port.rx_missed


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
