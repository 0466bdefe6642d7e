"""Address caching capacity, RFC 2889 §5.7."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from . import Findings, Method
from .bounds import at_least, positive, whole
from .learned_addresses import PORTS, LookupTrials, look_up
from .measurer import Measurer

FIRST = 1000  # addresses tried first, and STEP times as many after that while they are all held
STEP = 4
# A DUT that handles each new address slowly loses frames (Open vSwitch from about 30,000 per second), and cannot
# hold an address that it has not seen. So where frames are lost the rate falls to a quarter, twice at most.
SLOWER = 1 / 4
SLOWEST = 1 / 16  # of the first rate


@dataclass(frozen=True)
class AddressCaching(Method):
    """The most addresses the FDB holds: with one more, a frame to one of them is flooded or lost.

    n stations are behind one port, and one station looks for them. Each try restarts the DUT for an empty FDB, and none
    goes beyond `limit`. A DUT that replaces entries fails with the first replacement. Trials must end before entries
    age: 1 M addresses at 50,000 per second take 40 s.
    """

    name = "address-caching"
    section = "RFC 2889 §5.7"
    units: ClassVar[Mapping[str, str]] = {
        "capacity": "addresses",
        "rate": "frames/s",
        "flooded": "addresses → ratio",
    }
    primary = "capacity"
    ports = PORTS

    limit: int = 1_000_000  #: addresses tried at most
    rate: float = 50_000.0  #: frames/s while learning and while looking; lower where frames are lost
    width: float = 0.0  #: between the bounds, relative; 0: to the address

    def __post_init__(self) -> None:
        whole(self, limit=2)
        positive(self, "rate")
        at_least(self, width=0)

    @property
    def subject(self) -> str:
        """The limit."""
        return f"up to {self.limit:,} addresses"

    def run(self, measurer: Measurer) -> Findings:
        """Try more and more addresses, then numbers between a held and a failed one.

        A table that takes no more when it is full shows by how many addresses it misses what it holds; so after a
        failed try that number is tried before halving goes on.
        """
        low, high = 1, self.limit + 1  # addresses held (the one that looks always is), and not held
        rate, curve, remarks = self.rate, [], []
        next_ones: tuple[int, ...] = (min(FIRST, self.limit),)
        halving = False
        while high - low > max(1, int(self.width * low)):
            likely = [count for count in next_ones if low < count < high]
            count = likely[0] if likely else (low + high) // 2
            seen, rate = self._try(measurer, count, rate)
            curve.append((float(count), seen.flooded))
            if seen.is_complete:
                low = count
                if high > self.limit:
                    next_ones = (min(STEP * count, self.limit),)
                continue
            # After a wrong guess comes a halving: the search ends.
            was_guess, high = halving and bool(likely), count
            next_ones, halving = () if was_guess else (seen.known + 1, seen.known + 2), True
            if seen.lost:
                remarks.append(f"{seen.lost} frames were lost with {count:,} addresses: the FDB need not be the reason")
        if high > self.limit:
            remarks.append(f"≥ {self.limit:,} addresses: no more were tried")
        if low == 1:
            remarks.append("frames to a single station are flooded or lost: the DUT does not learn")
        values = {"capacity": float(low) if low > 1 else 0.0, "rate": rate}
        return Findings(values, {"flooded": tuple(sorted(curve))}, tuple(remarks))

    def _try(self, measurer: Measurer, count: int, rate: float) -> tuple[LookupTrials, float]:
        """A try, and the rate at which it was made."""
        seen = look_up(measurer, count - 1, rate, rate)
        while seen.lost and rate > SLOWEST * self.rate:
            rate *= SLOWER
            seen = look_up(measurer, count - 1, rate, rate)
        return seen, rate
