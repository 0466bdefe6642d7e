"""Engines side by side.

Tasks with the same number of ports share labs. Every engine gets its own lab, so all are ready at once, and a block can
visit them in any order without a start or a stop. Only one engine has traffic at a time. The others are stopped
meanwhile: an engine that polls would use the CPU. An engine that cannot be started, dies, forwards nothing or loses
frames at low load becomes unfit, with the reason, and the run goes on.
"""

from __future__ import annotations

import dataclasses
import json
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime, timezone
from importlib.util import find_spec

from fastbridge.errors import BenchError, ConfigError, FastbridgeError
from fastbridge.extras import way_to

from .engines import CommandEngine, Direct, Engine, Fastbridge, LinuxBridge, PythonSockets, Running
from .machine.cpus import Layout
from .machine.fingerprint import take_fingerprint
from .methods import Method
from .methods.measurer import Recorder
from .methods.throughput import Throughput
from .profiles import FINE, QUICK, Profile, Task
from .report.rows import rows
from .report.statistics import interleave
from .results.results import INTERRUPTED, SCHEMA, EngineRecord, Results, Run, TaskRecord, Unfit
from .testbed import Testbed
from .tester.offer import Stream, steady
from .tester.trial import Trial

Progress = Callable[[float, float, str], None]  #: share done (0 … 1), seconds left, what runs now
Keep = Callable[[Results], None]  #: gets the results so far, after every block

# The fitness check: 5 % of the direct veth pair's rate, at which a sound switch loses about nothing; without a direct
# pair, 2-5 % of a veth sender's rate.
LOW_SHARE, LOW_LOAD = 0.05, 10_000.0
LOW_LOAD_SECONDS = 0.2
LOW_LOAD_LOSS = 0.001
TRIES = 3  # before an engine is unfit: a hiccup of the machine can spoil some
DISCARDED_SECONDS = 0.1  # the warm-up trial at full load
START_SECONDS = 1.0  # an engine's start and fitness check, for the time left

_PACKAGES = {"hdrh": "hdrhistogram", "MLRsearch": "MLRsearch"}  # of the extra, by module

DEFAULT_ENGINES: tuple[Engine, ...] = (Fastbridge(), LinuxBridge(), PythonSockets())


def compare(
    engines: Sequence[Engine] = DEFAULT_ENGINES,
    *,
    baseline: str = "linux-bridge",
    profile: Profile = QUICK,
    seed: int | None = None,
    progress: Progress = lambda share, left, text: None,
    keep: Keep = lambda results: None,
    command: str = "",
) -> Results:
    """Measure `engines` interleaved, the one named `baseline` a second time as A/A control, and the direct veth pair.

    Ctrl-C ends the trials and keeps what was measured: `interrupted` is then set. `seed` gives the order of every
    block and the bootstrap; a random one is recorded when it is None. `command` is recorded, too: it measures the same
    again. Raises what `check_request` does.
    """
    check_request(engines, baseline=baseline, profile=profile)
    entries = {engine.name: engine for engine in engines}
    control = f"{baseline} (control)"
    entries[control] = entries[baseline]
    entries.setdefault(Direct().name, Direct())
    layout = Layout.of_machine()
    started = datetime.now(timezone.utc).isoformat(timespec="seconds")
    seed = secrets.randbelow(1 << 32) if seed is None else seed
    contest = _Contest(entries, control, profile, seed, progress)
    fingerprint = take_fingerprint(layout.described(), {})  # once: it starts programs, which would disturb the trials

    def noise_floor(task: Task) -> float | None:
        record = _record(task)
        runs = tuple(run for run in contest.runs if run.task == task.name)
        measured = rows(replace(results(True), tasks=(record,), runs=runs))
        if any(row.verdict == "withheld" for row in measured):
            return None  # nothing will be claimed, however fine it is
        return next((row.noise_floor for row in measured), None)

    def results(interrupted: bool) -> Results:
        return Results(
            schema=SCHEMA,
            profile=profile.name,
            started=started,
            seed=seed,
            baseline=baseline,
            control=control,
            interrupted=interrupted,
            fingerprint=replace(fingerprint, offloads=contest.offloads),
            tasks=tuple(replace(_record(task), blocks=contest.blocks(task)) for task in profile.tasks),
            engines=tuple(contest.records.values()),
            runs=tuple(contest.runs),
            unfit=tuple(contest.unfit),
            command=command,
        )

    return results(contest.measure(layout, lambda: keep(results(True)), noise_floor))


