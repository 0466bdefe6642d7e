"""Open files, enough of them.

A port takes two file descriptors and a pod up to four. The usual soft limit of 1,024 is too small for hundreds.
"""

from __future__ import annotations

import os
import resource

_SPARE_FILES = 256  #: file descriptors left for whatever else the process does


def reserve_files(count: int) -> None:
    """Make room for `count` more file descriptors, up to the hard limit. Beyond it opening a file fails."""
    needed = count + len(os.listdir("/proc/self/fd")) + _SPARE_FILES  # noqa: PTH208
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed if hard == resource.RLIM_INFINITY else min(needed, hard), hard))
