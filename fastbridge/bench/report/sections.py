"""Sections, in order.

The ten sections of a report, verdict first. A section with nothing to show stays, without parts, and says why.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from fastbridge.bench.machine.fingerprint import UNKNOWN

from . import figures, rfc2889, wording
from .conditions import conditions, engines_table, facts_of, floor_table, unequal_tasks, when
from .emulation import LEAD, emulation_table
from .evidence import Report
from .parts import ABOUT, Document, Facts, Figure, Fold, Lines, Part, Section, Table, Text
from .statistics import FEWEST_BLOCKS
from .tables import cpu_table, curve_tables, latency_table, value_tables, verdict_tables

_RATES = ("forwarding-rate", "tcp-bulk", "request-response", "throughput")
_LOSS = ("frame-loss", "back-to-back", "recovery", "reset")
_SCALING = ("fdb-scaling", "port-scaling")


def document_of(report: Report) -> Document:
    """The document about these runs."""
    return Document(_title(report), _subtitle(report), _sections(report), _warnings(report), _foot(report))


def _title(report: Report) -> str:
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


def _sections(report: Report) -> list[Section]:
    """All ten."""
    unlike = report.unlikeness
    made = [_verdict(report, unlike), _conditions(report, unlike)]
    made += [_throughput_ratios(report)] if unlike else [_throughput(report)]
    made += [*_measured(report)] if not unlike else [*_withheld()]
    return [*made, _irregular(report, absolute=not unlike)]


def _subtitle(report: Report) -> str:
    """When and where the runs were measured, in one line."""
    shown = []
    for loaded in report.runs:
        results, machine = loaded.results, loaded.results.fingerprint
        kernel = machine.kernel.partition(" ")[0]
        text = f"Profile {results.profile}, {when(results)}, {machine.cpu}, {machine.cpus} CPUs, Linux {kernel}"
        shown.append(f"{loaded.label}: {text}" if loaded.label else text)
    return " · ".join(shown)


def _verdict(report: Report, unlike: Sequence[str]) -> Section:
    baseline = report.baseline
    tables = [*verdict_tables(report, absolute=not unlike)]
    lead = (
        f"Ratios are to {baseline}: geometric means over blocks of trials that take turns, with 95\u00a0% intervals. A "
        "win or a loss is claimed only where the whole interval lies outside of the noise floor, which is "
        f"{baseline} measured against itself. Frame sizes include the FCS, Gb/s do not."
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
    parts += [*_filling(figures.verdict(report)), *tables]
    single = [task for loaded in report.runs for task in loaded.results.tasks if task.blocks < 2]
    if single:
        parts.append(Text("Tests that ran in a single block have no interval and no verdict. Their numbers are below."))
    has_run = any(row.runs for loaded in report.runs for row in loaded.rows)
    missing = "" if tables else "no test of this run has one" if has_run else "no test has run on any engine"
    return Section("verdict", "Verdict", lead, parts if tables else (), missing)


def _findings(report: Report) -> dict[str, str]:
    """Engine → its finding."""
    return {
        wording.printable(engine) + (f" · {loaded.label}" if loaded.label else ""): text
        for loaded in report.runs
        for engine, text in wording.finding(loaded.results, loaded.rows).items()
    }


def _unfit(report: Report) -> list[str]:
    """A line for each engine without any result. The tables leave it out."""
    return [
        wording.printable(f"Unfit{f' in {loaded.label}' if loaded.label else ''}: {engine} ({reason})")
        for loaded in report.runs
        for engine, reason in wording.unfit_everywhere(loaded.results, loaded.rows).items()
    ]


def _warnings(report: Report) -> list[str]:
    """The warnings of all runs."""
    return [
        (f"{loaded.label}: " if loaded.label else "") + text
        for loaded in report.runs
        for text in wording.warnings(loaded.results, loaded.rows)
    ]


def _foot(report: Report) -> list[str]:
    """What made the report, and the command that measures again."""
    lines = []
    for loaded in report.runs:
        results = loaded.results
        version = results.fingerprint.versions.get("fastbridge", UNKNOWN)
        load = (
            ""
            if results.fingerprint.load == UNKNOWN
            else f" The load average was {results.fingerprint.load} when it began."
        )
        how = f" To measure the same again: {wording.printable(results.command)}" if results.command else ""
        label = f"{loaded.label}: " if loaded.label else ""
        lines.append(f"{label}Measured with fastbridge {version}, {when(results)}.{load}{how}")
    return [ABOUT, *lines]


def _conditions(report: Report, unlike: Sequence[str]) -> Section:
    parts: list[Part] = [conditions(report)]
    unknown = f"Noise floor: not measured. That takes {FEWEST_BLOCKS} blocks or more of {report.baseline}."
    parts += [floor_table(report, absolute=not unlike) or Text(unknown), engines_table(report)]
    for loaded in report.runs:
        title = "Everything else about the machine" + (f", {loaded.label}" if loaded.label else "")
        parts.append(Fold(title, [facts_of(loaded)]))
    return Section(
        "machine",
        "Machine and noise floor",
        "Where this was measured, and how large a difference must be to show.",
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
        "The direct veth pair has no switch: it is the most that the tester can offer here. TCP moves frames of up to "
        "64 KB, so its Gb/s say nothing of frames per second."
    )
    return Section("throughput", "Throughput", lead, parts, _absent(report, *_RATES))


def _throughput_ratios(report: Report) -> Section:
    parts = [*figures.throughput_ratios(report)]
    return Section("throughput", "Throughput", "", parts, _absent(report, "forwarding-rate"))


def _measured(report: Report) -> Iterator[Section]:
    parts: list[Part] = [*_filling(figures.loss(report)), *value_tables(report, *_LOSS)]
    parts += _folded("All points", curve_tables(report, "frame-loss"))
    lead = "Loss under overload, the longest burst without loss, and the time to recover."
    yield Section("loss", "Frame loss, bursts and recovery", lead, parts, _absent(report, *_LOSS))
    curves, percentiles = [*_filling(figures.latency(report))], latency_table(report)
    parts = [*curves, *([percentiles] if percentiles else [])]
    parts += _folded("All values", value_tables(report, "latency"))
    lead = "Latency of sampled frames one way, and of pings there and back."
    yield Section("latency", "Latency", lead, parts, _absent(report, "latency", "latency-at-load", "ping"))
    emulated = emulation_table(report)
    parts = [*_filling(figures.emulation(report)), emulated] if emulated else []
    yield Section("emulation", "Emulation", LEAD, parts, _absent(report, "emulation"))
    table = cpu_table(report)
    parts = [*figures.cpu(report), table] if table else []
    missing = "no forwarding rate was measured beside the direct veth pair's"
    lead = (
        "Busy time of all CPUs for each forwarded frame, waiting in a spin included, less what the direct veth pair "
        "takes for the frames offered."
    )
    yield Section("cpu", "CPU time per frame", lead, parts, missing)
    parts = [*_filling(figures.scaling(report)), *value_tables(report, *_SCALING)]
    parts += _folded("All points", curve_tables(report, "fdb-scaling"))
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
        ("emulation", "Emulation"),
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
    lead = "Everything that was skipped, that failed or that needs care, with its reason."
    if not absolute:
        lead += " Rates and numbers of frames are in a report of each run."
    return Section("irregular", "Irregular and skipped results", lead, parts)


def _folded(title: str, tables: Iterable[Table]) -> list[Part]:
    found = list(tables)
    return [Fold(title, found)] if found else []


def _filling(drawn: Iterable[Figure]) -> list[Figure]:
    """Two figures beside each other; the last of an odd number takes the whole width."""
    made = list(drawn)
    return [replace(figure, wide=i == len(made) - 1 and i % 2 == 0) for i, figure in enumerate(made)]
