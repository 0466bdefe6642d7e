"""The documents are true: links lead somewhere, Python runs as written, the demo says what is shown."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from capture_files import needs_libpcap

import fastbridge
from fastbridge.bench.engines import ENGINES

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
EXAMPLES = sorted((ROOT / "docs/examples").glob("*.py"))
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md")), ROOT / "benchmarks/NOTES.md"]
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
pytestmark = pytest.mark.skipif(
    not (README.exists() and EXAMPLES), reason="the tests were copied without the README or docs/"
)


def called(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: Path, language: str) -> list[str]:
    return [code for kind, code in FENCED.findall(page.read_text(encoding="utf-8")) if kind == language]


WRITTEN = {page: "\n".join(found) for page in PAGES if page.exists() and (found := blocks(page, "python"))}


def run(*arguments: str) -> str:
    """What Python prints, given these arguments."""
    command = [sys.executable, "-W", "error", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def anchors(page: Path) -> set[str]:
    """What a link may have behind its #: the headings, as GitHub spells them."""
    text = FENCED.sub("", page.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ +(.*)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def links(page: Path) -> list[str]:
    text = re.sub(r"`[^`]*`", "", FENCED.sub("", page.read_text(encoding="utf-8")))
    return re.findall(r"\]\(([^)\s]+)\)", text)


@pytest.mark.parametrize("page", PAGES, ids=called)
def test_every_link_leads_somewhere(page: Path) -> None:
    broken = []
    for link in links(page):
        if re.match(r"https?:", link):
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert not broken


def test_no_page_is_left_out_of_the_index() -> None:
    index = ROOT / "docs/index.md"
    listed = {(index.parent / link).resolve() for link in links(index)}
    assert {page for page in index.parent.glob("*.md") if page != index} | set(EXAMPLES) <= listed


@pytest.mark.skipif(not (ROOT / "fastbridge").exists(), reason="the tests were copied without the sources")
@pytest.mark.parametrize("page", PAGES, ids=called)
def test_every_file_that_is_named_exists_and_has_what_it_is_said_to_have(page: Path) -> None:
    text = FENCED.sub("", page.read_text(encoding="utf-8"))
    named = re.findall(r"`((?:fastbridge|tests|benchmarks)/[\w/.-]*)`(?:, `(\w+)`)?", text)
    wrong = []
    for path, word in named:
        found = ROOT / path
        if path in ENGINES:  # that is a name, too
            continue
        if not found.exists() or (word and word not in found.read_text(encoding="utf-8")):
            wrong.append((path, word))
    assert not wrong


def test_the_readme_is_read() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 150


def test_all_python_is_tried() -> None:
    """A page has one program at most, so that what it prints is looked at below; or parts of a file of tests."""
    assert [called(page) for page in WRITTEN if len(blocks(page, "python")) > 1] == ["docs/fixtures.md"]
    assert {page.name for page in WRITTEN} == {
        "README.md", "switch.md", "ports.md", "policies.md", "labs.md", "compare.md", "howto-policy.md", "capture.md",
        "links.md", "topologies.md", "fixtures.md", "scapy.md",
    }  # fmt: skip


@pytest.mark.live
def test_embedding_runs_as_written() -> None:
    printed = run("-c", PATIENT + WRITTEN[README])
    assert "02:00:00:00:00:02 → pod2" in printed and re.search(r"^total +\d+ ", printed, re.M)
    assert printed.count("Egress(port=") == 3


@pytest.mark.live
@pytest.mark.parametrize(
    ("page", "found"),
    [
        ("switch", r"02:00:00:00:00:02 → pod2"),
        ("ports", r"<Switch of 0 ports"),
        ("policies", r"10.0.0.2 → 02:00:00:00:00:02 on pod2"),
        ("labs", r"10.0.0.1 dev eth0 lladdr 02:00:00:00:00:01"),
        ("topologies", r"sent=1, rtts=\(\d.*\n10.2.0.2/16 02:00:00:00:00:02 → h2 .*\nfd00:0:0:2::1 +h2"),
        ("compare", r"'frmol': \d{4,}"),
        ("howto-policy", ""),
        ("links", r"^\d+ \(\d+, \d{9}\)$"),
        ("scapy", r"^b'hello'\n02:00:00:00:00:01 → one"),
        ("capture", r"pod1 → ICMP echo request, 10.0.0.1 > 10.0.0.2, .*: forwarded to pod2"),
    ],
)
def test_the_docs_run_as_written(page: str, found: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # they write files
    assert re.search(found, run("-c", PATIENT + WRITTEN[ROOT / f"docs/{page}.md"]))


#: Before a program: it waits for pings, and tries trials again, as long as beside tests it may take.
PATIENT = """
import fastbridge.bench.tester.tester, fastbridge.lab.pods, logging
logging.getLogger("fastbridge.switch.loops").setLevel(logging.ERROR)  # a busy machine is slow to send to pods
fastbridge.bench.tester.tester.ATTEMPTS = 100
ping = fastbridge.lab.pods.Pod.ping
def patient(*pods, timeout=60, **options):
    return ping(*pods, timeout=timeout if timeout < 1 else 60, **options)
fastbridge.lab.pods.Pod.ping = patient
listening = fastbridge.lab.pods.Pod.wait_listening
fastbridge.lab.pods.Pod.wait_listening = lambda *what, **options: listening(*what, **{**options, "timeout": 60})
"""

#: What the examples print that need no namespaces; the others need them.
IN_MEMORY = {
    "watch_a_switch": "moved 02:00:00:00:00:01 pod1 → pod2",
    "in_memory": "leaves by port 3: 60 bytes",
    "lossy_link": "the same again: True and with another seed: False",
    "many_stations": "found 100000",
    "scapy_probe": "02:00:00:00:00:0b → answerer",
}
LIVE = {
    "ask_a_running_switch": "02:00:00:00:00:02 pod2",
    "first_ping": "02:00:00:00:00:02 → pod2",
    "measure_one_engine": "frames/s",
    "own_policy": "10.0.0.2 → 02:00:00:00:00:02 on pod2",
    "programs_in_pods": "status 200",
    "regions": "eu1 reaches asia1 afterwards: True",
    "see_every_frame": "pod1 flooded",
    "test_fixture": "1 passed",
    "three_routers": "with its link cut: False\nby the other router: True",
}


def test_every_example_is_tried() -> None:
    assert {path.stem for path in EXAMPLES} == IN_MEMORY.keys() | LIVE.keys()


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=needs_libpcap) if name == "scapy_probe" else name for name in IN_MEMORY]
)
def test_the_examples_in_memory_run(name: str) -> None:
    assert IN_MEMORY[name] in run(str(ROOT / f"docs/examples/{name}.py"))


