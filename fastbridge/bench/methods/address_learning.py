"""Address learning rate, RFC 2889 §5.8."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from . import Findings, Method
from .bounds import positive, whole
from .learned_addresses import PORTS, LookupTrials, look_up
from .measurer import Measurer
from .patterns import counted


@dataclass(frozen=True)
class AddressLearning(Method):
    """The highest rate of frames from new addresses at which the DUT learns all: no frame to them is flooded or lost.

    `addresses` must not be more than the DUT can hold (`address-caching`); the share of flooded frames against the
    learning rate shows where it is. A try that fails is made twice before it counts.
    """

    name = "address-learning"
    section = "RFC 2889 §5.8"
    units: ClassVar[Mapping[str, str]] = {
        "learning_rate": "addresses/s",
        "max_offered": "addresses/s",
        "flooded_at_max": "ratio",
        "flooded": "addresses/s → ratio",
    }
    primary = "learning_rate"
    ports = PORTS

    addresses: int = 10_000
    test_rate: float = 20_000.0  #: frames/s while looking: any DUT forwards that
    width: float = 0.01  #: between the bounds, relative
    lowest: float = 0.001  #: of the maximum rate: a DUT that cannot learn that fast is not searched further

    def __post_init__(self) -> None:
        whole(self, addresses=1)
        positive(self, "test_rate", "width", "lowest")

    @property
    def subject(self) -> str:
        """The number of addresses."""
        return f"{self.addresses:,} addresses"

    def run(self, measurer: Measurer) -> Findings:
        """Begin at full speed, then try rates between a learned and a failed one."""
        full = self._try(measurer, None)
        maximum = counted(full.learning.offered_rate, "sent")
        curve = [(maximum, full.flooded)]
        values = {"max_offered": maximum, "flooded_at_max": full.flooded}
        if full.is_complete:
            remark = f"≥ {maximum:,.0f} addresses/s: learned even as fast as the tester can send"
            return Findings({**values, "learning_rate": maximum}, {"flooded": tuple(curve)}, (remark,))
        low, high, seen = 0.0, maximum, full
        while high - low > self.width * high and high > self.lowest * maximum:
            rate = (low + high) / 2 if low else max(high / 2, self.lowest * maximum)
            seen = self._try(measurer, rate)
            curve.append((rate, seen.flooded))
            if seen.is_complete:
                low = rate
            else:
                high = rate
        series = {"flooded": tuple(sorted(curve))}
        if low:
            return Findings({**values, "learning_rate": low}, series)
        remark = (
            f"even at {high:,.0f} addresses/s {seen.flooded:.1%} of the frames are flooded and {seen.lost:,} lost: "
            f"the DUT does not hold {self.addresses:,} addresses, or does not forward {self.test_rate:,.0f} frames/s"
        )
        return Findings(values, series, (remark,))

    def _try(self, measurer: Measurer, rate: float | None) -> LookupTrials:
        seen = look_up(measurer, self.addresses, rate, self.test_rate)
        return seen if seen.is_complete else look_up(measurer, self.addresses, rate, self.test_rate)
