"""Conditions of a run.

Where its numbers come from, and how small a difference they can show: the machine, the engines, the noise floor.
"""

from __future__ import annotations

from collections.abc import Mapping

from fastbridge.bench.machine.fingerprint import UNKNOWN
from fastbridge.bench.machine.likeness import in_words
from fastbridge.bench.results.results import Results

from . import wording
from .evidence import LoadedRun, Report
from .parts import Cell, Column, Facts, Table


def conditions(report: Report) -> Facts | Table:
    """The main part of the fingerprint: facts of one run, or a table of several."""
    facts = [_main_facts(loaded) for loaded in report.runs]
    if not report.is_comparison:
        return _known(facts[0])
    columns = [Column("condition", number=False), *(Column(loaded.label, number=False) for loaded in report.runs)]
    return Table("", columns, [[Cell(name), *(Cell(each[name]) for each in facts)] for name in facts[0]])


def facts_of(loaded: LoadedRun) -> Facts:
    """The rest of the fingerprint."""
    machine = loaded.results.fingerprint
    rest = {
        "boot parameters": machine.boot,
        "mitigations": in_words(machine.mitigations),
        **{f"offloads, {end} of a veth pair": features for end, features in machine.offloads.items()},
    }
    return _known({name: wording.printable(value) or UNKNOWN for name, value in rest.items()})


def floor_table(report: Report, *, absolute: bool) -> Table | None:
    """The noise floor of each test; with `absolute`, also the CPU time of the direct pair."""
    lines = []
    for loaded in report.runs:
        floors = wording.noise_floors(loaded.rows)
        for task in loaded.results.tasks:
            direct = next((r.cpu_machine_ns for r in loaded.rows_of(task.name) if r.is_direct), None)
            if task.name in floors:
                lines.append(
                    [
                        Cell(task.name),
                        *([Cell(loaded.label)] if loaded.label else ()),
                        Cell(f"± {floors[task.name]:.1%}", floors[task.name]),
                        Cell(str(task.blocks), task.blocks),
                        *([Cell("" if direct is None else f"{direct:,.0f}", direct)] if absolute else ()),
                    ]
                )
    baseline = report.baseline
    columns = [
        Column("test", number=False),
        *([Column("run", number=False)] if report.is_comparison else ()),
        Column("noise floor", hint=f"{baseline} against itself"),
        Column("blocks"),
        *([Column("direct pair", "CPU ns per frame")] if absolute else ()),
    ]
    return Table(f"Noise floor: {baseline} against itself", columns, lines) if lines else None


def engines_table(report: Report) -> Table:
    """The engines as they were run."""
    says_path = any(engine.kernel_share is not None for loaded in report.runs for engine in loaded.results.engines)
    columns = [
        Column("engine", number=False),
        *([Column("run", number=False)] if report.is_comparison else ()),
        *(Column(name, number=False) for name in ("version", "command", "buffers", "offloads")),
        *([Column("by the kernel", hint="of its frames, forwarded by its kernel fast path")] if says_path else ()),
    ]
    lines = []
    for loaded in report.runs:
        for engine in loaded.results.engines:
            if engine.name != loaded.results.control:
                texts = (engine.version, engine.command, engine.buffers, engine.offloads)
                run = [Cell(loaded.label)] if loaded.label else []
                path = [Cell(wording.by_kernel(engine), engine.kernel_share)] if says_path else []
                lines.append([Cell(engine.name), *run, *(Cell(wording.printable(text)) for text in texts), *path])
    return Table("Engines", columns, lines)


def unequal_tasks(report: Report) -> list[str]:
    """The differences between tests of the same name."""
    lines = []
    for name in dict.fromkeys(task.name for loaded in report.runs for task in loaded.results.tasks):
        own = {
            loaded.label: {**task.parameters, "blocks": task.blocks, "ports": task.ports}
            for loaded in report.runs
            for task in loaded.results.tasks
            if task.name == name
        }
        if missing := [loaded.label for loaded in report.runs if loaded.label not in own]:
            lines.append(f"{name}: not in {', '.join(missing)}")
        first = next(iter(own.values()))
        for field in first:
            values = {label: parameters.get(field) for label, parameters in own.items()}
            if any(value != first[field] for value in values.values()):
                shown = ", ".join(f"{value} in {label}" for label, value in values.items())
                lines.append(f"{name}: not the same test in all runs, {field} {shown}")
    return lines


def when(results: Results) -> str:
    """When the run was measured."""
    return results.started.replace("T", " ").replace("+00:00", " UTC")


def _main_facts(loaded: LoadedRun) -> dict[str, str]:
    results, machine = loaded.results, loaded.results.fingerprint
    facts = {
        "CPU": f"{machine.cpu}, {machine.cpus} CPUs",
        "CPU layout": in_words(machine.layout),
        "hypervisor": machine.hypervisor,
        "kernel": machine.kernel,
        "microcode": machine.microcode,
        "governor": machine.governor,
        "load when it began": machine.load,
        "CPU quota": machine.quota,
        "SMT siblings": machine.siblings,
        "TCP": machine.tcp,
        "software": in_words(machine.versions),
        "measured": f"{when(results)}, profile {results.profile}",
        "seed": str(results.seed),
    }
    return {name: wording.printable(value) or UNKNOWN for name, value in facts.items()}


def _known(facts: Mapping[str, str]) -> Facts:
    """The facts; those that could not be read share an entry."""
    unknown = [name for name, value in facts.items() if value == UNKNOWN]
    known = {name: value for name, value in facts.items() if value != UNKNOWN}
    return Facts(known | ({"could not be read": ", ".join(unknown)} if unknown else {}))
