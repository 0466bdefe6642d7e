"""Forks, told apart.

A forked child has copies of its parent's objects, but none of its threads. Whatever it does to their sockets and rings
happens to its parent. So the child closes its copies at once, and sockets, promiscuity and namespaces end with the
parent even when the child lives on. A program started by `subprocess` inherits nothing.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from typing import Any, TypeVar

_Thing = TypeVar("_Thing")

_actions: weakref.WeakKeyDictionary[Any, Callable[[Any], None]] = weakref.WeakKeyDictionary()


def in_child(thing: _Thing, let_go: Callable[[_Thing], None]) -> None:
    """Have `let_go(thing)` called in every child that is forked while the thing lives.

    At that moment other threads may have held locks, which stay locked in the child. So `let_go` must replace the
    thing's locks before it takes one.
    """
    _actions[thing] = let_go


def _forked() -> None:
    for thing, let_go in list(_actions.items()):
        let_go(thing)
    _actions.clear()


os.register_at_fork(after_in_child=_forked)
