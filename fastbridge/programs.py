"""Programs, where they are.

An ordinary user's PATH often lacks the directories of system programs (Debian's does). tc, ip and the daemons of
switches are there, so these directories are searched last, always.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import sysconfig
from pathlib import Path

from fastbridge.errors import LabError

_PYTHON = re.compile(r"(python|pypy)[\d.]*[a-z]*")
_SYSTEM = ("/usr/local/sbin", "/usr/sbin", "/sbin")


def search_path(path: str | None = None) -> str:
    """`path`, or the PATH of this process, with the directories of system programs."""
    known = (os.environ.get("PATH", os.defpath) if path is None else path).split(os.pathsep)
    return os.pathsep.join([*known, *(directory for directory in _SYSTEM if directory not in known)])


def find_program(name: str, path: str | None = None) -> str | None:
    """Where the program of this name is, or None."""
    return shutil.which(name, path=search_path(path))


def find_python() -> str:
    """A Python of this version, for a program that needs only the standard library. Raises LabError.

    In an application that has Python inside, `sys.executable` is that application, or nothing. To start it would
    start the application once more.
    """
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    directories = [os.path.join(sys.base_exec_prefix, "bin"), sysconfig.get_config_var("BINDIR") or "/usr/bin"]  # noqa: PTH118
    places = [os.path.join(directory, name) for directory in directories]  # noqa: PTH118
    own = [] if getattr(sys, "frozen", False) else [sys.executable, getattr(sys, "_base_executable", None)]
    for path in [*own, *places, find_program(name), find_program("python3")]:
        if path and _is_python(path) and os.access(path, os.X_OK):
            return path
    raise LabError(f"a lab needs the program {name}: {sys.executable!r} is another one, and the PATH has none")


def python_module(module: str) -> list[str]:
    """The command line of a Python that runs this module, and finds the packages that this process finds."""
    python = find_python()
    command = [python, "-m", module]
    if python == sys.executable:  # it finds its packages by itself
        return command
    return ["env", f"PYTHONPATH={os.pathsep.join(str(Path(place).absolute()) for place in sys.path)}", *command]


def _is_python(path: str) -> bool:
    return any(_PYTHON.fullmatch(os.path.basename(name)) for name in (path, os.path.realpath(path)))  # noqa: PTH119
