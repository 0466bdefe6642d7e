from typing import final

from typing_extensions import Self

from .dataplane import Dataplane

@final
class Tracer:
    def __new__(cls, dataplane: Dataplane) -> Self: ...
    def start(self, snap: int, limit: int) -> None: ...
    def stop(self) -> None: ...
    def read(
        self,
    ) -> tuple[list[tuple[int, int, bytes, int, str, str | None, str | None, tuple[int, ...]]], int]: ...
