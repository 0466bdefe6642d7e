"""Vitals: what a switch holds and uses at one moment. What it counts of frames is in counters.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from fastbridge.policy.waits import Waits


class FastPathVitals(NamedTuple):
    """The kernel's fast path."""

    name: str = "off"  #: "nft", "bpf" or "off"
    pairs: int = 0  #: promoted now
    limit: int = 0  #: most pairs
    promoted: int = 0  #: pairs, since the start …
    revoked: int = 0
    refused: int = 0  #: … for want of room


class Vitals(NamedTuple):
    """What a switch holds and uses."""

    fdb_entries: int
    fdb_limit: int
    neighbours: int
    neighbour_limit: int
    neighbours_refused: int  #: not learned: the table was full, above all of their port
    conflicts: int  #: disputes about an address, since the start
    breaths: Sequence[int]  #: of each worker: how often it looked for frames
    policy_waits: Waits  #: of the frames that a policy has decided; none in memory, where no frame waits
    cpu_seconds: Sequence[float] = ()  #: of each worker's thread; empty while none runs
    fast_path: FastPathVitals = FastPathVitals()
