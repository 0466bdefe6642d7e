"""`fastbridge lab` at work in a lab that stays: shells, and what the Tab key offers."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import COMMAND, ROOT, complaint, run
from live import PATIENCE

pytestmark = pytest.mark.live


@pytest.fixture(scope="module")
def stored(netns_directory: None) -> Iterator[str]:
    """The name of a lab that stays."""
    assert run("lab", "up", "--pods", "3", "--name", "tst").returncode == 0
    yield "tst"
    assert run("lab", "down", "--name", "tst").returncode == 0


def in_a_terminal(*arguments: str, typed: str, **variables: str) -> tuple[int, str]:
    """The exit status of a command in a terminal, and what is to be seen there."""
    ours, theirs = os.openpty()
    command = ["setsid", "--ctty", "--wait", *COMMAND, *arguments]
    process = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, cwd=ROOT, env=os.environ | {"TERM": "dumb"} | variables
    )
    os.close(theirs)
    os.write(ours, typed.encode())
    seen = b""
    try:
        while data := os.read(ours, 4096):
            seen += data
    except OSError:  # EIO: nobody has the other end any more
        pass
    os.close(ours)
    return process.wait(PATIENCE), seen.decode()


def test_a_shell_says_in_which_pod_it_is(stored: str, tmp_path: Path) -> None:
    (tmp_path / ".bashrc").write_text("PS1='mine> '; alias three='echo one two three'\n")
    typed = "three\ncat /sys/class/net/eth0/address\nls /proc/self/fd\nexit 7\n"
    status, seen = in_a_terminal("lab", "shell", "--name", stored, "pod2", typed=typed, HOME=str(tmp_path))
    assert status == 7
    lines = [line.strip() for line in seen.splitlines()]
    assert any(line.startswith("[pod2] mine> ") for line in lines)
    assert "one two three" in lines and "02:00:00:00:00:02" in lines
    assert [line.split() for line in lines if line.startswith("0 ")] == [
        ["0", "1", "2", "3"]
    ]  # 3: the directory itself


def test_a_shell_without_bash(stored: str, tmp_path: Path) -> None:
    for name in ("sh", "cat"):
        (tmp_path / name).symlink_to(f"/bin/{name}")
    hidden = "from fastbridge import programs; programs._SYSTEM = (); from fastbridge.cli import main; main()"
    command = [COMMAND[0], "-c", hidden, "lab", "shell", "--name", stored, "pod2"]
    done = subprocess.run(
        command, input="cat /sys/class/net/eth0/address\n", capture_output=True, text=True, cwd=ROOT,
        env=os.environ | {"PATH": str(tmp_path), "ENV": ""},
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "02:00:00:00:00:02\n")
    assert "[pod2] # " in done.stderr


def test_a_shell_in_no_pod(stored: str) -> None:
    line = complaint(run("lab", "shell", "--name", stored, "pod9"), 1)
    assert line == "lab tst has no pod 'pod9'; its pods are pod1, pod2, pod3"


def offered(*words: str) -> list[str]:
    """What bash's Tab key offers for the last word."""
    environment = {"_FASTBRIDGE_COMPLETE": "bash_complete", "COMP_WORDS": " ".join(["fastbridge", *words])}
    environment |= {"COMP_CWORD": str(len(words))}
    done = subprocess.run(
        COMMAND, capture_output=True, text=True, timeout=PATIENCE, cwd=ROOT, env=os.environ | environment
    )
    assert done.stderr == ""
    return [word.partition(",")[2] for word in done.stdout.split()]


def test_the_tab_key_knows_labs_and_their_pods(stored: str) -> None:
    assert offered("lab", "down", "--name", "t") == ["tst"]
    for command in "exec", "shell":
        assert offered("lab", command, "--name", "tst", "pod") == ["pod1", "pod2", "pod3"]
        assert offered("lab", command, "pod") == []  # there is no lab fb
