"""Agents, from the bench's side.

An agent is a process (see `agent`). It starts when it is first needed, and again after a failure.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from socket import socket
from typing import Any

from fastbridge.bench.machine.child import Child
from fastbridge.errors import BenchError
from fastbridge.programs import python_module

ANSWER_SECONDS = 5.0  # beyond the length of the task
START_SECONDS = 20.0


class AgentProcess:
    """One agent, kept on `cpu` if one is named.

    It inherits the sockets that `open_sockets` makes, and the file `shared`.
    """

    def __init__(
        self,
        popen: Callable[..., subprocess.Popen[Any]],
        cpu: int | None,
        name: str,
        open_sockets: Callable[[], list[socket]] = list,
        shared: int | None = None,
    ) -> None:
        self._popen, self._cpu, self.name, self._open_sockets = popen, cpu, name, open_sockets
        self._shared = [] if shared is None else [shared]
        self._child: Child | None = None
        self._ready = False
        self._fds: list[int] = []

    @property
    def is_started(self) -> bool:
        """Whether the process runs, and so remembers earlier commands."""
        return self._child is not None

    def start(self) -> None:
        """Start the process if there is none. The next command waits until it is ready."""
        if self._child is not None:
            return
        argv = python_module("fastbridge.bench.tester.agent")
        sockets = self._open_sockets()
        try:
            self._fds = [opened.fileno() for opened in sockets]
            fds = [*self._fds, *self._shared]
            self._child = Child(self._popen, argv, name=self.name, cpu=self._cpu, pass_fds=fds)
        finally:
            for opened in sockets:  # the child's copies, and all they hold, go when the child ends
                opened.close()

    def sockets(self) -> list[int]:
        """The file descriptors of its sockets."""
        self.start()
        return self._fds

    def wait_until_ready(self) -> None:
        """Start it if necessary. Return when it takes commands at once."""
        self.start()
        if not self._ready:
            self.answer(START_SECONDS)
            self._ready = True

    def tell(self, **command: Any) -> None:
        """Give a command. Fetch its answer with answer()."""
        self.wait_until_ready()
        assert self._child is not None
        with self._afresh_after_failure():
            self._child.tell(json.dumps(command))

    def answer(self, timeout: float) -> dict[str, Any]:
        """The next answer. Raise BenchError if it is an error or does not come."""
        assert self._child is not None
        with self._afresh_after_failure():
            answer: dict[str, Any] = json.loads(self._child.line(timeout))
        if "error" in answer:
            raise BenchError(f"{self.name}: {answer['error']}")
        return answer

    def ask(self, **command: Any) -> dict[str, Any]:
        """Give a command and wait for its answer."""
        self.tell(**command)
        return self.answer(ANSWER_SECONDS)

    def stop(self) -> None:
        """End the process. The next command starts a new one."""
        if self._child is not None:
            self._child.stop()
            self._child, self._ready = None, False

    @contextmanager
    def _afresh_after_failure(self) -> Iterator[None]:
        try:
            yield
        except BenchError:
            self.stop()
            raise