@pytest.mark.live
@pytest.mark.parametrize("name", LIVE)
def test_the_examples_with_pods_run(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # of those that are installed, only ours
    by_pytest = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "fastbridge.pytest_plugin", "-c", os.devnull]
    path = ROOT / f"docs/examples/{name}.py"
    if name.startswith("test_"):
        assert LIVE[name] in run(*by_pytest, str(path))
    else:
        assert LIVE[name] in run("-c", f"{PATIENT}import runpy\nrunpy.run_path({str(path)!r}, run_name='__main__')")


@pytest.mark.skipif(importlib.util.find_spec("mypy") is None, reason="mypy comes with the extra `dev`")
def test_all_python_passes_mypy_strict(tmp_path: Path) -> None:
    for number, code in enumerate([*WRITTEN.values(), *(path.read_text(encoding="utf-8") for path in EXAMPLES)]):
        (tmp_path / f"program{number}.py").write_text(code, encoding="utf-8")
    # As a user has it: without the clone's settings. An editable install is found by its path alone.
    home = str(Path(fastbridge.__file__).parents[1])
    options = ["--strict", "--follow-imports=silent", "--config-file=", f"--cache-dir={tmp_path}"]
    environment = os.environ | ({} if home in sysconfig.get_paths().values() else {"MYPYPATH": home})
    command = [sys.executable, "-m", "mypy", *options, *map(str, tmp_path.glob("*.py"))]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.live
def test_the_demo_says_what_is_shown() -> None:
    program = PATIENT + "import sys; from fastbridge.cli import main; sys.argv = ['fastbridge', 'demo']; main()"
    demo = [sys.executable, "-c", program]
    env = os.environ | {"COLUMNS": "80"}
    done = subprocess.run(demo, capture_output=True, text=True, timeout=180, env=env)
    assert (done.returncode, done.stderr) == (0, "")
    said = iter([changing(line) for line in done.stdout.splitlines()])
    shown = next(block for block in blocks(README, "text") if "The first ping" in block)
    for line in shown.splitlines():
        if line != "…":
            assert changing(line) in said, f"not said, or not in this order: {line}"


def changing(line: str) -> str:
    """A line without what differs between runs: times, and what a kernel makes of a neighbour."""
    return re.sub(r"[\d.]+ m?s\b|reachable|delay|stale", "*", line).rstrip()
