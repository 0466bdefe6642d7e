"""Results of simulated switches: every method on engines of known properties, without a machine to measure.

`every_method()` is what a long profile leaves behind, in small; made once and kept, since tests only read it.
"""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from functools import cache
from typing import Any

from fake_dut import FakeDut
from fake_link import FakeLink

from fastbridge.bench import Results, Trial
from fastbridge.bench.machine.fingerprint import Fingerprint
from fastbridge.bench.methods import Method
from fastbridge.bench.methods.address_caching import AddressCaching
from fastbridge.bench.methods.address_learning import AddressLearning
from fastbridge.bench.methods.back_to_back import BackToBack
from fastbridge.bench.methods.broadcast import Broadcast
from fastbridge.bench.methods.congestion import Congestion
from fastbridge.bench.methods.emulation import Emulation
from fastbridge.bench.methods.errored_frames import ErroredFrames
from fastbridge.bench.methods.fdb_scaling import FdbScaling
from fastbridge.bench.methods.forwarding_rate import ForwardingRate
from fastbridge.bench.methods.frame_loss import FrameLoss
from fastbridge.bench.methods.latency import Latency, LatencyAtLoad
from fastbridge.bench.methods.max_forwarding_rate import MaxForwardingRate
from fastbridge.bench.methods.measurer import Recorder
from fastbridge.bench.methods.mesh import Mesh
from fastbridge.bench.methods.ping import Ping
from fastbridge.bench.methods.port_scaling import PortScaling
from fastbridge.bench.methods.recovery import Recovery
from fastbridge.bench.methods.request_response import RequestResponse
from fastbridge.bench.methods.reset import Reset
from fastbridge.bench.methods.tcp_bulk import TcpBulk
from fastbridge.bench.methods.throughput import Throughput
from fastbridge.bench.results.results import EngineRecord, Run, TaskRecord, Unfit
from fastbridge.bench.wanted_link import WantedLink

HOSTILE = (
    "<img src=x onerror=alert(1)> </script>|*_`[x](y)"  #: anybody may have written a name, a reason or a command line
)
SEARCH: dict[str, Any] = {"seconds": 0.2, "duration_sum": 0.4, "width": 0.1}
CONTEST: tuple[Method, ...] = (
    ForwardingRate((64,), seconds=0.2),
    ForwardingRate((1518,), seconds=0.2),
    TcpBulk(0.2),
    TcpBulk(0.2, 8, pinned=False),
    RequestResponse(seconds=0.2),
    Ping(bulk=1, seconds=0.2),
    LatencyAtLoad(4_000.0, seconds=0.3),
)
SINGLE: tuple[Method, ...] = (
    Throughput(**SEARCH),
    Latency(stream_seconds=0.5, idle=1_000.0, **SEARCH),
    FrameLoss(seconds=0.2),
    BackToBack((64,), 2, 0.2, **SEARCH),
    Recovery((64,), 0.3, 0.5, 1, **SEARCH),
    Reset((64,), 1.0, 1, 0.2),
    RequestResponse(connect=True, seconds=0.2),
    MaxForwardingRate(seconds=0.2),
    Mesh(4, **SEARCH),
    Congestion(seconds=0.2),
    AddressCaching(600, width=0.1),
    AddressLearning(500, width=0.2),
    ErroredFrames(frames=50),
    Broadcast(4, (64,), 0.3, **SEARCH),
    FdbScaling((2, 100, 500), seconds=0.2),
    *(PortScaling(ports, seconds=0.2) for ports in (2, 4)),
    *(
        Emulation(link, 1.0, 5000.0)
        for link in (
            WantedLink(delay=0.02),
            WantedLink(delay=0.02, jitter=0.005, distribution="normal", overtakes=True),
            WantedLink(loss=0.05, burst=5),
            WantedLink(rate=10_000_000, limit=62_500),
        )
    ),
)
# The properties of each engine. The tester sends 20,000 frames/s.
DUTS: dict[str, dict[str, Any]] = {
    "linux-bridge": {"rate": 12_000, "delay": 5e-6, "tcp_rate": 30e9},
    "fastbridge": {"rate": 15_000, "delay": 20e-6, "tcp_rate": 15e9},
    HOSTILE: {"rate": 6_000, "delay": 60e-6, "tcp_rate": 12e9, "capacity": 300},
    "linux-bridge (control)": {"rate": 12_000, "delay": 5e-6, "tcp_rate": 30e9},
    "direct": {"rate": None, "delay": 1e-6, "tcp_rate": 31e9},
}
# What its emulator makes of a link.
FAULTS: dict[str, dict[str, Any]] = {
    "linux-bridge": {"delay": lambda seconds: 1.1 * seconds},
    HOSTILE: {"distribution": lambda kind: "uniform", "rate": lambda bits: round(0.8 * bits)},
}
BLOCKS = 5
FINGERPRINT = Fingerprint(
    cpu="Example CPU",
    cpus=2,
    microcode="0x1",
    hypervisor="none seen",
    kernel="6.1.0 #1 SMP",
    boot="none that matters",
    governor="performance",
    mitigations={"spectre_v2": "Mitigation: Retpolines"},
    versions={"python": "3.12", "fastbridge": "0.1"},
    layout={"sender": "CPU 0", "switch": "CPU 1"},
    offloads={"pod end": "tx on"},
)


