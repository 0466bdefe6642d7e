from collections.abc import Iterable
from typing import Final, NamedTuple, final

CYTHON_VERSION: Final[str]

class Sent(NamedTuple):
    intended: int
    offered: int
    refused: int
    started_ns: int
    seconds: float

@final
class Generator:
    def __init__(self, fd: int, frames: Iterable[bytes]) -> None: ...
    def send(self, seconds: float, rate: float | None = None) -> Sent: ...
