"""An engine in memory that emulates links, with known faults: what a method must find.

Frames have independent fates, and take `floor` seconds without a link.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from fastbridge.bench import Offer, Trial
from fastbridge.bench.tester.offer import FCS
from fastbridge.bench.tester.samples import encode, keep, loss_runs
from fastbridge.bench.tester.trial import Samples
from fastbridge.bench.wanted_link import WantedLink


class FakeLink:
    """A measurer. Its emulator makes of a link what `faults` (fields of WantedLink → function of its value) say.

    floor: seconds that any frame takes; own_loss: ratio it loses without a link, too.
    """

    ports = 2

    def __init__(self, *, seed: int = 1, floor: float = 20e-6, own_loss: float = 0.0, **faults: Any) -> None:
        self._random = np.random.default_rng(seed)
        self._floor, self._own_loss, self._faults = floor, own_loss, faults
        self.links: list[WantedLink | None] = []

    def restart(self) -> None:
        raise AssertionError("an emulated link needs no restart of the DUT")

    def trial(self, offer: Offer) -> Trial:
        """Run one."""
        self.links.append(offer.link)
        link = offer.link or WantedLink()
        link = replace(link, **{name: fault(getattr(link, name)) for name, fault in self._faults.items()})
        (phase,) = offer.phases
        assert phase.rate is not None and phase.seconds is not None
        count = round(phase.rate * phase.seconds)
        octets = max(offer.streams[0].sizes) - FCS
        sent = np.arange(count) / phase.rate
        lost = self._lost(count, link) | (self._random.random(count) < self._own_loss)
        through = phase.rate
        if 0 < link.rate < phase.rate * octets * 8:
            through = link.rate / (octets * 8)
            lost |= self._random.random(count) > through / phase.rate
        arrived = sent + self._floor + self._delays(count, link)
        if not link.overtakes:
            arrived = np.maximum.accumulate(arrived)
        return self._trial(offer, sent, arrived, lost, through * octets)

    def _lost(self, count: int, link: WantedLink) -> Any:
        draws = self._random.random(count)
        if not link.burst:
            return draws < link.loss
        lost, is_bad = np.zeros(count, np.bool_), False
        into, out_of = link.leaving
        for i in range(count):
            lost[i] = is_bad
            is_bad = draws[i] >= out_of if is_bad else draws[i] < into
        return lost

    def _delays(self, count: int, link: WantedLink) -> Any:
        spread = self._random.uniform(-1, 1, count)
        if link.distribution == "normal":
            spread = self._random.standard_normal(count)
        return np.maximum(0.0, link.delay + link.jitter * spread) + link.wait

    def _trial(self, offer: Offer, sent: Any, arrived: Any, lost: Any, octets_per_second: float) -> Trial:
        stamped = np.arange(0, len(sent), offer.sample)
        came = ~lost[stamped]
        latency = np.rint((arrived - sent)[stamped] * 1e9).astype(np.int64)
        numbers = stamped[came][np.argsort(arrived[stamped][came], kind="stable")]
        samples = Samples(
            sent=len(stamped),
            received=int(came.sum()),
            duplicated=0,
            reordered=int((numbers < np.maximum.accumulate(numbers)).sum()),
            corrupted=0,
            missed=0,
            histogram=encode(latency[came]),
            loss_runs=loss_runs(came),
            delays=keep(latency[came]) if offer.delays else "",
        )
        passed, seconds = int((~lost).sum()), offer.seconds
        return Trial(
            offer,
            seconds,
            window_seconds=seconds,
            window_bytes=math.floor(octets_per_second * seconds),
            cpu_machine_seconds=0.0,
            steal_seconds=0.0,
            window_frames=passed,
            intended=len(sent),
            sent=(len(sent), 0),
            received=(0, passed),
            samples=samples,
        )
