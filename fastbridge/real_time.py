"""Real-time threads: they run before all ordinary ones (sched(7)).

The kernel keeps a twentieth of the time for the others (sched_rt_runtime_us). The lowest priority is enough.
"""

from __future__ import annotations

import contextlib
import os
import resource
from concurrent.futures import ThreadPoolExecutor

from fastbridge.errors import PrivilegeError


def allow_real_time() -> None:
    """See that threads of this process may run in real time, also when its capabilities are given up later.

    Raises PrivilegeError: nothing allows it.
    """
    if not may_be_real_time():
        hard = resource.getrlimit(resource.RLIMIT_RTPRIO)[1]
        with contextlib.suppress(ValueError, PermissionError):  # then only CAP_SYS_NICE helps
            resource.setrlimit(resource.RLIMIT_RTPRIO, (1, hard or 1))
    with ThreadPoolExecutor(1) as trial:
        if trial.submit(run_in_real_time).exception() is not None:
            raise PrivilegeError(
                "real_time: this process may have no real-time threads; run it as root, or allow it by `ulimit -r 1` "
                "(LimitRTPRIO=1 in a unit)"
            )


def may_be_real_time() -> bool:
    """Whether any thread of this process may run in real time: without CAP_SYS_NICE, by its limit."""
    return resource.getrlimit(resource.RLIMIT_RTPRIO)[0] != 0


def run_in_real_time() -> None:
    """Let this thread run before all ordinary ones. Raises PermissionError."""
    os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
