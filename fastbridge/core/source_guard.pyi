from collections.abc import Iterable
from typing import final

from typing_extensions import Self

from .dataplane import Dataplane

@final
class SourceGuard:
    def __new__(cls, dataplane: Dataplane) -> Self: ...
    def bind(self, rows: Iterable[tuple[int, int, int, bytes]]) -> None: ...
    def drops(self) -> dict[int, int]: ...
