"""The switch, its life.

Interfaces and threads around the data plane. Three kinds of threads serve a running switch. The data plane's threads,
one a worker, hold no GIL. The control thread ages the FDB, follows links and stations, and logs their changes. The
policies have their own.
"""

from __future__ import annotations

import atexit
import contextlib
import itertools
import logging
import os
import select
import threading
import time
import weakref
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from fastbridge.addresses import MacAddress
from fastbridge.closes import Starts
from fastbridge.control.directory import answers, make_directory, socket_path
from fastbridge.control.server import ControlServer
from fastbridge.core.packet_in import PacketIn
from fastbridge.core.tapping import Tap
from fastbridge.errors import ConfigError, FastbridgeError, PortError
from fastbridge.forks import in_child
from fastbridge.journal import Journal
from fastbridge.named import NamedTuple, refuse_text
from fastbridge.policy.base import Policy
from fastbridge.real_time import allow_real_time, run_in_real_time
from fastbridge.threads import no_threads, start_thread

from .base import SwitchBase
from .capture import Capture, Wish
from .config import load, write
from .config_apply import NO_FILE, Configured, of_switch
from .counters import Counters
from .fast_path.ports import FastPorts
from .fdb import PortRef
from .matching import Matching
from .member import Member, SwitchPort
from .memory import MemorySwitch
from .mirror import Mirror
from .opening import Opener
from .options import LiveOptions
from .player import Playing
from .port_flags import DEFAULT_SETTINGS, PortFlags, PortSettings
from .port_links import PortLink, PortLinks
from .port_socket import (
    Interface,
    PortLike,
    Receiver,
    check_right,
    end_receiving,
    is_running,
    links_of_port,
    read_ports,
)
from .socket_port import SocketPort, closed
from .state import StateFile
from .status import Status
from .take_over import check_name, is_held, take_over
from .takes import Takes
from .verbs import switch_verbs
from .vitals import Vitals

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from fastbridge.links.scenario import Scenario

    from .helper import Helper
    from .options import LiveOptionWords

_log = logging.getLogger(__name__)

# How often links that are down are checked, and how often expired FDB entries are swept away. Look-ups ignore expired
# entries anyway, so a sweep only frees their room.
_LINK_SECONDS, _SWEEP_SECONDS = 0.05, 1.0
# … within this share of a CPU: with 1,500 links down a check takes some 10 ms, with one 10 µs.
_LINK_SHARE = 0.01
_POD_SECONDS = 1.0  # how often pods are asked whether they take merged frames
_STOPPED = "this switch was stopped; make a new Switch"
_THREAD_CLOCK = 6  # CPUCLOCK_PERTHREAD_MASK | CPUCLOCK_SCHED (linux/posix-timers.h)
# Of the switches of this process that have `control` and no name of their own.
_unnamed = itertools.count(1)


