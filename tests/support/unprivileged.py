"""A Python without privileges."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from live import eventually

import fastbridge

NOBODY = 65534
MS_BIND = 4096


def unprivileged() -> Iterator[list[str]]:
    """The command line of a Python without privileges: as nobody, or with hardly any capability.

    Nobody may not be able to reach Python and the packages (in a home directory), so he is shown them elsewhere.
    """
    packages = {str(Path(module.__file__).parents[1]) for module in (fastbridge, np)}  # type: ignore[arg-type]
    mounts = {f"/run/reach/{n}": path for n, path in enumerate([sys.base_prefix, *sorted(packages)])}
    for place, path in mounts.items():  # in the sandbox's own mount namespace and /run
        Path(place).mkdir(parents=True)
        libc = ctypes.CDLL(None, use_errno=True)
        assert libc.mount(path.encode(), place.encode(), None, MS_BIND, None) == 0, os.strerror(ctypes.get_errno())
    python, *search = mounts
    if Path("/proc/self/uid_map").read_text().split() == ["0", "0", "4294967295"]:
        command = ["setpriv", "--bounding-set=-all", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    else:  # there is no other user in the sandbox; to map its root once more takes CAP_SETFCAP (Linux 5.12)
        command = ["setpriv", "--bounding-set=-all,+setfcap"]
    command += [
        "--inh-caps=-all",
        "--no-new-privs",
        "env",
        f"LD_LIBRARY_PATH={python}/lib",
        f"PYTHONPATH={':'.join(search)}",
        "PYTHONDONTWRITEBYTECODE=1",
    ]
    yield [*command, f"{python}/bin/python{sys.version_info.major}.{sys.version_info.minor}", "-W", "error", "-c"]
    for place in mounts:  # a killed Python is gone from /proc a moment before it lets go of its files
        eventually(lambda place=place: libc.umount2(place.encode(), 0) == 0, f"nobody using {place}")  # type: ignore[misc]
        Path(place).rmdir()
