from collections.abc import Sequence
from typing import final

from typing_extensions import Self

from .dataplane import Dataplane

@final
class PacketOut:
    def __new__(cls, dataplane: Dataplane) -> Self: ...
    @property
    def longest_frame(self) -> int: ...
    @property
    def dropped(self) -> int: ...
    def send(self, orders: Sequence[tuple[bytes, int, int]]) -> list[tuple[int, bytes]]: ...
