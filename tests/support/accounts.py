"""Accounts that must always add up."""

from __future__ import annotations

from collections import Counter

from fastbridge import Counters, PortCounters
from fastbridge.core.codes import TX_DROP_REASONS


def check_fates(counters: Counters) -> None:
    """Every frame received has its fate."""
    for name, port in [*counters.ports.items(), ("total", counters.total)]:  # the total has ports that were removed
        fates = port.forwarded + port.flooded + port.consumed + sum(port.dropped.values()) + port.rx_in_flight
        assert port.rx_frames == fates, f"{name}: received {port.rx_frames}, decided {fates}"


def unsent(port: PortCounters) -> int:
    """Copies that the switch did not send. A busy machine makes some: they are `costly`."""
    return sum(port.tx_dropped[reason] for reason in TX_DROP_REASONS)


def check_copies(port: PortCounters, copies: int) -> None:
    """Every copy that was decided for a port has its fate, and so have those that its link has added."""
    fates = port.tx_frames + sum(port.tx_dropped.values()) + port.tx_in_flight
    assert copies + port.link_added == fates, f"{copies} copies and {port.link_added} added, {fates} of them known"


def check_policy_fates(counters: Counters) -> int:
    """So has every frame that the policy took; returns how many that were."""
    check_fates(counters)
    fates = Counter(counters.policy)
    taken = fates["answered"] + fates["forwarded"] + fates["sent_to"]
    taken += sum(count for what, count in fates.items() if what.startswith("dropped:"))
    assert counters.total.consumed == taken
    assert fates["missed"] == fates["failed"] == 0
    return taken
