"""Files, written whole.

A file has all its content or stays as it was. Whether it can be written is checked before a measurement. The directory
may belong to another user who wants root to write elsewhere. So the content goes to a new file (O_EXCL), which then
takes the place of a link instead of following it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from fastbridge.errors import BenchError

_OTHERS = stat.S_IWGRP | stat.S_IWOTH


def write_whole(path: Path, content: str | bytes) -> None:
    """Write `content` to `path`, at once or not at all. Raises OSError, which names the file."""
    data = content.encode("utf-8") if isinstance(content, str) else content
    try:
        if _is_stream(path):
            path.write_bytes(data)
            return
        partial = path.with_name(f".{secrets.token_hex(8)}.partial")  # short: the file's own name may have full length
        file = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        try:
            with open(file, "wb") as writer:  # noqa: PTH123 - of a descriptor
                writer.write(data)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def _is_stream(path: Path) -> bool:
    """Whether the path is a device or a pipe, which is written to directly.

    A link to one (/dev/stdout) counts only if no other user could have made it.
    """
    try:
        kind = path.lstat().st_mode if _is_planted(path) else path.stat().st_mode
    except FileNotFoundError:
        return False
    return not (stat.S_ISREG(kind) or stat.S_ISDIR(kind) or stat.S_ISLNK(kind))


def _is_planted(path: Path) -> bool:
    """Whether the path is a link that another user than root or this one could have made."""
    directory = path.absolute().parent.stat()
    return path.is_symlink() and (directory.st_uid not in (0, os.geteuid()) or bool(directory.st_mode & _OTHERS))


@contextlib.contextmanager
def writable_file(path: Path, way_out: str) -> Iterator[None]:
    """Raise BenchError unless `path` can be written. Nothing is made or changed."""
    try:
        _check_writable(path)
    except OSError as error:
        raise BenchError(f"cannot write {path}: {error.strerror}; {way_out}") from error
    yield


def _check_writable(path: Path) -> None:
    """Raise OSError if write_whole() would."""
    if path.is_dir() and not path.is_symlink():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if path.exists() and not path.is_symlink() and not os.access(path, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    if not _is_stream(path):  # a file beside it takes its place
        tempfile.TemporaryFile(dir=path.absolute().parent).close()


@contextlib.contextmanager
def writable_directory(path: Path, way_out: str) -> Iterator[None]:
    """Make the directory `path`, or raise BenchError. If it stays empty it is removed afterwards."""
    made = [each for each in (path, *path.parents) if not each.exists()]
    try:
        try:
            path.mkdir(parents=True, exist_ok=True)
            if _is_planted(path):
                raise NotADirectoryError(errno.ENOTDIR, "it is a link that another user may have made")
            tempfile.TemporaryFile(dir=path).close()
        except OSError as error:
            raise BenchError(f"cannot write to {path}: {error.strerror}; {way_out}") from error
        yield
    finally:
        for each in made:
            with contextlib.suppress(OSError):  # not empty
                each.rmdir()
