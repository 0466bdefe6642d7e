"""Sections, in order.

The nine parts of a report, verdict first. One that has nothing to show stays, without parts, and says why.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from fastbridge.bench.results.results import Results

from . import rfc2889, wording
from .conditions import conditions, engines_table, facts_of, floor_table, unequal_tasks, when
from .drawn import figures
from .evidence import Source, sources_of, unlikeness
from .parts import Facts, Figure, Fold, Lines, Part, Section, Table, Text
from .tables import cpu_table, curve_tables, latency_table, value_tables, verdict_table

ABOUT = (
    "fastbridge is a learning software switch for Linux pods, and a bench that measures it against the Linux bridge "
    "and other switches by the methods of RFC 2544 and RFC 2889."
)
_RATES = ("forwarding-rate", "tcp-bulk", "throughput")
_LOSS = ("frame-loss", "back-to-back", "recovery", "reset")
_SCALING = ("fdb-scaling", "port-scaling")


def title_of(results: Sequence[tuple[str, Results]]) -> str:
    """Who is compared."""
    compared = [
        engine.name
        for _, each in results
        for engine in each.engines
        if not engine.ceiling
        and engine.name not in (each.baseline, each.control)
        and any(run.engine == engine.name for run in each.runs)
    ]
    names = list(dict.fromkeys(compared))
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    baseline = results[0][1].baseline
    return f"{shown} against {baseline}" if shown else baseline


def sections_of(results: Sequence[tuple[str, Results]]) -> tuple[list[Section], str]:
    """All sections, and a line that says when and where; raise BenchError when the runs cannot be compared."""
    sources = sources_of(results)
    unlike = unlikeness(sources)
    made = [_verdict(sources, unlike), _conditions(sources, unlike)]
    made += [_throughput_ratios(sources)] if unlike else [_throughput(sources)]
    made += [*_measured(sources)] if not unlike else [*_withheld()]
    return [*made, _irregular(sources, absolute=not unlike)], subtitle_of(sources)


def subtitle_of(sources: Sequence[Source]) -> str:
    """When and where, in one line."""
    shown = []
    for source in sources:
        it, machine = source.results, source.results.fingerprint
        kernel = machine.kernel.partition(" ")[0]
        text = f"Profile {it.profile}, {when(it)}, {machine.cpu}, {machine.cpus} CPUs, Linux {kernel}"
        shown.append(f"{source.label}: {text}" if source.label else text)
    return " · ".join(shown)


def _verdict(sources: Sequence[Source], unlike: Sequence[str]) -> Section:
    baseline = sources[0].results.baseline
    table = verdict_table(sources, absolute=not unlike)
    lead = (
        f"Ratios are to {baseline}: geometric means over blocks of trials that take turns, with 95\u00a0% intervals. A "
        "win or a loss is claimed only where the whole interval lies outside of the noise floor, which is "
        f"{baseline} measured against itself."
    )
    parts: list[Part] = []
    if interrupted := [source.label or "This run" for source in sources if source.results.interrupted]:
        parts.append(Text(f"Interrupted: {', '.join(interrupted)}. These are the trials until then."))
    if unlike:
        parts.append(
            Text(f"Ratios only: numbers of unlike machines cannot be compared. They differ in {'; '.join(unlike)}.")
        )
    parts += [Facts(findings)] if (findings := _findings(sources)) else []
    parts += [Lines(unfit)] if (unfit := _unfit(sources)) else []
    parts += [*_filling(figures.verdict(sources)), table]
    single = [task for source in sources for task in source.results.tasks if task.blocks < 2]
    if single:
        parts.append(
            Text("Tests that ran in a single block have no interval, and nothing is claimed of them: see below.")
        )
    missing = "" if table.rows else "no test has run on any engine"
    return Section("verdict", "Verdict", lead, parts if table.rows else (), missing)


def _findings(sources: Sequence[Source]) -> dict[str, str]:
    """Engine → what was found of it."""
    return {
        wording.printable(engine) + (f" · {source.label}" if source.label else ""): text
        for source in sources
        for engine, text in wording.finding(source.results, source.rows).items()
    }


def _unfit(sources: Sequence[Source]) -> list[str]:
    """Engines without any result, a line each: they are not in the tables."""
    return [
        wording.printable(f"Unfit{f' in {source.label}' if source.label else ''}: {engine} ({reason})")
        for source in sources
        for engine, reason in wording.unfit_everywhere(source.results, source.rows).items()
    ]


def warnings_of(results: Sequence[tuple[str, Results]]) -> list[str]:
    """What stands above everything else, below the title."""
    return [
        (f"{source.label}: " if source.label else "") + text
        for source in sources_of(results)
        for text in wording.warnings(source.results, source.rows)
    ]


def foot_of(results: Sequence[tuple[str, Results]]) -> list[str]:
    """What made this, and how to make the like."""
    lines = []
    for source in sources_of(results):
        it = source.results
        version = it.fingerprint.versions.get("fastbridge", "unknown")
        load = "" if it.fingerprint.load == "unknown" else f" The load average was {it.fingerprint.load} when it began."
        how = f" To measure the like: {wording.printable(it.command)}" if it.command else ""
        label = f"{source.label}: " if source.label else ""
        lines.append(f"{label}Measured with fastbridge {version}, {when(it)}.{load}{how}")
    return [ABOUT, *lines]


def _conditions(sources: Sequence[Source], unlike: Sequence[str]) -> Section:
    parts: list[Part] = [conditions(sources)]
    if floors := floor_table(sources, absolute=not unlike):
        parts.append(floors)
    parts.append(engines_table(sources))
    for source in sources:
        title = "Everything else about the machine" + (f", {source.label}" if source.label else "")
        parts.append(Fold(title, [facts_of(source)]))
    return Section(
        "machine",
        "Machine and noise floor",
        "Where this was measured, and how large a difference has to be to show.",
        parts,
    )


def _throughput(sources: Sequence[Source]) -> Section:
    drawn = (*figures.throughput(sources), *figures.search_bounds(sources), *figures.tcp(sources))
    parts: list[Part] = [*_filling(drawn)]
    parts += value_tables(sources, *_RATES)
    lead = (
        "Dots are trials, lines go through their medians. The direct veth pair has no switch: it is the most that the "
        "tester can offer here. TCP moves frames of up to 64 KB, so its Gb/s say nothing of frames per second."
    )
    return Section("throughput", "Throughput", lead, parts, _absent(sources, *_RATES))


def _throughput_ratios(sources: Sequence[Source]) -> Section:
    parts = [*figures.throughput_ratios(sources)]
    return Section("throughput", "Throughput", "", parts, _absent(sources, "forwarding-rate"))


def _measured(sources: Sequence[Source]) -> Iterator[Section]:
    parts: list[Part] = [*_filling(figures.loss(sources)), *value_tables(sources, *_LOSS)]
    parts += _folded("All points", curve_tables(sources, "frame-loss"))
    lead = "What is lost under overload, how long a burst is survived, and how long it takes to come back."
    yield Section("loss", "Frame loss, bursts and recovery", lead, parts, _absent(sources, *_LOSS))
    curves, percentiles = [*_filling(figures.latency(sources))], latency_table(sources)
    parts = [*curves, *([percentiles] if percentiles else [])]
    parts += _folded("All values", value_tables(sources, "latency"))
    lead = (
        "One-way, of sampled frames: the further to the right, the rarer the delay. Lines are medians over the blocks, "
        "dots are trials; both scales are logarithmic."
    )
    yield Section("latency", "Latency", lead, parts, _absent(sources, "latency", "latency-at-load"))
    table = cpu_table(sources)
    parts = [*figures.cpu(sources), table] if table else []
    missing = "no forwarding rate was measured beside the direct veth pair's"
    yield Section("cpu", "CPU time per frame", "", parts, missing)
    parts = [*_filling(figures.scaling(sources))]
    parts += _folded("All values", (*value_tables(sources, *_SCALING), *curve_tables(sources, "fdb-scaling")))
    lead = "The forwarding rate with more stations to look up and more ports to serve."
    yield Section("scaling", "Scaling with FDB entries and ports", lead, parts, _absent(sources, *_SCALING))
    judged = rfc2889.judgements(sources)
    parts = [judged, *_filling(figures.forwarding(sources))] if judged else []
    tables = (*value_tables(sources, *rfc2889.METHODS), *curve_tables(sources, "max-forwarding-rate"))
    parts += _folded("All values", tables)
    lead = "Pass or fail where the RFC says what a switch should do, a number where it asks for one."
    yield Section("rfc2889", "RFC 2889", lead, parts, _absent(sources, *rfc2889.METHODS))


def _withheld() -> Iterator[Section]:
    reason = "absolute numbers of unlike machines cannot be compared; make a report of each run"
    for name, title in (
        ("loss", "Frame loss, bursts and recovery"),
        ("latency", "Latency"),
        ("cpu", "CPU time per frame"),
        ("scaling", "Scaling with FDB entries and ports"),
        ("rfc2889", "RFC 2889"),
    ):
        yield Section(name, title, missing=reason)


def _absent(sources: Sequence[Source], *methods: str) -> str:
    profiles = ", ".join(dict.fromkeys(source.results.profile for source in sources))
    listed = {task.method for source in sources for task in source.results.tasks}
    if listed.isdisjoint(methods):
        return f"no such test in this run (profile {profiles})"
    return "its tests have no result, for the reasons above"


def _irregular(sources: Sequence[Source], *, absolute: bool) -> Section:
    lines = []
    for source in sources:
        prefix = f"{source.label}: " if source.label else ""
        lines += [prefix + text for text in wording.irregularities(source.results, source.rows, absolute=absolute)]
    lines += unequal_tasks(sources)
    parts: list[Part] = [Lines([wording.printable(line) for line in lines])] if lines else [Text("None.")]
    lead = "Everything that was skipped, failed or is to be taken with care, with its reason."
    if not absolute:
        lead += " Rates and numbers of frames are in a report of each run."
    return Section("irregular", "Irregular and skipped results", lead, parts)


def _folded(title: str, tables: Iterable[Table]) -> list[Part]:
    found = list(tables)
    return [Fold(title, found)] if found else []


def _filling(drawn: Iterable[Figure]) -> list[Figure]:
    """Two beside each other; the last of an odd number takes the whole width."""
    made = list(drawn)
    return [replace(figure, wide=i == len(made) - 1 and i % 2 == 0) for i, figure in enumerate(made)]
