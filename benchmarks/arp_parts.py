"""What the ARP benchmarks share: questions made by hand, a clock, a lab with its switch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from fastbridge import Lab, PrivilegeError, Topology
from fastbridge.bench import Running
from fastbridge.bench.engines.fastbridge import Fastbridge
from fastbridge.bench.machine import Layout
from fastbridge.pods import Pod
from fastbridge.topology import PodPlan

BROADCAST = b"\xff" * 6
_ARP_REQUEST = bytes.fromhex("0806 0001 0800 0604 0001")


class Work:
    """The clock of these benchmarks: a round's time is what was measured in it, not how long it took."""

    seconds = 0.0

    @classmethod
    def time(cls) -> float:
        return cls.seconds


def arp_request(asker: Pod | PodPlan, target: Pod | PodPlan) -> bytes:
    """Who has the target's address? Of oneself: an announcement."""
    assert asker.ipv4 and target.ipv4
    sender = asker.mac.packed
    return b"".join((BROADCAST, sender, _ARP_REQUEST, sender, asker.ipv4.ip.packed, bytes(6), target.ipv4.ip.packed))


def record(benchmark: Any, samples: list[float], what: str, figures: dict[str, float | int]) -> None:
    """Give the benchmark rounds of these lengths, and its row these figures."""
    left = iter(samples)

    def one() -> None:
        Work.seconds += next(left)

    benchmark.pedantic(one, rounds=len(samples))
    benchmark.extra_info.update(what=what, figures=figures)


def percentile(samples: list[float], share: float) -> float:
    """By nearest rank."""
    return sorted(samples)[min(len(samples) - 1, int(share * len(samples)))]


@contextmanager
def switched(topology: Topology, policy: str) -> Iterator[tuple[Lab, Running]]:
    """A lab whose host ends `fastbridge run --arp POLICY` joins, a process on a CPU of its own."""
    with ExitStack() as stack:
        try:
            lab = stack.enter_context(Lab(topology))
        except PrivilegeError as error:
            pytest.skip(str(error))
        engine = Fastbridge(options=("--arp", policy))
        yield lab, stack.enter_context(engine.attach(lab, Layout.of_machine().switch))
