"""Which of a switch's ports have a fast path.

live.py uses only this part of the fast path. A switch has none, or one for all ports in the first port's network
namespace. Ports in other namespaces stay without.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from fastbridge.errors import PortError
from fastbridge.journal import Journal
from fastbridge.link_watch import Link
from fastbridge.policy.base import Policy
from fastbridge.policy.bindings import Bindings
from fastbridge.switch.counters import Passed
from fastbridge.switch.fdb import Fdb
from fastbridge.switch.options import LiveOptions
from fastbridge.switch.port_links import PortLink
from fastbridge.switch.port_socket import Interface, PortLike, Receiver
from fastbridge.switch.shield import PRIORITY
from fastbridge.switch.vitals import FastPathVitals

from . import hands
from .hand import MOST_PAIRS
from .head import FastPath
from .inside import make
from .lane import FastLane
from .nft import PortEnds

if TYPE_CHECKING:
    from fastbridge.core.dataplane import Dataplane
    from fastbridge.core.fdb import FdbAccess
    from fastbridge.switch.helper import Helper

_log = logging.getLogger(__name__)


class FastPorts:
    """Follows a switch's ports, so that the kernel forwards between them where it can."""

    def __init__(
        self,
        options: LiveOptions,
        dataplane: Dataplane,
        entries: FdbAccess,
        fdb: Fdb,
        bindings: Bindings,
        journal: Journal,
        name_of: Callable[[int], str],
    ) -> None:
        self._dataplane, self._entries, self._fdb, self._journal = dataplane, entries, fdb, journal
        self._bindings, self._name_of = bindings, name_of
        self._wanted = options.fast_path if FastPath.suits(options.ageing, options.move_damping) else "off"
        self._namespace = 0
        self._runs = False
        self._untold = ""  # why there is none
        self.lane: FastLane | None = None

    @property
    def hand(self) -> str:
        """The name of the hand that the kernel forwards by, or "off"."""
        return "off" if self.lane is None or self.lane.head.failed else self.lane.name

    def start(self) -> None:
        """Promote from now on."""
        hands.settle()
        self._runs = True
        if self.lane is not None:
            self.lane.head.start()

    def stop(self) -> None:
        """Give all back."""
        hands.settle()
        if self.lane is not None:
            self.lane.close()
            self.lane = None

    def leave_to_parent(self) -> None:
        """In a forked child: close the copies of the parent's descriptors."""
        if self.lane is not None:
            self.lane.leave_to_parent()
            self.lane = None

    def listen(self, sources: Sequence[PortLike], links: Sequence[PortLink], beside: bool) -> Sequence[Receiver | None]:
        """Where the core listens for ports; None: on the interface itself, and the kernel forwards nothing.

        beside: the switches before still have the ports, until they_ended().

        Raises PortError where the requested hand does not work, or one that works cannot have these ports.
        """
        nowhere: Sequence[Receiver | None] = [None] * len(sources)
        if self._wanted == "off" or not sources:
            return nowhere
        works = self.lane is not None
        try:
            lane = self.lane or self._open(sources[0], links[0].namespace)
            near = [(link.link.name, link.link.index) for link in links if link.namespace == self._namespace]
            made = iter(lane.make(near, beside) if near else ())
            return [next(made) if link.namespace == self._namespace else None for link in links]
        except OSError as error:
            why = error.strerror or str(error)
            if works:
                raise PortError(f"cannot make a punt pair for {sources[0].name}: {why}") from None
            if self.lane is not None:
                self.lane.close()
                self.lane = None
            self._do_without(why)
            return nowhere

    def they_ended(self) -> None:
        """The switches before have the ports no more. Raises PortError."""
        try:
            if self.lane is not None:
                self.lane.they_ended()
        except OSError as error:
            raise PortError(f"cannot remove the punt pairs of the switch before: {error.strerror}") from None

    def open_here(self, namespace: int) -> None:
        """Have one for ports that are to come, interfaces of the current network namespace. Raises PortError."""
        if self.lane is None and self._wanted != "off":
            try:
                self._open(Interface(""), namespace)
            except OSError as error:
                self._do_without(error.strerror or str(error))

    def hand_over(self, helper: Helper) -> None:
        """Have a helper do what takes rights, before start()."""
        hands.settle()
        if self.lane is not None:
            self.lane.hand_over(helper)

    def _do_without(self, why: str) -> None:
        """Raises PortError where the requested hand does not work."""
        if self._wanted != "auto":
            raise PortError(f"no fast path by {self._wanted}: {why}; fast path `auto` takes what there is") from None
        self._wanted, self._untold = "off", why

    def _open(self, source: PortLike, namespace: int) -> FastLane:
        """By the first hand that works. Raises OSError."""
        why = ""
        for kind in hands.choices(self._wanted):
            why = hands.missing(kind, source.open_socket)
            if not why:
                hand = hands.make(kind, source.open_socket)
                break
        else:
            raise OSError(why)
        inside = make() if isinstance(source, Interface) else None
        try:
            self.lane = FastLane(
                self._dataplane,
                self._entries,
                self._dataplane.now,
                source.open_socket,
                inside,
                hand,
                self._journal,
                self._name_of,
            )
        except BaseException:
            hand.close()
            if inside is not None:
                inside.close()
            raise
        self._namespace = namespace
        self._fdb.on_change = self.lane.head.check
        self._bindings.on_change = self.lane.head.follow_bindings
        if self._runs:
            self.start()
        return self.lane

    def attach(self, ports: Mapping[int, tuple[PortLink, Receiver]]) -> None:
        """Let the kernel forward between these ports, by index, what the core promotes. Raises PortError."""
        if self._untold:  # not earlier: a missing right to open a port shall be reported first
            why, self._untold = self._untold, ""
            text = f"no fast path, the core forwards all frames: {why}; fast path `off` does the same without this line"
            self._journal.warn(_log, "fast paths", text)
        if self.lane is None or not ports:
            return
        links = {
            index: PortEnds(
                link.link.name,
                link.link.index,
                receiver.punt,
                self.lane.peer(link.link.index),
                PRIORITY if link.shielded else 0,
            )
            for index, (link, receiver) in ports.items()
        }
        try:
            self.lane.attach(links)
        except OSError as error:
            name = next(iter(ports.values()))[0].name
            raise PortError(f"cannot hand the frames of {name} to the kernel: {error.strerror}") from None
        for index, (link, _) in ports.items():
            self.lane.follow_mtu(index, link.link.mtu)

    def detach(self, index: int) -> Passed | None:
        """Stop taking a port's frames; returns the counts of those that bypassed the core, None if not attached."""
        return None if self.lane is None else self.lane.detach(index)

    def remove(self, receiver: Receiver) -> None:
        """The core no longer listens there."""
        if self.lane is not None:
            self.lane.remove(receiver.punt)

    def passed(self) -> Mapping[int, Passed]:
        """The counts of each port's frames that bypassed the core."""
        return {} if self.lane is None else self.lane.passed()

    def set_policy(self, index: int, policy: Policy) -> None:
        """A port has this policy from now on. Some of its frames must go to the core."""
        if self.lane is not None:
            self.lane.head.set_policy(index, policy)

    def follow(self, index: int, link: Link) -> None:
        """A port's interface may have another name or MTU. A name that the kernel refuses is for the next call."""
        if self.lane is None:
            return
        self.lane.follow_mtu(index, link.mtu)
        try:
            self.lane.follow_name(index, link.name)
        except OSError as error:
            text = f"the kernel does not know a port by its new name {link.name} yet: {error.strerror}; asking again"
            self._journal.warn(_log, "failures of the fast path", text)

    def vitals(self) -> FastPathVitals:
        """What it holds."""
        if self.lane is None:
            return FastPathVitals()
        head = self.lane.head
        return FastPathVitals(self.hand, len(head), MOST_PAIRS, head.promoted, head.revoked, head.refused)

    def held(self) -> contextlib.AbstractContextManager[None]:
        """A context in which every frame comes to the core, as for a trace."""
        return contextlib.nullcontext() if self.lane is None else self.lane.head.held()

    def promotes(self, ingress: int, egress: int, source: int, destination: int) -> bool:
        """Whether the kernel forwards frames of these stations from one port to another."""
        pairs = {} if self.lane is None else self.lane.head.pairs
        ends = {(pair.ingress, to, pair.source, pair.destination) for pair, to in pairs.items()}
        return (ingress, egress, source, destination) in ends

    def revoke_port(self, index: int) -> None:
        """Revoke all pairs to or from a port."""
        if self.lane is not None:
            self.lane.head.revoke_port(index)

    def revoke_blocked(self) -> None:
        """Revoke all pairs to or from ports that are part of a loop."""
        if self.lane is not None:
            for index, link in self._dataplane.links().items():
                if link == "blocked":
                    self.lane.head.revoke_port(index)
