"""Conditions of a run.

Where its numbers come from, and how finely they can tell: the machine, the engines, the noise floor.
"""

from __future__ import annotations

from collections.abc import Sequence

from fastbridge.bench.machine.likeness import in_words
from fastbridge.bench.results.results import Results

from . import wording
from .evidence import Source
from .parts import Cell, Column, Facts, Table


def conditions(sources: Sequence[Source]) -> Facts | Table:
    """What matters most of a fingerprint: of one run as facts, of several side by side."""
    facts = [_main_facts(source) for source in sources]
    if len(sources) == 1:
        return Facts(facts[0])
    columns = [Column("condition", number=False), *(Column(source.label, number=False) for source in sources)]
    return Table("", columns, [[Cell(name), *(Cell(each[name]) for each in facts)] for name in facts[0]])


def facts_of(source: Source) -> Facts:
    """The rest of it."""
    machine = source.results.fingerprint
    rest = {
        "boot parameters": machine.boot,
        "mitigations": in_words(machine.mitigations),
        **{f"offloads, {end} of a veth pair": features for end, features in machine.offloads.items()},
    }
    return Facts({name: wording.printable(value) or "unknown" for name, value in rest.items()})


def floor_table(sources: Sequence[Source], *, absolute: bool) -> Table | None:
    """How large a difference has to be, test by test; with `absolute`, what the direct pair takes beside it."""
    lines = []
    for source in sources:
        floors = wording.noise_floors(source.rows)
        for task in source.results.tasks:
            direct = next((r.cpu_machine_ns for r in source.rows_of(task.name) if r.is_direct), None)
            if task.name in floors:
                lines.append(
                    [
                        Cell(task.name),
                        *([Cell(source.label)] if source.label else ()),
                        Cell(f"± {floors[task.name]:.1%}", floors[task.name]),
                        Cell(str(task.blocks), task.blocks),
                        *([Cell("" if direct is None else f"{direct:,.0f}", direct)] if absolute else ()),
                    ]
                )
    baseline = sources[0].results.baseline
    columns = [
        Column("test", number=False),
        *([Column("run", number=False)] if len(sources) > 1 else ()),
        Column("noise floor", hint=f"{baseline} against itself"),
        Column("blocks"),
        *([Column("direct pair", "CPU ns per frame")] if absolute else ()),
    ]
    return Table(f"Noise floor: {baseline} against itself", columns, lines) if lines else None


def engines_table(sources: Sequence[Source]) -> Table:
    """What was run, and how."""
    columns = [
        Column("engine", number=False),
        *([Column("run", number=False)] if len(sources) > 1 else ()),
        *(Column(name, number=False) for name in ("version", "command", "buffers", "offloads")),
    ]
    lines = []
    for source in sources:
        for engine in source.results.engines:
            if engine.name != source.results.control:
                texts = (engine.version, engine.command, engine.buffers, engine.offloads)
                run = [Cell(source.label)] if source.label else []
                lines.append([Cell(engine.name), *run, *(Cell(wording.printable(text)) for text in texts)])
    return Table("Engines", columns, lines)


def unequal_tasks(sources: Sequence[Source]) -> list[str]:
    """Tests of one name that are not quite the same in all runs."""
    lines = []
    for name in dict.fromkeys(task.name for source in sources for task in source.results.tasks):
        own = {
            source.label: {**task.parameters, "blocks": task.blocks, "ports": task.ports}
            for source in sources
            for task in source.results.tasks
            if task.name == name
        }
        if missing := [source.label for source in sources if source.label not in own]:
            lines.append(f"{name}: not in {', '.join(missing)}")
        first = next(iter(own.values()))
        for field in first:
            values = {label: parameters.get(field) for label, parameters in own.items()}
            if any(value != first[field] for value in values.values()):
                shown = ", ".join(f"{value} in {label}" for label, value in values.items())
                lines.append(f"{name}: not the same test in all runs, {field} {shown}")
    return lines


def when(results: Results) -> str:
    """When it was measured, as far as the file says it in the usual way."""
    return results.started.replace("T", " ").replace("+00:00", " UTC")


def _main_facts(source: Source) -> dict[str, str]:
    it, machine = source.results, source.results.fingerprint
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
        "software": in_words(machine.versions),
        "measured": f"{when(it)}, profile {it.profile}",
        "seed": str(it.seed),
    }
    return {name: wording.printable(value) or "unknown" for name, value in facts.items()}