def check_request(engines: Sequence[Engine], *, baseline: str, profile: Profile) -> None:
    """Raise ConfigError for engines that cannot be compared, BenchError when a package or a program is missing.

    During the measurement it would look like the engines' fault, and the user would learn of it only at the end. Of the
    known engines only the baseline must be able to run: the others are left out, with the reason.
    """
    names = [engine.name for engine in engines]
    if len(set(names)) < len(names):
        raise ConfigError(f"two engines have the same name: {', '.join(names)}")
    if baseline not in names:
        known = ", ".join(names)
        raise ConfigError(f"the baseline {baseline!r} is not among the engines ({known}): add it, or choose another")
    for engine in engines:
        if (engine.name == baseline or isinstance(engine, CommandEngine)) and (reason := engine.missing()):
            raise BenchError(f"{engine.name}: {reason}")
    found = [task.method.units for task in profile.tasks]
    needed = {
        "hdrh": any({"µs", "ms", "s"} & {*units.values()} for units in found),  # such times are those of samples
        "MLRsearch": any(Throughput.units.keys() <= units.keys() for units in found),
    }
    missing = [_PACKAGES[module] for module, is_needed in needed.items() if is_needed and find_spec(module) is None]
    if missing:
        raise BenchError(f"profile {profile.name} needs {', '.join(missing)}: {way_to('bench')}")


