"""The switch, its life.

Ports, threads, ageing and counters around the Cython data plane; the only module that imports it. Two threads
serve a running switch: the data plane's, which holds no GIL, and the control thread, which ages the FDB,
follows links going down and up, and logs what happens.
"""

from __future__ import annotations

import atexit
import logging
import os
import select
import socket
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import NamedTuple

from .core.dataplane import RX_REASON_NAMES, TX_REASON_NAMES, Dataplane, open_ring
from .core.mac_table import MacTable
from .counters import Counters, PortCounters
from .errors import ConfigError, PortError
from .fdb import Fdb
from .port_socket import Interface, PortLike, is_up, open_port_sockets, start_receiving
from .trace import Trace

_log = logging.getLogger(__name__)

# Ring memory for all ports together: 2,048 slots (4 MiB) a port up to 128 ports, then fewer; 128 slots
# (two bursts) is the least that rode out a 64-frame burst at every port count tried.
_RING_BYTES, _SLOT, _MOST_SLOTS, _FEWEST_SLOTS = 512 << 20, 2048, 2048, 128
# How often links that are down are looked at, and how often expired FDB entries are swept away (look-ups
# ignore them anyway, so this only gives their room back).
_LINK_SECONDS, _SWEEP_SECONDS = 0.05, 1.0


@dataclass(frozen=True, slots=True)
class SwitchPort:
    """One port of a switch."""

    index: int
    name: str
    state: str  #: "up", "down" (it comes back by itself) or "gone" (its interface was deleted)


class Egress(NamedTuple):
    """A frame leaving an in-memory switch by the port of this index."""

    port: int
    frame: bytes


@dataclass
class _Member:
    name: str
    sockets: tuple[socket.socket, ...] = ()  # RX and TX; none in memory
    slots: int = 0  # of the RX ring


class _SwitchBase:
    """What a live switch and one in memory share: the FDB, counters and trace over one data plane."""

    def __init__(self, ageing: float | None, capacity: int, filter_link_local: bool, busy_poll: float = 0.0) -> None:
        if ageing is not None and not 0 <= ageing < 1 << 21:
            raise ConfigError(f"ageing must be 0 … {(1 << 21) - 1} seconds, or None for never, not {ageing}")
        if not 1 <= capacity <= 1 << 24:
            raise ConfigError(f"capacity must be 1 … {1 << 24} FDB entries, not {capacity}")
        if not 0 <= busy_poll <= 1:
            raise ConfigError(f"busy_poll must be 0 … 1 seconds, not {busy_poll}")
        ageing_ms = None if ageing is None else round(ageing * 1000)
        self._dataplane = Dataplane(
            MacTable(capacity, ageing_ms), filter_link_local=filter_link_local, busy_poll_ns=round(busy_poll * 1e9)
        )
        self._members: dict[int, _Member] = {}
        self._departed = PortCounters()  # of the ports that were removed: totals never shrink
        self.fdb = Fdb(self._dataplane, ageing_ms, self._now_ms, self._index_of, self._name_of)

    @property
    def ports(self) -> tuple[SwitchPort, ...]:
        """The ports, by index."""
        links = self._dataplane.links()
        return tuple(SwitchPort(i, m.name, links[i]) for i, m in sorted(self._members.items()) if i in links)

    def counters(self) -> Counters:
        """One consistent snapshot: all ports between the same two breaths."""
        tallies, (learned, moved, aged, evicted, refused) = self._dataplane.snapshot()
        ports = {m.name: _counters(tallies[i]) for i, m in sorted(self._members.items()) if i in tallies}
        return Counters(ports, sum(ports.values(), self._departed), learned, moved, aged, evicted, refused)

    def trace(self, snap: int = 256, limit: int = 4096) -> Trace:
        """Record what happens to each frame: `with switch.trace() as trace: … trace.read()`.

        snap: bytes kept of each frame; limit: events kept unread, more are counted in `lost`. One at a time.
        """
        return Trace(self._dataplane, self._name_of, snap, limit)

    def _now_ms(self) -> int:
        return self._dataplane.now()

    def _name_of(self, index: int) -> str:
        member = self._members.get(index)
        return member.name if member else f"#{index}"

    def _index_of(self, port: str | int) -> int:
        for index, member in self._members.items():
            if port in (index, member.name):
                return index
        names = ", ".join(m.name for m in self._members.values())
        raise ConfigError(f"the switch has no port {port!r}; it has: {names or 'none'}")


