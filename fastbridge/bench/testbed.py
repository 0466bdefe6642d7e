"""An engine in its lab, ready to be measured.

Every measurement needs the same three things: a lab, an engine that joins its host ends, and a tester in its pods.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property
from types import TracebackType

from fastbridge.errors import BenchError
from fastbridge.lab.topology import Lab, Topology

from .engines import Engine, Running
from .machine.cpus import Layout
from .machine.offloads import read_offloads
from .tester.offer import Offer
from .tester.tester import Tester
from .tester.trial import Trial


class Testbed:
    """An engine at work in its own lab while a `with` block lasts; methods run on it.

        with Testbed(ENGINES["linux-bridge"], ports=2) as bed:
            findings = METHODS["forwarding-rate"](sizes=(64,)).run(bed)

    The pods have no IPv6 unless a `topology` says so: then no kernel sends frames of its own, and receivers count only
    test frames. `layout` names the CPUs; errors call the engine `name`.
    """

    __test__ = False  # not a test, whatever pytest thinks of the name

    lab: Lab
    running: Running
    offloads: dict[str, str]  #: of both ends of a pair, as they were before the engine came

    def __init__(
        self,
        engine: Engine,
        ports: int = 2,
        *,
        topology: Topology | None = None,
        layout: Layout | None = None,
        name: str | None = None,
    ) -> None:
        self._engine, self._name = engine, name or engine.name
        self._topology = topology or Topology.of(ports, ipv6=None)
        self._layout = layout or Layout.of_machine()
        self._stack = ExitStack()

    def __enter__(self) -> Testbed:
        with ExitStack() as stack:
            self.lab = stack.enter_context(Lab(self._topology))
            self.offloads = _offloads(self.lab)
            self.running = stack.enter_context(self._engine.attach(self.lab, self._layout.switch))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    @cached_property
    def tester(self) -> Tester:
        """The tester; its processes start with the first use, and end with the block."""
        return self._stack.enter_context(Tester(self.lab, self.running, name=self._name, layout=self._layout))

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Resume the paused engine while this block lasts, then pause it again."""
        self.running.resume()
        try:
            yield
        finally:
            self.running.pause()

    @property
    def ports(self) -> int:
        """Pods of the lab."""
        return len(self.lab)

    def trial(self, offer: Offer) -> Trial:
        """Run one trial; raise BenchError when the engine has died, or nothing of a plain offer arrives.

        It is refused where the engine cannot emulate the offer's link.
        """
        if offer.link is not None and (reason := self._engine.refuses(offer.link)):
            raise BenchError(f"{self._name}: {offer.link}: {reason}")
        return self.tester.trial(offer)

    def restart(self) -> None:
        """Stop the engine and start it: its FDB is empty then."""
        self.tester.restart()


def _offloads(lab: Lab) -> dict[str, str]:
    pod = lab.pods[0]
    with (
        pod.socket(socket.AF_INET, socket.SOCK_DGRAM) as inside,
        pod.port.open_socket(socket.AF_INET, socket.SOCK_DGRAM) as outside,
    ):
        return {
            "pod end": read_offloads(inside, pod.interface),
            "host end": read_offloads(outside, pod.port.name),
        }
