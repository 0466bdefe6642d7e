"""What objects show of themselves in a notebook, and a notebook that runs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from frames import GROUP, ethernet
from live import PATIENCE

from fastbridge import Lab, MemorySwitch, Topology
from fastbridge.notebook import MOST_ROWS, Station, drawing, table

TOUR = Path(__file__).parents[1] / "docs/examples/tour.ipynb"
SVG = "{http://www.w3.org/2000/svg}"


def read(html: str) -> ElementTree.Element:
    """It is well-formed, takes nothing from elsewhere, runs nothing, and has no colours of its own."""
    assert not re.search(r"<script|<link|<img|url\(|@import|\son\w+=|#[0-9a-f]{3,6}\b|rgb", html)
    assert set(re.findall(r"\w+://[^'\"]+", html)) <= {"http://www.w3.org/2000/svg"}
    return ElementTree.fromstring(f"<div>{html}</div>")


def cells(html: str) -> list[list[str]]:
    return [["".join(cell.itertext()) for cell in row] for row in read(html).iter("tr")]


def test_what_a_switch_knows() -> None:
    switch = MemorySwitch(["<b>", "pod2"], policy="suppress", clock=lambda: 100.0)
    switch.process("<b>", [ethernet(GROUP, 0x020000000001)])
    switch.fdb.add("02:00:00:00:00:02", "pod2", vlan=7)
    switch.add_neighbour("10.0.0.2", "02:00:00:00:00:02", "pod2")
    assert cells(switch.fdb._repr_html_())[:2] == [
        ["MAC", "VLAN", "port", "heard"],
        ["02:00:00:00:00:01", "", "<b>", "0.0 s ago"],
    ]
    assert cells(switch.fdb._repr_html_())[2] == ["02:00:00:00:00:02", "7", "pod2", "static"]
    assert cells(switch.neighbours._repr_html_())[1] == ["10.0.0.2", "02:00:00:00:00:02", "", "pod2", "static", ""]
    counters = switch.counters()
    heads, *rows = cells(counters._repr_html_())
    assert heads == ["port", "received", "forwarded", "flooded", "dropped", "sent", "not sent"]
    assert rows == [["<b>", "1", "0", "1", "0", "0", "0"], ["pod2", "0", "0", "0", "0", "1", "0"], ["total", *"101010"]]
    assert "MAC addresses learned 1" in "".join(read(counters._repr_html_()).itertext())
    said = switch.explain("<b>", ethernet(0x020000000001, 0x020000000002))
    assert [row[:2] for row in cells(said._repr_html_())] == [
        ["step", "result"],
        *([s.stage, s.result] for s in said.steps),
    ]


def test_a_long_table_is_cut_and_says_so() -> None:
    switch = MemorySwitch(["pod"], capacity=100_000)
    switch.fdb.learn_many(np.arange(1, 50_001, dtype=np.uint64), "pod")
    html = switch.fdb._repr_html_()
    assert len(cells(html)) == 1 + MOST_ROWS
    assert "MAC addresses: 50,000" in html and "… and 49,000 more" in html
    assert len(html) < 400_000


def test_names_are_no_markup() -> None:
    evil = "<script>alert('x')</script>\"&"
    assert cells(table(evil, [evil], [[evil]], 1)) == [[evil], [evil]]
    drawn = drawing([Station(evil, [evil], [evil], evil)], 1, evil)
    assert evil in [text.text for text in read(drawn).iter(f"{SVG}text")]


@pytest.mark.parametrize(("count", "shown"), [(0, 0), (1, 1), (4, 4), (5, 5), (16, 16), (500, 16)])
def test_a_drawing_has_no_more_than_can_be_read(count: int, shown: int) -> None:
    stations = [Station(f"pod{n}", ["10.0.0.1/16", "fd00::1/64"], [], "") for n in range(count)]
    html = drawing(stations, count, "ports")
    root = read(html)
    (svg,) = root.iter(f"{SVG}svg")
    left, top, width, height = map(int, svg.attrib["viewBox"].split())
    boxes = [[int(box.attrib[key]) for key in ("x", "y", "width", "height")] for box in svg.iter(f"{SVG}rect")]
    assert len(boxes) == shown + 1 and len(list(svg.iter(f"{SVG}line"))) == shown
    for n, (x, y, wide, high) in enumerate(boxes):
        assert left <= x and x + wide <= left + width and top <= y and y + high <= top + height
        for other, (x2, y2, wide2, high2) in enumerate(boxes[:n]):
            assert x + wide <= x2 or x2 + wide2 <= x or y + high <= y2 or y2 + high2 <= y, f"{n} lies on {other}"
    assert (f"… and {count - shown:,} more" in html) == (count > shown)


@pytest.mark.live
def test_a_lab_is_drawn() -> None:
    with Lab(Topology.of(["web", "db"], ipv6=None), link={"db": "delay=5ms,loss=1%", "web>db": "delay=1s"}) as lab:
        html = lab._repr_html_()
    texts = [text.text for text in read(html).iter(f"{SVG}text")]
    assert texts == ["switch s1: 2 ports", "web", "10.0.0.1/16", "db", "10.0.0.2/16", "delay=5ms", "loss=1%"]
    assert "1 pair of ports with a link of its own" in html


@pytest.mark.live
def test_each_switch_of_a_lab_is_drawn() -> None:
    with Lab(Topology.linear(2, 1, ipv6=None)) as lab:
        html = lab._repr_html_()
    assert len(list(read(html).iter(f"{SVG}svg"))) == 2
    texts = [text.text for text in read(html).iter(f"{SVG}text")]
    assert texts[:3] == ["switch s1: 2 ports", "pod1", "10.0.0.1/16"] and texts[-2:] == ["s2-s1", "trunk"]


# In a loop that runs, as nbclient is used; the cells run in the kernel's own. By ipc, because it needs no network.
EXECUTE = """
import asyncio, sys
import nbclient, nbformat
from traitlets.config import Config

async def main(source, result):
    tour = nbformat.read(source, as_version=4)
    config = Config({"KernelManager": {"transport": "ipc"}})
    await nbclient.NotebookClient(tour, kernel_name="python3", timeout=60, config=config).async_execute()
    nbformat.write(tour, result)

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.live
@pytest.mark.slow
@pytest.mark.skipif(not TOUR.exists(), reason="the tests were copied without docs/")
@pytest.mark.skipif(not find_spec("nbclient") or not find_spec("ipykernel"), reason="they come with the extra `test`")
def test_the_tour_runs(tmp_path: Path) -> None:
    names = ("JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "IPYTHONDIR")
    command = [sys.executable, "-c", EXECUTE, str(TOUR), str(tmp_path / "tour.ipynb")]
    environment = os.environ | dict.fromkeys(names, str(tmp_path))
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=2 * PATIENCE)
    assert done.returncode == 0, done.stderr
    cells = json.loads((tmp_path / "tour.ipynb").read_text())["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    assert {output["output_type"] for output in outputs} == {"execute_result", "stream"}
    shown = ["".join(output["data"]["text/html"]) for output in outputs if "data" in output]
    for html, what in zip(shown, ("pod3", "02:00:00:00:00:02", "10.0.0.2", "forwarded", "look up"), strict=True):
        assert what in "".join(read(html).itertext())
    said = "".join("".join(output["text"]) for output in outputs if "text" in output)
    assert "02:00:00:00:00:0a → probe" in said
