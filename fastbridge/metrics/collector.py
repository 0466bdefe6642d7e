"""The collector: one snapshot of a switch, as metrics.

Ports are labels, stations are not: a MAC or IP address as a label would make a time series of each.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Protocol

from prometheus_client import generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from fastbridge.policy.waits import BOUNDS
from fastbridge.switch.counters import Counters, PortCounters
from fastbridge.switch.vitals import Vitals
from fastbridge.version import __version__

if TYPE_CHECKING:
    from fastbridge.switch.member import SwitchPort

# A policy may give any text as the reason of a drop, addresses included. These become labels.
_REASON = re.compile(r"[a-z][a-z_]{0,31}")
_MOST_FATES = 40


class Source(Protocol):
    """What a collector asks of a switch."""

    def counters(self) -> Counters:
        """One snapshot."""

    def vitals(self) -> Vitals:
        """What it holds and uses."""

    @property
    def ports(self) -> Sequence[SwitchPort]:
        """The ports and their states."""


def collector(switch: Source) -> Collector:
    """A collector of a switch's metrics, for a registry of prometheus_client. Each collection takes one snapshot."""
    return _SwitchCollector(switch)


def plain_text(switch: Source) -> str:
    """A switch's metrics in Prometheus's text format."""
    return generate_latest(collector(switch)).decode()


class _SwitchCollector(Collector):
    def __init__(self, switch: Source) -> None:
        self._switch = switch

    def collect(self) -> Iterator[Metric]:
        """The metrics, of now."""
        counters, vitals = self._switch.counters(), self._switch.vitals()
        yield from _of_ports(counters, {port.name: port.state for port in self._switch.ports})
        yield from _of_switch(counters, vitals)


def _of_ports(counters: Counters, states: Mapping[str, str]) -> Iterator[Metric]:
    ports = {_label(name): port for name, port in counters.ports.items()}
    up = GaugeMetricFamily("fastbridge_port_up", "1 while the port forwards, else 0.", labels=["port"])
    for name, state in states.items():
        up.add_metric([_label(name)], state == "up")
    yield up
    yield _per_port(
        "fastbridge_port_receive_frames",
        "Frames that came in by the port and were switched, by the core or the kernel.",
        {name: port.rx_frames + port.fast for name, port in ports.items()},
    )
    yield _per_port(
        "fastbridge_port_receive_bytes",
        "Bytes of these frames, without FCS.",
        {name: port.rx_bytes + port.fast_bytes for name, port in ports.items()},
    )
    yield _by_path(
        "fastbridge_port_forwarded_frames",
        "Received frames that were sent to one port: by the core, or by the kernel's fast path.",
        {name: (port.forwarded, port.fast) for name, port in ports.items()},
    )
    yield _per_port(
        "fastbridge_port_flooded_frames",
        "Received frames that were sent to all ports.",
        {name: port.flooded for name, port in ports.items()},
    )
    yield _per_port(
        "fastbridge_port_consumed_frames",
        "Received frames that a policy took.",
        {name: port.consumed for name, port in ports.items()},
    )
    yield _drops(ports)
    yield _by_path(
        "fastbridge_port_transmit_frames",
        "Copies that left by the port: sent by the core, or by the kernel's fast path.",
        {name: (port.tx_frames, port.fast_sent) for name, port in ports.items()},
    )
    yield _per_port(
        "fastbridge_port_transmit_bytes",
        "Bytes of the copies that the core sent. Those of the kernel's are counted where they came in only.",
        {name: port.tx_bytes for name, port in ports.items()},
    )
    flying = GaugeMetricFamily(
        "fastbridge_port_in_flight_frames",
        "Frames on the port's emulated link: received and not decided yet, or copies not sent yet.",
        labels=["port", "direction"],
    )
    for name, port in ports.items():
        flying.add_metric([name, "receive"], port.rx_in_flight)
        flying.add_metric([name, "transmit"], port.tx_in_flight)
    yield flying
    yield _per_port(
        "fastbridge_port_link_added_frames",
        "Copies that the emulated link made of others: segments of GSO frames beyond the first, and duplicates.",
        {name: port.link_added for name, port in ports.items()},
    )
    yield _per_port(
        "fastbridge_port_coalesced_frames",
        "Copies that left inside another one's GSO frame.",
        {name: port.coalesced for name, port in ports.items()},
    )
    yield _per_port(
        "fastbridge_port_split_frames",
        "GSO frames made of several that the kernel refused: they were sent frame by frame.",
        {name: port.split for name, port in ports.items()},
    )


