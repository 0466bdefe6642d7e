"""`fastbridge mininet`, a file for Mininet."""

from __future__ import annotations

import os
import sys
from importlib.resources import files
from pathlib import Path

import rich_click as click

from fastbridge.control.directory import directory, make_directory
from fastbridge.errors import ConfigError

_CALLED = 'COMMAND = [sys.executable, "-m", "fastbridge"]\n'


@click.command(epilog='Example: sudo mn --custom "$(fastbridge mininet)" --switch fastbridge --controller none')
def mininet() -> None:
    """Write a file by which Mininet's switches are fastbridge's, and print its path.

    The file needs only Mininet and its Python, and calls this fastbridge.
    """
    make_directory()
    path = directory() / "mininet.py"
    try:
        _write(path, _custom_file())
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}") from None
    click.echo(path)


def _custom_file() -> str:
    text = (files("fastbridge") / "mininet.py").read_text(encoding="utf-8")
    assert text.count(_CALLED) == 1
    return text.replace(_CALLED, f"COMMAND = {_command()!r}\n")


def _command() -> list[str]:
    """How this fastbridge is called from anywhere: by the script beside the interpreter, or else as a module."""
    script = Path(sys.executable).with_name("fastbridge")
    return [str(script)] if os.access(script, os.X_OK) else [sys.executable, "-m", "fastbridge"]


def _write(path: Path, text: str) -> None:
    """All of it or nothing: mn may be reading the one before."""
    fresh = path.with_suffix(f".{os.getpid()}")
    try:
        fresh.write_text(text, encoding="utf-8")
        fresh.replace(path)
    except OSError:
        fresh.unlink(missing_ok=True)
        raise
