"""Forwarding rate at maximum offered load (FRMOL), RFC 2285 §3.6.2.

One trial: short enough to be repeated in every block of an interleaved comparison.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from fastbridge.bench.tester.offer import FCS, Kind
from fastbridge.bench.tester.trial import Trial

from . import Findings, Method
from .bounds import positive, whole
from .measurer import Measurer
from .patterns import (
    BUSY,
    MESH,
    MESH_PORTS,
    PATTERNS,
    counted,
    forwarding_rate,
    full_load,
    known_pattern,
    loss_of,
    streams_of,
    subject_of,
)

LONGER = 1.05  # than the frames sent: stray frames in the window cannot make up so much
_COALESCED = (
    "several datagrams arrive as one frame, and count as one: the DUT coalesces them, and with several sizes nothing "
    "tells how many they were; so frames/s and loss are not the datagrams': compare Gb/s"
)


@dataclass(frozen=True)
class ForwardingRate(Method):
    """The rate that comes out of the DUT at the tester's highest load."""

    name = "forwarding-rate"
    section = "RFC 2285 §3.6.2"
    units: ClassVar[Mapping[str, str]] = {
        "frmol": "frames/s",
        "frmol_gbps": "Gb/s",
        "loss": "ratio",
        "max_offered": "frames/s",
    }
    primary = "frmol"

    sizes: tuple[int, ...] = (64,)
    #: or "bidirectional"; "busy": both ways, a sender on every CPU, the switch's too; "mesh": four ports, all to all
    pattern: str = "pair"
    kind: Kind = "ethernet"
    flows: int = 1  #: UDP source ports
    sources: int = 1  #: source addresses per port
    targets: int = 1  #: destination addresses per port
    seconds: float = 1.0

    def __post_init__(self) -> None:
        known_pattern(self.pattern, (*PATTERNS, BUSY, MESH))
        positive(self, "seconds")
        whole(self, flows=1, sources=1, targets=1)

    @property
    def ports(self) -> int:  # type: ignore[override] # nobody sets it
        """Two, or what a mesh has."""
        return MESH_PORTS if self.pattern == MESH else 2

    @property
    def subject(self) -> str:
        """Frame size, and every number that is not 1."""
        many = ((self.flows, "flows"), (self.sources, "sources"), (self.targets, "targets"))
        kind = "" if self.kind == "ethernet" else self.kind.upper()
        return subject_of(self.sizes, self.pattern, kind, *(f"{n:,} {what}" for n, what in many if n > 1))

    def run(self, measurer: Measurer) -> Findings:
        """One unpaced trial; rates are those of its window, in which the path is full."""
        streams = tuple(
            replace(stream, kind=self.kind, flows=self.flows, sources=self.sources, targets=self.targets)
            for stream in streams_of(self.pattern, self.sizes)
        )
        trial = full_load(measurer, streams, self.seconds)
        return Findings(
            {
                "frmol": forwarding_rate(trial),
                "frmol_gbps": trial.gigabits_per_second,
                "loss": loss_of(trial),
                "max_offered": counted(trial.offered_rate, "sent"),
            },
            remarks=(_COALESCED,) if self.kind == "udp" and _is_coalesced(trial, self.sizes) else (),
        )


def _is_coalesced(trial: Trial, sizes: tuple[int, ...]) -> bool:
    sent = sum(size - FCS for size in sizes) / len(sizes)
    return trial.window_bytes > LONGER * sent * (trial.window_frames or 0)
