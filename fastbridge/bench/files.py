"""Files, written whole.

A file is there with all its content or as it was before; and whether it can be written is found out before a
measurement, not after it.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from fastbridge.errors import BenchError


def write_whole(path: Path, content: str | bytes) -> None:
    """Write `content` to `path`, at once or not at all. Raises OSError."""
    data = content.encode("utf-8") if isinstance(content, str) else content
    if path.exists() and not path.is_file():  # a device, a pipe
        path.write_bytes(data)
        return
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_bytes(data)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def writable_file(path: Path, way_out: str) -> Iterator[None]:
    """Raise BenchError unless `path` can be written; afterwards it is not there if nothing has come of it."""
    try:
        path.open("a").close()
        if path.is_file():  # it is replaced in one go, by one beside it
            tempfile.TemporaryFile(dir=path.absolute().parent).close()
    except OSError as error:
        raise BenchError(f"cannot write {path}: {error.strerror}; {way_out}") from error
    try:
        yield
    finally:
        if path.is_file() and path.stat().st_size == 0:
            path.unlink()


@contextlib.contextmanager
def writable_directory(path: Path, way_out: str) -> Iterator[None]:
    """Make the directory `path`, or raise BenchError; afterwards it is not there if it was made for nothing."""
    made = [each for each in (path, *path.parents) if not each.exists()]
    try:
        try:
            path.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=path).close()
        except OSError as error:
            raise BenchError(f"cannot write to {path}: {error.strerror}; {way_out}") from error
        yield
    finally:
        for each in made:
            with contextlib.suppress(OSError):  # there is something in it
                each.rmdir()
