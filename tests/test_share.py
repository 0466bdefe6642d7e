"""What goes into share/ where fastbridge is installed: the manual page, and what shells complete by."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from fastbridge.cli import _COMMANDS

SHARE = Path(__file__).parents[1] / "share"
PATIENCE = 60.0
pytestmark = pytest.mark.skipif(not SHARE.exists(), reason="the tests were copied without share/")


def manual() -> str:
    return (SHARE / "man/man1/fastbridge.1").read_text(encoding="utf-8")


def needs(program: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"there is no {program}")


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Where `fastbridge` is the one that is tested, and its share/ is as if installed."""
    command = tmp_path / "fastbridge"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m fastbridge "$@"\n')
    command.chmod(0o755)
    return os.environ | {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "XDG_DATA_DIRS": f"{SHARE}:/usr/share",
    }


def completed(environment: dict[str, str], *command: str) -> list[str]:
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, env=environment, cwd="/")
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout.splitlines()


def test_the_manual_is_what_the_commands_say() -> None:
    spec = importlib.util.spec_from_file_location("make_manual", SHARE / "make_manual.py")
    assert spec and spec.loader
    maker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(maker)
    assert maker.page() == manual(), "a command has changed: python share/make_manual.py"


def test_the_manual_has_every_command() -> None:
    sections = re.findall(r'^\.SS "fastbridge (\w+)([^"]*)"$', manual(), re.M)
    assert {name for name, _ in sections} == set(_COMMANDS)
    for name in _COMMANDS:
        command = getattr(import_module(f"fastbridge.cli.{name}"), name)
        for option in (option for each in command.params for option in each.opts if option.startswith("--")):
            assert option.replace("-", "\\-") in manual()


@pytest.mark.parametrize("linter", ["mandoc -T lint -W warning", "man --warnings -l"])
def test_the_manual_is_sound(linter: str) -> None:
    needs(linter.split()[0])
    command = [*linter.split(), str(SHARE / "man/man1/fastbridge.1")]
    environment = os.environ | {"MANROFFSEQ": "", "MANWIDTH": "80", "LC_ALL": "C.UTF-8"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, env=environment)
    complaints = [line for line in done.stdout.splitlines() if line.startswith("mandoc:")]
    assert done.stderr == "" and all("missing date" in line for line in complaints), done  # it is the version's
    assert linter.startswith("mandoc") or "fastbridge - a learning software switch" in " ".join(done.stdout.split())


def test_bash_completes(environment: dict[str, str]) -> None:
    needs("bash")
    script = f"""
        . {SHARE}/bash-completion/completions/fastbridge
        complete -p fastbridge | grep -o _fastbridge_completion
        COMP_WORDS=(fastbridge fd); COMP_CWORD=1; COMPREPLY=(); _fastbridge_completion fastbridge
        echo "${{COMPREPLY[*]}}"
    """
    assert completed(environment, "bash", "-c", script) == ["_fastbridge_completion", "fdb"]


def test_zsh_completes(environment: dict[str, str]) -> None:
    needs("zsh")
    # What `_describe` and `compadd` are given is what zsh would show.
    script = f"""
        fpath=({SHARE}/zsh/site-functions $fpath); autoload -Uz compinit; compinit -u -D
        print $_comps[fastbridge]
        _describe() {{ print -l ${{(P)3}} }}; compadd() {{ print -l ${{(P)@[-1]}} }}
        words=(fastbridge fd); CURRENT=2; _fastbridge
    """
    first, *found = completed(environment, "zsh", "-f", "-c", script)
    assert first == "_fastbridge" and [line.split(":")[0] for line in found] == ["fdb"]


def test_fish_completes(environment: dict[str, str]) -> None:
    needs("fish")
    found = completed(environment, "fish", "-c", "complete -C 'fastbridge fd'")
    assert [line.split("\t")[0] for line in found] == ["fdb"]
