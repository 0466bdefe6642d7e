from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple, final

from typing_extensions import Buffer, Self

CYTHON_VERSION: Final[str]

class Addresses(NamedTuple):
    own: bytes
    behind: bytes
    first: int = 0
    amount: int = 1

class Lane(NamedTuple):
    fd: int
    frames: Sequence[bytes]
    sources: Addresses | None = None
    targets: Sequence[Addresses] = ()

class PhaseSent(NamedTuple):
    intended: int
    sent: int
    refused: int
    seconds: float

class Sent(NamedTuple):
    intended: int
    sent: tuple[int, ...]
    refused: int
    stamped: int
    started_ns: int
    seconds: float
    phases: tuple[PhaseSent, ...]

@final
class Generator:
    def __new__(cls, lanes: Iterable[Lane], *, sample: int = 0, log: Buffer | None = None, trial: int = 0) -> Self: ...
    def send(self, phases: Iterable[tuple[float | None, float | None, int | None]]) -> Sent: ...
