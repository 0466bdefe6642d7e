"""What else the machine does.

A switch that is a process competes for its CPU with every other program. The kernel's bridge does not. So beside other
work a comparison is wrong, and the control of one engine against itself cannot show it. Every trial therefore records
the CPU time of other programs, and how long a CPU quota stopped the bench.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from .cpus import CpuTime

FOREIGN_LIMIT = 0.05  # of the machine's CPU time: above it another program influenced the result
FOREIGN_LEAST = 0.03  # seconds; the kernel counts in steps of 10 ms, and one step proves nothing
THROTTLED_LIMIT = 0.01  # of a trial's length, on all CPUs together
SURVEY_SECONDS = 1.0
_NAMED, _SHOWN = 3, 0.05  # how many programs are named, and the CPUs that one of them uses at least
_TICK = 1.0 / os.sysconf("SC_CLK_TCK")
_KERNEL_THREAD = 0x00200000  # PF_KTHREAD of linux/sched.h


@dataclass(frozen=True)
class Disturbance:
    """Other work from before a trial's first frame until after its last."""

    seconds: float
    foreign_seconds: float  #: CPU time of programs that are neither the bench nor started by it
    throttled_seconds: float  #: for which a CPU quota stopped the bench or an engine, over all CPUs


def is_disturbed(disturbance: Disturbance, cpus: int) -> bool:
    """Whether other programs or a quota influenced a trial's result."""
    foreign = disturbance.foreign_seconds > max(FOREIGN_LEAST, FOREIGN_LIMIT * disturbance.seconds * cpus)
    return foreign or disturbance.throttled_seconds > THROTTLED_LIMIT * disturbance.seconds


@dataclass(frozen=True)
class _Process:
    name: str
    parent: int
    of_kernel: bool
    own: float  #: CPU seconds of all its threads
    reaped: float  #: of the children that it waited for


class Watch:
    """The CPU time of other programs, and the time of a quota, since it was made."""

    def __init__(self) -> None:
        self._processes, self._machine = _processes(), CpuTime.now()
        self._throttled, self._time = _throttled(), time.monotonic()

    def disturbance(self) -> Disturbance:
        """The disturbance until now."""
        seconds = time.monotonic() - self._time
        throttled = max(0.0, _throttled() - self._throttled)
        return Disturbance(seconds, sum(self.foreign().values()), throttled)

    def foreign(self) -> dict[str, float]:
        """CPU seconds of the programs that are neither this process nor started by it, by name."""
        now = _processes()
        if not any(process.of_kernel for process in now.values()):
            return self._unseen(now)
        used: dict[str, float] = {}
        ours = _family(now)
        for key, process in now.items():
            if key[0] not in ours and not process.of_kernel:
                used[process.name] = used.get(process.name, 0.0) + self._used(key, process)
        # When a program ends, its parent's count of waited-for children grows by all it used; the part from before the
        # watch does not count.
        by_pid = {key[0]: (key, process) for key, process in now.items()}
        for key, gone in self._processes.items():
            if key not in now and gone.parent in by_pid and gone.parent not in ours:
                parent_key, parent = by_pid[gone.parent]
                earlier = self._processes.get(parent_key)
                grown = parent.reaped - (earlier.reaped if earlier else 0.0)
                before = min(gone.own + gone.reaped, max(0.0, grown))
                used[parent.name] = used.get(parent.name, 0.0) - before
        return {name: seconds for name, seconds in used.items() if seconds > 0}

    def _used(self, key: tuple[int, int], process: _Process) -> float:
        before = self._processes.get(key)
        earlier = before.own + before.reaped if before else 0.0
        return max(0.0, process.own + process.reaped - earlier)

    def _unseen(self, now: Mapping[tuple[int, int], _Process]) -> dict[str, float]:
        # In its own PID namespace the bench sees no other program. Then the busy time of the machine less its own is a
        # lower bound. Interrupts do not count: nothing tells whose work they do.
        ours = _family(now)
        own = sum(self._used(key, process) for key, process in now.items() if key[0] in ours)
        return {"others": max(0.0, CpuTime.now().programs - self._machine.programs - own)}