def _drops(ports: Mapping[str, PortCounters]) -> Metric:
    drops = CounterMetricFamily(
        "fastbridge_port_dropped_frames",
        "Frames that came in and went nowhere, and copies that were not sent. rx_missed: lost before the core.",
        labels=["port", "direction", "reason"],
    )
    for name, port in ports.items():
        for reason, count in {**port.dropped, "rx_missed": port.rx_missed}.items():
            drops.add_metric([name, "receive", reason], count)
        for reason, count in port.tx_dropped.items():
            drops.add_metric([name, "transmit", reason], count)
    return drops


def _of_switch(counters: Counters, vitals: Vitals) -> Iterator[Metric]:
    yield InfoMetricFamily("fastbridge_build", "The version of fastbridge.", {"version": __version__})
    yield GaugeMetricFamily("fastbridge_fdb_entries", "MAC addresses that the switch knows.", vitals.fdb_entries)
    yield GaugeMetricFamily("fastbridge_fdb_entries_limit", "Most MAC addresses.", vitals.fdb_limit)
    events = {name: getattr(counters, name) for name in ("learned", "moved", "aged", "evicted", "refused")}
    yield _by("fastbridge_fdb_events", "What happened to entries of the FDB, and to sources.", "event", events)
    yield GaugeMetricFamily("fastbridge_neighbour_entries", "IP addresses that policies know.", vitals.neighbours)
    yield GaugeMetricFamily("fastbridge_neighbour_entries_limit", "Most IP addresses.", vitals.neighbour_limit)
    yield CounterMetricFamily(
        "fastbridge_neighbour_refused", "IP addresses not learned for want of room.", vitals.neighbours_refused
    )
    yield CounterMetricFamily("fastbridge_neighbour_conflicts", "Disputes about an IP address.", vitals.conflicts)
    fates = _short(counters.policy)
    yield _by("fastbridge_policy_frames", "What became of frames that policies saw.", "fate", fates)
    yield _waits(vitals)
    yield _by(
        "fastbridge_worker_cpu_seconds",
        "CPU time of a thread of the data plane.",
        "worker",
        {str(number): seconds for number, seconds in enumerate(vitals.cpu_seconds)},
    )
    yield _by(
        "fastbridge_worker_breaths",
        "How often a thread of the data plane looked for frames.",
        "worker",
        {str(number): count for number, count in enumerate(vitals.breaths)},
    )
    text = "Memory of the frames in flight on emulated links."
    yield GaugeMetricFamily("fastbridge_link_memory_bytes", text, vitals.link_memory)
    text = "The most that it may be, for each worker."
    yield GaugeMetricFamily("fastbridge_link_memory_limit_bytes", text, vitals.link_memory_limit)
    fast = vitals.fast_path
    yield InfoMetricFamily("fastbridge_fast_path", "How the kernel forwards: nft, bpf or off.", {"path": fast.name})
    yield GaugeMetricFamily("fastbridge_fast_path_pairs", "Pairs of stations that the kernel forwards.", fast.pairs)
    yield GaugeMetricFamily("fastbridge_fast_path_pairs_limit", "Most pairs.", fast.limit)
    changes = {"promoted": fast.promoted, "revoked": fast.revoked, "refused": fast.refused}
    yield _by("fastbridge_fast_path_changes", "What happened to pairs.", "change", changes)


def _waits(vitals: Vitals) -> Metric:
    waits = vitals.policy_waits
    bounds = [*map(str, BOUNDS), "+Inf"]
    buckets = list(zip(bounds, map(float, accumulate(waits.counts)), strict=True))
    text = "How long frames for a policy waited, from their arrival in the core until it was decided."
    return HistogramMetricFamily("fastbridge_policy_wait_seconds", text, buckets, waits.seconds)


def _short(policy: Mapping[str, int]) -> Mapping[str, int]:
    """The fates of frames; drops whose reason is no short word, and those beyond 40 fates, as `dropped:other`."""
    found: Counter[str] = Counter()
    for fate, count in policy.items():
        kind, _, reason = fate.partition(":")
        named = not reason or (_REASON.fullmatch(reason) and len(found) < _MOST_FATES)
        found[fate if named else f"{kind}:other"] += count
    return found


def _label(name: str) -> str:
    """A port's name as UTF-8: the kernel takes any bytes."""
    return os.fsencode(name).decode(errors="backslashreplace")


def _per_port(name: str, text: str, values: Mapping[str, int]) -> Metric:
    return _by(name, text, "port", values)


def _by(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    family = CounterMetricFamily(name, text, labels=[label])
    for value_of, value in values.items():
        family.add_metric([value_of], value)
    return family


def _by_path(name: str, text: str, values: Mapping[str, tuple[int, int]]) -> Metric:
    family = CounterMetricFamily(name, text, labels=["port", "path"])
    for port, (core, kernel) in values.items():
        family.add_metric([port, "core"], core)
        family.add_metric([port, "kernel"], kernel)
    return family
