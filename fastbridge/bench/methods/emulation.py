"""Emulated links: what was wanted against what came.

Each stage of a link has its own test, in which nothing else is asked for. The same frames first pass the engine without
a link. What is found then is the floor, of the engine and of the tester together. It stands beside the result and is
not subtracted from it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import ClassVar

from fastbridge.bench.tester.offer import FCS, Offer, Stream, steady
from fastbridge.bench.tester.trial import Samples, Trial
from fastbridge.bench.wanted_link import WantedLink
from fastbridge.errors import BenchError

from . import Findings, Method
from .bounds import positive
from .latency import irregular
from .measurer import Measurer
from .patterns import sampling

QUANTITIES: Mapping[str, str] = {
    "p50": "ms",
    "p99": "ms",
    "distance": "share",
    "lost": "ratio",
    "burst": "frames",
    "rate": "Mb/s",
    "waiting": "ms",
    "reordered": "ratio",
}  #: what is measured, with its unit
_Z = NormalDist().inv_cdf(0.995)  # of a two-sided interval of 99 %
_KOLMOGOROV = math.sqrt(-math.log(0.01 / 2) / 2)  # distance times √n that chance exceeds once in a hundred
_BARE_SECONDS = 1.0
_OVERLOAD = 1.5  # times the rate: where the sender lost its CPU, the queue is full again in twice that time
_LARGE = 1518  # bytes with FCS, where a rate decides
_SIMPLE = WantedLink(delay=0.02)
_POINTS = 100  # of a distribution's curve


@dataclass(frozen=True)
class Emulation(Method):
    """One stage of an emulated link: delay, jitter, order, loss, bursts of it, or rate with its queue."""

    name = "emulation"
    section = "RFC 7679, RFC 7680, RFC 6534, RFC 4737"
    units: ClassVar[Mapping[str, str]] = {
        "error": "ratio",
        **{f"{of}{name}": unit for name, unit in QUANTITIES.items() for of in ("", "wanted_", "bare_")},
        "chance_distance": "share",
        "chance_lost": "ratio",
        "chance_burst": "frames",
        "samples": "frames",
        "wanted": "ms → share",
        "got": "ms → share",
    }
    primary = "error"
    higher_is_better = False

    link: WantedLink = _SIMPLE
    seconds: float = 2.0
    load: float = 1000.0  #: frames/s; a rate has its own, half as much again

    def __post_init__(self) -> None:
        positive(self, "seconds", "load")
        if self.link == WantedLink():
            raise BenchError("emulation: the link does nothing that could be measured")

    @property
    def subject(self) -> str:
        """The link."""
        return str(self.link)

    def run(self, measurer: Measurer) -> Findings:
        """One trial without the link, one with it."""
        offer = self._offer(measurer.ports)
        shorter = replace(offer.phases[0], seconds=min(self.seconds, _BARE_SECONDS))
        bare = measurer.trial(replace(offer, link=None, phases=(shorter,)))
        trial = measurer.trial(offer)
        alone, samples = _samples(bare), _samples(trial)
        if self.link.rate:
            values = self._rate(bare, trial)
        elif self.link.burst:
            values = self._loss(alone, samples) | self._burst(alone, samples)
        elif self.link.loss:
            values = self._loss(alone, samples)
        elif self.link.jitter and not self.link.overtakes:
            values = _order(alone, samples)
        else:
            values = self._delay(alone, samples)
        series: dict[str, tuple[tuple[float, float], ...]] = {}
        if self.link.jitter and self.link.overtakes:
            values = values | self._distance(samples)
            series = self._curves(samples)
        values["error"] = values["distance"] if "distance" in values else _error(values)
        values["samples"] = float(samples.received)
        return Findings(values, series, tuple(_remarks(self.link, bare, trial)))

    def _offer(self, ports: int) -> Offer:
        link = self.link
        if link.rate:
            streams = Stream(0, (1,), (_LARGE,))
            load = _OVERLOAD * link.rate / ((_LARGE - FCS) * 8)
            every = sampling(load, (streams,), self.seconds, ports)
            return replace(steady(streams, self.seconds, load, sample=every), link=link)
        timed = not link.loss
        return replace(steady(Stream(0, (1,)), self.seconds, self.load, sample=1), link=link, delays=timed)

    def _delay(self, alone: Samples, samples: Samples) -> dict[str, float]:
        found = {}
        for name, share in (("p50", 0.5), ("p99", 0.99)):
            # Of a spread the link's own percentile is wanted.
            found[name] = _percentile(samples.delays_ns, share) / 1e6
            found[f"wanted_{name}"] = _percentile_of(self.link, share) * 1e3
            found[f"bare_{name}"] = _percentile(alone.delays_ns, share) / 1e6
        return found

    def _distance(self, samples: Samples) -> dict[str, float]:
        """Kolmogorov and Smirnov's: the largest difference of the distributions."""
        delays = sorted(samples.delays_ns)
        count = len(delays)
        distance = 0.0
        for i, delay in enumerate(delays):
            share = self.link.share_within(delay * 1e-9)
            distance = max(distance, share - i / count, (i + 1) / count - share)
        return {"distance": distance, "wanted_distance": 0.0, "chance_distance": _KOLMOGOROV / math.sqrt(count)}

    def _curves(self, samples: Samples) -> dict[str, tuple[tuple[float, float], ...]]:
        delays = sorted(samples.delays_ns)
        shares = [(i + 0.5) / _POINTS for i in range(_POINTS)]
        got = tuple((_percentile(delays, share) / 1e6, share) for share in shares)
        return {"wanted": tuple((_percentile_of(self.link, share) * 1e3, share) for share in shares), "got": got}

    def _loss(self, alone: Samples, samples: Samples) -> dict[str, float]:
        wanted = self.link.loss
        trials = float(samples.sent)
        if self.link.burst:  # neighbours share their fate: so many independent frames tell as much
            alike = 1 - sum(self.link.leaving)
            trials *= (1 - alike) / (1 + alike)
        return {
            "lost": _lost(samples),
            "wanted_lost": wanted,
            "bare_lost": _lost(alone),
            "chance_lost": _Z * math.sqrt(wanted * (1 - wanted) / trials),
        }

    def _burst(self, alone: Samples, samples: Samples) -> dict[str, float]:
        runs = sum(count for _, count in samples.loss_runs)
        if not runs:
            raise BenchError("no frame was lost: no burst")
        spread = math.sqrt(1 - 1 / self.link.burst) * self.link.burst
        found = {
            "burst": _mean_run(samples),
            "wanted_burst": self.link.burst,
            "chance_burst": _Z * spread / math.sqrt(runs),
        }
        return found | ({"bare_burst": _mean_run(alone)} if alone.loss_runs else {})

    def _rate(self, bare: Trial, trial: Trial) -> dict[str, float]:
        waiting, alone = (_samples(each).percentiles([50.0])[50.0] / 1e6 for each in (trial, bare))
        return {
            "rate": trial.gigabits_per_second * 1e3,
            "wanted_rate": self.link.rate / 1e6,
            "bare_rate": bare.gigabits_per_second * 1e3,
            "waiting": waiting,
            "wanted_waiting": self.link.wait * 1e3,
            "bare_waiting": alone,
        }


