"""Sections, in order.

The nine parts of a report, verdict first. One that has nothing to show stays, without parts, and says why.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from . import rfc2889, wording
from .conditions import conditions, engines_table, facts_of, floor_table, unequal_tasks, when
from .drawn import figures
from .evidence import Report
from .parts import Facts, Figure, Fold, Lines, Part, Section, Table, Text
from .tables import cpu_table, curve_tables, latency_table, value_tables, verdict_table

ABOUT = (
    "fastbridge is a learning software switch for Linux pods, and a bench that measures it against the Linux bridge "
    "and other switches by the methods of RFC 2544 and RFC 2889."
)
_RATES = ("forwarding-rate", "tcp-bulk", "request-response", "throughput")
_LOSS = ("frame-loss", "back-to-back", "recovery", "reset")
_SCALING = ("fdb-scaling", "port-scaling")


def title_of(report: Report) -> str:
    """Who is compared."""
    compared = [
        engine.name
        for each in (loaded.results for loaded in report.runs)
        for engine in each.engines
        if not engine.ceiling
        and engine.name not in (each.baseline, each.control)
        and any(run.engine == engine.name for run in each.runs)
    ]
    names = list(dict.fromkeys(compared))
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    return f"{shown} against {report.baseline}" if shown else report.baseline


def sections_of(report: Report) -> list[Section]:
    """All sections."""
    unlike = report.unlikeness
    made = [_verdict(report, unlike), _conditions(report, unlike)]
    made += [_throughput_ratios(report)] if unlike else [_throughput(report)]
    made += [*_measured(report)] if not unlike else [*_withheld()]
    return [*made, _irregular(report, absolute=not unlike)]


def subtitle_of(report: Report) -> str:
    """When and where, in one line."""
    shown = []
    for loaded in report.runs:
        it, machine = loaded.results, loaded.results.fingerprint
        kernel = machine.kernel.partition(" ")[0]
        text = f"Profile {it.profile}, {when(it)}, {machine.cpu}, {machine.cpus} CPUs, Linux {kernel}"
        shown.append(f"{loaded.label}: {text}" if loaded.label else text)
    return " · ".join(shown)


def _verdict(report: Report, unlike: Sequence[str]) -> Section:
    baseline = report.baseline
    table = verdict_table(report, absolute=not unlike)
    lead = (
        f"Ratios are to {baseline}: geometric means over blocks of trials that take turns, with 95\u00a0% intervals. A "
        "win or a loss is claimed only where the whole interval lies outside of the noise floor, which is "
        f"{baseline} measured against itself."
    )
    parts: list[Part] = []
    if interrupted := [loaded.label or "This run" for loaded in report.runs if loaded.results.interrupted]:
        parts.append(Text(f"Interrupted: {', '.join(interrupted)}. These are the trials until then."))
    if unlike:
        parts.append(
            Text(f"Ratios only: numbers of unlike machines cannot be compared. They differ in {'; '.join(unlike)}.")
        )
    parts += [Facts(findings)] if (findings := _findings(report)) else []
    parts += [Lines(unfit)] if (unfit := _unfit(report)) else []
    parts += [*_filling(figures.verdict(report)), table]
    single = [task for loaded in report.runs for task in loaded.results.tasks if task.blocks < 2]
    if single:
        parts.append(
            Text("Tests that ran in a single block have no interval, and nothing is claimed of them: see below.")
        )
    missing = "" if table.rows else "no test has run on any engine"
    return Section("verdict", "Verdict", lead, parts if table.rows else (), missing)


def _findings(report: Report) -> dict[str, str]:
    """Engine → what was found of it."""
    return {
        wording.printable(engine) + (f" · {loaded.label}" if loaded.label else ""): text
        for loaded in report.runs
        for engine, text in wording.finding(loaded.results, loaded.rows).items()
    }


def _unfit(report: Report) -> list[str]:
    """Engines without any result, a line each: they are not in the tables."""
    return [
        wording.printable(f"Unfit{f' in {loaded.label}' if loaded.label else ''}: {engine} ({reason})")
        for loaded in report.runs
        for engine, reason in wording.unfit_everywhere(loaded.results, loaded.rows).items()
    ]


def warnings_of(report: Report) -> list[str]:
    """What stands above everything else, below the title."""
    return [
        (f"{loaded.label}: " if loaded.label else "") + text
        for loaded in report.runs
        for text in wording.warnings(loaded.results, loaded.rows)
    ]


def foot_of(report: Report) -> list[str]:
    """What made this, and how to make the like."""
    lines = []
    for loaded in report.runs:
        it = loaded.results
        version = it.fingerprint.versions.get("fastbridge", "unknown")
        load = "" if it.fingerprint.load == "unknown" else f" The load average was {it.fingerprint.load} when it began."
        how = f" To measure the like: {wording.printable(it.command)}" if it.command else ""
        label = f"{loaded.label}: " if loaded.label else ""
        lines.append(f"{label}Measured with fastbridge {version}, {when(it)}.{load}{how}")
    return [ABOUT, *lines]


def _conditions(report: Report, unlike: Sequence[str]) -> Section:
    parts: list[Part] = [conditions(report)]
    if floors := floor_table(report, absolute=not unlike):
        parts.append(floors)
    parts.append(engines_table(report))
    for loaded in report.runs:
        title = "Everything else about the machine" + (f", {loaded.label}" if loaded.label else "")
        parts.append(Fold(title, [facts_of(loaded)]))
    return Section(
        "machine",
        "Machine and noise floor",
        "Where this was measured, and how large a difference has to be to show.",
        parts,
    )


def _throughput(report: Report) -> Section:
    drawn = (
        *figures.throughput(report),
        *figures.search_bounds(report),
        *figures.tcp(report),
        *figures.requests(report),
    )
    parts: list[Part] = [*_filling(drawn)]
    parts += value_tables(report, *_RATES)
    lead = (
        "Dots are trials, lines go through their medians. The direct veth pair has no switch: it is the most that the "
        "tester can offer here. TCP moves frames of up to 64 KB, so its Gb/s say nothing of frames per second."
    )
    return Section("throughput", "Throughput", lead, parts, _absent(report, *_RATES))


def _throughput_ratios(report: Report) -> Section:
    parts = [*figures.throughput_ratios(report)]
    return Section("throughput", "Throughput", "", parts, _absent(report, "forwarding-rate"))


def _measured(report: Report) -> Iterator[Section]:
    parts: list[Part] = [*_filling(figures.loss(report)), *value_tables(report, *_LOSS)]
    parts += _folded("All points", curve_tables(report, "frame-loss"))
    lead = "What is lost under overload, how long a burst is survived, and how long it takes to come back."
    yield Section("loss", "Frame loss, bursts and recovery", lead, parts, _absent(report, *_LOSS))
    curves, percentiles = [*_filling(figures.latency(report))], latency_table(report)
    parts = [*curves, *([percentiles] if percentiles else [])]
    parts += _folded("All values", value_tables(report, "latency"))
    lead = (
        "Of sampled frames one way, of pings there and back: the further to the right, the rarer the delay. Lines are "
        "medians over the blocks, dots are trials; both scales are logarithmic."
    )
    yield Section("latency", "Latency", lead, parts, _absent(report, "latency", "latency-at-load", "ping"))
    table = cpu_table(report)
    parts = [*figures.cpu(report), table] if table else []
    missing = "no forwarding rate was measured beside the direct veth pair's"
    yield Section("cpu", "CPU time per frame", "", parts, missing)
    parts = [*_filling(figures.scaling(report))]
    parts += _folded("All values", (*value_tables(report, *_SCALING), *curve_tables(report, "fdb-scaling")))
    lead = "The forwarding rate with more stations to look up and more ports to serve."
    yield Section("scaling", "Scaling with FDB entries and ports", lead, parts, _absent(report, *_SCALING))
    judged = rfc2889.judgements(report)
    parts = [judged, *_filling(figures.forwarding(report))] if judged else []
    tables = (*value_tables(report, *rfc2889.METHODS), *curve_tables(report, "max-forwarding-rate"))
    parts += _folded("All values", tables)
    lead = "Pass or fail where the RFC says what a switch should do, a number where it asks for one."
    yield Section("rfc2889", "RFC 2889", lead, parts, _absent(report, *rfc2889.METHODS))


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


def _absent(report: Report, *methods: str) -> str:
    profiles = ", ".join(dict.fromkeys(loaded.results.profile for loaded in report.runs))
    listed = {task.method for loaded in report.runs for task in loaded.results.tasks}
    if listed.isdisjoint(methods):
        return f"no such test in this run (profile {profiles})"
    return "its tests have no result, for the reasons above"


def _irregular(report: Report, *, absolute: bool) -> Section:
    lines = []
    for loaded in report.runs:
        prefix = f"{loaded.label}: " if loaded.label else ""
        lines += [prefix + text for text in wording.irregularities(loaded.results, loaded.rows, absolute=absolute)]
    lines += unequal_tasks(report)
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
