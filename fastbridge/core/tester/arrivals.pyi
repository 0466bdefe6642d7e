from collections.abc import Sequence
from typing import NamedTuple, final

from typing_extensions import Buffer, Self

class Heard(NamedTuple):
    duplicated: int
    reordered: int
    corrupted: int
    missed: int
    early: int

@final
class Arrivals:
    def __new__(cls, fds: Sequence[int], sent: Buffer, arrived: Buffer) -> Self: ...
    def begin(self, trial: int, streams: int, copies: bool) -> None: ...
    def run(self) -> Heard: ...
    def stop(self) -> None: ...
