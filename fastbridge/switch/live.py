"""The switch, its life.

Interfaces and threads around the plane. What serves a running switch: the data plane's threads, one a worker, which
hold no GIL; the control thread, which ages the FDB, follows links and stations, and logs what happens; and the
policies'.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import logging
import os
import select
import socket
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, NamedTuple, NoReturn

from fastbridge.core.dataplane import open_ring
from fastbridge.errors import ConfigError, PortError
from fastbridge.forks import in_child
from fastbridge.journal import Journal
from fastbridge.named import refuse_text
from fastbridge.open_files import reserve_files
from fastbridge.policy.base import Policy

from .base import Member, Options, Plane, SwitchPort
from .counters import Counters
from .fast_path.head import FastPath
from .fast_path.inside import take
from .fast_path.lane import FastLane, Receiver
from .fast_path.nft import PortLinks as FastLinks
from .fdb import PortRef
from .port_flags import PortFlags
from .port_links import PortLink, PortLinks
from .port_socket import (
    Interface,
    PortLike,
    end_receiving,
    is_running,
    open_port_sockets,
    pod_question,
    set_send_buffer,
    start_receiving,
    takes_gso,
)
from .ring_size import FEWEST, MOST, ring_slots, smaller_ring
from .shield import MARK, mark

_log = logging.getLogger(__name__)

# How often links that are down are looked at, and how often expired FDB entries are swept away (look-ups
# ignore them anyway, so this only gives their room back).
_LINK_SECONDS, _SWEEP_SECONDS = 0.05, 1.0
# … as far as this share of a CPU goes: with 1,500 links down a look takes some 10 ms, one 10 µs.
_LINK_SHARE = 0.01
# How often pods are asked whether they take merged frames, and how many of them at a time: some 2 ms.
_POD_SECONDS, _PODS_AT_A_TIME = 1.0, 500


class Egress(NamedTuple):
    """A frame leaving an in-memory switch by the port of this index; `switch.ports[egress.port].name` is its name."""

    port: int
    frame: bytes


class Switch(Plane):
    """A learning switch over Ethernet interfaces, forwarding in the background from start() to stop().

    ports: interface names of the current network namespace, or the `ports` of a Lab.
    ageing: seconds of silence after which an FDB entry no longer counts (802.1Q §8.8.3); None: never.
    capacity: most FDB entries. When all are in use, a new source takes the place of an entry of the port with the most
        (`evicted`). From that port itself it is not learned (`refused`). Its frames are forwarded either way.
    filter_link_local: drop 01:80:c2:00:00:00 … :0f (LLDP, LACP, STP) as 802.1D says, instead of flooding them.
    busy_poll: seconds to spin after the last frame before sleeping; 0 sleeps at once.
    workers: threads of the data plane, at most one for each CPU. Ports are spread over them; each sends by every port.
    fanout: let all workers read every port, for ports with more traffic than one worker can take. One worker takes each
        IP flow (PACKET_FANOUT by hash), and one takes all other frames. Frames of different flows may overtake each
        other. IP fragments have no ports to hash, so they may overtake whole frames of their own flow.
    cpu: the CPU to run the data plane on, or one for each worker; None: any.
    coalesce: send consecutive TCP segments, or UDP datagrams, of one flow as one GSO frame, by every port whose
        interface takes these (veth: yes); set_flags(port, coalesce=…) changes it. Receivers see no difference.
    policy: what becomes of ARP and ND (see set_policy); as a plain bridge does by default.
    trusted: enter the addresses of the lab's plan as static neighbours (see trust).
    loop_detection: probe the ports between which stations keep moving, and block one of the ports of a loop.
    move_damping: seconds. A station that was heard more recently on its port does not move to another.
    neighbour_ageing: seconds of silence after which a neighbour no longer counts; None: never.
    shield: keep the host's own stack from hearing and speaking on the interfaces given by name. An nf_tables table does
        this and ends with the switch or its process. Where it is not available, `unshielded` says why.
    fast_path: "nft": the kernel forwards frames between stations that the core knows, by an nf_tables table, and hands
        everything else to the core (docs/fast-path.md). Where it is not available, the core forwards all frames, and a
        log line says why. "bpf", for root on kernel 6.6 or later: likewise, by a tcx program before the table. "off":
        the core forwards all frames.

    Raises PortError, PrivilegeError or ConfigError, and then leaves nothing open.
    """

    def __init__(
        self,
        ports: Iterable[str | PortLike],
        *,
        ageing: float | None = 300.0,
        capacity: int = 65536,
        filter_link_local: bool = False,
        busy_poll: float = 50e-6,
        workers: int = 1,
        fanout: bool = False,
        cpu: int | Sequence[int] | None = None,
        coalesce: bool = True,
        policy: Policy | str = "flood",
        trusted: bool = False,
        loop_detection: bool = True,
        move_damping: float = 0.0,
        neighbour_ageing: float | None = 60.0,
        shield: bool = False,
        fast_path: str = "off",
    ) -> None:
        options = Options(
            ageing,
            capacity,
            filter_link_local,
            policy,
            loop_detection,
            move_damping,
            neighbour_ageing,
            busy_poll,
            workers,
        )
        super().__init__(options)
        if fanout and workers == 1:
            raise ConfigError("fanout=True spreads a port over several workers; add workers=2 or more")
        self._cpus = _check_cpus([cpu] if isinstance(cpu, int) else cpu, workers)
        self._trusted, self._coalesce = trusted, coalesce
        self._workers, self._fanout = range(workers), fanout
        self._read = [0] * workers  # how many ports each reads
        self._threads: list[threading.Thread] = []
        self._stopping = threading.Event()
        self._final: Counters | None = None
        refuse_text(ports, "ports")
        if fast_path not in ("off", "nft", "bpf"):
            raise ConfigError(f"fast_path is 'off', 'nft' or 'bpf', not {fast_path!r}")
        self._hand = fast_path
        self._wants_lane = fast_path != "off" and FastPath.suits(ageing, move_damping)
        self._lane: FastLane | None = None
        self._links = PortLinks(shield)
        self._pods_asked = 0
        self._owner = os.getpid()
        in_child(self, Switch._leave_to_parent)
        wanted = list(ports)
        self._most_slots = self._slots = MOST  # that the kernel has memory for; that a ring is to have
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
        policy: Policy | str = "flood",
        move_damping: float = 0.0,
        neighbour_ageing: float | None = 60.0,
        coalesce: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> MemorySwitch:
        """A switch without interfaces or privileges, on the same core; ports: how many, or their names.

        coalesce: whether wire() and the counters merge frames; process() never does. clock: monotonic seconds; tests
        pass their own to let time pass. There is no loop detection.
        """
        options = Options(ageing, capacity, filter_link_local, policy, False, move_damping, neighbour_ageing)
        return MemorySwitch(ports, options, clock, coalesce)

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
        return bool(self._threads) and os.getpid() == self._owner

    @property
    def unshielded(self) -> str:
        """Why the host is not shielded although `shield` asked for it; "" if it is."""
        return self._links.unshielded

    def start(self) -> None:
        """Forward from now on. Does nothing while the switch runs. Raises ConfigError after stop()."""
        if self._final is not None:
            raise ConfigError("this switch was stopped; make a new Switch")
        if self._threads:
            return
        self._dataplane.links()  # raises in a forked child
        self._threads = [
            *(
                threading.Thread(target=self._forward, args=(worker,), name=f"fastbridge-data-{worker}", daemon=True)
                for worker in self._workers
            ),
            threading.Thread(target=self._control, name="fastbridge-control", daemon=True),
        ]
        self._journal.start()
        _running.add(self)
        for thread in self._threads:
            thread.start()
        if self._lane is not None and self._lane.head is not None:
            self._lane.head.start()
        self._policing.start()

    def stop(self) -> None:
        """Stop for good and close the sockets. The counters stay readable. Does nothing in a forked child."""
        if os.getpid() != self._owner:
            return
        self._halt()
        with self._changing:
            if self._final is not None:
                return
            self._dataplane.give_up()
            self._final = self.counters()
            if self._lane is not None:
                self._lane.close()
                self._lane = None
        with _many(len(self._members)) as pool:
            list(pool.map(self._close_member, list(self._members)))
        self._links.close()  # the shield last: while a socket is open, and at once for all ports

    def _leave_to_parent(self) -> None:
        """In a forked child: the switch is the parent's, and runs on there."""
        self._threads = []
        _running.discard(self)
        self._changing = threading.RLock()
        if self._final is None:
            self._dataplane.abandon()
            elsewhere: Any = _Elsewhere(self._owner)
            self._journal = Journal()
            if self._lane is not None:
                self._lane.leave_to_parent()
                self._lane = None
            self._dataplane = self._policing = self._stations = self._entries = self.fdb._core = elsewhere

    def _halt(self) -> None:
        """End the threads."""
        self._stopping.set()
        self._dataplane.stop()
        os.eventfd_write(self._dataplane.event_fd, 1)  # wakes the control thread
        for thread in self._threads:
            thread.join()
        self._policing.stop()
        self._journal.stop()
        self._threads = []
        _running.discard(self)

    def counters(self) -> Counters:
        """One consistent snapshot: all ports between the same two breaths; after stop(), the last one."""
        if self._final is not None:
            return self._final
        with self._changing:
            for index, passed in self._lane.passed().items() if self._lane is not None else ():
                self._members[index].passed = passed
            return super().counters()

    def add_port(self, port: str | PortLike) -> SwitchPort:
        """Add a port, also while running; a deleted interface's port of the same name is replaced.

        Raises PortError, PrivilegeError, or ConfigError: there is such a port already, or the switch was stopped.
        """
        with self._changing:
            if self._final is not None:
                raise ConfigError("this switch was stopped; make a new Switch")
            return self._add_ports([port])[0]

    def remove_port(self, port: PortRef) -> None:
        """Take a port out, also while running, and forget its FDB entries, static ones too."""
        with self._changing:
            self._drop_member(self._index_of(port))

    def _add_ports(self, ports: Sequence[str | PortLike]) -> list[SwitchPort]:
        """Add all or none."""
        sources = [Interface(port) if isinstance(port, str) else port for port in ports]
        if self._trusted and any(isinstance(source, Interface) for source in sources):
            raise ConfigError("trusted=True needs ports that know their pods' addresses, such as those of a Lab")
        self._check_names([source.name for source in sources])
        rings = len(self._workers) if self._fanout else 1
        reserve_files(len(sources) * (rings + 2))
        self._slots = min(self._most_slots, ring_slots((len(self._members) + len(sources)) * rings))
        taken = self._links.take(sources)
        listening = self._listen(sources, taken)
        with _many(len(sources)) as pool:
            futures = [
                pool.submit(self._open_member, *all_of_it) for all_of_it in zip(sources, taken, listening, strict=True)
            ]
        members = [future.result() for future in futures if future.exception() is None]
        try:
            for future in futures:
                future.result()  # raises what one of them raised
            added = [self._attach(member, source) for member, source in zip(members, sources, strict=True)]
            self._take_over([port.index for port in added])
            return added
        except BaseException:
            for member in members:
                for index in [i for i, known in self._members.items() if known is member]:
                    self._drop_member(index)
                for sock in member.sockets:
                    sock.close()
            for link in taken:
                self._links.release(link)
            raise

    def _check_names(self, names: Sequence[str]) -> None:
        known = {port.name: port.state for port in self.ports}
        for place, name in enumerate(names):
            if name in names[:place] or known.get(name, "gone") != "gone":
                raise ConfigError(f"port {name} is named twice; a switch has each port once")
        for name in names:
            if name in known:  # its interface was deleted, and there is a new one
                self.remove_port(name)

    def _listen(self, sources: Sequence[PortLike], taken: Sequence[PortLink]) -> Sequence[tuple[Receiver | None, int]]:
        """Where the core listens for ports, and what the kernel is to hand their frames to."""
        nowhere: Sequence[tuple[Receiver | None, int]] = [(None, 0)] * len(sources)
        if not self._wants_lane or not sources:
            return nowhere
        try:
            if self._lane is None:
                here = take() if isinstance(sources[0], Interface) else None
                self._lane = FastLane(
                    self._dataplane, self._entries, super()._now_ms, sources[0].open_socket, here, self._hand
                )
                if self._lane.without:
                    text = f"the fast path goes by nf_tables, bpf is not to be had: {self._lane.without}"
                    self._journal.warn(_log, "fast paths", text)
                self._space = taken[0].namespace
                self.fdb.on_change = self._lane.check
                self._policing.bindings.on_change = self._lane.follow_bindings
            near = [(link.link.name, link.link.index) for link in taken if link.namespace == self._space]
            made = iter(self._lane.make(near) if near else ())
            return [next(made) if link.namespace == self._space else (None, 0) for link in taken]
        except OSError as error:
            self._wants_lane = False
            text = f"no fast path, the core forwards all frames: {error.strerror or error}"
            self._journal.warn(_log, "fast paths", text)
            return nowhere

    def _take_over(self, ports: Sequence[int]) -> None:
        """Let the kernel forward between these ports what the core promotes."""
        members = {index: self._members[index] for index in ports if self._members[index].listen}
        if self._lane is None or not members:
            return
        links = {
            index: FastLinks(
                member.link.link.name,
                member.link.link.index,
                member.punt,
                self._lane.peer(member.link.link.index),
                MARK if member.link.shielded else 0,
            )
            for index, member in members.items()
            if member.link is not None
        }
        for index in members:
            self._lane.set_policy(index, self._policing.policy(index))
        try:
            self._lane.attach(links)
        except OSError as error:
            name = self._members[ports[0]].name
            raise PortError(f"cannot hand the frames of {name} to the kernel: {error.strerror}") from None
        for index, member in members.items():
            if member.link is not None:
                self._lane.follow_mtu(index, member.link.link.mtu)

    def set_policy(self, policy: Policy | str, port: PortRef | None = None) -> None:
        """See SwitchBase."""
        super().set_policy(policy, port)
        lane: FastLane | None = getattr(self, "_lane", None)
        if lane is not None:
            for index in list(self._members):
                lane.set_policy(index, self._policing.policy(index))

    def set_flags(self, port: PortRef, **flags: bool) -> PortFlags:
        """See SwitchBase."""
        changed = super().set_flags(port, **flags)
        if self._lane is not None:
            self._lane.revoke_port(self._index_of(port))
        return changed

    def _open_member(self, source: PortLike, link: PortLink, listening: tuple[Receiver | None, int]) -> Member:
        """Sockets and rings of a port, receiving already."""
        index = link.link.index
        listen, punt = listening
        sockets = open_port_sockets(source, index, len(self._workers) if self._fanout else 1, listen)
        receivers = sockets[:-1]
        try:
            slots = tuple(self._open_ring(rx, source.name) for rx in receivers)
            start_receiving(receivers, listen.ifindex if listen else index, source.name)
            self._links.wait_until_running(link)
            if link.shielded:
                mark(sockets[-1])
            ask = pod_question(source)
            takes = ask is None or ask()
        except BaseException:
            for sock in sockets:
                sock.close()
            raise
        merges = self._coalesce and takes_gso(sockets[-1])
        return Member(
            source.name, sockets, slots, (), merges, link, ask_pod=ask, takes_merged=takes, listen=listen, punt=punt
        )

    def _open_ring(self, rx: socket.socket, name: str) -> int:
        """With half the ring as often as the kernel has no memory; returns how many slots it has. Raises PortError."""
        slots = self._slots
        while True:
            try:
                open_ring(rx.fileno(), slots)
                return slots
            except OSError as error:
                if error.errno != errno.ENOMEM:
                    text = f"no receive ring for {name}: {error.strerror}; fastbridge needs AF_PACKET with TPACKET_V2"
                    raise PortError(text) from None
                if slots <= FEWEST:
                    raise PortError(f"no receive ring for {name}: {error.strerror}; free some memory") from None
            slots = smaller_ring(slots)

    def _attach(self, member: Member, source: PortLike) -> SwitchPort:
        if min(member.slots) < self._slots:
            text = f"the kernel refused a larger ring: {member.name} has {min(member.slots)} slots"
            self._journal.warn(_log, "smaller rings", text)
            self._most_slots = self._slots = min(member.slots)
        *receivers, tx = member.sockets
        member.readers = tuple(self._workers) if self._fanout else (self._idlest(),)
        rings = [(w, rx.fileno(), n) for w, rx, n in zip(member.readers, receivers, member.slots, strict=True)]
        try:
            index = self._dataplane.add_port(rings, tx.fileno())
        except OSError as error:
            raise PortError(f"cannot attach {member.name}: {error.strerror}") from None
        for worker in member.readers:
            self._read[worker] += 1
        self._suit_queue(index, member)
        running = is_running(tx)
        if not running:
            self._dataplane.set_link(index, "down")
        self._add_member(index, member, source.owners if self._trusted else ())
        return SwitchPort(index, member.name, "up" if running else "down")

    def _idlest(self) -> int:
        """The worker that reads the fewest ports."""
        return self._read.index(min(self._read))

    def _seeing_all(self) -> contextlib.AbstractContextManager[None]:
        lane = self._lane
        return contextlib.nullcontext() if lane is None or lane.head is None else lane.head.held()

    def _ask_interfaces(self) -> None:
        self._links.count_losses()

    def _drop_member(self, index: int) -> None:
        link = self._members[index].link
        self._ask_interfaces()
        self._close_member(index)
        if link is not None:
            self._links.release(link)

    def _close_member(self, index: int) -> None:
        lane = self._lane if self._members[index].listen is not None else None
        if lane is not None:
            self._dataplane.set_blocked(index, True)  # what has passed when it is let go is all there is
            lane.let_go(index)
            self._members[index].passed = lane.forget(index)
        member = self._remove_member(index)
        for worker in member.readers:
            self._read[worker] -= 1
        for sock in member.sockets:
            sock.close()
        if lane is not None and member.link is not None:
            lane.remove(member.link.link.index)

    def _forward(self, worker: int) -> None:
        if self._cpus:
            os.sched_setaffinity(threading.get_native_id(), {self._cpus[worker]})
        self._dataplane.run(worker)

    def _control(self) -> None:
        """Follow links, stations and policies and age the FDB until stop()."""
        happened = select.poll()
        happened.register(self._dataplane.event_fd, select.POLLIN)
        happened.register(self._links.fileno(), select.POLLIN)
        links: dict[int, str] = {}
        swept = asked = time.monotonic()
        soon: float | None = 0.0  # at once: what was down before it all began is told, too
        took = 0.0  # CPU time to look at the links, when nothing had changed
        while not self._stopping.is_set():
            wait = max(_LINK_SECONDS, took / _LINK_SHARE) if "down" in links.values() else _SWEEP_SECONDS
            ready = happened.poll(1000 * (wait if soon is None else min(soon, wait)))
            if any(fd == self._dataplane.event_fd for fd, _ in ready):
                os.eventfd_read(self._dataplane.event_fd)
            try:
                before, began = links, time.thread_time()
                links = self._follow_links(before)
                took = time.thread_time() - began if links == before else 0.0
                soon = self._stations.follow()
                if self._lane is not None:
                    self._lane.revoke_blocked()
                self._policing.watch()
                self._journal.tick()
                if time.monotonic() - swept >= _SWEEP_SECONDS:
                    self._entries.age(self._dataplane.now())
                    swept = time.monotonic()
                if time.monotonic() - asked >= _POD_SECONDS:
                    asked = time.monotonic()
                    self._ask_pods()
            except Exception:  # nothing may end this thread: without it links and loops go unnoticed
                text = "following links and stations failed; going on"
                self._journal.warn(_log, "failures of the control thread", text, thing=text, level=logging.ERROR)
                soon = _SWEEP_SECONDS

    def _follow_links(self, before: dict[int, str]) -> dict[int, str]:
        """Log what changed, forget what was learned behind a lost link, and note links that came back."""
        if any(port.lost for port, _ in self._links.changes()):
            self._let_go()
        after = {index: link for index, link in self._dataplane.links().items() if index in self._members}
        for index, link in after.items():
            member = self._members.get(index)
            port = member.link if member else None
            if member:
                self._suit_queue(index, member)
            if port and self._lane is not None:
                self._lane.follow_mtu(index, port.link.mtu)
            if port and port.faltered:
                port.faltered = False
                self._forget_behind(index)  # though it may be back already
                if not port.link.running and link in ("up", "blocked"):
                    self._set_link(index, "down")
                    link = after[index] = "down"
            if link == before.get(index) != "down":
                continue
            name = self._name_of(index)
            if link in ("down", "gone") and link != before.get(index):
                why = _why(port, link)
                if link == "gone" and not why:  # the news of it is on its way
                    after[index] = before.get(index, "up")
                    continue
                self._journal.warn(_log, "links that changed", f"port {name} is {link}{why and f': {why}'}")
                self._forget_behind(index)
            elif link == "up" and before.get(index) == "down":
                self._journal.warn(_log, "links that changed", f"port {name} is up again")
            if link == "down" and member and is_running(member.sockets[-1]):
                self._set_link(index, "up")
        return after

    def _ask_pods(self) -> None:
        """Follow whether pods take merged frames, with many pods some at a time, all in turn."""
        members = [(index, member) for index, member in list(self._members.items()) if member.ask_pod]
        first = self._pods_asked % max(1, len(members))
        turn = (members[first:] + members[:first])[:_PODS_AT_A_TIME]
        self._pods_asked = first + len(turn)
        for index, member in turn:
            if member.ask_pod is not None:
                member.takes_merged = member.ask_pod()
                self._suit_queue(index, member)

    def _suit_queue(self, index: int, member: Member) -> None:
        """Send single frames, and few at a time, into a queue that shapes: it counts frames, and pings wait in it.

        A pod that takes no merged frames gets those of 64 KB that another pod made, as over a bridge.
        """
        shaped = member.link is not None and member.link.shaped
        takes = "single" if shaped else "all" if member.takes_merged else "unmerged"
        if takes == member.takes:
            return
        with contextlib.suppress(IndexError):  # removed meanwhile
            self._dataplane.set_takes(index, takes)
        with contextlib.suppress(OSError):  # closed meanwhile
            set_send_buffer(member.sockets[-1], shaped)
        member.takes = takes

    def _forget_behind(self, index: int) -> None:
        """Forget who was behind a port: they may come back elsewhere."""
        self._entries.flush(index)
        if self._lane is not None:
            self._lane.revoke_port(index)
        self.neighbours.flush(index)
        self._policing.bind()

    def _set_link(self, index: int, link: str) -> None:
        with contextlib.suppress(IndexError):  # removed meanwhile
            self._dataplane.set_link(index, link)

    def _let_go(self) -> None:
        """Let nothing in or out of ports whose interfaces are there, and no longer ours."""
        for index, member in list(self._members.items()):
            link = member.link
            if link is None or not link.lost:
                continue
            if self._lane is not None and member.listen is not None:
                self._lane.let_go(index)
            elif link.link.gone:
                continue  # the core has heard of it by its socket
            self._dataplane.set_blocked(index, True)
            end_receiving(member.sockets, link.link.index)
            self._dataplane.set_link(index, "gone")


