"""Errored frames, RFC 2889 §5.9.

A switch should not forward invalid frames. Of the RFC's five kinds of errors a veth pair can carry two, runts and
over-size frames: it has no frame check sequence to be wrong, and carries whole bytes. What was found out about it
(Linux 6.18, MTU 1500 at both ends, sizes with FCS):

- AF_PACKET sends 18 bytes and more, and nothing on the way pads them;
- up to 1518 bytes pass. AF_PACKET refuses to send more than its interface's MTU plus the header (EMSGSIZE), except
  for 4 bytes of a VLAN tag;
- where the sender's MTU is higher than the receiver's, the veth itself refuses frames of more than the receiver's
  MTU plus header plus 4 bytes (ENOBUFS, and a drop counted at the receiver): the DUT has not seen them either.

So an over-size frame, on links that are set up alike at both ends, is one that cannot be sent; and a frame that
cannot be sent says nothing about the DUT.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import ClassVar

from fastbridge.bench.tester.offer import FCS, Offer, Phase, Stream
from fastbridge.bench.tester.trial import Trial
from fastbridge.errors import BenchError

from . import Findings, Method
from .bounds import positive, whole
from .measurer import Measurer
from .patterns import came_out

SMALLEST, LARGEST = 64, 1518  # legal sizes


@dataclass(frozen=True)
class ErroredFrames(Method):
    """Whether runts and over-size frames are filtered: the ratio that does not come out; 1 is all of them.

    Legal frames of the smallest and largest size come first, at the same load; none of them may be missing.
    """

    name = "errored-frames"
    section = "RFC 2889 §5.9"
    units: ClassVar[Mapping[str, str]] = {
        "runts_filtered": "ratio",
        "oversize_filtered": "ratio",
        "filtered": "bytes → ratio",
    }
    primary = "runts_filtered"

    runts: tuple[int, ...] = (18, 32, 63)  #: sizes with FCS
    oversize: tuple[int, ...] = (1519, 1522, 9018)
    frames: int = 1000  #: of each size
    rate: float = 10_000.0  #: frames/s

    def __post_init__(self) -> None:
        whole(self, frames=1)
        positive(self, "rate")
        if not self.runts or max(self.runts) >= SMALLEST or min(self.oversize, default=LARGEST + 1) <= LARGEST:
            raise BenchError(f"a runt has less than {SMALLEST} bytes, an over-size frame more than {LARGEST}")

    @property
    def subject(self) -> str:
        """The sizes."""
        return "/".join(map(str, (*self.runts, *self.oversize))) + " B"

    def run(self, measurer: Measurer) -> Findings:
        """One trial for each size."""
        for size in (SMALLEST, LARGEST):
            if filtered := _filtered(self._trial(measurer, size)):
                raise BenchError(f"{filtered:.1%} of legal frames of {size} bytes are lost")
        values, curve, remarks = {}, [], []
        for name, sizes in (("runts_filtered", self.runts), ("oversize_filtered", self.oversize)):
            trials = {size: self._trial(measurer, size) for size in sizes}
            remarks += [_fate(size, trial) for size, trial in trials.items()]
            ratios = [(float(size), _filtered(trial)) for size, trial in trials.items() if trial.offered]
            curve += ratios
            if ratios:
                values[name] = fmean(ratio for _, ratio in ratios)
        remarks.append("not tested: CRC errors, alignment errors and dribble bits, which no veth can carry")
        return Findings(values, {"filtered": tuple(sorted(curve))}, tuple(remarks))

    def _trial(self, measurer: Measurer, size: int) -> Trial:
        return measurer.trial(Offer((Stream(0, (1,), (size,)),), (Phase(frames=self.frames, rate=self.rate),)))


def _filtered(trial: Trial) -> float:
    """Ratio of the trial's frames that did not come out; 1 if none was sent."""
    return 1 - min(1.0, came_out(trial, 1, 0) / trial.offered) if trial.offered else 1.0


def _fate(size: int, trial: Trial) -> str:
    if not trial.offered:
        return f"{size} bytes: cannot be sent over this link, so the DUT is not asked"
    filtered = _filtered(trial)
    if filtered == 1.0:
        return f"{size} bytes: filtered"
    text = f"{size} bytes: forwarded" if not filtered else f"{size} bytes: {filtered:.1%} filtered"
    if trial.window_frames and (length := trial.window_bytes / trial.window_frames + FCS) > size + 0.5:
        text += f", padded to {length:.0f}"
    return text
