"""Throughput, RFC 2544 §26.1.

The highest load without loss; for machines with some noise, by RFC 9971.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from fastbridge.bench.tester.trial import Trial

from . import Findings, Method
from .bounds import search_parameters
from .measurer import Measurer
from .patterns import counted, forwarding_rate, full_load, gigabits, is_flooded, known_pattern, streams_of
from .search import Bounds, search


@dataclass(frozen=True)
class Throughput(Method):
    """NDR and PDR: the highest loads found to lose nothing, and no more than 0.5 %.

    A load of a bidirectional pattern is that of both directions together. Beside them stands what the tester could
    offer, and what came out of that (FRMOL, RFC 2285 §3.6.2). A load that only buffers hold until after the trial
    is not forwarded (see `search`).
    """

    name = "throughput"
    section = "RFC 2544 §26.1, RFC 9971"
    units: ClassVar[Mapping[str, str]] = {
        "ndr": "frames/s",
        "ndr_gbps": "Gb/s",
        "pdr": "frames/s",
        "pdr_gbps": "Gb/s",
        "max_offered": "frames/s",
        "frmol": "frames/s",
    }
    primary = "ndr"

    sizes: tuple[int, ...] = (64,)
    pattern: str = "pair"
    seconds: float = 1.0  #: of a trial
    duration_sum: float = 21.0  #: of a load's trials
    width: float = 0.005  #: between the bounds, relative

    def __post_init__(self) -> None:
        known_pattern(self.pattern)
        search_parameters(self)

    def run(self, measurer: Measurer) -> Findings:
        """Find the highest load, then search below it."""
        streams = streams_of(self.pattern, self.sizes)
        full = full_load(measurer, streams, self.seconds)
        return throughput_below(measurer, full, seconds=self.seconds, duration_sum=self.duration_sum, width=self.width)


def throughput_below(measurer: Measurer, full: Trial, *, seconds: float, duration_sum: float, width: float) -> Findings:
    """What `Throughput` finds for the streams of an unpaced trial, whatever their pattern; see `search` for the rest.

    Rates of broadcasts are those at one port.
    """
    maximum = counted(full.offered_rate, "sent")
    streams = full.offer.streams
    sizes = streams[0].sizes
    values = {"max_offered": maximum, "frmol": forwarding_rate(full)}
    remarks = []
    found = search(
        measurer,
        streams,
        maximum,
        seconds=seconds,
        duration_sum=duration_sum,
        width=width,
        sampled=is_flooded(full),
    )
    for goal, bounds in found.items():
        if bounds.lower is not None:
            values |= {goal: bounds.lower, f"{goal}_gbps": gigabits(bounds.lower, sizes)}
        remarks += _remarks(goal.upper(), bounds)
    return Findings(values, remarks=tuple(remarks))


def _remarks(goal: str, bounds: Bounds) -> list[str]:
    """A remark if a bound is missing (RFC 9971: an irregular result), or if the tester set it."""
    if bounds.lower is None:
        return [f"no {goal}: the goal is missed even at {bounds.upper:,.1f} frames/s, the lowest load tried"]
    if bounds.upper is None:
        return [f"{goal} ≥ {bounds.lower:,.0f} frames/s: the goal is met even at the most the tester can offer"]
    if bounds.sent_short:
        return [f"{goal} ≥ {bounds.lower:,.0f} frames/s: the tester did not offer {bounds.upper:,.0f} in full"]
    return []
