"""Engines side by side.

Every engine gets a lab of its own, so that all stand ready at once and a block can visit them in any
order with nothing to start or stop in between; only one of them has traffic at a time. An engine that
cannot be started, dies, forwards nothing or loses frames at low load becomes unfit, with the reason,
and the run goes on.
"""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime, timezone

from fastbridge.errors import BenchError, ConfigError, FastbridgeError
from fastbridge.topology import Lab, Topology

from .engines import Engine
from .engines.direct import Direct
from .engines.fastbridge import Fastbridge
from .engines.linux_bridge import LinuxBridge
from .engines.python_sockets import PythonSockets
from .fingerprint import take_fingerprint
from .machine import Layout
from .offloads import read_offloads
from .results import SCHEMA, EngineRecord, Results, Scenario, Trial, Unfit
from .statistics import interleave
from .tester import Tester

Progress = Callable[[int, int, str], None]  #: steps done, steps in all, what runs now

LOW_LOAD = 10_000.0  # frames/s of the fitness check: 2-5 % of what a veth sender can do
LOW_LOAD_SECONDS = 0.1
LOW_LOAD_LOSS = 0.001
DISCARDED_SECONDS = 0.1  # the warm-up trial at full load


@dataclass(frozen=True)
class Profile:
    """What is measured, and for how long."""

    name: str
    blocks: int
    scenarios: tuple[Scenario, ...]


# Trials are shorter than the usual 1-2 s, so that 10 blocks of everything end within 90 seconds; TCP's are the
# longest, because a stream's rate wanders more than that of frames.
QUICK = Profile(
    "quick",
    10,
    (Scenario("64 B", 64, seconds=0.35), Scenario("1518 B", 1518, seconds=0.35), Scenario("TCP bulk", seconds=0.6)),
)
# Without IPv6 no kernel says a word of its own, so that the receivers' counters hold test frames only.
_PAIR = Topology.of(2, ipv6=None)
ENGINES: tuple[Engine, ...] = (Fastbridge(), LinuxBridge(), PythonSockets(), Direct())


def compare(
    engines: Sequence[Engine] = ENGINES,
    *,
    baseline: str = "linux-bridge",
    profile: Profile = QUICK,
    seed: int | None = None,
    progress: Progress = lambda done, total, text: None,
) -> Results:
    """Measure `engines` interleaved, and the one named `baseline` a second time as A/A control.

    Ctrl-C during the trials ends them and keeps what was measured: `interrupted` is then set. `seed`
    gives the order of every block and the bootstrap; one is made up, and recorded, when it is None.
    """
    entries = {engine.name: engine for engine in engines}
    if len(entries) < len(engines):
        raise ConfigError(f"two engines have the same name: {', '.join(engine.name for engine in engines)}")
    if baseline not in entries:
        raise ConfigError(f"the baseline {baseline!r} is not among the engines: {', '.join(entries)}")
    control = f"{baseline} (control)"
    entries[control] = entries[baseline]
    contest = _Contest(entries, profile, secrets.randbelow(1 << 32) if seed is None else seed, progress)
    layout = Layout.of_machine()
    started = datetime.now(timezone.utc).isoformat(timespec="seconds")
    with ExitStack() as stack:
        contest.start(stack, layout)
        interrupted = contest.measure()
    return Results(
        schema=SCHEMA,
        profile=profile.name,
        started=started,
        seed=contest.seed,
        blocks=profile.blocks,
        baseline=baseline,
        control=control,
        interrupted=interrupted,
        fingerprint=take_fingerprint(layout.described(), contest.offloads),
        scenarios=profile.scenarios,
        engines=tuple(contest.records.values()),
        unfit=tuple(contest.unfit),
        trials=tuple(contest.trials),
    )


