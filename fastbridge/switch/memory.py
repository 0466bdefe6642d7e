"""A switch in memory: the same core without interfaces or privileges."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from fastbridge.core.memory_ports import MemoryPorts
from fastbridge.errors import ConfigError
from fastbridge.named import refuse_text

from .base import SwitchBase
from .explain import Explanation, send
from .fdb import PortRef
from .member import Member, SwitchPort
from .mirror import Mirror
from .options import Options
from .player import Playing

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .options import OptionWords


_MOST_TIME = (1 << 63) - 1  # ns: 292 years


class Egress(NamedTuple):
    """A frame leaving an in-memory switch by the port of this index; `switch.ports[egress.port].name` is its name."""

    port: int
    frame: bytes


class Arrival(NamedTuple):
    """A frame leaving an in-memory switch, and when: seconds since the switch was made."""

    time: float
    port: int
    frame: bytes


class MemorySwitch(SwitchBase):
    """A learning switch without interfaces or privileges: the same core, fed by process(). There is no loop detection.

    With links, frames are in flight. advance() lets time pass and returns those that arrive meanwhile.

    ports: how many, or their names.
    coalesce: whether process_offloaded() and the counters merge frames; process() never does.
    clock: monotonic seconds; tests pass their own to let time pass. None: only advance() does. Then a run with links is
        the same every time.
    ageing, capacity, filter_link_local, policy, move_damping, neighbour_ageing: as for Switch.

    Raises ConfigError.
    """

    def __init__(
        self,
        ports: int | Sequence[str] = 2,
        *,
        coalesce: bool = False,
        clock: Callable[[], float] | None = time.monotonic,
        **options: Unpack[OptionWords],
    ) -> None:
        self._given_clock = clock or float  # that is 0.0
        self._began, self._ahead = self._given_clock(), 0  # seconds; ns that advance() has added
        super().__init__(Options(**options), clock=lambda: self._given_clock() + self._ahead / 1e9)
        self._memory = MemoryPorts(self._dataplane)
        refuse_text(ports, "ports")
        names = [str(i) for i in range(ports)] if isinstance(ports, int) else list(ports)
        if len(set(names)) != len(names):
            raise ConfigError(f"a port is named twice in {', '.join(names)}; a switch has each port once")
        self._coalesce = coalesce
        self._dark: set[int] = set()  # ports whose pods have no carrier
        for name in names:
            self.add_port(name)

    def add_port(self, name: str) -> SwitchPort:
        """Add a port. Raises ConfigError: there is such a port already."""
        with self._changing:
            if any(port.name == name for port in self.ports):
                raise ConfigError(f"{name} is a port of this switch already")
            index = self._dataplane.add_port()
            self._add_member(index, Member(name, coalesce=self._coalesce))
        return SwitchPort(index, name, "up")

    def remove_port(self, port: PortRef) -> None:
        """Take a port out, and forget its link and its FDB entries, static ones too."""
        with self._changing:
            index = self._index_of(port)
            member = self._remove_member(index)
            for sock in member.sockets:
                sock.close()
            self._wires.forget(member.name)
            self._dark.discard(index)

    def _receive(self, index: int, frame: bytes) -> None:
        self.process(index, [frame])

    def _switch_carrier(self, index: int, up: bool) -> None:
        if up is not (index in self._dark):
            return
        self._dark ^= {index}
        name, link = self._name_of(index), "up" if up else "down"
        self._dataplane.set_link(index, link)
        self._tell_link(name, link, f"port {name} is {'up again' if up else 'down'}")
        if not up:
            self._forget_behind([index])
        self._monitoring.settle()

    def _begin(self, playing: Playing) -> None:
        playing.began = self._link_time()
        self._play(playing.began)

    def _play(self, until: int) -> None:
        """Do the steps of scenarios that are due by then (ns), in the order of time."""
        while soon := min(
            (each for each in self.playing if each.due <= until), key=lambda each: each.due, default=None
        ):
            soon.do_next()

    def process(self, ingress: int | str, frames: Sequence[bytes]) -> list[Egress]:
        """Switch frames (bytes from the destination MAC on, no FCS) arriving on one port.

        Returns the copies in arrival order, those of a flooded frame by ascending port index; after them what the
        policy sends. Frames in flight on links are among them when they are due by now, and before them when they were
        due earlier. Copies for socket ports are not: recv() has these. Raises ConfigError for an unknown port,
        TypeError for a frame that is not bytes.
        """
        index = self._index_of(ingress)
        now = self._now_ns()
        copies = [arrival[1:] for arrival in self._deliver(now)]
        copies += self._memory.process(index, [] if index in self._dark else list(frames), now)
        copies += self._policing.handle()
        copies += [arrival[1:] for arrival in self._deliver(now)]
        self._monitoring.settle()
        return self._left(copies)

    def advance(self, seconds: float) -> list[Arrival]:
        """Let time pass for the frames in flight on links, and for all that ages.

        Returns the frames that leave meanwhile, in the order of time. A frame that is due from a pod is decided at that
        time. Raises ConfigError: time does not go back, nor on for ever.
        """
        if not 0 <= seconds < math.inf:
            raise ConfigError(f"time passes by 0 seconds or more, not by {seconds}")
        until = self._now_ns() + round(seconds * 1e9)
        if until > _MOST_TIME:
            raise ConfigError(f"time passes up to {_MOST_TIME // 10**9:,} seconds in all; {seconds} more are too many")
        arrivals = self._deliver(until)
        self._go_on_to(until)
        self._monitoring.settle()
        return [Arrival(at / 1e9, port, frame) for at, port, frame in arrivals if not self._is_socket_port(port)]

    @property
    def next_due(self) -> float | None:
        """In how many seconds the next frame in flight is due, for advance(). None: no frame is in flight."""
        due = self._memory.next_due()
        return None if due is None else max(0, due - self._now_ns()) / 1e9

    def process_offloaded(self, ingress: int | str, messages: Sequence[bytes]) -> list[Egress]:
        """As process(), for at most 256 frames, each behind its struct virtio_net_hdr (10 bytes) as AF_PACKET has it.

        Returns, port by port, the frames that a live switch would send in one breath, vnet header first. Several are
        merged into one where the port's `coalesce` flag is set. The policy's frames are left out. Raises ValueError
        for too many frames.
        """
        sent = self._memory.process_offloaded(self._index_of(ingress), list(messages), self._now_ns())
        return self._left(sent)

    def send_in(self, port: PortRef, frame: bytes) -> Explanation:
        """See SwitchBase. What the policy sends is not in the copies, and nowhere else: process() has it."""
        said = send(self, self._foresight, self._index_of(port), frame, self._now_ns())
        self._policing.handle()
        self._monitoring.settle()
        return said

    def mirror(self, ports: Sequence[str], to: str) -> NoReturn:
        """A switch in memory has no mirrors. Raises ConfigError."""
        raise ConfigError("a switch in memory has no mirrors; process() returns every copy")

    @property
    def mirrors(self) -> tuple[Mirror, ...]:
        """None."""
        return ()

    def tick(self) -> list[Egress]:
        """Do the work that a running switch does every second; returns the frames that it sends.

        It sweeps expired entries out of FDB and neighbour table. It asks neighbours that are about to expire, and
        neighbours with bindings in doubt.
        """
        self._entries.age(self._now_ms())
        with self._changing:
            self._forget_behind(self._dark)  # frames that were on their way have named stations there
        self._wires.tidy()
        self._journal.tick()
        self._monitoring.settle()
        self._monitoring.count()
        copies = self._policing.tick() + self._policing.settle()
        return self._left(copies + [arrival[1:] for arrival in self._deliver(self._now_ns())])

    def _left(self, copies: Iterable[tuple[int, bytes]]) -> list[Egress]:
        """Those for the caller: socket ports have got their own."""
        return [Egress(*copy) for copy in copies if not self._is_socket_port(copy[0])]

    def _is_socket_port(self, index: int) -> bool:
        member = self._members.get(index)
        return member is not None and member.socket_port is not None

    def _deliver(self, until: int) -> list[tuple[int, int, bytes]]:
        """Do the steps of scenarios and deliver the frames in flight that are due, each at its own time.

        What the policy sends then is delivered, too. At one time, steps come first.
        """
        arrivals = []
        while (due := self._next_moment()) is not None and due <= until:
            self._go_on_to(due)
            self._play(due)
            arrivals += self._memory.advance(due)
            arrivals += [(due, *copy) for copy in self._policing.handle()]
        return arrivals

    def _next_moment(self) -> int | None:
        flight = self._memory.next_due()
        return min([*(each.due for each in self.playing), *([] if flight is None else [flight])], default=None)

    def _go_on_to(self, time: int) -> None:
        self._ahead += max(0, time - self._now_ns())

    def _now_ns(self) -> int:
        return round((self._given_clock() - self._began) * 1e9) + self._ahead

    def _link_time(self) -> int:
        return self._now_ns()

    def _now_ms(self) -> int:
        return self._now_ns() // 1_000_000 & 0xFFFFFFFF