def _samples(trial: Trial) -> Samples:
    if trial.samples is None or not trial.samples.received:
        raise BenchError(f"not a frame came through {trial.offer.link or 'the engine without a link'}")
    return trial.samples


def _order(alone: Samples, samples: Samples) -> dict[str, float]:
    return {
        "reordered": samples.reordered / samples.received,
        "wanted_reordered": 0.0,
        "bare_reordered": alone.reordered / alone.received,
    }


def _error(values: Mapping[str, float]) -> float:
    """How far the first quantity is off, relative to what was wanted; or the quantity where none of it was."""
    name = next(name for name in QUANTITIES if name in values)
    wanted = values[f"wanted_{name}"]
    return abs(values[name] - wanted) / (wanted or 1.0)


def _lost(samples: Samples) -> float:
    return 1 - samples.received / samples.sent


def _mean_run(samples: Samples) -> float:
    return sum(length * count for length, count in samples.loss_runs) / sum(count for _, count in samples.loss_runs)


def _percentile(values: Sequence[int], share: float) -> float:
    if not values:
        raise BenchError("the trial kept no delays: its record is broken")
    ordered = sorted(values)
    return float(ordered[min(len(ordered) - 1, int(share * len(ordered)))])


def _percentile_of(link: WantedLink, share: float) -> float:
    if not link.jitter:
        return link.delay
    if link.distribution == "normal":
        return NormalDist(link.delay, link.jitter).inv_cdf(share)
    return link.delay + link.jitter * (2 * share - 1)


def _remarks(link: WantedLink, bare: Trial, trial: Trial) -> list[str]:
    """What is wrong with the samples, but for what was asked for, or has no part in what is measured."""
    remarks = []
    for each, wanted in ((bare, WantedLink()), (trial, link)):
        samples = _samples(each)
        asked = replace(
            samples,
            reordered=0 if wanted.jitter else samples.reordered,
            early=samples.early if trial.offer.delays else 0,
        )
        where = "without a link, " if each is bare else ""
        remarks += [where + text for text in irregular(asked) if not text.startswith("only ")]
    if link.rate and bare.gigabits_per_second * 1e9 < link.rate * (1 + _OVERLOAD) / 2:
        most = f"{bare.gigabits_per_second * 1e3:,.0f} Mb/s"
        remarks.append(f"without a link the engine forwards {most}: too little above the rate to judge it")
    return remarks