class MemorySwitch(Plane):
    """A switch without interfaces: the same core, fed by process(). Made by Switch.in_memory()."""

    def __init__(
        self,
        ports: int | Sequence[str],
        options: Options,
        clock: Callable[[], float],
        coalesce: bool,
    ) -> None:
        self._clock, self._epoch = clock, clock()
        super().__init__(options, clock)
        refuse_text(ports, "ports")
        names = [str(i) for i in range(ports)] if isinstance(ports, int) else list(ports)
        if len(set(names)) != len(names):
            raise ConfigError(f"a port is named twice in {', '.join(names)}; a switch has each port once")
        for name in names:
            self._add_member(self._dataplane.add_port(), Member(name, coalesce=coalesce))

    def process(self, ingress: int | str, frames: Sequence[bytes]) -> list[Egress]:
        """Switch frames (bytes from the destination MAC on, no FCS) arriving on one port.

        Returns the copies in arrival order, those of a flooded frame by ascending port index; after them what the
        policy sends. Raises ConfigError for an unknown port, TypeError for a frame that is not bytes.
        """
        index = self._index_of(ingress)
        copies = self._dataplane.process(index, list(frames), self._now_ms())
        return [Egress(*copy) for copy in copies + self._policing.handle(self._dataplane.read_punts())]

    def wire(self, ingress: int | str, messages: Sequence[bytes]) -> list[Egress]:
        """As process(), for at most 256 frames, each behind its struct virtio_net_hdr (10 bytes) as AF_PACKET has it.

        Returns, port by port, what a live switch would send in one breath, vnet header first: several frames as one
        where the port's `coalesce` flag is set. What the policy sends is not among it. Raises ValueError for too many.
        """
        return [Egress(*sent) for sent in self._dataplane.wire(self._index_of(ingress), list(messages), self._now_ms())]

    def tick(self) -> list[Egress]:
        """What a running switch does every second: sweep expired entries out of FDB and neighbour table, and ask the
        neighbours about to expire, and those whose bindings are in doubt; returns what it sends.
        """
        self._entries.age(self._now_ms())
        self._journal.tick()
        return [Egress(*copy) for copy in self._policing.tick() + self._policing.settle()]

    def _now_ms(self) -> int:
        return round((self._clock() - self._epoch) * 1000) & 0xFFFFFFFF


