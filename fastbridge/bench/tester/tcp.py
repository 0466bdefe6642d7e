"""TCP bulk trials.

One connection with default offloads between two pods, each with a station of its own, as TCP is the pods' kernels'.
There is nothing to pace or to stamp in it: frames of 64 KB come and go as the kernels like.
"""

from __future__ import annotations

from collections.abc import Sequence

from fastbridge.bench.engines import Running
from fastbridge.bench.machine.cpus import Layout
from fastbridge.errors import BenchError, ConfigError
from fastbridge.lab.pods import Pod

from .agent_process import ANSWER_SECONDS, AgentProcess
from .offer import Offer
from .readings import Reading
from .trial import Trial

WARM_UP = 0.1  # seconds of sending before the window: slow start is over


class Bulk:
    """The stations in the pods, and their trials."""

    def __init__(self, pods: Sequence[Pod], running: Running, layout: Layout) -> None:
        self._pods, self._running, self._layout = pods, running, layout
        self._agents: dict[tuple[int, int], AgentProcess] = {}

    def trial(self, offer: Offer) -> Trial:
        """One bulk stream, for as long as the phases are; after a BenchError stop() is called for."""
        stream = offer.streams[0]
        if len(stream.destinations) != 1 or not offer.seconds or offer.restart is not None:
            raise ConfigError("a TCP trial has one destination, a length in seconds and no restart")
        pod = self._pods[stream.destinations[0]]
        if pod.ipv4 is None:
            raise BenchError(f"{pod.name} has no IPv4 address to connect to")
        address = str(pod.ipv4.ip)
        sink = self._agent(stream.destinations[0], self._layout.receiver)
        source = self._agent(stream.source, self._layout.sender)
        port = sink.ask(do="receive_tcp", address=address, warm_up=WARM_UP, seconds=offer.seconds)["port"]
        source.tell(do="send_tcp", address=address, port=port)
        try:
            sink.answer(ANSWER_SECONDS)  # the window begins
        except BenchError as error:
            raise BenchError(
                f"TCP does not come through ({error}): does it carry frames whose checksum is left to the interface, "
                "and GSO frames of 64 KB?"
            ) from None
        first = Reading.of([pod], self._running)
        received = sink.answer(offer.seconds + ANSWER_SECONDS)
        last = Reading.of([pod], self._running)
        source.answer(ANSWER_SECONDS)
        window = first.until(last, received["seconds"])
        window |= {"window_bytes": received["bytes"], "window_frames": None}
        return Trial(offer, seconds=received["seconds"], **window)

    def stop(self) -> None:
        """End the stations; one side may still wait for the other."""
        for station in self._agents.values():
            station.stop()

    def _agent(self, port: int, cpu: int) -> AgentProcess:
        pod = self._pods[port]
        if (port, cpu) not in self._agents:
            self._agents[port, cpu] = AgentProcess(pod.popen, cpu, f"the tester in {pod.name}")
        self._agents[port, cpu].start()  # both side by side
        return self._agents[port, cpu]
