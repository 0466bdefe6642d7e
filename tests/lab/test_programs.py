"""Programs are found where system programs are, whatever the PATH of an ordinary user has."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from live import PATIENCE

from fastbridge import Lab, programs
from fastbridge.bench.engines.engine import lacks_program
from fastbridge.bench.engines.fastbridge import Fastbridge
from fastbridge.bench.engines.python_sockets import PythonSockets
from fastbridge.bench.tester.agent_process import AgentProcess
from fastbridge.errors import LabError
from fastbridge.lab.namespaces import helper_command
from fastbridge.programs import find_program, find_python, python_module, search_path


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


@pytest.fixture(params=["", None, "/bin/true", "frozen"])
def embedded(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python as it is inside another application."""
    monkeypatch.setattr(sys, "_base_executable", sys.executable if request.param == "frozen" else request.param)
    if request.param == "frozen":
        monkeypatch.setattr(sys, "frozen", True, raising=False)
    else:
        monkeypatch.setattr(sys, "executable", request.param)


def test_python_is_found_from_inside_an_application(embedded: None) -> None:
    python = find_python()
    assert python
    version = subprocess.run(
        [python, "-I", "-S", "-c", "import sys; print(*sys.version_info[:2])"], capture_output=True, text=True
    )
    assert version.stdout.split() == [str(number) for number in sys.version_info[:2]]


def test_a_module_finds_its_packages_from_inside_an_application(embedded: None) -> None:
    version = subprocess.run([*python_module("fastbridge"), "--version"], capture_output=True, text=True, check=True)
    assert version.stdout.startswith("fastbridge")


def test_a_module_is_run_as_one_types_it() -> None:
    assert python_module("fastbridge") == [sys.executable, "-m", "fastbridge"]


def test_python_is_the_one_that_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_python() == sys.executable
    linked = tmp_path / "interpreter"
    linked.symlink_to(os.path.realpath(sys.executable))
    monkeypatch.setattr(sys, "executable", str(linked))
    assert find_python() == str(linked)


def test_no_python_is_one_clear_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"executable": "/opt/app/app", "_base_executable": "", "base_exec_prefix": "/nowhere"}.items():
        monkeypatch.setattr(sys, name, value)
    monkeypatch.setattr(programs, "find_program", lambda name: None)
    monkeypatch.setattr(programs.sysconfig, "get_config_var", lambda name: "/nowhere")
    with pytest.raises(LabError, match=r"needs the program python3\.\d+: '/opt/app/app' is another one"):
        helper_command()


@pytest.mark.live
def test_a_lab_inside_an_application(embedded: None) -> None:
    with Lab(1) as lab:
        assert lab["pod1"].run(["true"]).returncode == 0


@pytest.mark.slow
@pytest.mark.live
def test_the_bench_starts_its_programs_inside_an_application(embedded: None, monkeypatch: pytest.MonkeyPatch) -> None:
    for engine in ("fastbridge", "python_sockets"):
        monkeypatch.setattr(f"fastbridge.bench.engines.{engine}.READY_SECONDS", PATIENCE)
    with Lab(2) as lab:
        for engine in Fastbridge(), PythonSockets():
            with engine.attach(lab, min(os.sched_getaffinity(0))):
                assert lab["pod1"].ping("pod2", timeout=PATIENCE)
        agent = AgentProcess(lab["pod1"].popen, min(os.sched_getaffinity(0)), "agent")
        agent.start()
        try:
            assert "error" not in agent.answer(PATIENCE)
        finally:
            agent.stop()