class _Contest:
    """One run: who takes part, who has dropped out, and what was measured so far."""

    def __init__(self, entries: dict[str, Engine], profile: Profile, seed: int, progress: Progress) -> None:
        self.entries, self.profile, self.seed = entries, profile, seed
        self.testers: dict[str, Tester] = {}
        self.records = {name: EngineRecord(name, e.version(), "", "", e.joins) for name, e in entries.items()}
        self.offloads: dict[str, str] = {}
        self.unfit: list[Unfit] = []
        self.trials: list[Trial] = []
        self._progress = progress
        self._done = 0
        pairs = sum(self._takes_part(name, scenario) for name in entries for scenario in profile.scenarios)
        self._total = len(entries) + pairs * (profile.blocks + 1)

    def start(self, stack: ExitStack, layout: Layout) -> None:
        """Start every engine in a lab of its own; `stack` ends them all.

        A lab that cannot be made is no engine's fault, and ends the run.
        """
        for name, engine in self.entries.items():
            self._step(f"starting {name}")
            lab = stack.enter_context(Lab(_PAIR))
            self.offloads = self.offloads or _read_offloads(lab)
            try:
                with ExitStack() as own:
                    running = own.enter_context(engine.attach(lab, layout.switch))
                    tester = Tester(lab, running, name=name, layout=layout, joined=engine.joins)
                    self.testers[name] = own.enter_context(tester)
                    record = self.records[name]
                    self.records[name] = replace(record, command=running.command, buffers=running.buffers)
                    stack.enter_context(own.pop_all())
            except FastbridgeError as error:
                for scenario in self.profile.scenarios:
                    self._drop(name, scenario, error)

    def measure(self) -> bool:
        """Check fitness, then run the blocks; True when Ctrl-C ended it early."""
        try:
            for scenario in self.profile.scenarios:
                for name in self.entries:
                    self._try(name, scenario, self._check_fitness, f"{scenario.name}: is {name} fit?")
            for block, order in enumerate(interleave(list(self.entries), self.profile.blocks, self.seed)):
                for scenario in self.profile.scenarios:
                    for position, name in enumerate(order):

                        def trial(tester: Tester, scenario: Scenario, block: int = block, at: int = position) -> None:
                            self.trials.append(tester.run(scenario, block=block, position=at))

                        self._try(name, scenario, trial, f"block {block + 1}: {scenario.name}, {name}")
        except KeyboardInterrupt:
            return True
        return False

    def _try(self, name: str, scenario: Scenario, act: Callable[[Tester, Scenario], None], text: str) -> None:
        if not self._takes_part(name, scenario):
            return
        self._step(text)
        if any((entry.engine, entry.scenario) == (name, scenario.name) for entry in self.unfit):
            return
        try:
            act(self.testers[name], scenario)
        except FastbridgeError as error:
            self._drop(name, scenario, error)

    def _check_fitness(self, tester: Tester, scenario: Scenario) -> None:
        # About no loss at low load, then one trial at full load that is thrown away.
        if scenario.frame_size is not None:
            low = tester.run(replace(scenario, rate=LOW_LOAD, seconds=LOW_LOAD_SECONDS))
            if low.loss_ratio is not None and low.loss_ratio > LOW_LOAD_LOSS:
                raise BenchError(
                    f"lost {low.loss_ratio:.1%} of {low.offered} frames at a low load of {LOW_LOAD:.0f} frames/s"
                )
        tester.run(replace(scenario, seconds=DISCARDED_SECONDS))

    def _takes_part(self, name: str, scenario: Scenario) -> bool:
        return self.entries[name].joins or scenario.frame_size is not None

    def _drop(self, name: str, scenario: Scenario, error: FastbridgeError) -> None:
        self.unfit.append(Unfit(name, scenario.name, str(error)))

    def _step(self, text: str) -> None:
        self._progress(self._done, self._total, text)
        self._done += 1


def _read_offloads(lab: Lab) -> dict[str, str]:
    pod = lab.pods[0]
    with (
        pod.socket(socket.AF_INET, socket.SOCK_DGRAM) as inside,
        pod.port.open_socket(socket.AF_INET, socket.SOCK_DGRAM) as outside,
    ):
        return {
            "pod end": read_offloads(inside, pod.interface),
            "host end": read_offloads(outside, pod.port.name),
        }
