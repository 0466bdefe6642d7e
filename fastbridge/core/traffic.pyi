from collections.abc import Iterable
from typing import Final, NamedTuple, final

from typing_extensions import Self

CYTHON_VERSION: Final[str]

class Sent(NamedTuple):
    intended: int
    offered: int
    refused: int
    started_ns: int
    seconds: float

@final
class Generator:
    def __new__(cls, fd: int, frames: Iterable[bytes]) -> Self: ...
    def send(self, seconds: float, rate: float | None = None) -> Sent: ...
