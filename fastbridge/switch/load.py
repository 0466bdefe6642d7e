"""Load, plain values.

How busy the data plane is, and how full its queues are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class WorkerLoad:
    """One worker of the data plane."""

    worker: int
    cpu: float  #: seconds of CPU time that its thread has used
    punted: int  #: frames that wait for the policies


@dataclass(frozen=True, slots=True)
class RingLoad:
    """What waits of one port."""

    waiting: int  #: frames that the kernel has received and no worker has read
    slots: int  #: of its receive rings


@dataclass(frozen=True, slots=True)
class Load:
    """A switch at one moment."""

    time: float  #: seconds by the switch's clock
    cpu: float  #: seconds of CPU time that the whole process has used
    workers: Sequence[WorkerLoad]
    rings: Mapping[str, RingLoad]  #: by the port's name

    def as_dict(self) -> dict[str, Any]:
        """The same as plain JSON values."""
        return {**asdict(self), "workers": [asdict(worker) for worker in self.workers]}