class _Contest:
    """One run of the bench: the engines that take part or dropped out, and the measurements so far."""

    def __init__(
        self, entries: dict[str, Engine], control: str, profile: Profile, seed: int, progress: Progress
    ) -> None:
        self.entries, self.control, self.profile, self.seed = entries, control, profile, seed
        self.records: dict[str, EngineRecord] = {}
        self.offloads: dict[str, str] = {}
        self.unfit: list[Unfit] = []
        self.runs: list[Run] = []
        self._paths: dict[str, tuple[int, int]] = {}
        self._failed: dict[tuple[str, str], int] = {}
        self._low_load = LOW_LOAD
        self._clock = _Clock(progress)

    def measure(
        self, layout: Layout, block_done: Callable[[], None], noise_floor: Callable[[Task], float | None]
    ) -> bool:
        """Run all tasks, those with the same number of ports together; True when Ctrl-C ended it early."""
        self._noise_floor = noise_floor
        for name, engine in self.entries.items():
            reason = engine.missing()
            version = "-" if reason else engine.version()
            self.records[name] = EngineRecord(name, version, "-", "-", engine.ceiling, "default")
            if reason:
                self.unfit.append(Unfit(name, None, f"not available: {reason}"))
                continue
            for task in self.profile.tasks:
                if not engine.ceiling and (text := _lacking(engine, task.method)):
                    self.unfit.append(Unfit(name, task.name, text))
        groups: dict[int, list[Task]] = {}
        for task in self.profile.tasks:
            groups.setdefault(task.method.ports, []).append(task)
        self._clock.plan(self._planned(groups))
        try:
            for ports, tasks in sorted(groups.items()):
                self._group(ports, tasks, layout, block_done)
        except KeyboardInterrupt:
            return True
        return False

    def _planned(self, groups: Mapping[int, list[Task]]) -> dict[str, tuple[int, float]]:
        # How often each step runs, and how long it takes by the profile's estimate.
        planned = {}
        for ports, tasks in groups.items():
            planned[f"start {ports}"] = (sum(self._joins(name, tasks) for name in self.entries), START_SECONDS)
            for task in tasks:
                runs = task.blocks * sum(self._takes_part(name, task) for name in self.entries)
                planned[task.name] = (runs, task.seconds)
        return planned

    def _group(self, ports: int, tasks: list[Task], layout: Layout, block_done: Callable[[], None]) -> None:
        with ExitStack() as stack:
            beds = self._start(stack, ports, tasks, layout)
            names = list(beds)
            block = 0
            while due := [task for task in tasks if self._has_block(task, block)]:
                # Another order for every task too: no engine must always run behind the same other one.
                orders = interleave(names, len(tasks), self.seed + block)
                for task, order in zip(tasks, orders, strict=True):
                    if task in due:
                        for position, name in enumerate(n for n in order if self._takes_part(n, task)):
                            self._run(beds[name], name, task, block, position)
                block_done()
                block += 1
        for name, bed in beds.items():
            self._note_path(name, bed.running)

    def blocks(self, task: Task) -> int:
        """How many there are of it: those intended, or more where the noise was."""
        return max([task.blocks, *(run.block + 1 for run in self.runs if run.task == task.name)])

    def _has_block(self, task: Task, block: int) -> bool:
        # By the control alone: whether there is another block does not depend on what is compared.
        if block < task.blocks:
            return True
        has_more = block < task.most and (self._noise_floor(task) or 0.0) > FINE
        if has_more:
            self._clock.more(task.name, sum(self._takes_part(name, task) for name in self.entries))
        return has_more

    def _start(self, stack: ExitStack, ports: int, tasks: list[Task], layout: Layout) -> dict[str, Testbed]:
        """Start every engine in a lab of its own and see whether it is fit; `stack` ends them all."""
        beds: dict[str, Testbed] = {}
        # The direct pair first: the load of the fitness check is a share of what it takes.
        for name in sorted(self.entries, key=lambda name: not self.entries[name].ceiling):
            if not self._joins(name, tasks):
                continue
            with self._clock.step(f"start {ports}", f"{ports} ports: starting {name}"), ExitStack() as own:
                try:
                    bed = own.enter_context(Testbed(self.entries[name], ports, layout=layout, name=name))
                    self.offloads = self.offloads or bed.offloads
                    self._note(name, bed.running)
                    self._check_fitness(name, bed)
                    bed.running.pause()
                except FastbridgeError as error:
                    for task in (task for task in tasks if self._takes_part(name, task)):
                        self.unfit.append(Unfit(name, task.name, str(error)))
                        self._clock.skip(task.name, task.blocks)
                    continue
                beds[name] = bed
                stack.enter_context(own.pop_all())
        return beds

    def _note(self, name: str, running: Running) -> None:
        record = self.records[name]
        if record.command == "-":
            off = "default" if not self.entries[name].offloads_off else "turned off"
            self.records[name] = replace(record, command=running.command, buffers=running.buffers, offloads=off)

    def _note_path(self, name: str, running: Running) -> None:
        kernel, core = map(sum, zip(running.paths or (0, 0), self._paths.get(name, (0, 0)), strict=True))
        if kernel + core:
            self._paths[name] = kernel, core
            self.records[name] = replace(self.records[name], kernel_share=kernel / (kernel + core))

    def _check_fitness(self, name: str, bed: Testbed) -> None:
        # About no loss at low load, then one trial at full load that is thrown away.
        stream = Stream(0, (1,))
        for tries_left in reversed(range(TRIES)):
            try:
                low = bed.trial(steady(stream, LOW_LOAD_SECONDS, self._low_load))
                if low.loss_ratio is not None and low.loss_ratio > LOW_LOAD_LOSS:
                    raise BenchError(
                        f"lost {low.loss_ratio:.1%} of {low.offered} frames at a low load of "
                        f"{self._low_load:,.0f} frames/s, in the last of {TRIES} tries{_beside(low)}"
                    )
                break
            except BenchError:
                if not tries_left or not bed.running.is_alive():
                    raise
        full = bed.trial(steady(stream, DISCARDED_SECONDS))
        if self.entries[name].ceiling and full.offered_rate:
            self._low_load = LOW_SHARE * full.offered_rate

    def _run(self, bed: Testbed, name: str, task: Task, block: int, position: int) -> None:
        if self._is_unfit(name, task):
            self._clock.skip(task.name)
            return
        recorder = Recorder(bed)
        unfinished: str | None = INTERRUPTED
        text = f"{task.name}, {name}" + (
            f", block {block + 1} of {max(task.blocks, block + 1)}" if task.blocks > 1 else ""
        )
        with self._clock.step(task.name, text):
            try:
                with bed.alone():
                    task.method.run(recorder)  # a report finds the same in the trials, with this code
                unfinished = None
            except FastbridgeError as error:
                unfinished = str(error)
                failed = self._failed[name, task.name] = self._failed.get((name, task.name), 0) + 1
                if failed == min(TRIES, task.blocks) or not bed.running.is_alive():
                    self.unfit.append(Unfit(name, task.name, unfinished))
            finally:  # Ctrl-C as well: what was measured is kept
                if recorder.trials or unfinished != INTERRUPTED:
                    self.runs.append(Run(name, task.name, block, position, tuple(recorder.trials), unfinished))

    def _is_unfit(self, name: str, task: Task) -> bool:
        return any(entry.engine == name and entry.task in (None, task.name) for entry in self.unfit)

    def _joins(self, name: str, tasks: Sequence[Task]) -> bool:
        return any(self._takes_part(name, task) for task in tasks)

    def _takes_part(self, name: str, task: Task) -> bool:
        engine = self.entries[name]
        if any(entry.engine == name and entry.task is None for entry in self.unfit):
            return False
        if name == self.control and task.blocks < 2:
            return False  # one run against itself has no interval
        if engine.ceiling and not task.ceiling:
            return False
        return _lacking(engine, task.method) is None


