"""I/O modes: how frames get from the interfaces to the switch.

What there is to choose by Switch(io=…); the core has a file for each (core/slots.pxd, blocks.pxd, inbox.pxd), and
benchmarks/test_io.py compares them: against "ring", at 64 B and in TCP bulk, "big-ring" came to 0.97 and 1.01, "blocks"
to 1.08 and 0.85 with nine times the latency near idle, "recvmmsg" to 0.61 and 0.93; so "ring" is the default. Frames
are sent in the same way in all of them (core/transmit.pxd).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from fastbridge.errors import ConfigError

# Ring memory for all ports together; with more ports each has a shorter ring, but none shorter than `fewest`
# (benchmarks/test_footprint.py). A ring keeps the size it began with, by the number of ports at that time: 1,500 of
# "ring" at once take 0.4 GB, added one by one 1.5; of "blocks" 1.6 and 2.4; "big-ring", with 8 and 9, is not for so
# many.
_RING_BYTES = 512 << 20


@dataclass(frozen=True)
class IoMode:
    """One of them. Sizes in bytes; a ring is as many slots as there may be frames (or blocks of them) waiting."""

    name: str
    source: str  #: one of the core's SOURCE_NAMES
    version: int | None  #: TPACKET version, as PACKET_VERSION takes it; None without a ring
    slot: int = 0
    block: int = 0  #: what the kernel allocates at a time: whole slots, and whole pages
    most: int = 0
    fewest: int = 0

    def slots(self, ports: int) -> int:
        """Slots of each port's ring; 0 without one."""
        if not self.slot:
            return 0
        return self.whole(max(self.fewest, min(self.most, _RING_BYTES // (self.slot * max(1, ports)))))

    def whole(self, slots: int) -> int:
        """At most so many that fill whole blocks, halved as often as it takes; never fewer than `fewest`."""
        fit = self.most
        while fit > slots:
            fit = fit // 2 // self.each * self.each
        return max(fit, self.fewest)

    @property
    def each(self) -> int:
        """Slots a block."""
        return self.block // self.slot


# ring: a slot holds a full-size Ethernet frame; larger ones come by recv(). 4 MiB a port up to 128 ports; the fewest
#   are two bursts of what a breath takes (a breath must not come round to a slot that it has taken).
# big-ring: 17 pages hold 64 KiB and headers; 15 slots are but one page less than the power of two that the kernel
#   allocates. 71 MB a port up to 7 ports; the fewest are more than one burst, 5.2 MB.
# blocks: three 64 KB frames a block, or 1,700 of 60 bytes. 8 MiB a port up to 64 ports. At low load a block goes with
#   every frame or two, and the timer takes one a millisecond.
IO_MODES: Mapping[str, IoMode] = MappingProxyType(
    {
        mode.name: mode
        for mode in (
            IoMode("ring", "slots", 1, slot=2048, block=65536, most=2048, fewest=128),
            IoMode("big-ring", "slots", 1, slot=69632, block=1044480, most=1020, fewest=75),
            IoMode("blocks", "blocks", 2, slot=262144, block=262144, most=32, fewest=4),
            IoMode("recvmmsg", "socket", None),
        )
    }
)


def find_io_mode(name: str) -> IoMode:
    """The mode of a name. Raises ConfigError."""
    try:
        return IO_MODES[name]
    except (KeyError, TypeError):
        raise ConfigError(f"there is no I/O mode {name!r}; there are: {', '.join(IO_MODES)}") from None