class _Elsewhere:
    """Stands for the parts of a switch in a forked child: whatever is asked of it, it says where the switch is."""

    def __init__(self, owner: int) -> None:
        self._owner = owner

    def __getattr__(self, name: str) -> NoReturn:
        raise ConfigError(f"this switch runs in process {self._owner}; a forked child makes a Switch of its own")


def _check_cpus(cpus: Sequence[int] | None, workers: int) -> Sequence[int]:
    """One CPU for each worker, or none. Raises ConfigError."""
    if cpus is None:
        return ()
    if len(set(cpus)) != workers or len(cpus) != workers:
        raise ConfigError(f"cpu: one CPU for each worker, {workers} in all, not {', '.join(map(str, cpus)) or 'none'}")
    allowed = sorted(os.sched_getaffinity(0))
    for cpu in cpus:
        if cpu not in allowed:
            text = ", ".join(map(str, allowed))
            raise ConfigError(f"CPU {cpu} is not one this process may run on; those are: {text}")
    return cpus


def _why(port: PortLink | None, link: str) -> str:
    """Why a port's link is lost, where that is known and no matter of course."""
    if port is None:
        return ""
    if link == "gone":
        return port.lost
    return "no carrier (its far end is down, or its cable is out)" if port.link.up and not port.link.running else ""


def _many(ports: int) -> ThreadPoolExecutor:
    """Threads to open or close ports with: the kernel makes each wait some 10 ms, several at the same time."""
    return ThreadPoolExecutor(max_workers=max(1, min(128, ports)))


# A data plane thread must not outlive the interpreter it calls back into.
_running: weakref.WeakSet[Switch] = weakref.WeakSet()


@atexit.register
def _stop_running() -> None:
    for switch in list(_running):
        switch._halt()  # the kernel closes the sockets
