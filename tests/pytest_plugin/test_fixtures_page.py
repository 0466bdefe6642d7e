"""docs/fixtures.md is true: its tests pass, and a failing one's report is what is shown."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from projects import outcomes, run_tests

PAGE = Path(__file__).parents[2] / "docs/fixtures.md"
pytestmark = [pytest.mark.live, pytest.mark.skipif(not PAGE.exists(), reason="the tests were copied without docs/")]

FAILING = """
    import pytest

    @pytest.mark.lab(link={"pod2": "from_pod.cut=true"}, policy="suppress")
    def test_the_answer_comes_back(lab):
        assert lab["pod1"].ping("pod2")
"""


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.M | re.S)


@pytest.mark.slow
def test_its_tests_pass(tmp_path: Path) -> None:
    code = re.sub(r'\.ping\("(\w+)"\)', r'.ping("\1", timeout=60)', "\n".join(blocks("python")))  # beside other tests
    done = run_tests(tmp_path, code)
    assert outcomes(done) == {"passed": code.count("def test_") + 2}, done.stdout  # one has three parameters


def test_a_report_looks_as_shown(tmp_path: Path) -> None:
    done = run_tests(tmp_path, FAILING)
    assert outcomes(done) == {"failed": 1}, done.stdout
    said = iter([changing(line) for line in done.stdout.splitlines()])
    (shown,) = blocks("text")
    for line in shown.splitlines():
        if line != "…":
            assert changing(line) in said, f"not said, or not in this order: {line}"


def changing(line: str) -> str:
    """A line without what differs between runs: numbers, widths, and what a kernel makes of a neighbour."""
    line = re.sub(r"\b(reachable|stale|incomplete|failed|delay|probe)\b", "*", line)
    return re.sub(r"(?<![:\w.])\d[\d,.]*(?![:\w])", "*", re.sub(r"(-| )+", r"\1", line)).strip()