class Switch(_SwitchBase):
    """A learning switch over Ethernet interfaces, forwarding in the background from start() to stop().

    ports: interface names of the current network namespace, or the `ports` of a Lab.
    ageing: seconds after which an FDB entry nothing was heard from no longer counts (802.1Q §8.8.3); None: never.
    capacity: most FDB entries; past it frames are forwarded without learning, counted as `refused`.
    filter_link_local: drop 01:80:c2:00:00:00 … :0f (LLDP, LACP, STP) as 802.1D says, instead of flooding them.
    busy_poll: seconds to spin after the last frame before sleeping; 0 sleeps at once.
    cpu: the CPU to run the data plane on; None: any.

    Raises PortError, PrivilegeError or ConfigError, and leaves nothing open then.
    """

    def __init__(
        self,
        ports: Iterable[str | PortLike],
        *,
        ageing: float | None = 300.0,
        capacity: int = 65536,
        filter_link_local: bool = False,
        busy_poll: float = 50e-6,
        cpu: int | None = None,
    ) -> None:
        super().__init__(ageing, capacity, filter_link_local, busy_poll)
        if cpu is not None and cpu not in os.sched_getaffinity(0):
            allowed = ", ".join(map(str, sorted(os.sched_getaffinity(0))))
            raise ConfigError(f"CPU {cpu} is not one this process may run on; those are: {allowed}")
        self._cpu = cpu
        self._threads: list[threading.Thread] = []
        self._stopping = threading.Event()
        self._final: Counters | None = None
        wanted = list(ports)
        self._slots = _ring_slots(len(wanted))
        try:
            self._add_ports(wanted)
        except BaseException:
            self.stop()
            raise

    @staticmethod
    def in_memory(
        ports: int | Sequence[str] = 2,
        *,
        ageing: float | None = 300.0,
        capacity: int = 65536,
        filter_link_local: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> MemorySwitch:
        """A switch without interfaces or privileges, on the same core; ports: how many, or their names.

        clock: seconds, monotonic; tests pass their own to let time pass.
        """
        return MemorySwitch(ports, ageing, capacity, filter_link_local, clock)

    def __enter__(self) -> Switch:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def running(self) -> bool:
        """Whether frames are being forwarded."""
        return bool(self._threads)

    def start(self) -> None:
        """Forward from now on; does nothing when it runs. Raises ConfigError once it was stopped."""
        if self._final is not None:
            raise ConfigError("this switch was stopped; make a new Switch")
        if self._threads:
            return
        self._threads = [
            threading.Thread(target=self._forward, name="fastbridge-data", daemon=True),
            threading.Thread(target=self._control, name="fastbridge-control", daemon=True),
        ]
        _running.add(self)
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stop, for good, and close the sockets; the counters stay readable."""
        self._halt()
        if self._final is None:
            self._final = self.counters()
            with _many(len(self._members)) as pool:
                list(pool.map(self._drop_member, list(self._members)))

    def _halt(self) -> None:
        """End the threads."""
        self._stopping.set()
        self._dataplane.stop()
        os.eventfd_write(self._dataplane.event_fd, 1)  # wakes the control thread
        for thread in self._threads:
            thread.join()
        self._threads = []
        _running.discard(self)

    def counters(self) -> Counters:
        """One consistent snapshot: all ports between the same two breaths; after stop(), the last one."""
        return self._final or super().counters()

    def add_port(self, port: str | PortLike) -> SwitchPort:
        """Add a port, also while running; a deleted interface's port of the same name is replaced.

        Raises PortError, PrivilegeError, or ConfigError when there is such a port already.
        """
        return self._add_ports([port])[0]

    def remove_port(self, port: str | int) -> None:
        """Take a port out, also while running, and forget its FDB entries, static ones too."""
        index = self._index_of(port)
        self._departed += _counters(self._dataplane.snapshot()[0][index])
        self._drop_member(index)

    def _add_ports(self, ports: Sequence[str | PortLike]) -> list[SwitchPort]:
        """Add all or none."""
        sources = [Interface(port) if isinstance(port, str) else port for port in ports]
        self._check_names([source.name for source in sources])
        with _many(len(sources)) as pool:
            futures = [pool.submit(self._open_member, source) for source in sources]
        members = [future.result() for future in futures if future.exception() is None]
        try:
            for future in futures:
                future.result()  # raises what one of them raised
            return [self._attach(member) for member in members]
        except BaseException:
            for member in members:
                for index in [i for i, known in self._members.items() if known is member]:
                    self._drop_member(index)
                for sock in member.sockets:
                    sock.close()
            raise

    def _check_names(self, names: Sequence[str]) -> None:
        known = {port.name: port.state for port in self.ports}
        for place, name in enumerate(names):
            if name in names[:place] or known.get(name, "gone") != "gone":
                raise ConfigError(f"port {name} is named twice; a switch has each port once")
        for name in names:
            if name in known:  # its interface was deleted, and there is a new one
                self.remove_port(name)

    def _open_member(self, source: PortLike) -> _Member:
        """Sockets and ring of a port, receiving already: with half the ring as often as the kernel has no memory."""
        rx, tx = open_port_sockets(source)
        slots = self._slots
        try:
            while True:
                try:
                    open_ring(rx.fileno(), slots)
                    break
                except OSError as error:
                    if slots <= _FEWEST_SLOTS:
                        text = f"no receive ring for {source.name}: {error.strerror}; free some memory"
                        raise PortError(text) from None
                slots //= 2
            start_receiving(rx, source.name)
        except BaseException:
            rx.close()
            tx.close()
            raise
        return _Member(source.name, (rx, tx), slots)

    def _attach(self, member: _Member) -> SwitchPort:
        if member.slots < self._slots:
            _log.warning("the kernel refused a larger ring: %s has %d slots", member.name, member.slots)
            self._slots = member.slots
        rx, tx = member.sockets
        index = self._dataplane.add_port(rx.fileno(), tx.fileno(), member.slots)
        self._members[index] = member
        return SwitchPort(index, member.name, "up")

    def _drop_member(self, index: int) -> None:
        member = self._members.pop(index)
        self._dataplane.remove_port(index)
        for sock in member.sockets:
            sock.close()

    def _forward(self) -> None:
        if self._cpu is not None:
            os.sched_setaffinity(threading.get_native_id(), {self._cpu})
        self._dataplane.run()

    def _control(self) -> None:
        """Follow the links and age the FDB until stop()."""
        links = {port.index: port.state for port in self.ports}
        swept = time.monotonic()
        while not self._stopping.is_set():
            wait = _LINK_SECONDS if "down" in links.values() else _SWEEP_SECONDS
            if select.select([self._dataplane.event_fd], [], [], wait)[0]:
                os.eventfd_read(self._dataplane.event_fd)
            links = self._follow_links(links)
            if time.monotonic() - swept >= _SWEEP_SECONDS:
                self._dataplane.fdb_age(self._dataplane.now())
                swept = time.monotonic()

    def _follow_links(self, before: dict[int, str]) -> dict[int, str]:
        """Log what changed, forget what was learned behind a lost link, and note links that came back."""
        after = {}
        for port in self.ports:
            index, name, link = port.index, port.name, port.state
            if link != before.get(index, "up"):
                _log.warning("port %s is %s", name, {"gone": "gone: its interface was deleted"}.get(link, link))
                if link != "up":
                    self.fdb.flush(index)
            if link == "down":
                member = self._members.get(index)
                if member and is_up(member.sockets[0], name):
                    self._dataplane.set_link(index, "up")
            after[index] = link
        return after


class MemorySwitch(_SwitchBase):
    """A switch without interfaces: the same core, fed by process(). Made by Switch.in_memory()."""

    def __init__(
        self,
        ports: int | Sequence[str],
        ageing: float | None,
        capacity: int,
        filter_link_local: bool,
        clock: Callable[[], float],
    ) -> None:
        super().__init__(ageing, capacity, filter_link_local)
        names = [str(i) for i in range(ports)] if isinstance(ports, int) else list(ports)
        if len(set(names)) != len(names):
            raise ConfigError(f"a port is named twice in {', '.join(names)}; a switch has each port once")
        self._clock, self._epoch = clock, clock()
        for name in names:
            self._members[self._dataplane.add_port()] = _Member(name)

    def process(self, ingress: int | str, frames: Sequence[bytes]) -> list[Egress]:
        """Switch frames (bytes from the destination MAC on, no FCS) arriving on one port.

        Returns the copies in arrival order, those of a flooded frame by ascending port index. Raises
        ConfigError for an unknown port, TypeError for a frame that is not bytes.
        """
        index = self._index_of(ingress)
        return [Egress(*copy) for copy in self._dataplane.process(index, list(frames), self._now_ms())]

    def tick(self) -> None:
        """Sweep expired entries out of the FDB, as a running switch does every second."""
        self._dataplane.fdb_age(self._now_ms())

    def _now_ms(self) -> int:
        return round((self._clock() - self._epoch) * 1000)


def _counters(tally: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]) -> PortCounters:
    """What the core counts of a port, by name."""
    (rx_frames, rx_bytes, forwarded, flooded, consumed, missed, tx_frames, tx_bytes), dropped, tx_dropped = tally
    return PortCounters(
        rx_frames,
        rx_bytes,
        forwarded,
        flooded,
        consumed,
        dict(zip(RX_REASON_NAMES, dropped, strict=True)),
        missed,
        tx_frames,
        tx_bytes,
        dict(zip(TX_REASON_NAMES, tx_dropped, strict=True)),
    )


def _many(ports: int) -> ThreadPoolExecutor:
    """Threads to open or close ports with: the kernel makes each wait some 10 ms, several at the same time."""
    return ThreadPoolExecutor(max_workers=max(1, min(32, ports)))


def _ring_slots(ports: int) -> int:
    """RX ring slots a port: the largest power of two that keeps all rings within _RING_BYTES."""
    fit = max(1, _RING_BYTES // (_SLOT * max(1, ports)))
    return min(_MOST_SLOTS, max(_FEWEST_SLOTS, 1 << fit.bit_length() - 1))


# A data plane thread must not outlive the interpreter it calls back into.
_running: weakref.WeakSet[Switch] = weakref.WeakSet()


@atexit.register
def _stop_running() -> None:
    for switch in list(_running):
        switch._halt()  # the kernel closes the sockets
