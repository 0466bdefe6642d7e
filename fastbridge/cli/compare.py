"""`fastbridge compare`, the bench.

Measures fastbridge against the Linux bridge and others. Prints ratios with their intervals and each method's findings,
and writes all measurements, raw and drawn.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path

import rich_click as click
from click.core import ParameterSource
from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bar

from fastbridge import bench
from fastbridge.bench import Engine, Results
from fastbridge.bench import report as page
from fastbridge.bench.compare import Progress, check_request
from fastbridge.bench.engines import EMULATORS, ENGINES, Fastbridge, parse_command, parse_engines
from fastbridge.bench.machine.disturbance import survey
from fastbridge.bench.methods.patterns import BUSY, MESH, PATTERNS
from fastbridge.bench.profiles import PROFILES
from fastbridge.bench.profiles import chosen as choose
from fastbridge.bench.report.evidence import Report
from fastbridge.bench.report.files import PAGE, RESULTS, holds_report, writable_report, write_report
from fastbridge.bench.report.sections import document_of
from fastbridge.bench.report.statistics import FEWEST_BLOCKS
from fastbridge.bench.report.terminal import show
from fastbridge.bench.results.files import writable_file
from fastbridge.bench.tester.offer import IMIX, SIZES
from fastbridge.console import make_console
from fastbridge.errors import ConfigError

from .options import read_policy_of_strangers

_PLAIN_SECONDS = 10.0  # between two lines of progress, without a terminal


def _read_sizes(context: click.Context, parameter: click.Parameter, text: str | None) -> list[tuple[int, ...]]:
    sizes = []
    for word in filter(None, (text or "").lower().replace(" ", "").split(",")):
        if word == "imix":
            sizes.append(IMIX)
        elif word.isascii() and word.isdecimal() and SIZES[0] <= int(word) <= SIZES[-1]:
            sizes.append((int(word),))
        else:
            raise click.BadParameter(f"{word}: a frame size is {SIZES[0]} to {SIZES[-1]} bytes (with FCS), or imix")
    return list(dict.fromkeys(sizes))


def _read_engines(context: click.Context, parameter: click.Parameter, text: str) -> Sequence[Engine]:
    try:
        return parse_engines(text)
    except ConfigError as error:
        raise click.BadParameter(str(error)) from None


_DIRECTORY = "fastbridge-compare"


@click.command(epilog="Example: fastbridge compare --engines fastbridge,linux-bridge,ovs --out here-today")
@click.option(
    "--profile",
    type=click.Choice(list(PROFILES)),
    default="quick",
    show_default=True,
    help="quick: three to five minutes, speed and latency; standard: half an hour, all methods; rfc2544: days, with "
    "the trial lengths of the RFCs.",
)
@click.option("--quick", is_flag=True, help="The same as --profile quick.")
@click.option("--methods", metavar="NAMES", default="", help="Only these methods; a wrong name lists all.")
@click.option(
    "--sizes", metavar="BYTES", callback=_read_sizes, help="Frame sizes with FCS: for example 64,512,1518,imix."
)
@click.option(
    "--pattern",
    type=click.Choice([*PATTERNS, BUSY, MESH]),
    help="pair: one way; bidirectional: both ways; busy: both ways, with a sender on the switch's CPU too; "
    "mesh: four pods, each to all others.",
)
@click.option(
    "--blocks",
    metavar="N",
    type=click.IntRange(1),
    help=f"Repeat each test this often; fewer than {FEWEST_BLOCKS} give no verdict.",
)
@click.option(
    "--engines",
    metavar="NAMES",
    default="fastbridge,linux-bridge,python",
    show_default=f"fastbridge,linux-bridge,python; for emulation {','.join(each.name for each in EMULATORS)}",
    callback=_read_engines,
    help=f"Engines to measure, or `all`: {', '.join(ENGINES)}.",
)
@click.option(
    "--engine-command",
    "commands",
    metavar="[NAME=]COMMAND",
    multiple=True,
    help="Also measure a program of your own: `prog {ports}`, where {ports} becomes the interfaces to join. It "
    "must stay in the foreground.",
)
@click.option(
    "--baseline",
    metavar="NAME",
    default="linux-bridge",
    show_default="linux-bridge; for emulation the first engine",
    help="Show ratios to this engine.",
)
@click.option(
    "--out",
    "directory",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help=f"Where the report goes: {RESULTS}, report.html, report.md, pytest-benchmark.json and pictures/.  "
    f"[default: {_DIRECTORY}, with the date if there is an earlier one]",
)
@click.option(
    "-o",
    "--output",
    "file",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Write the results alone, as JSON. `fastbridge report` draws a report from them, on any machine.",
)
@click.option("--replace", "is_replacing", is_flag=True, help="Replace an earlier report or results file there.")
@click.option(
    "--seed",
    metavar="N",
    type=click.IntRange(0),
    help="Seed of the random order of the trials.  [default: a random one]",
)
@click.option(
    "--arp",
    metavar="POLICY",
    callback=read_policy_of_strangers,
    help="Measure fastbridge with this policy, as for `fastbridge run --arp`.",
)
@click.pass_context
def compare(
    context: click.Context,
    profile: str,
    quick: bool,
    methods: str,
    sizes: list[tuple[int, ...]],
    pattern: str | None,
    blocks: int | None,
    engines: Sequence[Engine],
    commands: tuple[str, ...],
    baseline: str,
    directory: Path | None,
    file: Path | None,
    is_replacing: bool,
    seed: int | None,
    arp: str | None,
) -> None:
    """Measure fastbridge against the Linux bridge and other switches on this machine.

    Every engine forwards between pods of its own. Trials take turns in random order. Ctrl-C or SIGTERM ends the run;
    the report then holds all trials up to that moment.
    """
    if quick and profile != "quick":
        raise click.UsageError(f"--quick and --profile {profile}: choose one")
    names = [name.strip() for name in methods.split(",") if name.strip()]
    tasks = choose(PROFILES[profile], methods=names, sizes=sizes, pattern=pattern, blocks=blocks)
    if all(task.method.link for task in tasks.tasks):  # those that are measured elsewhere emulate no links
        if not _is_given(context, "engines"):
            engines = EMULATORS
        if not _is_given(context, "baseline"):
            baseline = next((engine.name for engine in engines if engine.missing() is None), baseline)
    if arp and not any(isinstance(it, Fastbridge) for it in engines):
        raise click.UsageError("--arp is for fastbridge, which is not among the engines; add it to --engines")
    if directory is not None and file is not None:
        raise click.UsageError("--out DIR holds the results too: give either --out or -o")
    console = make_console()
    chosen = [
        replace(it, options=(*it.options, "--arp", arp)) if arp and isinstance(it, Fastbridge) else it for it in engines
    ]
    chosen += map(parse_command, commands)
    if baseline in ENGINES and baseline not in [engine.name for engine in chosen]:
        chosen.append(ENGINES[baseline])
    check_request(chosen, baseline=baseline, profile=tasks)
    with _place(directory, file, is_replacing) as path, _progress() as report:
        ending = _Ending()
        _say_beforehand(chosen)
        try:
            results = bench.compare(
                chosen,
                baseline=baseline,
                profile=tasks,
                seed=seed,
                progress=report,
                keep=partial(_keep, path),
                command=_command(context),
            )
        except KeyboardInterrupt:  # before the first trial
            context.exit(ending.status)
        ending.is_over()
        shown = Report.of([("this run", results)])
        try:
            if results.runs:
                results.save(path)
        finally:  # the results are shown even if the file cannot be written
            show(console, document_of(shown))
        if results.runs and file is None:
            console.print(f"drawing the report in {path.parent}", soft_wrap=True)
            write_report(path.parent, shown)
    written = f"written to {file}" if file else f"written to {path.parent}; open {path.parent / PAGE}"
    console.print(written if results.runs else "nothing was measured", soft_wrap=True)
    if results.interrupted:
        context.exit(ending.status)


def _say_beforehand(engines: Sequence[Engine]) -> None:
    """Say at the start which engines will be missing, and what may disturb."""
    stderr = make_console(stderr=True)
    for engine in engines:
        if reason := engine.missing():
            stderr.print(f"left out: {engine.name}: {reason}", soft_wrap=True)
    for text in survey(os.cpu_count() or 1):
        stderr.print(text, style="yellow", soft_wrap=True)


def _is_given(context: click.Context, name: str) -> bool:
    return context.get_parameter_source(name) is ParameterSource.COMMANDLINE


def _command(context: click.Context) -> str:
    """The command that repeats this measurement elsewhere, without this machine's paths."""
    words = ["fastbridge", "compare"]
    for parameter in context.command.params:
        name = str(parameter.name)
        if not _is_given(context, name) or name in ("directory", "file", "is_replacing"):
            continue
        value, option = context.params[name], parameter.opts[-1]
        if name == "sizes":
            value = ",".join("imix" if each == IMIX else str(each[0]) for each in value)
        elif name == "engines":
            value = ",".join(engine.name for engine in value)
        for each in value if isinstance(value, tuple) else (value,):
            words += [option] if each is True else [option, str(each)]
    return shlex.join(words)


