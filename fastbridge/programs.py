"""Programs, where they are.

An ordinary user's PATH often lacks the directories of system programs (Debian's does), and tc, ip or a switch's daemon
are there: so these are searched last, always.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import sysconfig

_PYTHON = re.compile(r"(python|pypy)[\d.]*[a-z]*")
_SYSTEM = ("/usr/local/sbin", "/usr/sbin", "/sbin")


def search_path(path: str | None = None) -> str:
    """`path`, or the PATH of this process, with the directories of system programs."""
    known = (os.environ.get("PATH", os.defpath) if path is None else path).split(os.pathsep)
    return os.pathsep.join([*known, *(directory for directory in _SYSTEM if directory not in known)])


def find_program(name: str, path: str | None = None) -> str | None:
    """Where the program of this name is, or None."""
    return shutil.which(name, path=search_path(path))


def find_python() -> str | None:
    """A Python of this version, or None, for a program that needs no more than the standard library.

    In an application that has Python inside, `sys.executable` is that application (or nothing), and to start it
    would be to start the application once more.
    """
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    directories = [os.path.join(sys.base_exec_prefix, "bin"), sysconfig.get_config_var("BINDIR") or "/usr/bin"]  # noqa: PTH118
    places = [os.path.join(directory, name) for directory in directories]  # noqa: PTH118
    own = [] if getattr(sys, "frozen", False) else [sys.executable, getattr(sys, "_base_executable", None)]
    for path in [*own, *places, find_program(name), find_program("python3")]:
        if path and _is_python(path) and os.access(path, os.X_OK):
            return path
    return None


def _is_python(path: str) -> bool:
    return any(_PYTHON.fullmatch(os.path.basename(name)) for name in (path, os.path.realpath(path)))  # noqa: PTH119
