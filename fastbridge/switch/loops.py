"""Stations, watched.

The moves of MAC addresses between ports are counted. An address that keeps moving is named in the log. A loop makes
addresses move, too, so the ports in question are probed. A probe that comes back proves the loop. The port it came back
on is blocked, for longer each time. Without flapping no probe is ever sent: ports stay silent.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fastbridge.addresses import ByMac, MacAddress
from fastbridge.core.events import Events
from fastbridge.core.packet_out import PacketOut
from fastbridge.journal import Event, Journal

if TYPE_CHECKING:
    from fastbridge.core.dataplane import Dataplane
    from fastbridge.core.fdb import FdbAccess

_log = logging.getLogger(__name__)

# A station that moves so often within a second flaps; a person moving a cable, or a pod being redeployed, does not.
_FLAPS = 5
_STATIONS_KEPT = 4096  # stations that moved last
_COMPLAIN_SECONDS = 10.0  # time between two log lines of a flapping station
_SETTLE_SECONDS = 0.02  # time between two reads of events: a loop makes more of them than are useful
_SHORTEST_BLOCK, _LONGEST_BLOCK = 1.0, 60.0
_PROBE_SECONDS = 1.0  # a probe that takes longer counts as lost
# A group address that no station joins (locally administered), and the EtherType for local experiments (IEEE 802).
_PROBE_TO, _PROBE_TYPE = bytes.fromhex("03 66 62 6c 6f 6f"), b"\x88\xb5"


@dataclass(slots=True)
class _Moves:
    total: int = 0
    since: float = 0.0  # when the second now being counted began
    recent: int = 0
    told: float = -_COMPLAIN_SECONDS


@dataclass(slots=True)
class _Block:
    until: float
    seconds: float = field(default=_SHORTEST_BLOCK)
    over: bool = False  # forwarding again, on trial


class StationWatch:
    """Follows the moves of a switch's stations, and the loops that they reveal."""

    def __init__(
        self,
        dataplane: Dataplane,
        entries: FdbAccess,
        name_of: Callable[[int], str],
        detect_loops: bool,
        journal: Journal,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._entries = entries
        self._dataplane, self._name_of, self._clock = dataplane, name_of, clock
        self._events, self._out = Events(dataplane), PacketOut(dataplane)
        self._detect_loops, self._journal = detect_loops, journal
        self._moves: OrderedDict[int, _Moves] = OrderedDict()
        self._blocks: dict[int, _Block] = {}
        self._source = bytes([0x02, *secrets.token_bytes(5)])
        self._magic = secrets.token_bytes(16)
        self._tokens: dict[int, tuple[int, float]] = {}  # probes under way: their ports, and when they were sent
        self._lock = threading.Lock()
        self._read = 0.0
        self.lost = 0  #: events that came faster than they were read
        if detect_loops:
            self._events.set_probe_magic(self._magic)

    @property
    def moves(self) -> Mapping[MacAddress, int]:
        """How often each station has moved, of the 4,096 that moved last."""
        with self._lock:
            return ByMac({MacAddress(mac): moves.total for mac, moves in self._moves.items() if moves.total})

    def follow(self) -> float | None:
        """Act on the events; returns the seconds until the next call, None: when there are events."""
        now = self._clock()
        if now - self._read < _SETTLE_SECONDS:
            return _SETTLE_SECONDS - (now - self._read)
        self._read = now
        return self._act(now)

    def _act(self, now: float) -> float | None:
        suspects: set[int] = set()
        with self._lock:
            events, self.lost = self._events.read()
            for kind, was, port, vlan, value in events:
                if kind == "loop":
                    self._came_back(value, port, now)
                elif kind == "costly":
                    self._tell_cost(port, value)
                elif kind == "tagged":
                    self._tell_tagged(port, value)
                elif self._moved(value, vlan, was, port, now, kind == "moved"):
                    suspects |= {was, port}
            if self._detect_loops:
                self._probe({port for port in suspects if port not in self._blocks or self._blocks[port].over}, now)
            return self._release(now)

    def forget(self, port: int) -> None:
        """A port was removed: what has happened there is told now, while it has a name."""
        self._act(self._clock())
        with self._lock:
            self._blocks.pop(port, None)
            self._tokens = {token: sent for token, sent in self._tokens.items() if sent[0] != port}

    def _moved(self, mac: int, vlan: int, was: int, port: int, now: float, moved: bool) -> bool:
        """Count a move, damped or not; returns whether the station flaps."""
        moves = self._moves.setdefault(mac, _Moves())
        self._moves.move_to_end(mac)
        if len(self._moves) > _STATIONS_KEPT:
            self._moves.popitem(last=False)
        moves.total += moved
        if now - moves.since > 1.0:
            moves.since, moves.recent = now, 0
        moves.recent += 1
        if moves.recent < _FLAPS:
            return False
        if now - moves.told >= _COMPLAIN_SECONDS:
            moves.told = now
            station, other, here = str(MacAddress(mac)), self._name_of(was), self._name_of(port)
            times = moves.total or moves.recent
            text = f"{station} flaps between {other} and {here} (moved {times} times)"
            said = {"mac": station, "vlan": vlan, "ifname": here, "was": other, "moves": times}
            self._journal.warn(_log, "stations that flap", text, event=Event("flapping", said))
        return True

    def _tell_cost(self, port: int, cost: int) -> None:
        name = self._name_of(port)
        text = (
            f"sending a frame to port {name} takes {cost * 1e-6:.1f} ms: such ports share a sixteenth of the time, "
            "and the rest is dropped as costly; look for packet sockets, filters or XDP in its pod"
        )
        self._journal.warn(_log, "ports that are costly to send to", text, thing=name)

    def _tell_tagged(self, port: int, mtu: int) -> None:
        name = self._name_of(port)
        text = (
            f"port {name} cannot send full-size frames under an 802.1ad tag, or under two tags (tagged_too_big): raise "
            f"the MTU of both ends of its link, {mtu} here, by 8"
        )
        self._journal.warn(_log, "ports too small for tags", text, thing=name)

    def _probe(self, ports: set[int], now: float) -> None:
        """Send a probe out of each port.

        Its token is secret and valid for one return. So a pod that sees a probe can only fake a loop of its own port.
        """
        self._tokens = {token: sent for token, sent in self._tokens.items() if now - sent[1] < _PROBE_SECONDS}
        orders = []
        for port in ports:
            token = secrets.randbits(48)
            self._tokens[token] = port, now
            frame = _PROBE_TO + self._source + _PROBE_TYPE + self._magic + token.to_bytes(6, "big")
            orders.append((frame.ljust(60, b"\0"), -1, port))
        self._out.send(orders)

    def _came_back(self, token: int, port: int, now: float) -> None:
        """A probe came back: block the port it came back on, twice as long as the last time."""
        sender, _ = self._tokens.pop(token, (None, 0.0))
        if sender is None:
            return
        # One blocked port ends the loop: the probe in the other direction no longer counts.
        self._tokens = {token: sent for token, sent in self._tokens.items() if sent[0] != port}
        block = self._blocks.get(port)
        if block is not None and not block.over:
            return
        seconds = _SHORTEST_BLOCK if block is None else min(2 * block.seconds, _LONGEST_BLOCK)
        try:
            self._dataplane.set_blocked(port, True)
        except IndexError:  # removed meanwhile
            return
        self._blocks[port] = _Block(now + seconds, seconds)
        self._entries.flush(port)
        where = "itself" if port == sender else self._name_of(sender)
        name = self._name_of(port)
        text = f"port {name} is in a loop with {where}: blocked for {seconds:g} s; find the cable"
        self._journal.warn(_log, "ports in loops", text, event=Event("link", {"ifname": name, "link": "blocked"}))

    def _release(self, now: float) -> float | None:
        """Let ports forward again after their time, and probe them at once. A port that stays quiet is forgiven."""
        over = {port for port, block in self._blocks.items() if now >= block.until and not block.over}
        for port in over:
            block = self._blocks[port]
            block.over, block.until = True, now + 2 * block.seconds + 1.0
            with contextlib.suppress(IndexError):  # removed meanwhile
                self._dataplane.set_blocked(port, False)
                name = self._name_of(port)
                event = Event("link", {"ifname": name, "link": "up"})
                self._journal.warn(_log, "ports on trial", f"port {name} forwards again, on trial", event=event)
        self._probe(over, now)
        for port in [p for p, block in self._blocks.items() if block.over and now >= block.until]:
            del self._blocks[port]
        return min((max(0.0, block.until - now) for block in self._blocks.values()), default=None)
