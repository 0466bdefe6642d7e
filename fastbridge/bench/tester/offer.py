"""What a trial offers.

An offer says which frames go from which ports to which, and how fast. It is only data: the tester carries it out on
veth pairs, a test's simulated tester in virtual time. A results file has the offer beside its results. Ports are pods
of a lab, by index. Frame sizes include the FCS, as in the RFCs: 64 means 60 bytes on AF_PACKET.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from fastbridge.bench.wanted_link import WantedLink
from fastbridge.errors import ConfigError

Kind = Literal["ethernet", "udp", "arp", "nd", "tcp", "tcp-rr", "tcp-crr", "ping"]
Restart = Literal["graceful", "killed"]

FCS = 4
END_TO_END = ("tcp", "tcp-rr", "tcp-crr", "ping")  #: the pods' own kernels make the frames of these kinds
UDP_HEADERS = 14 + 20 + 8  #: Ethernet, IPv4, UDP
SIZES = (64, 128, 256, 512, 1024, 1280, 1518)  #: RFC 2544 §9.1, Ethernet
SENDERS = 2
LARGEST_INDEX = (1 << 24) - 1  #: highest index of an address behind a port


def mix(parts: Iterable[tuple[int, int]]) -> tuple[int, ...]:
    """Sizes in turn from (count, size) pairs. Each is spread evenly over the whole, so no run of one size forms."""
    places = [((i + 0.5) / count, size) for count, size in parts for i in range(count)]
    return tuple(size for _, size in sorted(places))


IMIX = mix([(28, 64), (16, 570), (4, 1518)])  #: as in CSIT


@dataclass(frozen=True)
class Stream:
    """Frames from one port. Destinations, sizes, addresses and flows are each used in turn."""

    source: int
    destinations: tuple[int, ...] = ()  #: none: to all (broadcast; for "nd" the all-nodes group)
    sizes: tuple[int, ...] = (64,)
    # "tcp" is a bulk transfer. "tcp-rr" sends requests over one connection, "tcp-crr" opens one for each request.
    kind: Kind = "ethernet"  #: "ethernet" is EtherType 0x88b5; TCP and "ping" frames have sizes of their own
    sources: int = 1  #: source MAC addresses; the first is the pod's own
    targets: int = 1  #: destination MAC addresses behind each destination; the first is the pod's own
    first: int = 0  #: index of the first source and target address; gives fresh addresses without a restart of the DUT
    flows: int = 1  #: UDP source ports, or connections of a bulk transfer
    sender: int = 0  #: which sender of the tester; the first has a CPU of its own, the second shares the switch's
    pinned: bool = True  #: whether the receiver of a bulk transfer stays on one CPU; False: the scheduler decides

    def __post_init__(self) -> None:
        if not self.sizes or min(self.sizes) < 14 + FCS:
            raise ConfigError(f"frame sizes {self.sizes}: at least one, and each of 18 bytes or more (with FCS)")
        if min(self.sources, self.targets, self.flows) < 1 or self.first < 0:
            raise ConfigError("sources, targets and flows of a stream must be 1 or more, first 0 or more")
        if not 0 <= self.sender < SENDERS:
            raise ConfigError(f"the tester's senders are 0 to {SENDERS - 1}, not {self.sender}")
        if self.first + max(self.sources, self.targets) - 1 > LARGEST_INDEX:
            raise ConfigError(f"a port has no more than {LARGEST_INDEX + 1} addresses")
        if self.source in self.destinations:
            raise ConfigError(f"port {self.source} cannot send to itself")


@dataclass(frozen=True)
class Phase:
    """A part of a trial at one load, with a length in seconds or in frames."""

    seconds: float | None = None
    rate: float | None = None  #: intended load, frames/s over all streams; None: as fast as the sender can
    frames: int | None = None

    def __post_init__(self) -> None:
        if (self.seconds is None) == (self.frames is None):
            raise ConfigError("a phase has a length in seconds or in frames")
        if min(value for value in (self.seconds, self.frames, self.rate) if value is not None) <= 0:
            raise ConfigError("length and rate of a phase must be greater than 0")


@dataclass(frozen=True)
class Offer:
    """One trial: streams, and phases without pauses between them."""

    streams: tuple[Stream, ...]
    phases: tuple[Phase, ...]
    sample: int = 0  #: one frame in `sample` is stamped with number and time (latency, order, integrity); 0: none
    restart: Restart | None = None  #: restart the DUT half way through
    delays: bool = False  #: keep the latency of each sample, too: a histogram knows three digits
    link: WantedLink | None = None  #: to be emulated between ports 0 and 1; None: the engine as it is
    learn: bool = True  #: let the DUT learn every address of the offer before the first counted frame

    def __post_init__(self) -> None:
        if not self.streams or not self.phases:
            raise ConfigError("an offer needs a stream and a phase")
        kinds = sorted(stream.kind for stream in self.streams)
        if len(kinds) > 1 and kinds != ["ping", "tcp"] and not set(kinds).isdisjoint(END_TO_END):
            raise ConfigError("a stream of TCP or ping is a trial of its own; but a ping may be beside a bulk transfer")
        if len({not stream.destinations for stream in self.streams}) > 1:
            raise ConfigError("unicast and broadcast streams cannot be counted apart in one trial")

        if self.sample and len(self.senders) > 1:
            raise ConfigError("samples of several senders cannot be told apart")

    @property
    def senders(self) -> list[int]:
        """The senders that have anything to send."""
        return sorted({stream.sender for stream in self.streams})

    @property
    def is_end_to_end(self) -> bool:
        """Whether the pods' own kernels make its frames. Nobody counts these."""
        return self.streams[0].kind in END_TO_END

    @property
    def is_broadcast(self) -> bool:
        """Whether every frame is for all other ports."""
        return not self.streams[0].destinations

    def apart(self, frames: int, octets: int) -> tuple[int, int]:
        """The frames and bytes that arrived, with merged datagrams counted apart.

        `frames` and `octets` are as the receiver counted. A DUT may merge datagrams of one size into one frame with one
        set of headers (UDP GSO). The bytes then tell how many there were. With several sizes nothing tells.
        """
        sizes = {size - FCS for stream in self.streams for size in stream.sizes}
        size = max(sizes)
        if any(stream.kind != "udp" for stream in self.streams) or len(sizes) > 1 or size <= UDP_HEADERS:
            return frames, octets
        merged = max(0, octets - frames * size) // (size - UDP_HEADERS)
        return frames + merged, octets + merged * UDP_HEADERS

    @property
    def seconds(self) -> float:
        """Length of its timed phases."""
        return sum(phase.seconds or 0.0 for phase in self.phases)


def steady(streams: Stream | Sequence[Stream], seconds: float, rate: float | None = None, *, sample: int = 0) -> Offer:
    """The usual trial: one load throughout."""
    several = (streams,) if isinstance(streams, Stream) else tuple(streams)
    return Offer(several, (Phase(seconds, rate),), sample=sample)


def full_mesh(ports: int, sizes: tuple[int, ...] = (64,)) -> tuple[Stream, ...]:
    """RFC 2889 §5.1: every port to every other, each beginning with its next neighbour."""
    return tuple(Stream(port, tuple((port + step) % ports for step in range(1, ports)), sizes) for port in range(ports))


def one_to_many(ports: int, sizes: tuple[int, ...] = (64,)) -> tuple[Stream, ...]:
    """RFC 2889 §5.2: port 0 to every other."""
    return (Stream(0, tuple(range(1, ports)), sizes),)


def many_to_one(ports: int, sizes: tuple[int, ...] = (64,)) -> tuple[Stream, ...]:
    """RFC 2889 §5.2: every other port to port 0."""
    return tuple(Stream(port, (0,), sizes) for port in range(1, ports))
