from typing import final

from typing_extensions import Self

from .dataplane import Dataplane

@final
class Queues:
    def __new__(cls, dataplane: Dataplane) -> Self: ...
    def waiting(self) -> tuple[dict[int, int], list[int]]: ...