class Switch(SwitchBase, Starts):
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
    real_time: let the workers run before all ordinary programs (SCHED_RR, sched(7)), as a bridge in the kernel does. So
        busy pods do not delay frames, and emulated links are more exact. It takes root, or RLIMIT_RTPRIO.
    coalesce: send consecutive TCP segments, or UDP datagrams, of one flow as one GSO frame, by every port whose
        interface takes these (veth: yes); set_flags(port, coalesce=…) changes it. Receivers see no difference.
    policy: the handling of ARP and ND (see set_policy); by default that of a plain bridge.
    trusted: enter the addresses of the lab's plan as static neighbours (see trust).
    loop_detection: probe the ports between which stations keep moving, and block one of the ports of a loop.
    move_damping: seconds. A station that was heard more recently on its port does not move to another.
    neighbour_ageing: seconds of silence after which a neighbour no longer counts; None: never.
    shield: keep the host's own stack from hearing and speaking on the interfaces given by name. An nf_tables table does
        this and ends with the switch or its process. Where it is not available, `unshielded` says why.
    fast_path: let the kernel forward frames between stations that the core knows (docs/fast-path.md). "nft": by an
        nf_tables table. "bpf", for root on kernel 6.6 or later: by a tcx program. "auto": by "bpf" or "nft"; two trial
        frames show which one works. Where neither works, the core forwards all frames, and a log line says why. "off":
        the core forwards all frames. `Switch.fast_path` names the one in use.
    take_over: end the switches of other processes that have these interfaces, by SIGTERM, once all here is open.
    match: patterns such as "veth*". Interfaces of the current network namespace whose names match are ports as long as
        they exist. A port given by name is one again when its interface is deleted and made again, also with match=().
        None: neither.
    settings: of ports by name, for whenever they join (see prepare_port).
    control: the name under which commands such as `fastbridge status` find the switch from start() to stop(), by its
        control socket (docs/control.md); True: `run-` and the process id. None: there is no socket.

    Raises PortError, PrivilegeError or ConfigError, and then leaves nothing open.
    """

    #: The same core without interfaces or privileges: Switch.in_memory(ports=4).
    in_memory = MemorySwitch

    def __init__(self, ports: Iterable[str | PortLike], **options: Unpack[LiveOptionWords]) -> None:
        wanted = read_ports(ports)
        self._options = wishes = LiveOptions(**options)
        if wishes.real_time:
            allow_real_time()
        super().__init__(
            wishes,
            busy_poll=wishes.busy_poll,
            workers=wishes.workers,
            loop_detection=wishes.loop_detection,
        )
        self._packet_in = PacketIn(self._dataplane)
        self._fast = FastPorts(
            wishes, self._dataplane, self._entries, self.fdb, self._policing.bindings, self._journal, self._name_of
        )
        self._read = [0] * wishes.workers  # how many ports each reads
        self._threads: list[threading.Thread] = []
        self._mirrors: dict[int, Mirror] = {}
        self._paused: set[int] = set()  # ports that do not coalesce because a mirror copies to them
        self._stopping = threading.Event()
        self._final: Counters | None = None
        self._links = PortLinks(self._journal, wishes.shield)
        self._opener = Opener(wishes, self._links, self._journal)
        self._takes = Takes(self._members, self._rules, self._opener)
        self._owner = os.getpid()
        #: The file that it follows, if any.
        self.configured: Configured | None = None
        #: Where it keeps its state, if anywhere.
        self.state: StateFile | None = None
        self._name = _name_of(wishes.control, wishes.take_over)
        self._server: ControlServer | None = None
        in_child(self, Switch._leave_to_parent)
        self._prepared = dict(wishes.settings)
        self._matching: Matching | None = None
        try:
            if wishes.match is not None:
                check_right()
                self._matching = Matching(wishes.match, self._journal)
            if wishes.match is not None or (wishes.shield and not wanted):  # its ports come when rights are given up
                self._fast.open_here(self._links.open_here())
            if wishes.take_over and self._name:
                named = [port for port in wanted if isinstance(port, str)]
                check_name(self._name, {*named, *(self._matching.names if self._matching else ())})
            self._add_wanted(wanted, wishes.take_over)
            if self._matching and wishes.take_over:
                take_over(set(self._matching.names) - {port.name for port in self.ports})
            self._let_come_and_go()
        except BaseException:
            self.stop()
            raise
        _open.add(self)

    @classmethod
    def from_file(cls, path: str | Path) -> Switch:
        """The switch that a configuration file describes; reload_config() reads it again. Raises as Switch() does."""
        config = load(path)
        switch = cls(config.ports, **config.options(), control=config.name)
        try:
            Configured(switch, config, partial(load, path))
        except BaseException:
            switch.stop()
            raise
        return switch

    @property
    def options(self) -> LiveOptions:
        """The options that it was made with."""
        return self._options

    def dump_config(self) -> str:
        """The switch as it is now, as a configuration file. Raises ConfigError: no file can say what it is."""
        configured = self.configured.config if self.configured else None
        return write(of_switch(self, configured))

    def reload_config(self) -> list[str]:
        """Read the configuration file again and apply what it says now; returns what was changed, in words.

        Raises ConfigError, PortError or PrivilegeError, and then nothing has changed.
        """
        self._dataplane.now()  # a forked child's says whose it is
        if self.configured is None:
            raise ConfigError(NO_FILE)
        return self.configured.reload()

    @property
    def running(self) -> bool:
        """Whether frames are being forwarded."""
        return bool(self._threads) and os.getpid() == self._owner

    @property
    def unshielded(self) -> str:
        """Why the host is not shielded although `shield` asked for it; "" if it is."""
        return self._links.unshielded

    @property
    def fast_path(self) -> str:
        """How the kernel forwards frames between known stations: "nft", "bpf" or "off"."""
        return self._fast.hand

    @property
    def interfaces(self) -> NamedTuple[SwitchPort]:
        """The ports that are interfaces: all but socket ports."""
        of_objects = {index for index, member in list(self._members.items()) if member.socket_port}
        return NamedTuple(port for port in self.ports if port.index not in of_objects)

    def identity(self, port: PortRef) -> tuple[str, int, str, int]:
        """Which interface a port is: name, index, MAC address, and its network namespace as a number since the boot.

        port: one of `interfaces`.
        """
        member = self._members[self._index_of(port)]
        assert member.link is not None
        link = member.link.link
        return member.name, link.index, str(MacAddress(link.mac)), member.link.namespace

    def save_state(self) -> Path:
        """Write what has been learned, and changed by hand, to the state file; returns which. Raises ConfigError."""
        if self.state is None:
            raise ConfigError("this switch keeps no state; start it with a file for it: fastbridge run --state FILE")
        self.state.save(self)
        return self.state.path

    def breaths(self) -> tuple[int, ...]:
        """How many breaths each worker has taken. Until the next call each takes more: those that sleep are woken."""
        taken = self._dataplane.breaths()
        self._dataplane.prompt()
        return taken

    def start(self) -> None:
        """Forward from now on. Does nothing while the switch runs.

        Raises ConfigError after stop(), and PrivilegeError: it may run in real time no more. Where the kernel gives no
        threads it raises FastbridgeError, and the switch is stopped.
        """
        if self._final is not None:
            raise ConfigError(_STOPPED)
        if self._threads:
            return
        self._dataplane.links()  # raises in a forked child
        if self._options.real_time:
            allow_real_time()  # rights may have been given up since
        try:
            self._journal.start()
            for worker in range(self._options.workers):
                self._threads.append(start_thread(f"fastbridge-data-{worker}", self._forward, worker))
            self._threads.append(start_thread("fastbridge-control", self._control))
            self._fast.start()
            self._policing.start()
            self._epoch = self._clock()
            for playing in self._playing:
                playing.start(self._clock)
            if self._name:
                make_directory()
                self._server = ControlServer(socket_path(self._name), switch_verbs(self))
                self._server.start()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop for good and close the sockets. The counters stay readable. Does nothing in a forked child."""
        if os.getpid() != self._owner:
            return
        self._halt()
        self._journal.feed.close()
        with self._changing:
            if self._final is not None:
                return
            _open.discard(self)
            for watcher in self._watching:
                watcher.close()
            self._dataplane.count_unread()
            self._ask_last()
            self._final = self._count()
        with contextlib.ExitStack() as leaving:  # from the last to the first, whatever of it fails
            if self._matching:
                leaving.callback(self._matching.close)
            leaving.callback(self._close_members)
            leaving.callback(self._links.close)  # before the sockets, which take much longer: another may wait for it
            leaving.callback(self._fast.stop)

    def _leave_to_parent(self) -> None:
        """In a forked child: the switch is the parent's, and runs on there."""
        self._threads, self._playing = [], []
        _open.discard(self)
        self._changing = threading.RLock()
        if self._final is None:
            self._dataplane.abandon()
            elsewhere: Any = _Elsewhere(self._owner)
            self._journal = Journal()
            self._fast.leave_to_parent()
            self._dataplane = self._rules = self._policing = self._stations = elsewhere
            self._foresight = self._queues = self._wires = self._packet_in = elsewhere
            self._entries = self.fdb._core = elsewhere

    def _halt(self) -> None:
        """End the threads: first the one that answers, while there is something to ask."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        with self._changing:  # from here on none is played
            self._stopping.set()
        for playing in self._playing:
            playing.close()
        self._dataplane.stop()
        os.eventfd_write(self._dataplane.event_fd, 1)  # wakes the control thread
        for thread in self._threads:
            thread.join()
        self._policing.stop()
        self._journal.stop()
        self._threads = []

    @property
    def name(self) -> str:
        """The name by which commands find the switch; "" without `control`."""
        return self._name

    def status(self) -> Status:
        """See SwitchBase."""
        running, options = self.running, self._options
        return replace(
            super().status(),
            name=self._name,
            running=running,
            uptime=round(self._clock() - self._epoch, 3) if running else 0.0,
            fast_path=self.fast_path,
            workers=options.workers,
            cpus=options.cpus,
            shield=(self.unshielded or "on") if options.shield else "off",
        )

    def counters(self) -> Counters:
        """One consistent snapshot: all ports between the same two breaths; after stop(), the last one."""
        if self._final is not None:
            return self._final
        return super().counters()

    def vitals(self) -> Vitals:
        """See SwitchBase."""
        cpu_seconds = [self._cpu_time(worker) for worker in range(self._options.workers)] if self._threads else []
        return super().vitals()._replace(cpu_seconds=cpu_seconds, fast_path=self._fast.vitals())

    def add_port(self, port: str | PortLike) -> SwitchPort:
        """Add a port, also while running. It replaces a port of its name that is gone, and has its settings.

        Raises PortError, PrivilegeError, or ConfigError: there is such a port already, or the switch was stopped.
        """
        with self._changing:
            self._refuse_stopped()
            return self._add_wanted([port])[0]

    def add_socket_port(self, name: str) -> SocketPort:
        """See SwitchBase. Frames that it sends before start() are refused. Raises ConfigError also after stop()."""
        with self._changing:
            self._refuse_stopped()
            return super().add_socket_port(name)

    def _receive(self, index: int, frame: bytes) -> None:
        if not self._threads:
            name = self._name_of(index)
            if self._stopping.is_set():
                raise closed(name)
            raise PortError(f"port {name} cannot send: its switch is not started; call start() first")
        try:
            self._packet_in.receive(index, frame)
        except ValueError as error:
            raise ConfigError(str(error)) from None

    def _settings_for(self, name: str) -> PortSettings:
        return self._prepared.get(name, DEFAULT_SETTINGS)

    def remove_port(self, port: PortRef) -> None:
        """Take a port out, also while running, and forget its settings and FDB entries, static ones too."""
        with self._changing:
            index = self._index_of(port)
            member = self._members[index]
            self._prepared.pop(member.name, None)
            if self._matching and member.link:
                self._matching.remove(member.name, member.link.link.index)
            self._drop_member(index)
            self._wires.forget(member.name)

    def prepare_port(self, name: str, settings: PortSettings) -> None:
        """Give a port of this name these settings whenever it joins, from its first frame on."""
        self._prepared[name] = settings

    def hand_over(self, helper: Helper) -> None:
        """Have a helper do what takes rights, also for ports that join later. Call it before start()."""
        self._opener.hand_over(helper)
        self._links.hand_over(helper)
        self._fast.hand_over(helper)

    def _add_wanted(self, ports: Sequence[str | PortLike], take_over_first: bool = False) -> list[SwitchPort]:
        """Add ports that a user wants: all or none."""
        added = self._add_ports(ports, take_over_first)
        if self._matching:
            for port in ports:
                if isinstance(port, str):
                    self._matching.add(port)
        return added

    def _add_ports(self, ports: Sequence[str | PortLike], take_over_first: bool = False) -> list[SwitchPort]:
        """Add all or none."""
        sources = [self._opener.source(port) for port in ports]
        if self._options.trusted and any(isinstance(source, Interface) for source in sources):
            raise ConfigError("trusted=True needs ports that know their pods' addresses, such as those of a Lab")
        gone = self._check_names([source.name for source in sources])
        self._opener.expect(len(sources), beside=len(self._members))
        taken = self._links.find(sources)
        listening: Sequence[Receiver | None] = ()
        members: list[Member] = []
        try:
            if not take_over_first:
                self._links.hold(taken, sources)
            for found in taken:
                # After whose it is: a switch may have taken its own port's carrier, and gives it back when it ends.
                if not found.link.up and not (take_over_first and is_held(found.link.name)):
                    raise PortError(f"{found.name} is down; bring it up first: ip link set {found.link.name} up")
            listening = self._fast.listen(sources, taken, beside=take_over_first)
            with _many(len(sources)) as pool:
                opened = zip(sources, taken, listening, strict=True)
                futures = [pool.submit(self._opener.open, *of_one) for of_one in opened]
            members = [future.result() for future in futures if future.exception() is None]
            for future in futures:
                future.result()  # raises the first error of any of them
            if take_over_first:  # only now: until then the switch before forwards
                take_over([source.name for source in sources if isinstance(source, Interface)])
                self._links.hold(taken, sources)
                self._fast.they_ended()
            with _many(len(members)) as pool:
                list(pool.map(self._opener.start, members))
            for index in gone:  # its interface was deleted, and there is a new one
                self._prepared[self._name_of(index)] = self._settings_of(index)
                self._drop_member(index)
            self._bring_links(sources)
            added = [self._attach(member, source) for member, source in zip(members, sources, strict=True)]
            for port in added:
                self._fast.set_policy(port.index, self._policing.policy(port.index))
            self._fast.attach(
                {
                    port.index: (member.link, member.listen)
                    for port, member in zip(added, members, strict=True)
                    if member.link and member.listen
                }
            )
            return added
        except BaseException:
            for member in members:
                for index in [i for i, known in self._members.items() if known is member]:
                    self._drop_member(index)
                for sock in member.sockets:
                    sock.close()
            for listen in listening:
                if listen is not None:
                    self._fast.remove(listen)
            for link in taken:
                self._links.release(link)
            raise

    def _bring_links(self, sources: Sequence[PortLike]) -> None:
        """Have the links that ports bring with them, where nothing else is wanted."""
        wanted = self.own_links.keys() | {name for name, settings in self._prepared.items() if settings.link}
        brought = [(place, link) for source in sources for place, link in links_of_port(source).items()]
        self._wires.set({place: link for place, link in brought if place not in wanted}, restart=True)

    def _check_names(self, names: Sequence[str]) -> list[int]:
        """The ports of these names that are there, but gone."""
        known = {port.name: port for port in self.ports}
        for place, name in enumerate(names):
            if name in names[:place]:
                raise ConfigError(f"port {name} is named twice; a switch has each port once")
            if name in known and known[name].state != "gone":
                raise ConfigError(f"{name} is a port of this switch already")
        return [known[name].index for name in names if name in known]

    def set_policy(self, policy: Policy | str | None, port: PortRef | None = None) -> None:
        """See SwitchBase."""
        with self._changing:
            super().set_policy(policy, port)
            for index in list(self._members) if port is None else [self._index_of(port)]:
                self._fast.set_policy(index, self._policing.policy(index))

    def set_flags(self, port: PortRef, **flags: bool) -> PortFlags:
        """See SwitchBase."""
        with self._changing:
            changed = super().set_flags(port, **flags)
            index = self._index_of(port)
            if "coalesce" in flags:
                self._paused.discard(index)  # as said now, also after the mirror
            self._fast.revoke_port(index)
        return changed

    def _switch_carrier(self, index: int, up: bool) -> None:
        self._refuse_stopped()
        member = self._members[index]
        if member.link is None:
            raise ConfigError(f"{member.name} is a socket port, which has no carrier; close it instead")
        self._links.set_carrier(member.link, up)
        if up:
            self._links.wait_until_running(member.link)
        self._set_link(index, "up" if is_running(member.sockets[-1]) else "down")

    def play(self, scenario: Scenario | str | Path) -> Playing:
        """See SwitchBase."""
        with self._changing:
            if self._stopping.is_set():  # before it has stopped: then its scenarios end
                raise ConfigError(_STOPPED)
            return super().play(scenario)

    def _begin(self, playing: Playing) -> None:
        if self._threads:
            playing.start(self._clock)

    def _may_come(self, name: str) -> bool:
        return any(fnmatchcase(name, pattern) for pattern in self._options.match or ())

    def lasting_flags(self, port: PortRef) -> PortFlags:
        """A port's flags as they are again when no mirror copies to it."""
        with self._changing:
            index = self._index_of(port)
            flags = self.flags(index)
            return replace(flags, coalesce=flags.coalesce or index in self._paused)

    def _settings_of(self, index: int) -> PortSettings:
        """The present ones."""
        flags = asdict(self.lasting_flags(index))
        return PortSettings(self._policing.own.get(index), flags, self._members[index].storm_control)

    def _attach(self, member: Member, source: PortLike) -> SwitchPort:
        self._opener.note_size(member)
        *receivers, tx = member.sockets
        member.readers = tuple(range(self._options.workers)) if self._options.fanout else (self._idlest(),)
        rings = [(w, rx.fileno(), n) for w, rx, n in zip(member.readers, receivers, member.slots, strict=True)]
        try:
            index = self._dataplane.add_port(rings, tx.fileno())
        except OSError as error:
            raise PortError(f"cannot attach {member.name}: {error.strerror}") from None
        for worker in member.readers:
            self._read[worker] += 1
        self._takes.suit(index, member)
        running = is_running(tx)
        if not running:
            self._dataplane.set_link(index, "down")
        owners = source.owners if self._options.trusted else ()
        self._add_member(index, member, owners, self._settings_for(member.name))
        return SwitchPort(index, member.name, "up" if running else "down")

    def _idlest(self) -> int:
        """The worker that reads the fewest ports."""
        return self._read.index(min(self._read))

    def _cpu_time(self, worker: int) -> float:
        threads = self._threads  # stop() puts others in their place
        thread = threads[worker].native_id if worker < len(threads) else None
        try:  # by its number, as the kernel makes clocks of these (clock_gettime(2)): a thread that has ended has none
            return 0.0 if thread is None else time.clock_gettime(~thread << 3 | _THREAD_CLOCK)
        except OSError:
            return 0.0

    def _note_link(self, index: int) -> None:
        self._fast.revoke_port(index)

    def _is_promoted(self, ingress: int, egress: int, source: int, destination: int) -> bool:
        return self._fast.promotes(ingress, egress, source, destination)

    def mirror(self, ports: Iterable[PortRef], to: PortRef) -> Mirror:
        """Copy each frame that comes from one of these ports, or goes to one, to another port: for an IDS, or tcpdump.

        Until the mirror is closed nothing else goes in or out of that port, its state is "blocked", and it does not
        coalesce. The fast path forwards nothing meanwhile. Raises ConfigError.
        """
        refuse_text(ports, "ports")
        self._dataplane.now()  # a forked child's says whose it is
        with self._changing, contextlib.ExitStack() as undo:
            self._refuse_stopped()
            sources, index = [self._name_of(self._index_of(port)) for port in ports], self._index_of(to)
            name = self._name_of(index)
            if not sources or name in sources:
                raise ConfigError(f"a mirror takes one or more ports other than {name}, which it copies to")
            tap = Tap(self._dataplane, mirror=index)
            tap.set_ports([])
            try:
                tap.start()
            except ValueError:
                raise ConfigError(f"port {name} is not up, or a mirror already; choose another one") from None
            undo.callback(tap.stop)
            undo.enter_context(self._seeing_all())
            if self.flags(index).coalesce:
                self.set_flags(index, coalesce=False)
                self._paused.add(index)
                undo.callback(self._paused.discard, index)
                undo.callback(self._coalesce_again, index)
            undo.callback(self._mirrors.pop, index, None)
            mirror = self._mirrors[index] = Mirror(tap, sources, name, index, self._port_names, undo.pop_all())
            self._watching.add(mirror)
            return mirror

    def watch(self, wish: Wish, last: int | None = None) -> Capture:
        """See SwitchBase."""
        with self._changing:
            self._refuse_stopped()
            return super().watch(wish, last)

    def _refuse_stopped(self) -> None:
        if self._final is not None:
            raise ConfigError(_STOPPED)

    @property
    def mirrors(self) -> tuple[Mirror, ...]:
        """Those that run."""
        return tuple(self._mirrors.values())

    def about(self) -> list[str]:
        """See SwitchBase."""
        with self._changing:
            try:
                configuration = self.dump_config()
            except ConfigError as error:
                configuration = str(error)
        workers = f"{self._options.workers} worker{'s' if self._options.workers > 1 else ''}"
        what = f"switch {self.name or repr(self)}; {len(self.ports)} ports; {workers}; fast path {self.fast_path}"
        return [what, f"configuration:\n{configuration}"]

    def _coalesce_again(self, index: int) -> None:
        with self._changing, contextlib.suppress(ConfigError):  # removed meanwhile
            if index in self._paused:
                self.set_flags(index, coalesce=True)

    def _seeing_all(self) -> contextlib.AbstractContextManager[None]:
        return self._fast.held()

    def _ask_interfaces(self) -> None:
        self._links.count_losses()
        for index, passed in self._fast.passed().items():
            self._members[index].passed = passed

    def _ask_last(self) -> None:
        """Before ports go. Where the kernel does not answer they go all the same: what was read last counts."""
        try:
            self._ask_interfaces()
        except (PortError, OSError) as error:
            text = f"the last losses in interfaces are not counted: {error}"
            self._journal.warn(_log, "failures of the last count", text)

    def _drop_member(self, index: int) -> None:
        link = self._members[index].link
        self._ask_last()
        self._close_member(index)
        if link is not None:
            self._links.release(link)

    def _close_members(self) -> None:
        try:
            with _many(len(self._members)) as pool:
                list(pool.map(self._close_member, list(self._members)))
        except FastbridgeError:  # no thread is to be had, or not enough
            for index in list(self._members):
                self._close_member(index)

    def _close_member(self, index: int) -> None:
        member = self._members[index]
        if member.listen is not None:
            self._dataplane.set_blocked(index, True)  # its counts are final when it is let go
        self._detach(index, member)
        self._remove_member(index)
        for worker in member.readers:
            self._read[worker] -= 1
        for sock in member.sockets:
            sock.close()
        if member.listen is not None:
            self._fast.remove(member.listen)

    def _detach(self, index: int, member: Member) -> None:
        """Let the kernel forward nothing of a port."""
        passed = self._fast.detach(index)
        if passed is not None:
            member.passed = passed

    def _forward(self, worker: int) -> None:
        if cpus := self._options.cpus:
            os.sched_setaffinity(threading.get_native_id(), {cpus[worker]})
        if self._options.real_time:
            run_in_real_time()
        self._dataplane.run(worker)

    def _control(self) -> None:
        """Follow links, stations and policies and age the FDB until stop()."""
        happened = select.poll()
        happened.register(self._dataplane.event_fd, select.POLLIN)
        happened.register(self._links.fileno(), select.POLLIN)
        if self._matching:
            happened.register(self._matching.fileno(), select.POLLIN)
        links: dict[int, str] = {}
        swept = asked = time.monotonic()
        soon: float | None = 0.0  # at once: links that were down before the start are reported, too
        took = 0.0  # CPU time of a check of the links that found no change
        while not self._stopping.is_set():
            wait = max(_LINK_SECONDS, took / _LINK_SHARE) if "down" in links.values() else _SWEEP_SECONDS
            ready = happened.poll(1000 * (wait if soon is None else min(soon, wait)))
            if any(fd == self._dataplane.event_fd for fd, _ in ready):
                os.eventfd_read(self._dataplane.event_fd)
            try:
                before, began = links, time.thread_time()
                # First: then what new interfaces have replaced is known below.
                heard = self._hear()
                links = self._follow_links(before)
                took = time.thread_time() - began if links == before else 0.0
                if heard or links != before:
                    self._let_come_and_go()
                soon = _sooner(self._stations.follow(), self._monitoring.follow())
                self._fast.revoke_blocked()
                self._policing.watch()
                self._journal.tick()
                if time.monotonic() - swept >= _SWEEP_SECONDS:
                    self._entries.age(self._dataplane.now())
                    self._forget_behind(self._without_carrier(links))  # frames that came late have named stations there
                    self._wires.tidy()
                    swept = time.monotonic()
                    self._links.hear_askers()
                    self._let_come_and_go()  # some could not be added before
                if time.monotonic() - asked >= _POD_SECONDS:
                    asked = time.monotonic()
                    self._takes.ask_pods()
            except Exception:  # nothing may end this thread: without it links and loops go unnoticed
                text = "following links and stations failed; going on"
                self._journal.warn(_log, "failures of the control thread", text, thing=text, level=logging.ERROR)
                soon = _SWEEP_SECONDS

    def _follow_links(self, before: dict[int, str]) -> dict[int, str]:
        """Log changes, forget the entries behind a lost link, and note links that came back."""
        for changed, as_before in self._links.changes():
            if changed.lost:
                self._let_go()
            elif changed.link.name != as_before.name:
                self._rename(changed)  # at once: meanwhile its frames go to the host
        after = {index: link for index, link in self._dataplane.links().items() if index in self._members}
        for index, link in after.items():
            member = self._members.get(index)
            port = member.link if member else None
            if member:
                self._takes.suit(index, member)
            if port and not port.lost:
                self._fast.follow(index, port.link)
            if member and port and port.faltered:
                port.faltered = False
                if not is_running(member.sockets[-1]) and link in ("up", "blocked"):
                    self._set_link(index, "down")  # first: whoever sees that its stations are forgotten sees why
                    link = after[index] = "down"
                self._forget_behind([index])  # though it may be back already
            if link == before.get(index) != "down":
                continue
            name = self._name_of(index)
            if link in ("down", "gone") and link != before.get(index):
                why = _why(port, link)
                if link == "gone" and not why:  # its notification is on its way
                    after[index] = before.get(index, "up")
                    continue
                self._tell_link(name, link, f"port {name} is {link}{why and f': {why}'}")
                self._forget_behind([index])
            elif link == "up" and before.get(index) == "down":
                self._tell_link(name, "up", f"port {name} is up again")
            if link == "down" and member and is_running(member.sockets[-1]):
                if port:
                    self._links.wait_until_running(port)  # the kernel says so a moment before it sends
                self._set_link(index, "up")
        return after

    def _hear(self) -> bool:
        """Whether interfaces have changed that may match."""
        if self._matching is None:
            return False
        with self._changing:  # a port may be added or removed by name meanwhile
            return self._matching.hear()

    def _let_come_and_go(self) -> None:
        """Let the interfaces that match join, and those leave that match no more."""
        if self._matching is None:
            return
        with self._changing:
            self._matching.leave(self._ports_by_name(), lambda name: self._drop_member(self._index_of(name)))
            joined = self._matching.join(self._ports_by_name(), self._add_ports)
        for name in joined if self.running else ():
            self._journal.warn(_log, "ports that joined", f"{name} is a port now")

    def _ports_by_name(self) -> dict[str, tuple[str, PortLink | None]]:
        return {port.name: (port.state, self._members[port.index].link) for port in self.ports}

    def _forget_behind(self, ports: Collection[int]) -> None:
        """See SwitchBase."""
        super()._forget_behind(ports)
        for index in ports:
            self._fast.revoke_port(index)

    def _without_carrier(self, links: dict[int, str]) -> set[int]:
        """The ports that are down, but those whose carrier has just come back."""
        found = ((index, self._members.get(index)) for index, link in links.items() if link == "down")
        return {index for index, member in found if member and not is_running(member.sockets[-1])}

    def _set_link(self, index: int, link: str) -> None:
        with contextlib.suppress(IndexError):  # removed meanwhile
            self._dataplane.set_link(index, link)

    def _rename(self, port: PortLink) -> None:
        with self._changing:
            for index, member in self._members.items():
                if member.link is port:
                    self._fast.follow(index, port.link)

    def _let_go(self) -> None:
        """Let nothing in or out of ports whose interfaces are no longer ours."""
        with self._changing:
            for index, member in self._members.items():
                link = member.link
                if link is None or not link.lost:
                    continue
                self._detach(index, member)
                if not link.link.gone:
                    self._dataplane.set_blocked(index, True)
                    end_receiving(member.sockets, link.link.index, member.listen)
                if member.listen or not link.link.gone:  # else the core notices, after the frames it has yet to read
                    self._dataplane.set_link(index, "gone")