class _Clock:
    """Share done and time left, from the profile's estimates, and from measured lengths once there are any."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._left: dict[str, int] = {}
        self._each: dict[str, list[float]] = {}
        self._guess: dict[str, float] = {}
        self._spent = 0.0

    def plan(self, planned: Mapping[str, tuple[int, float]]) -> None:
        """Set the steps: name → (how often, estimated seconds each)."""
        self._left = {name: count for name, (count, _) in planned.items()}
        self._guess = {name: seconds for name, (_, seconds) in planned.items()}

    def step(self, name: str, text: str) -> ExitStack:
        """A context in which one step of this name runs."""
        left = sum(count * self._seconds(other) for other, count in self._left.items())
        self._progress(self._spent / (self._spent + left) if left else 1.0, left, text)
        self._left[name] -= 1
        began = time.monotonic()
        stack = ExitStack()
        stack.callback(self._finish, name, began)
        return stack

    def more(self, name: str, count: int) -> None:
        """Note that this many more steps of this name will run."""
        self._left[name] += count

    def skip(self, name: str, count: int = 1) -> None:
        """Note that this many steps of this name will not run."""
        self._left[name] -= count

    def _finish(self, name: str, began: float) -> None:
        took = time.monotonic() - began
        self._each.setdefault(name, []).append(took)
        self._spent += took

    def _seconds(self, name: str) -> float:
        known = self._each.get(name)
        return sum(known) / len(known) if known else self._guess[name]


def _lacking(engine: Engine, method: Method) -> str | None:
    """What an engine cannot do that a method needs; None if it can do it all."""
    if engine.most_ports is not None and method.ports > engine.most_ports:
        return f"joins {engine.most_ports} ports, and {method.ports} are needed"
    return None if method.link is None else engine.refuses(method.link)


def _beside(trial: Trial) -> str:
    """The share of other programs, where it may be the reason."""
    disturbance = trial.disturbance
    if disturbance is None or disturbance.foreign_seconds < 0.05 * disturbance.seconds:
        return ""
    return f", while other programs used {disturbance.foreign_seconds / disturbance.seconds:.1f} CPUs"


def _record(task: Task) -> TaskRecord:
    parameters = json.loads(json.dumps(dataclasses.asdict(task.method)))  # type: ignore[call-overload] # as read back
    return TaskRecord(task.name, task.method.name, parameters, task.method.ports, task.blocks)
