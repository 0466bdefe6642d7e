"""Trials between programs in the pods: TCP and pings.

They run with default offloads, with an agent in each of two pods. The pods' kernels make the frames, of up to 64 KB,
and nobody counts them. The agents count bytes and requests, and measure how long an answer takes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastbridge.bench.engines import Running
from fastbridge.bench.machine.cpus import Layout
from fastbridge.errors import BenchError, ConfigError
from fastbridge.lab.pods import Pod

from .agent_process import ANSWER_SECONDS, AgentProcess
from .offer import Offer, Stream
from .readings import Reading
from .samples import SampleLog, Window
from .trial import CAPACITY, Samples, Trial

WARM_UP = 0.1  # seconds before the window: slow start ends, and neighbours and addresses get known
REQUEST_BYTES, ECHO_BYTES = 1, 56  # of a request over TCP and of a ping; an answer has as many
PING_RATE = 1000.0  # requests/s, unless the offer says otherwise


class EndToEnd:
    """The agents in the pods, and their trials."""

    def __init__(self, pods: Sequence[Pod], running: Running, layout: Layout, log: SampleLog) -> None:
        self._pods, self._running, self._layout, self._log = pods, running, layout, log
        self._agents: dict[tuple[str, int, int | None], AgentProcess] = {}

    def trial(self, offer: Offer) -> Trial:
        """Run one trial, as long as its phases. After a BenchError, call stop()."""
        streams = {stream.kind: stream for stream in offer.streams}
        if not offer.seconds or offer.restart is not None or len(offer.phases) > 1:
            raise ConfigError("a trial of TCP or ping has one phase, a length in seconds and no restart")
        if any(len(stream.destinations) != 1 for stream in offer.streams):
            raise ConfigError("a stream of TCP or ping has one destination")
        if offer.phases[0].rate is not None and "ping" not in streams:
            raise ConfigError("only pings have a rate: TCP finds its own")
        if "ping" in streams:
            return self._ping(offer, streams["ping"], streams.get("tcp"))
        return self._bulk(offer) if "tcp" in streams else self._requests(offer)

    def stop(self) -> None:
        """End the agents, even if one still waits for another."""
        for agent in self._agents.values():
            agent.stop()

    def _bulk(self, offer: Offer) -> Trial:
        (stream,) = offer.streams
        source, sink = self._begin_bulk(stream, offer.seconds)
        received, window = self._window(sink, offer, stream)
        source.answer(ANSWER_SECONDS)
        return _trial(offer, window, received["bytes"])

    def _begin_bulk(self, stream: Stream, seconds: float) -> tuple[AgentProcess, AgentProcess]:
        """The sender and the receiver. The receiver counts bytes from now on and answers their number."""
        source, sink = self._pair(stream)
        port = sink.ask(
            do="receive_tcp",
            address=self._address(stream),
            warm_up=WARM_UP,
            seconds=seconds,
            connections=stream.flows,
        )["port"]
        source.tell(do="send_tcp", address=self._address(stream), port=port, connections=stream.flows)
        try:
            sink.answer(ANSWER_SECONDS)  # the window begins
        except BenchError as error:
            raise BenchError(
                f"TCP does not come through ({error}): does it carry frames with the checksum left to the interface, "
                "and GSO frames of 64 KB?"
            ) from None
        return source, sink

    def _requests(self, offer: Offer) -> Trial:
        (stream,) = offer.streams
        how = {"size": REQUEST_BYTES, "each": stream.kind == "tcp-crr"}
        self._log.clear()
        client, server = self._pair(stream)
        port = server.ask(do="answer_requests", address=self._address(stream), **how)["port"]
        client.ask(
            do="send_requests",
            address=self._address(stream),
            port=port,
            warm_up=WARM_UP,
            seconds=offer.seconds,
            log=self._log.fd,
            **how,
        )
        asked, window = self._window(client, offer, stream)
        server.answer(ANSWER_SECONDS)
        return _trial(offer, window, 2 * REQUEST_BYTES * asked["requests"], self._samples(asked["requests"]))

    def _ping(self, offer: Offer, stream: Stream, beside: Stream | None) -> Trial:
        """Run pings. With a bulk transfer beside them, the window has the transfer's bytes."""
        rate = offer.phases[0].rate or PING_RATE
        self._log.clear()
        client = self._agent("the tester's ping", stream.source, self._layout.sender)
        client.wait_until_ready()
        bulk = self._begin_bulk(beside, offer.seconds + 2 * WARM_UP) if beside is not None else None
        client.ask(
            do="ping",
            address=self._address(stream),
            rate=rate,
            warm_up=WARM_UP,
            seconds=offer.seconds,
            log=self._log.fd,
        )
        asked, window = self._window(client, offer, stream)
        samples = self._samples(asked["requests"], asked["altered"])
        octets = samples.received * ECHO_BYTES
        if bulk is not None:
            source, sink = bulk
            received = sink.answer(ANSWER_SECONDS)
            source.answer(ANSWER_SECONDS)
            octets = round(received["bytes"] * asked["seconds"] / received["seconds"])
        return _trial(offer, window, octets, samples)

    def _samples(self, requests: int, altered: int = 0) -> Samples:
        if requests >= CAPACITY:
            raise BenchError(f"more than {CAPACITY - 1:,} requests in a trial: make it shorter")
        began = int(self._log.sent[0])
        heard = {"duplicated": 0, "reordered": 0, "corrupted": altered, "missed": 0}
        return self._log.samples(Window(requests, None, len(self._pods), began), heard)

    def _pair(self, stream: Stream) -> tuple[AgentProcess, AgentProcess]:
        """The agents of both pods, ready. They start side by side."""
        source = self._agent("the tester", stream.source, self._layout.sender)
        sink = self._agent("the tester", stream.destinations[0], self._layout.receiver if stream.pinned else None)
        for agent in (source, sink):
            agent.wait_until_ready()
        return source, sink

    def _agent(self, what: str, port: int, cpu: int | None) -> AgentProcess:
        pod, key = self._pods[port], (what, port, cpu)
        if key not in self._agents:
            self._agents[key] = AgentProcess(pod.popen, cpu, f"{what} in {pod.name}", shared=self._log.fd)
        self._agents[key].start()  # without waiting, so two start side by side
        return self._agents[key]

    def _address(self, stream: Stream) -> str:
        pod = self._pods[stream.destinations[0]]
        if pod.ipv4 is None:
            raise BenchError(f"{pod.name} has no IPv4 address to connect to")
        return str(pod.ipv4.ip)

    def _window(self, agent: AgentProcess, offer: Offer, stream: Stream) -> tuple[dict[str, Any], dict[str, Any]]:
        """What the agent that measures answers at the end of its window, and what the pods counted meanwhile."""
        first = self._read(stream)
        answer = agent.answer(offer.seconds + ANSWER_SECONDS)
        return answer, first.until(self._read(stream), answer["seconds"])

    def _read(self, stream: Stream) -> Reading:
        return Reading.of([self._pods[stream.destinations[0]]], self._running)


def _trial(offer: Offer, window: dict[str, Any], octets: int, samples: Samples | None = None) -> Trial:
    window |= {"window_bytes": octets, "window_frames": None}
    return Trial(offer, seconds=window["window_seconds"], **window, samples=samples)
