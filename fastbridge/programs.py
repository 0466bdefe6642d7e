"""Programs, where they are.

An ordinary user's PATH often lacks the directories of system programs (Debian's does), and tc, ip or a switch's daemon
are there: so these are searched last, always.
"""

from __future__ import annotations

import os
import shutil

_SYSTEM = ("/usr/local/sbin", "/usr/sbin", "/sbin")


def search_path(path: str | None = None) -> str:
    """`path`, or the PATH of this process, with the directories of system programs."""
    known = (os.environ.get("PATH", os.defpath) if path is None else path).split(os.pathsep)
    return os.pathsep.join([*known, *(directory for directory in _SYSTEM if directory not in known)])


def find_program(name: str, path: str | None = None) -> str | None:
    """Where the program of this name is, or None."""
    return shutil.which(name, path=search_path(path))