def survey(cpus: int, seconds: float = SURVEY_SECONDS) -> Iterator[str]:
    """Watch before anything is measured, and name what will disturb: nothing on a quiet machine."""
    watch = Watch()
    time.sleep(seconds)
    found, took = watch.foreign(), watch.disturbance()
    if is_disturbed(Disturbance(took.seconds, sum(found.values()), 0.0), cpus):
        most = sorted(found.items(), key=lambda item: -item[1])[:_NAMED]
        shown = (f"{name} {used / took.seconds:.1f}" for name, used in most if used >= _SHOWN * took.seconds)
        names = ", ".join(shown) or "many"
        whose = "another program uses" if len(found) == 1 else "other programs use"
        yield (
            f"{whose} {sum(found.values()) / took.seconds:.1f} of {cpus} CPUs ({names}): "
            "verdicts will be withheld while that lasts"
        )
    if (quota := cpu_quota()) is not None and quota < cpus:
        yield (
            f"a CPU quota of {quota:.2g} CPUs holds here, of {cpus}: verdicts will be withheld where it stops the "
            "bench or an engine"
        )


def cpu_quota() -> float | None:
    """How many CPUs the control groups of this process let it use; None where they set no limit."""
    found = [quota for group in _groups() if (quota := _quota_of(group)) is not None]
    return min(found, default=None)


def _throttled() -> float:
    """Seconds for which a quota has stopped this process's groups so far, over all CPUs."""
    total = 0.0
    for group in _groups():
        try:
            lines = (group / "cpu.stat").read_text(encoding="ascii").splitlines()
        except OSError:
            continue  # the root group has no such file
        counts = dict(line.split() for line in lines if len(line.split()) == 2)
        total += int(counts.get("throttled_usec", 0)) * 1e-6 + int(counts.get("throttled_time", 0)) * 1e-9
    return total


def _quota_of(group: Path) -> float | None:
    try:
        if (group / "cpu.max").exists():
            quota, period = (group / "cpu.max").read_text(encoding="ascii").split()
            return None if quota == "max" else int(quota) / int(period)
        quota = (group / "cpu.cfs_quota_us").read_text(encoding="ascii")
        return int(quota) / int((group / "cpu.cfs_period_us").read_text(encoding="ascii")) if int(quota) > 0 else None
    except OSError:
        return None


def _groups() -> list[Path]:
    """The directories of the CPU control groups that this process is in, its own first."""
    try:
        mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        memberships = Path("/proc/self/cgroup").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    found = []
    for line in memberships:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        for mount in mounts:
            fields, _, about = mount.partition(" - ")
            kind, _, options = about.split(" ", 2)
            is_it = kind == "cgroup" and "cpu" in options.split(",") if controllers else kind == "cgroup2"
            if is_it:
                root, point = fields.split(" ")[3:5]
                found += _up_from(path, root, Path(point))
                break
    return found


def _up_from(path: str, root: str, point: Path) -> list[Path]:
    inside = Path(path).relative_to(root) if Path(path).is_relative_to(root) else Path()
    return [point / each for each in (inside, *inside.parents)]


def _processes() -> dict[tuple[int, int], _Process]:
    """All visible processes, by number and start time."""
    found = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdecimal():
            try:
                text = Path(entry.path, "stat").read_text(encoding="utf-8", errors="replace")
            except OSError:  # it has ended
                continue
            name = text[text.index("(") + 1 : text.rindex(")")]
            fields = text[text.rindex(")") + 2 :].split()
            user, system, children_user, children_system = map(int, fields[11:15])
            found[int(entry.name), int(fields[19])] = _Process(
                name=name,
                parent=int(fields[1]),
                of_kernel=bool(int(fields[6]) & _KERNEL_THREAD),
                own=(user + system) * _TICK,
                reaped=(children_user + children_system) * _TICK,
            )
    return found


def _family(processes: Mapping[tuple[int, int], _Process]) -> set[int]:
    """The numbers of this process and of all processes that it started."""
    children: dict[int, list[int]] = {}
    for (pid, _), process in processes.items():
        children.setdefault(process.parent, []).append(pid)
    found, left = set(), [os.getpid()]
    while left:
        pid = left.pop()
        found.add(pid)
        left += children.get(pid, [])
    return found
