"""How many slots a port's receive ring has.

A slot (2 KiB, core/ring.pxd) holds a full-size Ethernet frame; larger frames come by recv(). The rings of all ports
together take RING_BYTES: 4 MiB a port up to 128 ports, less with more of them, and never fewer slots than FEWEST. A
ring keeps the size it began with, by the number of ports at that time: 1,500 ports at once take 0.4 GB, added one by
one 1.5 GB (benchmarks/test_footprint.py). With a fast path a ring has SLOW slots at most, 2 MiB. Switches that are made
together share RING_BYTES.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from fastbridge.core.dataplane import RING_SLOT

RING_BYTES = 512 << 20
MOST = 2048
#: For a port with a fast path: its ring holds only the frames that the core must see. A burst that fits the kernel's
#: own backlog (net.core.netdev_max_backlog, 1,000 frames) fits the ring.
SLOW = 1024
FEWEST = 128  #: two bursts, as a breath takes them: a breath must not come round to a slot that it has taken

_together = 0  # rings of switches that are just being made together


@contextlib.contextmanager
def shared_rings(ports: int) -> Iterator[None]:
    """While it is entered, switches are made that have so many ports in all."""
    global _together
    before, _together = _together, ports
    try:
        yield
    finally:
        _together = before


def ring_slots(ports: int) -> int:
    """The slots of each port's ring, when there are so many ports: a power of two, as it must fill whole blocks."""
    return smaller_ring(min(MOST, RING_BYTES // (RING_SLOT * max(1, ports, _together))) + 1)


def smaller_ring(slots: int) -> int:
    """The largest ring of fewer slots than this; FEWEST at the least."""
    fit = MOST
    while fit >= slots and fit > FEWEST:
        fit //= 2
    return fit
