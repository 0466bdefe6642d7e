"""Files that words name: tables and traces."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

from fastbridge.errors import ConfigError

_MOST_BYTES = 64 << 20


class KnownFile(str):
    """The path of a file with what was read from it: a link that is changed in other words reads it not again."""

    content: Any

    @classmethod
    def of(cls, path: str, content: object) -> KnownFile:
        """A path, and what was read."""
        known = cls(path)
        known.content = content
        return known


def absolute(word: str, path: object) -> str:
    """The path from the root, so that it means the same to every process. Raises ConfigError."""
    if not isinstance(path, str) or not path.strip():
        raise ConfigError(f"{word} must be the path of a file, not {path!r}")
    try:
        found = str(Path(path.strip()).expanduser().absolute())
    except RuntimeError as error:
        raise ConfigError(f"{word} {path!r} has no home: {error}") from None
    if "," in found or not found.isprintable():
        raise ConfigError(f"{word} {found!r} has a comma, which parts words, or worse; give the file another name")
    return found


def stamp(word: str, path: str) -> tuple[int, int, int]:
    """What changes when the file does. Raises ConfigError: it cannot be read."""
    try:
        found = Path(path).stat()
    except (OSError, ValueError) as error:
        raise _unreadable(word, path, error) from None
    return found.st_ino, found.st_mtime_ns, found.st_size


def read_text(word: str, path: str) -> str:
    """All of a file. Raises ConfigError."""
    try:
        raw = None
        if stat.S_ISREG(Path(path).stat().st_mode):
            with Path(path).open("rb") as file:
                raw = file.read(_MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        raise _unreadable(word, path, error) from None
    if raw is None:
        raise ConfigError(f"{word}: {path} is not a file")
    if len(raw) > _MOST_BYTES:
        raise ConfigError(f"{word}: {path} is too large: at most {_MOST_BYTES >> 20} MiB")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError(f"{word}: {path} is not text") from None


def _unreadable(word: str, path: str, error: Exception) -> ConfigError:
    why = error.strerror if isinstance(error, OSError) else str(error)
    return ConfigError(f"{word}: {path} cannot be read: {why}")
