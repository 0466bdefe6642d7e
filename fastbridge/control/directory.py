"""Sockets, where they lie.

Each running switch has one socket, NAME.sock, in a directory that only its owner may write to: root's is
/run/fastbridge, another user's is $XDG_RUNTIME_DIR/fastbridge, or else /tmp/fastbridge-UID.
"""

from __future__ import annotations

import os
import re
import socket
import stat
import sys
from pathlib import Path

from fastbridge.errors import ConfigError

_ROOT = Path("/run/fastbridge")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SUFFIX = ".sock"


def directory() -> Path:
    """That of this user, existing or not."""
    if os.geteuid() == 0 and os.access(_ROOT.parent, os.W_OK):
        return _ROOT
    uid = _outer_uid(os.geteuid())
    runtime = Path(os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{uid}")
    if runtime.is_absolute() and os.access(runtime, os.W_OK | os.X_OK):
        return runtime / "fastbridge"
    return Path(f"/tmp/fastbridge-{uid}")  # noqa: S108 - checked below


def make_directory() -> None:
    """Make that of this user, unless it is there. Raises ConfigError where somebody else could write to it."""
    place = directory()
    try:
        # Labs that stay keep their files in root's, and everybody may read them.
        place.mkdir(mode=0o755 if place == _ROOT else 0o700)
    except FileExistsError:
        pass
    except OSError as error:
        raise ConfigError(f"cannot make {place}, the directory of the control sockets: {error.strerror}") from None
    _check(place)


def check_name(name: str) -> None:
    """Raise ConfigError for what cannot be a switch's name."""
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"{name!r} cannot be a switch's name: 1 to 64 of A-Z a-z 0-9 . _ -, the first a letter or a digit"
        )


def socket_path(name: str) -> Path:
    """Where the socket of the switch of this name is, or would be. Raises ConfigError."""
    check_name(name)
    place = directory()
    if place.exists() or place.is_symlink():
        _check(place)
    return place / f"{name}{_SUFFIX}"


def running() -> list[str]:
    """The names of this user's running switches. Raises ConfigError."""
    place = directory()
    if not (place.exists() or place.is_symlink()):
        return []
    _check(place)
    return [path.stem for path in _sockets(place) if answers(path)]


def the_one(name: str | None = None) -> str:
    """The running switch of this name, or the only one. Raises ConfigError."""
    if name is not None and answers(socket_path(name)):
        return name
    names = running()
    if not names:
        which = "no switch runs" if name is None else f"no switch named {name} runs"
        of_root = [] if directory() == _ROOT else [path.stem for path in _sockets(_ROOT)]
        way_out = (
            f"those of root need sudo: {', '.join(of_root)}"
            if of_root
            else "start one with: fastbridge run --name NAME"
        )
        raise ConfigError(f"{which}: there is no socket in {directory()}; {way_out}")
    if name is not None:
        raise ConfigError(f"no switch named {name} runs; there are: {', '.join(names)}")
    if len(names) > 1:
        raise ConfigError(f"several switches run: {', '.join(names)}; choose one with --switch NAME")
    return names[0]


def answers(path: Path) -> bool:
    """Whether a process listens on this socket. That of a dead one refuses."""
    return listener(path) is not None


def listener(path: Path) -> int | None:
    """The process that listens on this socket; 0: one that this process cannot see; None: there is none."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.setblocking(False)
        try:
            sock.connect(str(path))
        except BlockingIOError:  # many wait already
            return 0
        except OSError:
            return None
        return int.from_bytes(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 4), sys.byteorder)


def _sockets(place: Path) -> list[Path]:
    """Those in a directory, also of switches that were killed."""
    return sorted(path for path in place.glob(f"*{_SUFFIX}") if _NAME.fullmatch(path.stem))


def _check(place: Path) -> None:
    found = place.lstat()
    if stat.S_ISLNK(found.st_mode) or not stat.S_ISDIR(found.st_mode):
        why = "is a link" if stat.S_ISLNK(found.st_mode) else "is no directory"
    elif found.st_uid != os.geteuid():
        why = f"belongs to user {found.st_uid}"
    elif found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        why = f"is open to others (chmod go-w {place})"
    else:
        return
    raise ConfigError(f"no control sockets in {place}: it {why}; remove it, or set XDG_RUNTIME_DIR to a private one")


def _outer_uid(uid: int) -> int:
    """Who this user is outside of a user namespace, where the same switch must be found."""
    for line in Path("/proc/self/uid_map").read_text().splitlines():
        inside, outside, count = map(int, line.split())
        if inside <= uid < inside + count:
            return outside + uid - inside
    return uid
