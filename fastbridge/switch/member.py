"""What a switch keeps of a port, and what it shows of it."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from .counters import Passed, PortCounters
from .port_flags import StormControl
from .port_links import PortLink
from .port_socket import Receiver
from .socket_port import SocketPort


@dataclass(frozen=True, slots=True)
class SwitchPort:
    """One port of a switch."""

    index: int
    name: str
    #: "up"; "down" (switched off, or without a carrier: it comes back by itself); "gone" (its interface was deleted, or
    #: is no longer ours); "blocked" (part of a loop, or a mirror)
    state: str


@dataclass
class Member:
    """What the switch keeps of a port."""

    name: str
    sockets: tuple[socket.socket, ...] = ()  # one or more for RX, then TX's; none in memory
    slots: tuple[int, ...] = ()  # of each RX socket's ring
    readers: tuple[int, ...] = ()  # the workers that read it, one a ring
    coalesce: bool = False  # its first value of the flag
    link: PortLink | None = None  # the interface it is; none in memory, and of a socket port …
    socket_port: SocketPort | None = None  # … which it is then. It lives as long as the port
    takes: str = "all"  # the frames that may leave by it (port.pxd's Takes)
    ask_pod: Callable[[], bool] | None = None  # whether its pod takes merged frames, if the port knows …
    takes_merged: bool = True  # … and its answer
    lost_after: int = 0  # copies that the kernel took, and lost in the interface
    listen: Receiver | None = None  # where the core receives its frames, if not on the interface itself
    passed: Passed = field(default_factory=Passed)  # what has passed there: read before what the core counts
    storm_control: StormControl = field(default_factory=StormControl)

    def count(self, tally: Mapping[str, Any]) -> PortCounters:
        """The core's counts of the port, by name, and the frames lost behind it.

        The losses are read first, so they are never too many.
        The kernel reports a loss within the send at once, and counts it in the interface, too.
        """
        if self.link is not None:
            self.lost_after = max(self.lost_after, self.link.lost_after - tally["shed"])
        if self.listen is None:
            return name_counters(tally, self.lost_after)
        # The kernel's fast path loses frames there, too. The two kinds of loss cannot be told apart.
        by_core = tally["messages"] + tally["shed"]  # sent, or tried to: the interface counts them, too
        sent = max(0, self.passed.sent - by_core)
        of_fast = min(self.lost_after, sent)
        counters = name_counters(tally, self.lost_after - of_fast)
        return replace(
            counters,
            rx_missed=counters.rx_missed + self.passed.missed,
            tx_dropped={**counters.tx_dropped, "device": counters.tx_dropped["device"] + of_fast},
            fast=self.passed.received,
            fast_bytes=self.passed.received_bytes if self.passed.received else 0,
            fast_sent=sent - of_fast,
        )


def name_counters(tally: Mapping[str, Any], lost_after: int = 0) -> PortCounters:
    """The core's counts of a port; lost_after: copies that were sent and then lost in its interface."""
    counts = {name: count for name, count in tally.items() if name not in ("messages", "shed")}
    lost_after = min(lost_after, counts["tx_frames"])
    counts["tx_frames"] -= lost_after
    counts["tx_dropped"] = {**counts["tx_dropped"], "device": lost_after}
    return PortCounters(**counts)
