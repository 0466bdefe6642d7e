"""Vitals: what a switch holds and uses at one moment. What it counts of frames is in counters.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

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
    link_memory: int = 0  #: bytes of the frames in flight on emulated links
    link_memory_limit: int = 0  #: most bytes of them, for each worker

    def as_dict(self) -> dict[str, Any]:
        """The same as plain JSON values."""
        plain = {**self._asdict(), "breaths": list(self.breaths), "cpu_seconds": list(self.cpu_seconds)}
        return {**plain, "policy_waits": self.policy_waits._asdict(), "fast_path": self.fast_path._asdict()}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Vitals:
        """As as_dict() has them; keys of a newer version are passed over, and an older one may lack some."""
        known = {name: plain[name] for name in cls._fields if name in plain or name not in cls._field_defaults}
        waits = Waits(tuple(plain["policy_waits"]["counts"]), plain["policy_waits"]["seconds"])
        fast_path = FastPathVitals(*(plain["fast_path"][name] for name in FastPathVitals._fields))
        return cls(**{**known, "policy_waits": waits, "fast_path": fast_path})
