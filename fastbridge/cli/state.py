"""`fastbridge state`, what a restart takes back."""

from __future__ import annotations

from .operate import Remote, in_order, operate


@in_order()
def state() -> None:
    """Write a running switch's state to its file."""


@state.command(epilog="Example: fastbridge state save --switch lab")
@operate
def save(remote: Remote) -> None:
    """Write now what is otherwise written at the end: what a switch has learned, and what was changed by hand.

    The switch must run with --state FILE.
    """
    remote.change("state.save")
