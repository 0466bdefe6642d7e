"""A lab, and the command line started among its host ends."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator

import pytest
from command import COMMAND, ROOT, run

from fastbridge import Lab


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab(3) as lab:
        yield lab


@pytest.fixture
def start(lab: Lab) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts the command line in the namespace of the lab's host ends."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        started.append(lab.popen_host([*COMMAND, *arguments], text=True, cwd=ROOT, **pipes))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture(scope="session")
def netns_directory() -> None:
    """The first lab makes /run/netns a mount of its own, which stays."""
    run("lab", "up")
    run("lab", "down")