@contextlib.contextmanager
def _place(directory: Path | None, file: Path | None, is_replacing: bool) -> Iterator[Path]:
    """The file for the results. What cannot be written or drawn is an error now, before the measurement.

    An earlier report may have taken hours. It is replaced only with --replace.
    """
    if file is not None:
        if not is_replacing and file.is_file() and file.stat().st_size:
            raise click.UsageError(f"{file} exists already: choose another place with -o, or give --replace")
        with writable_file(file, "choose another place with -o"):
            yield file
        return
    page.require()
    if directory is None:
        directory = Path(_DIRECTORY)
        if not is_replacing and holds_report(directory):
            directory = Path(f"{_DIRECTORY}-{datetime.now():%Y-%m-%d-%H%M%S}")
    elif not is_replacing and holds_report(directory):
        raise click.UsageError(
            f"{directory} holds an earlier report: choose another place with --out, or give --replace"
        )
    with writable_report(directory, "choose another place with --out"):
        yield directory / RESULTS


def _keep(path: Path, results: Results) -> None:
    """Save after each block: hours of measuring must survive a power cut. A full disk may have room again later."""
    if results.runs:
        with contextlib.suppress(OSError):
            results.save(path)


class _Ending:
    """Lets SIGTERM and SIGHUP end the measurement as Ctrl-C does: once, and never the report."""

    def __init__(self) -> None:
        self.status = 128 + signal.SIGINT  # as in shells
        self._terminals = [stream for stream in (1, 2) if os.isatty(stream)]
        numbers = (signal.SIGTERM, signal.SIGHUP)
        self._numbers = [
            number for number in numbers if signal.getsignal(number) != signal.SIG_IGN
        ]  # nohup ignores one
        for number in self._numbers:
            signal.signal(number, self._end)

    def is_over(self) -> None:
        """Ignore the signals: the report is being written, and must not stay half old, half new."""
        for number in self._numbers:
            signal.signal(number, signal.SIG_IGN)

    def _end(self, number: int, frame: object) -> None:
        self.is_over()
        self.status = 128 + number
        if number == signal.SIGHUP:  # the terminal is gone
            nowhere = os.open(os.devnull, os.O_WRONLY)
            for stream in self._terminals:
                os.dup2(nowhere, stream)
        raise KeyboardInterrupt


@contextlib.contextmanager
def _progress() -> Iterator[Progress]:
    """Show progress on stderr: how far it is, what runs now, and how long it will take."""
    stderr = make_console(stderr=True)
    if not stderr.is_terminal:
        yield _Lines(stderr)
        return
    columns = (
        BarColumn(20),
        TextColumn("{task.percentage:3.0f} %"),
        TextColumn("{task.fields[left]} left"),
        TextColumn("{task.description}", markup=False),
    )
    with Bar(*columns, console=stderr, transient=True) as bar:
        task = bar.add_task("", total=1.0, left="…")
        yield lambda share, left, text: bar.update(task, completed=share, description=text, left=_duration(left))


class _Lines:
    """Progress without a terminal: a line now and then."""

    def __init__(self, console: Console) -> None:
        self._console, self._next = console, 0.0

    def __call__(self, share: float, left: float, text: str) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + _PLAIN_SECONDS
            self._console.print(f"{share:4.0%}  {_duration(left)} left  {text}", soft_wrap=True)


def _duration(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds > 5400 else f"{int(seconds) // 60}:{int(seconds) % 60:02}"
