"""Address caching capacity, RFC 2889 §5.7."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from fastbridge.bench.measurer import Measurer
from fastbridge.errors import BenchError

from . import Findings
from .stations import PORTS, Look, look


@dataclass(frozen=True)
class AddressCaching:
    """The most addresses the FDB holds: with one more, a frame to one of them is flooded or lost.

    Stations behind one port, and the one that looks for them: n and 1. Tries with other numbers begin with an empty
    FDB, from a restart, and do not go beyond `limit`. A DUT that replaces entries fails as soon as it has to. A try
    in which frames are lost is made twice before it counts, because it is the number of addresses that is in
    question and not one hiccup. Trials are to be over before entries age: 1 M addresses at 50,000 a second take 40 s.
    """

    name: ClassVar[str] = "address-caching"
    section: ClassVar[str] = "RFC 2889 §5.7"
    units: ClassVar[Mapping[str, str]] = {"capacity": "addresses", "flooded": "addresses → ratio"}
    primary: ClassVar[str] = "capacity"
    higher_is_better: ClassVar[bool] = True
    ports: ClassVar[int] = PORTS

    limit: int = 1_000_000  #: addresses tried at most
    rate: float = 50_000.0  #: frames/s, of those that are learned from and those that look
    width: float = 0.0  #: between the bounds, relative; 0: to the address

    def __post_init__(self) -> None:
        if self.limit < 2:
            raise BenchError(f"up to {self.limit} addresses: it takes 2")

    @property
    def subject(self) -> str:
        """How far it goes."""
        return f"up to {self.limit:,} addresses"

    def run(self, measurer: Measurer) -> Findings:
        """Try the limit first, then between what was held and what was not.

        A table that takes no more when it is full shows by how many addresses it misses what it holds; so after a
        failed try that number is tried before halving goes on.
        """
        low, high = 1, self.limit + 1  # addresses held (the one that looks always is), and not held
        likely: tuple[int, ...] = (self.limit,)
        curve = []
        remarks = []
        while high - low > max(1, int(self.width * low)):
            hints = [count for count in likely if low < count < high]
            count = hints[0] if hints else (low + high) // 2
            seen = self._try(measurer, count - 1)
            curve.append((float(count), seen.flooded))
            if seen.is_complete:
                low = count
                continue
            high = count
            held = seen.known + 1
            likely = (held, held + 1) if count not in likely or count == self.limit else ()
            if seen.lost:
                remarks.append(f"{seen.lost} frames were lost with {count:,} addresses: the FDB need not be the reason")
        if high > self.limit:
            remarks.append(f"≥ {self.limit:,} addresses: no more were tried")
        if low == 1:
            remarks.append("frames to a single station are flooded or lost: the DUT does not learn")
        capacity = float(low) if low > 1 else 0.0
        return Findings({"capacity": capacity}, {"flooded": tuple(sorted(curve))}, tuple(remarks))

    def _try(self, measurer: Measurer, count: int) -> Look:
        seen = look(measurer, count, self.rate, self.rate)
        return look(measurer, count, self.rate, self.rate) if seen.lost else seen
