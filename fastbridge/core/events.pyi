from typing import final

from typing_extensions import Self

from .dataplane import Dataplane

@final
class Events:
    def __new__(cls, dataplane: Dataplane) -> Self: ...
    def read(self) -> tuple[list[tuple[str, int, int, int, int]], int]: ...
    def set_probe_magic(self, magic: bytes) -> None: ...
