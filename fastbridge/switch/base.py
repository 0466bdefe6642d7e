"""The common part of a live switch and one in memory.

FDB, neighbours, policies, port rules, counters and trace over one Cython data plane.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from fastbridge.addresses import MacAddress
from fastbridge.core.dataplane import Dataplane
from fastbridge.core.fdb import FdbAccess
from fastbridge.core.foresight import Foresight
from fastbridge.core.links import Links
from fastbridge.core.mac_table import MacTable
from fastbridge.core.port_rules import PortRules
from fastbridge.core.queues import Queues
from fastbridge.errors import ConfigError
from fastbridge.feed import Monitor
from fastbridge.journal import Event, Journal
from fastbridge.links.scenario import Scenario
from fastbridge.named import NamedTuple
from fastbridge.policy.base import Policy
from fastbridge.policy.builtin import parse_policy
from fastbridge.policy.neighbour_entry import Conflict, Neighbour
from fastbridge.policy.neighbours import Neighbours
from fastbridge.policy.runner import Policing
from fastbridge.version import __version__

from .capture import Capture, Watched, Wish
from .counters import Counters, PortCounters
from .explain import Explanation, explain, send
from .fdb import Fdb, PortRef
from .file_capture import CaptureFile, FileCapture, record
from .flight_recorder import FlightRecorder
from .linked import Linked
from .load import Load, RingLoad, WorkerLoad
from .loops import StationWatch
from .member import Member, SwitchPort
from .monitoring import Monitoring
from .options import Options
from .player import Playing, do_step
from .port_flags import DEFAULT_SETTINGS, PortFlags, PortSettings, StormControl
from .socket_port import SocketPort, check_name, closed, socket_pair
from .status import Status, Table, held_capabilities
from .trace import Trace
from .vitals import Vitals
from .watchers import Watchers
from .wires import Wires

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .capture import WishWords

_log = logging.getLogger(__name__)

_SNAP_OF_LAST = 2048  # bytes of a frame that a flight recorder keeps: all but those of GSO and jumbo frames

#: The known stations behind a port: (MAC address, IP address) pairs.
Owners = Sequence[tuple[MacAddress, IPv4Address | IPv6Address]]


class SwitchBase(Linked):
    """FDB, neighbours, policies, port rules, counters and trace over one data plane."""

    def __init__(
        self,
        options: Options,
        *,
        clock: Callable[[], float] = time.monotonic,
        busy_poll: float = 0.0,
        workers: int = 1,
        loop_detection: bool = False,
    ) -> None:
        self._dataplane = Dataplane(
            MacTable(options.capacity, options.ageing_ms),
            filter_link_local=options.filter_link_local,
            busy_poll_ns=round(busy_poll * 1e9),
            workers=workers,
        )
        self._capacity, self._ageing = options.capacity, options.ageing
        self._clock, self._epoch = clock, clock()  # when it began
        self._entries = FdbAccess(self._dataplane)
        self._rules = PortRules(self._dataplane)
        self._foresight, self._queues = Foresight(self._dataplane), Queues(self._dataplane)
        self._wires = Wires(Links(self._dataplane), self._indices, self._link_time, self._note_link)
        self._entries.set_damping(round(options.move_damping * 1000))
        self._members: dict[int, Member] = {}
        self._leaving: dict[int, Member] = {}  # removed, and told by their names until that is done
        self._departed = PortCounters()  # of removed ports: totals never shrink
        self._storm_control = StormControl()  # of ports to come
        # Held while a port comes or goes. Its index is reused only when everything about it is forgotten. Its counts
        # are always either its own or part of the departed ports' counts.
        self._changing = threading.RLock()
        self._watching = Watchers()
        self._playing: list[Playing] = []
        #: Called with the name of each port that is added, before it forwards.
        self.on_port: Callable[[str], object] = lambda port: None
        self.fdb = Fdb(self._entries, options.ageing_ms, self._now_ms, self._index_of, self._name_of)
        self._journal = Journal(clock)
        neighbours = Neighbours(
            options.neighbour_ageing, clock=clock, on_conflict=self._report_conflict, name_of=self._name_of
        )
        self._policing = Policing(self._dataplane, self._entries, neighbours, self._journal, clock)
        self._stations = StationWatch(
            self._dataplane, self._entries, self._name_of, loop_detection, self._journal, clock
        )
        self._monitoring = Monitoring(self._dataplane, self._entries, self._journal.feed, self._name_of, clock)
        SwitchBase.set_policy(self, options.policy)  # there are no ports yet

    @property
    def ports(self) -> NamedTuple[SwitchPort]:
        """The ports, by index; `in` takes names, too."""
        links = self._dataplane.links()
        return NamedTuple(SwitchPort(i, m.name, links[i]) for i, m in sorted(self._members.items()) if i in links)

    @property
    def neighbours(self) -> Neighbours:
        """The neighbours by IP, from ARP and ND. Iterate over it for live entries; empty while no policy looks."""
        return self._policing.neighbours

    @property
    def moves(self) -> Mapping[MacAddress, int]:
        """How often each station has moved to another port, for the 4,096 stations that moved last.

        When more than 1,024 moves happen in 20 ms, some are counted in counters().moved only.
        """
        return self._stations.moves

    def policy(self, port: PortRef | None = None) -> Policy:
        """The policy of a port; None: the policy of all ports without their own."""
        return self._policing.policy(None if port is None else self._index_of(port))

    def set_policy(self, policy: Policy | str | None, port: PortRef | None = None) -> None:
        """Change the policy for ARP and ND, also while running: for one port, or for all ports without their own.

        policy: a Policy such as `Guard() | RateLimit(50) | Suppress()`, or its text, "guard,ratelimit=50,suppress".
        None: the port has none of its own.
        Raises ConfigError for text that names no policy, or for an unknown port.
        """
        chosen = parse_policy(policy) if isinstance(policy, str) else policy
        with self._changing:
            self._policing.set_policy(chosen, None if port is None else self._index_of(port), list(self._members))

    @property
    def own_policies(self) -> Mapping[str, Policy]:
        """The policies of the ports that have one of their own."""
        with self._changing:
            return {self._name_of(index): policy for index, policy in sorted(self._policing.own.items())}

    def add_socket_port(self, name: str) -> SocketPort:
        """Add a port that is a Python object: `port.send(frame)`, `port.recv()`. It needs no interface and no right.

        Close it, or use `with`. Raises ConfigError: there is such a port already, or this is no name. PortError: there
        is no socket to be had.
        """
        check_name(name)
        with self._changing:
            if any(port.name == name for port in self.ports):
                raise ConfigError(f"{name} is a port of this switch already")
            ours, theirs = socket_pair(name)
            try:
                return self._attach_socket_port(name, ours, theirs)
            except BaseException:
                ours.close()
                theirs.close()
                raise

    def _attach_socket_port(self, name: str, ours: socket.socket, theirs: socket.socket) -> SocketPort:
        index = self._dataplane.add_port((), ours.fileno())
        self._rules.set_takes(index, "single")
        member = Member(name, (ours,), takes="single")

        def receive(frame: bytes) -> None:
            with self._changing:
                if self._members.get(index) is not member:
                    raise closed(name)
                self._receive(index, frame)

        def leave() -> None:
            with self._changing:
                if self._members.get(index) is member:
                    self.remove_port(index)

        member.socket_port = SocketPort(name, theirs, receive, leave)
        try:
            self._add_member(index, member, settings=self._settings_for(name))
        except BaseException:
            self._remove_member(index)
            raise
        return member.socket_port

    def remove_port(self, port: PortRef) -> None:
        """Take a port out, and forget its FDB entries."""
        raise NotImplementedError

    def _receive(self, index: int, frame: bytes) -> None:
        """Receive a frame from a socket port."""
        raise NotImplementedError

    def _settings_for(self, name: str) -> PortSettings:
        """Those of a port that joins."""
        return DEFAULT_SETTINGS

    def trust(self, port: PortRef, owners: Owners) -> None:
        """Enter static neighbours behind a port. No message changes them, and Guard binds to them."""
        with self._changing:
            index = self._index_of(port)
            for mac, ip in owners:
                self.neighbours.add(ip, mac, index, source="plan")
            self._policing.bind()

    def add_neighbour(
        self, ip: IPv4Address | IPv6Address | str, mac: MacAddress | str | int, port: PortRef, vlan: int = 0
    ) -> None:
        """Enter one static neighbour, as trust() does. Raises ConfigError."""
        with self._changing:
            self.neighbours.add(ip, mac, self._index_of(port), vlan)
            self._policing.bind()

    def remove_neighbour(self, ip: IPv4Address | IPv6Address | str, vlan: int = 0) -> bool:
        """Forget a neighbour, static or learned; returns whether there was one. Guard binds to it no longer."""
        removed = self.neighbours.remove(ip, vlan)
        self._policing.bind()
        return removed

    def take_back_neighbours(self, entries: Iterable[tuple[Neighbour, float]]) -> int:
        """Enter neighbours that another switch had learned, as Neighbours.learned() gives them; returns how many."""
        with self._changing:
            taken = self.neighbours.take_back(entries)
            self._policing.bind()
        return taken

    def announce(self, port: PortRef | None = None) -> int:
        """Tell all pods where the neighbours (of one port) are, by gratuitous ARP and unsolicited NAs.

        Use it after a move or redeploy, when the pods' caches are out of date. Returns the number of neighbours told.
        """
        return self._policing.announce(None if port is None else self._index_of(port))

    def still(self) -> AbstractContextManager[Any]:
        """While it is entered, no port comes or goes. So several steps about one port are one."""
        return self._changing

    def flags(self, port: PortRef) -> PortFlags:
        """A port's flags."""
        return PortFlags(**self._rules.flags(self._index_of(port)))

    def default_flags(self, port: PortRef) -> PortFlags:
        """The flags that a port had when it was added."""
        return PortFlags(coalesce=self._members[self._index_of(port)].coalesce)

    def set_flags(self, port: PortRef, **flags: bool) -> PortFlags:
        """Change some of a port's flags, by their names in PortFlags. Returns all of them. Raises ConfigError."""
        wrong = [name for name in flags if name not in PortFlags.__slots__]
        if wrong:
            names = ", ".join(PortFlags.__slots__)
            raise ConfigError(f"no port flag is named {' or '.join(wrong)}; there are: {names}")
        for name, value in flags.items():
            if not isinstance(value, bool):
                raise ConfigError(f"port flag {name} is True or False, not {value!r}")
        with self._changing:
            index = self._index_of(port)
            changed = replace(self.flags(index), **flags)
            self._rules.set_flags(index, changed.names)
        return changed

    def storm_control(self, port: PortRef) -> StormControl:
        """A port's limits."""
        return self._members[self._index_of(port)].storm_control

    def set_storm_control(self, limits: StormControl, port: PortRef | None = None) -> None:
        """Limit the frames that a port (None: each port, also one that comes later) may have flooded."""
        with self._changing:
            if port is None:
                self._storm_control = limits
            for index in list(self._members) if port is None else [self._index_of(port)]:
                for what, (rate, burst) in limits.rates.items():
                    self._rules.set_storm_control(index, what, rate, burst)
                self._members[index].storm_control = limits

    def play(self, scenario: Scenario | str | Path) -> Playing:
        """Do what a scenario says, each step when its time has come; see docs/links.md.

        Its time begins now, or when the switch starts; in memory it is that of the switch's clock. scenario: a path, or
        a Scenario. Raises ConfigError, which names the line, and then nothing is played.
        """
        read = scenario if isinstance(scenario, Scenario) else Scenario.load(scenario)
        with self._changing:
            ports = [port.name for port in self.ports]
            playing = Playing(
                read.bound(ports, self._wires.wishes.links, self._may_come), partial(do_step, self), self._journal
            )
            self._playing = [each for each in self._playing if not each.over] + [playing]
            self._begin(playing)
        return playing

    @property
    def playing(self) -> tuple[Playing, ...]:
        """The scenarios that are played now."""
        return tuple(each for each in self._playing if not each.over)

    def _begin(self, playing: Playing) -> None:
        """Have its steps done."""
        raise NotImplementedError

    def _may_come(self, name: str) -> bool:
        """Whether a port of this name may join by itself."""
        return False

    def status(self) -> Status:
        """What the switch is and how it does, on one page."""
        total = self.counters().total
        lost = Counter({"rx_missed": total.rx_missed})
        lost.update(total.dropped)
        lost.update(total.tx_dropped)
        taken = self._policing.counts  # what a policy took and then dropped
        lost.update({name.partition(":")[2]: count for name, count in taken.items() if name.startswith("dropped:")})
        with self.still():
            states = Counter(port.state for port in self.ports)
        return Status(
            name="",
            pid=os.getpid(),
            version=__version__,
            running=True,
            uptime=round(self._clock() - self._epoch, 3),
            fast_path="off",
            workers=1,
            cpus=(),
            shield="off",
            policy=str(self.policy()),
            ports={state: states[state] for state in ("up", "down", "blocked", "gone")},
            fdb=Table(len(self.fdb), self._capacity, self._ageing),
            neighbours=Table(len(self.neighbours), self.neighbours.capacity, self.neighbours.ageing),
            links={
                "links": len(self.own_links),
                "in_flight": total.rx_in_flight + total.tx_in_flight,
                "bytes": self.link_memory[0],
            },
            capabilities=held_capabilities(),
            lost={reason: count for reason, count in lost.items() if count},
        )

    def counters(self) -> Counters:
        """One consistent snapshot: all ports between the same two breaths."""
        with self._changing:
            self._ask_interfaces()
            return self._count()

    def _count(self) -> Counters:
        """With what the interfaces said last."""
        with self._changing:
            tallies, (learned, moved, aged, evicted, refused) = self._dataplane.snapshot()
            ports = {m.name: m.count(tallies[i]) for i, m in sorted(self._members.items())}
            total = sum(ports.values(), self._departed)
            now = self._clock()
        return Counters(ports, total, learned, moved, aged, evicted, refused, self._policing.counts, now)

    def vitals(self) -> Vitals:
        """What the switch holds and uses now: entries and their limits, CPU time, the fast path's pairs."""
        neighbours = self.neighbours
        return Vitals(
            fdb_entries=len(self.fdb),
            fdb_limit=self._capacity,
            neighbours=len(neighbours),
            neighbour_limit=neighbours.capacity,
            neighbours_refused=neighbours.refused,
            conflicts=neighbours.conflict_count,
            breaths=self._dataplane.breaths(),
            policy_waits=self._policing.waits,
            link_memory=self._wires.memory[0],
            link_memory_limit=self._wires.memory[1],
        )

    def trace(self, snap: int = 256, limit: int = 4096) -> Trace:
        """Record what happens to each frame: `with switch.trace() as trace: … trace.read()`.

        snap: bytes kept of each frame; limit: events kept unread, more are counted in `lost`. One at a time.
        """
        return Trace(self._dataplane, self._name_of, snap, limit, self._seeing_all)

    def explain(self, port: PortRef, frame: bytes) -> Explanation:
        """What the switch would do with a frame that the port receives now, step by step, and why.

        frame: from the destination MAC on, without FCS. Nothing changes: nothing is learned, counted or sent. Only
        fastbridge's own policies are asked. Raises ConfigError.
        """
        with self._changing:
            return explain(self, self._foresight, self._index_of(port), frame, self._now_ms() * 1_000_000)

    def send_in(self, port: PortRef, frame: bytes) -> Explanation:
        """Send a frame into the switch as if the port had received it, and say what happened. Raises ConfigError."""
        with self._changing:
            return send(self, self._foresight, self._index_of(port), frame, None)

    def _is_promoted(self, ingress: int, egress: int, source: int, destination: int) -> bool:
        """Whether the kernel forwards frames of two stations by itself."""
        return False

    def load(self) -> Load:
        """How busy the data plane is, and how full its queues are."""
        with self._changing:
            unread, punted = self._queues.waiting()
            rings = {m.name: RingLoad(unread.get(i, 0), sum(m.slots)) for i, m in sorted(self._members.items())}
        workers = [WorkerLoad(number, self._cpu_time(number), count) for number, count in enumerate(punted)]
        return Load(self._clock(), time.process_time(), workers, rings)

    def _cpu_time(self, worker: int) -> float:
        """Seconds of CPU time that a worker's thread has used; in memory there is none."""
        return 0.0

    def monitor(self, events: Iterable[str] | None = None, limit: int = 4096) -> Monitor:
        """What happens from now on, as dicts: `for event in switch.monitor(["learned", "moved"]): …`.

        events: the names wanted (docs/watch.md), None: all; limit: events kept unread. Beyond it the oldest are lost,
        and an event `lost` has their number (`count`). Close it, or use `with`. Raises ConfigError.
        """
        self._dataplane.now()  # a forked child's says whose it is
        return self._journal.feed.monitor(events, limit)

    @overload
    def capture(self, file: None = None, **wish: Unpack[WishWords]) -> Capture: ...

    @overload
    def capture(self, file: CaptureFile, **wish: Unpack[WishWords]) -> FileCapture: ...

    def capture(self, file: CaptureFile | None = None, **wish: Unpack[WishWords]) -> Capture | FileCapture:
        """Capture frames of all ports, with what became of them, into a pcapng file: `with switch.capture("a.pcapng"):`

        file: a path, a file descriptor or an open file, which a thread writes until the capture ends; None: iterate
        over the capture, or wait for its fileno() to be readable and call read(). ports: only frames that come from one
        of these ports, or go to one. drops: only frames that are dropped, and copies that are not sent. reasons: only
        those dropped for one of these reasons. filter: only frames that match it, in tcpdump's words; needs libpcap.
        count: end after so many frames. snap: bytes kept of a frame. copies: a block for each copy as well. most_bytes:
        end before the file is larger.

        While it runs the fast path forwards nothing, unless it is for drops alone. Raises ConfigError.
        """
        wanted = Wish(**wish)
        if file is None:
            return self.watch(wanted)
        comments = self.about()
        return record(self.watch(wanted), file, comments)

    def watch(self, wish: Wish, last: int | None = None) -> Capture:
        """Capture what the wish says. last: as Capture has it. Raises ConfigError."""
        self._dataplane.now()  # a forked child's says whose it is
        with self._changing:
            for name in wish.ports:
                self._index_of(name)
            watched = Watched(self._dataplane, self._port_names, self._watching.discard)
            capture = Capture(watched, wish, self._seeing_all, last)
            self._watching.add(capture)
        return capture

    def flight_recorder(self, limit: int = 10_000) -> FlightRecorder:
        """Keep the last frames of all ports, with what became of them, for when something has gone wrong.

        limit: how many frames; of each worker, in 4 MiB at most, and 2,048 bytes of each frame. Frames that the fast
        path forwards are not among them; fast_path="off" lets it see all. It ends with the switch, and is read then or
        later. Raises ConfigError.
        """
        if not 0 < limit <= 1 << 20:
            raise ConfigError(f"a flight recorder keeps 1 … {1 << 20} frames, not {limit}")
        return FlightRecorder(self.watch(Wish(snap=_SNAP_OF_LAST), limit))

    def about(self) -> list[str]:
        """What a capture file says of the switch: a comment each."""
        return [repr(self)]

    def _port_names(self) -> dict[int, str]:
        return {index: member.name for index, member in list(self._members.items())}

    def _seeing_all(self) -> AbstractContextManager[None]:
        """While it is entered, every frame comes to the core."""
        return nullcontext()

    def _indices(self) -> dict[str, int]:
        return {member.name: index for index, member in self._members.items()}

    def _link_time(self) -> int | None:
        """The time on links in ns; None: that of the machine."""
        return None

    def _note_link(self, index: int) -> None:
        """A port has got a link."""

    def _ask_interfaces(self) -> None:
        """Read the losses in the ports' interfaces and the fast path's counts, if there are any."""

    def _forget_behind(self, ports: Collection[int]) -> None:
        """Forget the stations behind ports: they may come back elsewhere."""
        for index in ports:
            self._entries.flush(index)
        if ports and self.neighbours.flush(ports):
            self._policing.bind()

    def _tell_link(self, name: str, link: str, text: str) -> None:
        self._journal.warn(_log, "links that changed", text, event=Event("link", {"ifname": name, "link": link}))

    def _report_conflict(self, conflict: Conflict) -> None:
        known, claimed = (
            {"lladdr": str(claim.mac), "ifname": claim.port} for claim in (conflict.known, conflict.claimed)
        )
        event = Event("conflict", {"dst": str(conflict.ip), "vlan": conflict.vlan, "known": known, "claimed": claimed})
        self._journal.warn(_log, "conflicts about addresses", str(conflict), event=event)

    def _now_ms(self) -> int:
        return self._dataplane.now()

    def _name_of(self, index: int) -> str:
        member = self._members.get(index) or self._leaving.get(index)
        return member.name if member else f"#{index}"

    def _index_of(self, port: PortRef) -> int:
        # A SwitchPort stands for one port, not for a later one that has its index or its name.
        if isinstance(port, SwitchPort):
            member = self._members.get(port.index)
            if member is None or member.name != port.name:
                raise ConfigError(f"port {port.name} was removed")
            return port.index
        wanted: object = getattr(port, "name", port)
        if isinstance(wanted, int) and wanted in self._members:
            return wanted
        members = list(self._members.items())
        for index, member in members:
            if wanted in (index, member.name):
                return index
        names = ", ".join(member.name for _, member in members)
        raise ConfigError(f"the switch has no port {wanted!r}; it has: {names or 'none'}")

    def __repr__(self) -> str:
        names = [member.name for _, member in sorted(self._members.items())]
        shown = ", ".join(names if len(names) <= 8 else [*names[:3], "…", names[-1]])
        return f"<{type(self).__name__} of {len(names)} ports: {shown}>"

    def _add_member(
        self, index: int, member: Member, owners: Owners = (), settings: PortSettings = DEFAULT_SETTINGS
    ) -> None:
        """Configure a port, then let it forward."""
        self._members[index] = member
        self.set_flags(index, **{"coalesce": member.coalesce, **settings.flags})
        self.set_storm_control(settings.storm_control or self._storm_control, index)
        if settings.policy is None:
            self._policing.add_port(index)
        else:
            self._policing.set_policy(settings.policy, index, [index])
        self.trust(index, owners)
        self._wires.join(member.name)
        if settings.link is not None and member.name not in self.own_links:
            self.set_link(index, settings.link)
        self._note_ports()
        self.on_port(member.name)
        self._dataplane.set_blocked(index, False)
        self._journal.feed.tell("port_added", ifname=member.name)

    def _note_ports(self) -> None:
        for watcher in self._watching:
            watcher.note_ports()

    def _remove_member(self, index: int) -> Member:
        """Remove a port with its entries; the caller closes its sockets."""
        with self._changing:
            self._leaving[index] = self._members[index]
            for watcher in self._watching:
                watcher.note_leaving(index)
            member = self._members.pop(index)
            self._departed += member.count(self._dataplane.remove_port(index))
            self._policing.remove_port(index)
            self._stations.forget(index)
            self._wires.leave(index)
            self._monitoring.settle()
            del self._leaving[index]
        self._journal.feed.tell("port_removed", ifname=member.name)
        return member
