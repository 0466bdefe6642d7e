"""Programs are found where system programs are, whatever the PATH of an ordinary user has."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastbridge import Lab, programs
from fastbridge.bench.engines.engine import lacks_program
from fastbridge.programs import find_program, search_path


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of system programs that is not on the PATH."""
    tool = tmp_path / "a-system-tool"
    tool.write_text("#!/bin/sh\necho found\n")
    tool.chmod(0o755)
    monkeypatch.setattr(programs, "_SYSTEM", (str(tmp_path),))
    return tool


def test_system_directories_come_last_and_once() -> None:
    assert search_path("/usr/bin:/usr/sbin") == "/usr/bin:/usr/sbin:/usr/local/sbin:/sbin"


def test_a_system_program_is_found(system: Path) -> None:
    assert find_program("a-system-tool") == str(system)
    assert find_program("a-system-tool", "/nowhere") == str(system)
    assert find_program("no-such-tool") is None
    assert lacks_program("x", "a-system-tool") is None
    assert lacks_program("x", "no-such-tool") == "there is no program no-such-tool: install the Debian package x"


@pytest.mark.live
def test_a_pod_runs_a_system_program(system: Path) -> None:
    with Lab(1) as lab:
        assert lab["pod1"].run(["a-system-tool"]).stdout == "found\n"
        assert lab["pod1"].run(["a-system-tool"], env={"PATH": "/usr/bin:/bin"}).stdout == "found\n"
        assert lab["pod1"].run("a-system-tool", shell=True).stdout == "found\n"
