"""Calls of Python functions in a pod.

Each call is a new Python process in the pod. Nothing is forked: a forked child of a process with threads can wait for
ever for a lock that one of them held. So the function and its arguments go there pickled, and the answer comes back so.

A function of a module goes by its name, and the new Python imports the module. A function of the main program, a
lambda or a closure goes as it is, as does one of a module that no import finds. That takes cloudpickle.
"""

from __future__ import annotations

import functools
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from fastbridge.errors import ConfigError, LabError
from fastbridge.extras import way_to
from fastbridge.programs import find_python

from .namespaces import Namespace

_RUNNER = Path(__file__).with_name("call_runner.py")
_registry = threading.Lock()  #: whom cloudpickle pickles as a whole is a setting of the process


def _renew_lock() -> None:
    """In a forked child: a thread of the parent may have held it, and has no part here."""
    global _registry
    _registry = threading.Lock()


os.register_at_fork(after_in_child=_renew_lock)


class RemoteError(Exception):
    """The cause of an error that was raised in a pod: its text is the traceback there."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


def call(
    namespace: Namespace, pod: str, function: Callable[..., Any], arguments: tuple[Any, ...], timeout: float | None
) -> Any:
    """What the function returns in a pod's namespace. Raises what it raises there, ConfigError, LabError."""
    _ = namespace.number  # raises LabError in a forked child, where another thread may have held a lock of ours
    what = f"{_name(function)} in pod {pod}"
    with os.fdopen(os.memfd_create("fastbridge-call", os.MFD_CLOEXEC), "r+b") as file:
        file.write(_request(function, arguments))
        file.seek(0)  # also for the new process, which shares the position
        command = [find_python(), str(_RUNNER), str(file.fileno())]
        options = {"stdin": subprocess.DEVNULL, "pass_fds": [file.fileno()]}
        status = _run(namespace, command, options, what, timeout)
        file.seek(0)
        return _result(file.read(), status, what)


def _run(namespace: Namespace, command: list[str], options: dict[str, Any], what: str, timeout: float | None) -> int:
    """Let the runner end, and give its exit status. It is killed when that takes too long, or is interrupted."""
    with namespace.popen(command, **options) as process:
        try:
            return process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            raise LabError(f"{what} was killed: it took longer than {timeout:g} s") from None
        except BaseException:
            process.kill()
            raise


def _request(function: Callable[..., Any], arguments: tuple[Any, ...]) -> bytes:
    pickler = _pickler()
    try:
        with _whole(function, pickler):
            called: bytes = pickler.dumps((function, arguments))
    except Exception as error:  # whatever the arguments' own methods raise
        raise ConfigError(f"{_name(function)} cannot go to a pod: {error}{_way_out(pickler)}") from error
    return pickle.dumps((sys.path, pickler.__name__)) + called


def _result(answer: bytes, status: int, what: str) -> Any:
    if status or not answer:
        how = f"was killed by {_signal_name(-status)}" if status < 0 else f"ended with exit status {status}"
        raise LabError(f"{what} {how}, without a result")
    kind, content, *more = pickle.loads(answer)  # noqa: S301 - from a process that this one started
    if kind == "lost":
        raise ConfigError(f"{what} cannot be loaded by a new Python: {content}{_way_out(_pickler())}")
    if kind == "mute":
        raise LabError(f"{what} returns what cannot be pickled: {content}")
    if kind == "raised":
        text = more[0]
        cause = RemoteError(text)
        if content is None:
            raise LabError(f"{what} raised {text.splitlines()[-1]}") from cause
        raise pickle.loads(content) from cause  # noqa: S301 - as above
    return pickle.loads(content)  # noqa: S301 - as above


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"


def _pickler() -> ModuleType:
    try:
        import cloudpickle
    except ImportError:
        return pickle
    return cloudpickle  # type: ignore[no-any-return]


def _way_out(pickler: ModuleType) -> str:
    if pickler is not pickle:
        return ""
    way = way_to("call")
    return f"; functions of the main program, lambdas and closures take the extra `call`: {way}"


@contextmanager
def _whole(function: Callable[..., Any], pickler: ModuleType) -> Iterator[None]:
    """Meanwhile functions of this one's module go as they are, if no import finds it (pytest's importlib mode)."""
    while isinstance(function, functools.partial):
        function = function.func
    module = sys.modules.get(getattr(function, "__module__", None) or "")
    if module is None or pickler is pickle or _is_found(module):
        yield
        return
    with _registry:
        ours = module.__name__ not in pickler.list_registry_pickle_by_value()
        if ours:
            pickler.register_pickle_by_value(module)
        try:
            yield
        finally:
            if ours:
                pickler.unregister_pickle_by_value(module)


def _is_found(module: ModuleType) -> bool:
    """Whether a new Python finds this module. The main program it does not: its own is another one."""
    name, path, spec = "", None, None
    for part in module.__name__.split("."):
        name = f"{name}.{part}" if name else part
        finders = [finder.find_spec for finder in sys.meta_path if hasattr(finder, "find_spec")]
        spec = next(filter(None, (find(name, path) for find in finders)), None)
        if spec is None:
            return False
        path = spec.submodule_search_locations
    return spec is not None and spec.origin == getattr(getattr(module, "__spec__", None), "origin", None)


def _name(function: Callable[..., Any]) -> str:
    return getattr(function, "__qualname__", None) or repr(function)
