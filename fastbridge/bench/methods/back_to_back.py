"""Back-to-back frames, RFC 2544 §26.4.

As updated by RFC 9004: the longest burst at minimum gap without loss, and the buffer time that it implies.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from fastbridge.bench.tester.offer import Offer, Phase, Stream

from . import Findings, Method
from .bounds import positive, search_parameters, whole
from .measurer import Measurer
from .patterns import counted, streams_of
from .throughput import Throughput

SHORTEST = 16  # frames of the first burst; doubled until a burst loses frames: most bursts are short


@dataclass(frozen=True)
class BackToBack(Method):
    """The longest burst without loss, by a repeated binary search (RFC 9004 §6.2, §6.3).

    A veth has no line rate: the tester's highest rate stands for the maximum theoretical one. While a burst comes in,
    the DUT forwards at its throughput; the corrected time leaves these frames out (RFC 9004 §6.4).
    """

    name = "back-to-back"
    section = "RFC 2544 §26.4, RFC 9004"
    units: ClassVar[Mapping[str, str]] = {
        "mean": "frames",
        "min": "frames",
        "max": "frames",
        "stdev": "frames",
        "implied_buffer": "ms",
        "corrected_buffer": "ms",
        **Throughput.units,
    }
    primary = "mean"

    sizes: tuple[int, ...] = (64,)
    repeats: int = 50
    limit_seconds: float = 2.0  #: the longest burst tried
    seconds: float = 1.0  #: of the search for throughput, and the next two
    duration_sum: float = 21.0
    width: float = 0.005  #: of both searches

    def __post_init__(self) -> None:
        positive(self, "limit_seconds")
        whole(self, repeats=1)
        search_parameters(self)

    def run(self, measurer: Measurer) -> Findings:
        """Search for throughput, then `repeats` times for the longest burst."""
        search = Throughput(self.sizes, "pair", self.seconds, self.duration_sum, self.width).run(measurer)
        fastest = search.values["max_offered"]
        limit = max(1, round(fastest * self.limit_seconds))
        (stream,) = streams_of("pair", self.sizes)
        lengths = [self._longest(measurer, stream, limit) for _ in range(self.repeats)]
        mean = statistics.fmean(lengths)
        implied = 1000 * mean / fastest
        values = {
            **search.values,
            "mean": mean,
            "min": float(min(lengths)),
            "max": float(max(lengths)),
            "stdev": statistics.stdev(lengths) if len(lengths) > 1 else 0.0,
            "implied_buffer": implied,
        }
        remarks = list(search.remarks)
        if whole := lengths.count(limit):
            remarks.append(
                f"≥ {limit:,} frames: {whole} of {len(lengths)} searches lost none of the longest burst, "
                f"{self.limit_seconds:g} s; so the implied buffer time is a lower bound, and there is no corrected one"
            )
        elif "ndr" in search.values:
            values["corrected_buffer"] = implied * max(0.0, 1 - search.values["ndr"] / fastest)
        if min(lengths) == 0:
            remarks.append("bursts of a single frame were lost")
        return Findings(values, remarks=tuple(remarks))

    def _longest(self, measurer: Measurer, stream: Stream, limit: int) -> int:
        """The longest burst without loss, to within `width` (or a frame)."""

        def comes_through(length: int) -> bool:
            return counted(measurer.trial(Offer((stream,), (Phase(frames=length),))).forwarded, "received") >= length

        whole, broken = 0, min(SHORTEST, limit)
        while comes_through(broken):
            whole, broken = broken, min(2 * broken, limit)
            if whole == limit:
                return limit
        while broken - whole > max(1.0, self.width * whole):
            middle = (whole + broken) // 2
            if comes_through(middle):
                whole = middle
            else:
                broken = middle
        return whole
