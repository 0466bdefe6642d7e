"""Waiting for one file descriptor, whatever its number.

select() takes none above 1,023, and a switch of many ports has more; ruff refuses it everywhere.
"""

from __future__ import annotations

import select


def wait_for(descriptor: int, event_mask: int, seconds: float | None = None) -> bool:
    """Wait until it can be read or written (`select.POLLIN`, `select.POLLOUT`); returns whether it can.

    seconds: the longest wait, rounded up to milliseconds; None: for ever.
    """
    poll = select.poll()
    poll.register(descriptor, event_mask)
    return bool(poll.poll(None if seconds is None else 1000 * seconds))
