"""The report in a terminal, as a page, Markdown and pictures: what it says, leaves out, and never lets through."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser
from importlib.util import find_spec
from typing import Any
from xml.etree import ElementTree

import pytest
from effort import few
from made_results import BLOCKS, CONTEST, DUTS, FINGERPRINT, HOSTILE, every_method, task_of

from fastbridge.bench import Results, rows
from fastbridge.bench import report as page
from fastbridge.bench.engines import ENGINES
from fastbridge.bench.report import figures, html, markdown, terminal, wording
from fastbridge.bench.report.drawn.palette import DARK, LIGHT, markers
from fastbridge.bench.report.drawn.pictures import file_of, pictures
from fastbridge.bench.report.evidence import Report
from fastbridge.bench.report.parts import Document, Facts, Table
from fastbridge.bench.report.sections import document_of
from fastbridge.console import make_console
from fastbridge.errors import BenchError

SECTIONS = [
    "verdict",
    "machine",
    "throughput",
    "loss",
    "latency",
    "emulation",
    "cpu",
    "scaling",
    "rfc2889",
    "irregular",
]


class Page(HTMLParser):
    """What a browser would make of it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.cells: list[str] = []
        self.text, self.charts = "", ""
        self._inside: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag in ("th", "td"):
            self.cells.append("")
        if tag in ("style", "script", "th", "td"):
            self._inside.append("charts" if dict(attrs).get("id") == "charts" else tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in ("style", "script", "th", "td"):
            self._inside.pop()

    def handle_data(self, data: str) -> None:
        if "charts" in self._inside:
            self.charts += data
        elif not {"style", "script"} & set(self._inside):
            self.text += data
            if self._inside:
                self.cells[-1] += data

    def ids(self, tag: str) -> list[str]:
        return [str(attributes["id"]) for name, attributes in self.tags if name == tag and "id" in attributes]


@cache
def drawn() -> Page:
    """Of every method, by one engine whose name is an attack."""
    return rendered(("", every_method()))


@cache
def contest() -> Results:
    """Of the contest alone."""
    made = every_method()
    names = {task_of(method, BLOCKS).name for method in CONTEST}
    tasks = tuple(task for task in made.tasks if task.name in names)
    return replace(made, tasks=tasks, runs=tuple(run for run in made.runs if run.task in names))


def quick(**changes: Any) -> Results:
    return replace(contest(), **changes)


def document(*runs: tuple[str, Results]) -> Document:
    return document_of(Report.of(runs))


def rendered(*runs: tuple[str, Results]) -> Page:
    return Page(html.render(document(*runs)))


def spec_of(shown: Page, name: str) -> str:
    return json.dumps(json.loads(shown.charts)[name])


def points(spec: Any, field: str) -> list[dict[str, Any]]:
    return [record for data in json.loads(spec)["datasets"].values() for record in data if field in record]


# -- what it says ----------------------------------------------------------------------------------


def test_ten_parts_in_order_and_nothing_left_out() -> None:
    shown = drawn()
    assert shown.ids("section") == SECTIONS
    assert "Left out" not in shown.text
    assert f"fastbridge, {HOSTILE} against linux-bridge" in shown.text
    assert len(shown.ids("figure")) == len(set(shown.ids("figure"))) == len(json.loads(shown.charts))


def test_its_numbers_are_the_terminal_s() -> None:
    cells = drawn().cells
    for row in rows(quick()):
        assert wording.ratio(row.ratio) in cells
        if row.task.startswith("forwarding") and row.frames_per_second:
            assert f"{row.frames_per_second:,.0f}" in cells
            assert row.is_direct or f"{row.cpu_added_ns:,.0f}" in cells
        if "p99" in row.values:
            assert wording.number(row.values["p99"], "µs") in cells
    assert {"win", "loss", "baseline", "control", "ceiling"} <= set(cells)


def test_a_dot_is_a_trial_and_says_which() -> None:
    shown = drawn()
    dots = points(spec_of(shown, "throughput"), "block")
    runs = [run for run in quick().runs if run.task.startswith("forwarding") and "control" not in run.engine]
    assert len(dots) == len(runs)
    assert {dot["block"] for dot in dots} >= {f"{block + 1}, position 1" for block in range(BLOCKS)}
    fields = {"engine", "task", "block", "counts", "flags"}
    assert all(fields <= dot.keys() for dot in dots)
    assert all(f'"field": "{field}"' in spec_of(shown, "throughput") for field in fields)


def test_flags_of_a_trial_are_on_its_dot() -> None:
    made = quick()
    stolen = next(run for run in made.runs if run.engine == "fastbridge" and run.block == 2)
    trial = replace(stolen.trials[0], steal_seconds=1.0, involuntary_switches=10_000)
    runs = tuple(replace(run, trials=(trial,)) if run is stolen else run for run in made.runs)
    dots = points(spec_of(rendered(("", replace(made, runs=runs))), "throughput"), "block")
    assert [dot["flags"] for dot in dots if dot["flags"] != "none"] == [
        "steal, sender interrupted, left out of the ratio"
    ]


def test_a_loss_curve_s_points_are_its_trials() -> None:
    dots = points(spec_of(drawn(), "frame-loss-1"), "x")
    (run,) = (run for run in every_method().runs if run.task.startswith("frame loss") and run.engine == "fastbridge")
    own = [dot for dot in dots if dot["engine"] == "fastbridge"]
    assert len(own) == len(run.trials) and {dot["x"] for dot in own} == {trial.offered_rate for trial in run.trials}
    assert "trial 1 of" in max(own, key=lambda dot: dot["x"])["block"]


def test_points_of_curves_are_in_tables() -> None:
    cells, text = drawn().cells, markdown.render(document(("", every_method())))
    for name in ("frame-loss-1", "fdb-scaling-1", "max-forwarding-rate-1"):
        dots = points(spec_of(drawn(), name), "x")
        assert len(dots) > 5
        for dot in dots:
            x, y = dot["x_text"].split()[0], dot["y_text"].split()[0]
            assert x in cells and y in cells and re.search(rf"\| 1 \| {x} \| (.*\| )?{y} \|", text)


def test_latency_is_drawn_as_far_as_samples_go() -> None:
    for name in (name for name in json.loads(drawn().charts) if name.startswith("latency")):
        for dot in points(spec_of(drawn(), name), "samples"):
            assert 1 <= dot["rarity"] <= int(dot["samples"].replace(",", "")) and dot["us"] > 0


def test_rfc_2889_is_judged() -> None:
    cells = drawn().cells
    assert cells.count("fail: forwarded") == 6  # runts and over-size frames, of three engines
    assert "≥ 600 addresses" in cells and "300 addresses" in cells
    assert "not shown" in cells


@pytest.mark.slow
def test_what_cannot_be_read_again_is_said_with_its_reason_and_held_against_nobody() -> None:
    made = every_method()
    own = [run for run in made.runs if run.engine == "fastbridge"]
    runs = [*(run for run in made.runs if run not in own), *(replace(run, trials=run.trials * 2) for run in own)]
    results = replace(made, runs=tuple(runs))
    shown, text = rendered(("", results)), markdown.render(document(("", results)))
    assert "not readable" in shown.cells and "not readable" in text
    lines = [line for line in wording.irregularities(results, rows(results)) if line.startswith("not readable here (")]
    assert all("fastbridge" in line and line in shown.text and markdown.escaped(line) in text for line in lines)
    assert all(any(task.name in line for line in lines) for task in made.tasks)
    assert not re.findall(r"^- fastbridge: ", text, re.M)  # it has neither won nor lost


def test_what_could_not_be_read_of_the_machine_is_said_in_one_place() -> None:
    facts = next(part for part in document(("", elsewhere(governor="unknown"))).sections[1].parts)
    assert isinstance(facts, Facts) and "unknown" not in facts.entries.values()
    assert facts.entries["could not be read"].startswith("governor, ")


def test_an_interrupted_run_says_so() -> None:
    assert "Interrupted" in rendered(("", quick(interrupted=True))).text
    assert "Interrupted" not in rendered(("", quick())).text


# -- what is missing -------------------------------------------------------------------------------


def test_a_part_without_data_is_left_out_and_said() -> None:
    shown = rendered(("", quick()))
    assert shown.ids("section") == ["verdict", "machine", "throughput", "latency", "cpu", "irregular"]
    for title in ("Frame loss, bursts and recovery", "Scaling with FDB entries and ports", "RFC 2889"):
        assert f"{title}: no such test in this run (profile made up)" in shown.text


def test_a_run_without_a_direct_pair_has_no_cpu_times() -> None:
    made = quick()
    runs = tuple(run for run in made.runs if run.engine != "direct")
    shown = rendered(("", replace(made, runs=runs)))
    assert "cpu" not in shown.ids("section")
    assert "CPU time per frame: no forwarding rate was measured beside the direct veth pair's" in shown.text


def test_nothing_measured_at_all() -> None:
    shown = rendered(("", quick(runs=())))
    assert "broken" in shown.text and "throughput" not in shown.ids("section")
    empty = rendered(("", quick(runs=(), unfit=())))
    assert empty.ids("section") == ["machine", "irregular"] and json.loads(empty.charts) == {}


# -- several runs ----------------------------------------------------------------------------------


def elsewhere(**changes: Any) -> Results:
    return quick(fingerprint=replace(FINGERPRINT, **changes))


def test_like_machines_stand_side_by_side() -> None:
    shown = rendered(("monday", quick()), ("tuesday", elsewhere(microcode="0x2")))
    assert {"latency", "cpu"} <= set(shown.ids("section"))
    assert {point["run"] for point in points(spec_of(shown, "throughput"), "block")} == {"monday", "tuesday"}
    assert "Ratios only" not in shown.text and "0x2" in shown.cells


def test_unlike_machines_have_ratios_only_and_it_says_why() -> None:
    shown = rendered(("a", quick()), ("b", elsewhere(cpu="Another CPU", cpus=4)))
    assert shown.ids("section") == ["verdict", "machine", "throughput", "irregular"]
    assert "CPU (Example CPU in a, Another CPU in b); number of CPUs (2 in a, 4 in b)" in shown.text
    assert "Latency: absolute numbers of unlike machines cannot be compared" in shown.text
    found = rows(quick())
    assert all(wording.ratio(row.ratio) in shown.cells for row in found if row.ratio and not row.is_direct)
    assert all(
        f"{row.frames_per_second:,.0f}" not in shown.text
        for row in found
        if row.task.startswith("forwarding") and row.frames_per_second
    )


@pytest.mark.slow
def test_what_is_irregular_on_unlike_machines_is_said_without_their_rates() -> None:
    made = every_method()
    runs = [("a", made), ("b", replace(made, fingerprint=replace(FINGERPRINT, cpu="Another CPU")))]
    text, alone = rendered(*runs).text, rendered(("", made)).text
    found = {
        task.name: [it for row in rows(made) if row.task == task.name for it in row.remarks] for task in made.tasks
    }
    remarks = {text for of_task in found.values() for text in wording.merge_numbers(of_task).values()}
    rates = {remark for remark in remarks if re.search(r"\d (frames|addresses)\b", remark)}
    assert len(rates) >= 5 and all(remark in alone and remark not in text for remark in rates)
    assert all(remark in text for remark in remarks - rates if " to " not in remark)
    assert "≥ … addresses: no more were tried" in text


def test_tests_of_one_name_that_differ_are_named() -> None:
    made = quick()
    task = replace(made.tasks[0], blocks=BLOCKS + 1)
    text = rendered(("a", made), ("b", replace(made, tasks=(task, *made.tasks[1:])))).text
    assert f"{task.name}: not the same test in all runs, blocks {BLOCKS} in a, {BLOCKS + 1} in b" in text


@pytest.mark.parametrize(
    ("runs", "complaint"),
    [
        (list, "no results"),
        (lambda: [("a", quick()), ("a", quick())], "two runs have the same label: a, a"),
        (
            lambda: [("a", quick()), ("b", quick(baseline="fastbridge"))],
            "different baselines .* to linux-bridge in a, ",
        ),
        (
            lambda: [
                ("a", quick()),
                ("b", replace(quick(), tasks=(replace(quick().tasks[0], method="mesh"),), runs=())),
            ],
            "b: task 'forwarding rate, 64 B' is another method's than in a",
        ),
    ],
)
def test_what_cannot_be_compared_is_refused(runs: Callable[[], Any], complaint: str) -> None:
    with pytest.raises(BenchError, match=complaint):
        document(*runs())


# -- what it never lets through --------------------------------------------------------------------


def test_names_and_reasons_are_no_markup() -> None:
    shown = drawn()
    assert HOSTILE in shown.text and HOSTILE in json.loads(shown.charts)["throughput"].__str__()
    assert not [tag for tag, _ in shown.tags if tag in ("img", "iframe", "object")]
    assert f"Unfit: broken (not available: {HOSTILE})" in shown.text and "broken" not in shown.charts
    assert [tag for tag, _ in shown.tags].count("script") == 3  # the charts, the library, the page's own


def test_it_fetches_nothing() -> None:
    shown = drawn()
    for tag, attributes in shown.tags:
        for name in ("src", "href", "action", "srcset"):
            assert (attributes.get(name) or "#").startswith(("#", "data:")), (tag, attributes)
    policy = next(a["content"] for tag, a in shown.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy and "default-src 'none'" in policy and "http" not in policy
    assert "@import" not in html.render(document(("", quick()))) and '"url"' not in shown.charts


def test_markdown_has_the_same_tables_and_no_markup_of_others() -> None:
    text = markdown.render(document(("", every_method())))
    assert next(line for line in text.splitlines() if line.startswith("## ")) == "## Verdict"
    assert "<img" not in text and "](y)" not in text.replace("\\](y)", "")
    widths = {
        table: {re.sub(r"\\\|", "", row).count("|") for row in table.split("\n")}
        for table in re.findall(r"(?:^\|.*\n)+", text, re.M)
        for table in [table.strip()]
    }
    assert widths and all(len(counts) == 1 for counts in widths.values())
    for row in rows(quick()):
        assert markdown.escaped(wording.ratio(row.ratio)) in text
    assert "![" not in text
    assert "![throughput](elsewhere/throughput.svg)" in markdown.render(
        document(("", quick())), {"throughput": "elsewhere/throughput.svg"}
    )


def test_markdown_has_no_heading_without_a_body() -> None:
    for runs in ([("", quick())], [("a", quick()), ("b", elsewhere(cpu="Another CPU"))]):
        text = markdown.render(document(*runs))
        assert not re.findall(r"^## .*\n+(?=##|\Z)", text, re.M)
    assert "- Throughput: nothing but charts, which are on the page and in pictures" in text  # of unlike machines
    assert "## Throughput" not in text and "## Throughput" in markdown.render(
        document(*runs), {"throughput": "pictures/throughput.svg"}
    )


def test_the_path_of_an_engine_is_said_where_it_is_known() -> None:
    told = [
        replace(engine, kernel_share=0.99875 if engine.name == "fastbridge" else None) for engine in quick().engines
    ]
    text = markdown.render(document(("", quick(engines=tuple(told)))))
    assert re.search(r"\| offloads \| by the kernel \|", text)
    assert re.search(r"\| fastbridge \| 1 \|.*\| 99\.88% \|", text) and not re.search(
        r"\| linux-bridge \| 1 \|.*%", text
    )
    assert "by the kernel" not in markdown.render(document(("", quick())))


def test_cpu_times_are_in_a_table() -> None:
    text = markdown.render(document(("", quick()))).partition("## CPU time per frame")[2].partition("##")[0]
    lines = [[cell.strip() for cell in line.split(" | ")] for line in text.splitlines()]
    for row in rows(quick()):
        if row.task.startswith("forwarding") and row.runs and not row.is_direct:
            name = markdown.escaped(wording.engine(row))
            numbers = [f"{row.cpu_added_ns:,.0f}", f"{row.cpu_switch_ns:,.0f} |"]
            assert [f"| {row.task}", name, *numbers] in lines


# -- in a terminal ---------------------------------------------------------------------------------


def printed(width: int, *runs: tuple[str, Results], monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("COLUMNS", str(width))
    console = make_console()
    with console.capture() as capture:
        terminal.show(console, document(*runs))
    return capture.get()


def test_a_terminal_has_the_page_s_numbers_whole_within_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = printed(80, ("", every_method()), monkeypatch=monkeypatch)
    own = document(("", every_method()))
    for section in own.sections:
        for table in (part for part in section.parts if isinstance(part, Table)):
            for i, column in enumerate(table.columns):
                assert not column.number or all(row[i].text in shown for row in table.rows), (table.title, column)
    titles = [line.rstrip(" ─") for line in shown.splitlines() if line.endswith("──")]
    assert [title for title in titles if title] == [section.title for section in own.sections]
    assert max(len(line.rstrip()) for line in shown.splitlines()[1:]) <= 80
    assert "RFC 2889, all values" in shown.partition("On the page and in Markdown")[2]


def test_a_terminal_says_what_is_left_out_and_why(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = printed(120, ("a", quick()), ("b", elsewhere(cpu="Another CPU")), monkeypatch=monkeypatch)
    assert "CPU (Example CPU in a, Another CPU in b)" in shown and "forwarded" not in shown
    assert "  Latency: absolute numbers of unlike machines cannot be compared" in shown
    assert "  Throughput, charts" in shown
    assert printed(120, ("", quick(runs=())), monkeypatch=monkeypatch).count("Left out:") == 1


def test_a_terminal_needs_no_package_of_the_page_s() -> None:
    code = (
        "import sys; from fastbridge.bench.report import markdown, sections, terminal; "
        "sys.exit(any(name in sys.modules for name in ('altair', 'vl_convert', 'jinja2')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# -- pictures and colours --------------------------------------------------------------------------


@pytest.mark.parametrize("name", few(1, figures.PICTURES))
def test_every_picture_is_drawn(name: str) -> None:
    svg = file_of(pictures(document(("", every_method())))[name], "svg")
    assert isinstance(svg, str)
    root = ElementTree.fromstring(svg)
    assert root.tag.endswith("svg") and "currentColor" not in svg
    shapes = [
        each for each in root.iter() if each.get("aria-roledescription") in ("point", "line mark", "bar", "rule mark")
    ]
    assert len(shapes) > 3


@pytest.mark.slow
def test_a_picture_as_png_and_of_nothing() -> None:
    shown = pictures(document(("", quick())))
    png = file_of(shown["verdict"], "png")
    assert isinstance(png, bytes) and png.startswith(b"\x89PNG")
    assert "loss" not in shown and set(pictures(document(("", every_method())))) == set(figures.PICTURES)
    assert "cpu" not in pictures(document(("a", quick()), ("b", elsewhere(cpu="other"))))


def luminance(colour: str) -> float:
    channels = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    red, green, blue = (c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_colours_stand_out_on_light_and_dark_and_engines_differ() -> None:
    chosen = markers([*ENGINES, *DUTS, "one more", "another"])
    for look in chosen.values():
        for ground in (LIGHT, DARK):
            light, dark = sorted((luminance(look.colour), luminance(ground)), reverse=True)
            assert (light + 0.05) / (dark + 0.05) >= 3.0, (look, ground)
    assert len({(look.colour, look.shape) for look in chosen.values()}) == len(chosen)
    assert markers(["fastbridge", "mine"])["fastbridge"] == markers(["mine", "x", "fastbridge"])["fastbridge"]


def test_the_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    page.require()
    monkeypatch.setattr(page, "find_spec", lambda name: None if name == "altair" else find_spec(name))
    with pytest.raises(BenchError, match=r"a report needs altair: .*pip install -e '\.\[report\]'"):
        page.require()
