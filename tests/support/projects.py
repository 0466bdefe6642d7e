"""Somebody else's project: its tests, run by a pytest of their own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from textwrap import dedent

PLUGIN = "fastbridge.pytest_plugin"


def command(*arguments: str, plugins: Sequence[str] = (PLUGIN,)) -> list[str]:
    """The command line of pytest without what happens to be installed beside it, but for these plugins."""
    named = [word for plugin in plugins for word in ("-p", plugin)]
    return ["-m", "pytest", "-p", "no:cacheprovider", "-W", "error", "-rA", *named, *arguments]


def environment(autoload: bool = False) -> dict[str, str]:
    """This process's own, without what its pytest has put there."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return kept if autoload else kept | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}


def run_tests(
    directory: Path, code: str, *arguments: str, plugins: Sequence[str] = (PLUGIN,), autoload: bool = False
) -> subprocess.CompletedProcess[str]:
    """Write a file of tests, and run it. autoload: with all plugins that are installed."""
    (directory / "test_it.py").write_text(dedent(code), encoding="utf-8")
    return subprocess.run(
        [sys.executable, *command("test_it.py", *arguments, plugins=plugins)],
        cwd=directory,
        env=environment(autoload),
        capture_output=True,
        text=True,
        timeout=300,
    )


def outcomes(done: subprocess.CompletedProcess[str]) -> dict[str, int]:
    """How many tests passed, failed, …, by pytest's last line."""
    lines = done.stdout.splitlines()
    assert lines, done.stderr
    return {word: int(number) for number, word in re.findall(r"(\d+) ([a-z]+)", lines[-1].partition(" in ")[0])}
