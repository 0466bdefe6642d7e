"""The package as it is installed: its names, what they cost to import, and whose fastbridge a child process runs."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import fastbridge
from fastbridge.bench.machine.child import Child
from fastbridge.cli import _COMMANDS

HELP = """
import sys
sys.argv = ["fastbridge", "--help"]
from fastbridge.cli import main
try:
    main()
finally:
    print(*(name for name in ("numpy", "pyroute2", "fastbridge.switch.live") if name in sys.modules), file=sys.stderr)
"""


def test_every_public_name_is_there() -> None:
    for name in fastbridge.__all__:
        home = import_module(f"fastbridge.{fastbridge._HOME_OF[name]}")
        assert getattr(fastbridge, name) is getattr(home, name)
    stub = Path(fastbridge.__file__).with_suffix(".pyi").read_text()
    assert set(re.findall(r" as (\w+)", stub)) == {*fastbridge.__all__, "__version__"}
    assert set(fastbridge.__all__) <= set(dir(fastbridge))
    with pytest.raises(AttributeError, match="'fastbridge' has no attribute 'Labs'"):
        fastbridge.Labs  # type: ignore[attr-defined] # noqa: B018


def test_help_waits_for_nothing_heavy() -> None:
    done = subprocess.run([sys.executable, "-c", HELP], capture_output=True, text=True, timeout=180)
    assert (done.returncode, done.stderr.split()) == (0, [])


WITHOUT_NUMPY = """
import json, sys
sys.modules["numpy"] = None  # as if it were not there
from fastbridge import ConfigError, FastbridgeError, MemorySwitch
from fastbridge.switch.live import Switch
from fastbridge.switch.verbs import switch_verbs
from fastbridge.cli import batch, capture, config, demo, fdb, lab, link, monitor, operate, run, state, top, trace

switch = MemorySwitch(["a", "b"])
switch.process("a", [bytes.fromhex("ffffffffffff02000000000188b5").ljust(60, b"\\0")])
switch.fdb.add("02:00:00:00:00:02", "b", 7)
assert switch.fdb.learn_rows([(2, 0, 0, 1.5)]) == 1
assert [(str(entry.mac), entry.port, entry.static) for entry in switch.fdb][1:] == [
    ("02:00:00:00:00:01", "a", False), ("02:00:00:00:00:02", "b", True)
]
verbs = switch_verbs(switch)
assert [row["stations"] for row in verbs.call("port.list", {})] == [2, 1]
assert [row["ifname"] for row in verbs.call("fdb.show", {"vlan": 7})] == ["b"]
for ask in (switch.fdb.to_numpy, lambda: switch.fdb.lookup_many([2]), lambda: switch.fdb.learn_many([2], 0)):
    try:
        ask()
    except ConfigError as error:
        print(error)
try:
    import fastbridge.bench
except FastbridgeError as error:
    print(error)
"""


def test_numpy_is_asked_for_only_where_it_is_used() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT_NUMPY], capture_output=True, text=True, timeout=180)
    assert (done.returncode, done.stderr) == (0, "")
    arrays = "the FDB as arrays takes the package numpy: in a clone of fastbridge, pip install -e '.[arrays]'"
    bench = "the bench takes the package numpy: in a clone of fastbridge, pip install -e '.[bench]'"
    assert done.stdout.splitlines() == [arrays, arrays, arrays, bench]


def test_commands_are_listed_by_their_own_words() -> None:
    for name, line in _COMMANDS.items():
        command = getattr(import_module(f"fastbridge.cli.{name}"), name)
        assert command.help.splitlines()[0] == line


def test_a_child_runs_the_fastbridge_that_started_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "fastbridge").mkdir()
    (tmp_path / "fastbridge/__init__.py").write_text("raise SystemExit('a source tree without its core')")
    monkeypatch.chdir(tmp_path)
    child = Child(subprocess.Popen, [sys.executable, "-m", "fastbridge.bench.tester.agent"], name="station")
    try:
        assert json.loads(child.line(20.0)) == {"ready": True}
    finally:
        child.stop()


def test_a_clone_that_is_not_built_says_so_in_one_line(tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    ignored = shutil.ignore_patterns("*.so", "__pycache__")  # other programs write the latter just now
    shutil.copytree(Path(fastbridge.__file__).parent, clone / "fastbridge", ignore=ignored)
    for words in ["from fastbridge import Switch", "import fastbridge.core.dataplane"]:
        done = subprocess.run([sys.executable, "-c", words], cwd=clone, capture_output=True, text=True)
        assert (
            done.stderr.splitlines()[-1]
            == f"ImportError: the Cython core is not built in {clone}: run `pip install -e .` there"
        )
    done = subprocess.run(
        [sys.executable, "-m", "fastbridge", "run", "a", "b"], cwd=clone, capture_output=True, text=True
    )
    said = f"fastbridge: the Cython core is not built in {clone}: run `pip install -e .` there\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", said)