class _Elsewhere:
    """Stands for the parts of a switch in a forked child. Every access raises ConfigError, with the owning process."""

    def __init__(self, owner: int) -> None:
        self._owner = owner

    def __getattr__(self, name: str) -> NoReturn:
        raise ConfigError(f"this switch runs in process {self._owner}; a forked child makes a Switch of its own")


def _sooner(one: float | None, other: float | None) -> float | None:
    return min((seconds for seconds in (one, other) if seconds is not None), default=None)


def _why(port: PortLink | None, link: str) -> str:
    """Why a port's link is lost, where that is known and not obvious."""
    if port is None:
        return ""
    if link == "gone":
        return port.lost
    return "no carrier (its far end is down, or its cable is out)" if port.link.up and not port.link.running else ""


def _name_of(control: str | bool | None, take_over: bool) -> str:
    """The name that `control` asks for; "": none. Raises ConfigError, also where another switch has it and keeps it."""
    if control is True:  # in a container, another one's process may have this number
        names = (f"run-{os.getpid()}" if number == 1 else f"run-{os.getpid()}-{number}" for number in _unnamed)
        return next(name for name in names if not answers(socket_path(name)))
    if control is None or control is False:
        return ""
    if answers(socket_path(control)) and not take_over:
        raise ConfigError(f"a switch named {control} runs already; give this one another name")
    return control


@contextlib.contextmanager
def _many(ports: int) -> Iterator[ThreadPoolExecutor]:
    """Threads to open or close ports with: the kernel makes each wait some 10 ms, several at the same time.

    Raises FastbridgeError: the kernel gives too few.
    """
    with ThreadPoolExecutor(max_workers=max(1, min(128, ports))) as pool:
        try:
            yield pool
        except RuntimeError as error:
            raise no_threads(error) from None


# A data plane thread must not outlive the interpreter it calls back into, and a carrier not be taken for ever.
_open: weakref.WeakSet[Switch] = weakref.WeakSet()


@atexit.register
def _leave() -> None:
    with contextlib.ExitStack() as leaving:  # each, whatever of another fails
        for switch in list(_open):  # the kernel closes the sockets
            leaving.callback(switch._links.give_carriers_back)
            leaving.callback(switch._halt)
