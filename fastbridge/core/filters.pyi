from collections.abc import Iterable
from typing import final

from typing_extensions import Self

@final
class Filter:
    def __new__(cls, program: Iterable[tuple[int, int, int, int]]) -> Self: ...
    def run(self, frame: bytes, length: int) -> int: ...