def task_of(method: Method, blocks: int) -> TaskRecord:
    parameters = json.loads(json.dumps(asdict(method)))  # type: ignore[call-overload]
    return TaskRecord(
        f"{method.name.replace('-', ' ')}, {method.subject}", method.name, parameters, method.ports, blocks
    )


@cache
def every_method() -> Results:
    """A contest of BLOCKS blocks, every other method once, and an engine that could not be started."""
    listed = [(task_of(method, BLOCKS), method) for method in CONTEST] + [
        (task_of(method, 1), method) for method in SINGLE
    ]
    runs = []
    for task, method in listed:
        for block in range(task.blocks):
            for position, engine in enumerate(DUTS):
                if task.blocks == 1 and engine in ("linux-bridge (control)", "direct"):
                    continue
                runs.append(one_run(method, task, engine, block, position))
    return Results(
        schema=4,
        profile="made up",
        started="2026-01-01T00:00:00+00:00",
        seed=1,
        baseline="linux-bridge",
        control="linux-bridge (control)",
        interrupted=False,
        fingerprint=FINGERPRINT,
        tasks=tuple(task for task, _ in listed),
        engines=(
            *(EngineRecord(name, "1", f"run {name}", "-", name == "direct", "default") for name in DUTS),
            EngineRecord("broken", "-", "-", "-", False, "default"),
        ),
        runs=tuple(runs),
        unfit=(Unfit("broken", None, f"not available: {HOSTILE}"),),
    )


def one_run(method: Method, task: TaskRecord, engine: str, block: int, position: int) -> Run:
    """A run. Each block is a little faster than the one before, and the control a little slower than the baseline."""
    properties = dict(DUTS[engine])
    speed = 1.0 + 0.01 * block - (0.005 * (-1) ** block if "control" in engine else 0.0)
    if properties["rate"] is not None:
        properties["rate"] *= speed
    properties["tcp_rate"] *= speed
    properties["delay"] *= speed
    if method.link is not None:
        emulated = Recorder(FakeLink(seed=block + 1, **FAULTS.get(engine, {})))
        method.run(emulated)
        return Run(engine, task.name, block, position, tuple(emulated.trials))
    recorder = Recorder(
        _WithCpu(FakeDut(method.ports, buffer=50, sender_rate=20_000, seed=block, **properties), engine)
    )
    method.run(recorder)
    return Run(engine, task.name, block, position, tuple(recorder.trials))


class _WithCpu:
    """Adds CPU time to trials: 20 µs for each offered frame (tester), 10 µs for each forwarded one (switch)."""

    def __init__(self, dut: FakeDut, engine: str) -> None:
        self._dut, self._switch = dut, engine != "direct"
        self.ports = dut.ports

    def trial(self, offer: Any) -> Trial:
        trial = self._dut.trial(offer)
        frames = trial.window_frames or 0
        tester = (trial.offered or 0) * trial.window_seconds / trial.seconds * 20e-6
        switch = frames * 10e-6 if self._switch else None
        return replace(trial, cpu_machine_seconds=tester + (switch or 0.0), cpu_switch_seconds=switch)

    def restart(self) -> None:
        self._dut.restart()
