"""Threads that end with their process at the latest."""

from __future__ import annotations

import threading
from collections.abc import Callable

from fastbridge.errors import FastbridgeError


def start_thread(name: str, work: Callable[..., object], *arguments: object) -> threading.Thread:
    """Have a thread of this name do some work from now on. Raises FastbridgeError: the kernel gives none."""
    thread = threading.Thread(target=work, args=arguments, name=name, daemon=True)
    try:
        thread.start()
    except RuntimeError as error:
        raise no_threads(error) from None
    return thread


def no_threads(error: RuntimeError) -> FastbridgeError:
    """What becomes of the error of threading."""
    return FastbridgeError(f"{error}; allow this user, or its cgroup, more of them (ulimit -u, pids.max)")
