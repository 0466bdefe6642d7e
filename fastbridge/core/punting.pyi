from collections.abc import Mapping
from typing import final

from typing_extensions import Self

from .dataplane import Dataplane

@final
class Punting:
    def __new__(cls, dataplane: Dataplane) -> Self: ...
    @property
    def fd(self) -> int: ...
    @property
    def lost(self) -> tuple[int, int]: ...
    def set_policy(
        self,
        index: int,
        punts: Mapping[str, int],
        rate: float = 0.0,
        burst: float = 0.0,
        guarded: bool = False,
        strict: bool = False,
        routes: bool = False,
        drop_when_full: bool = False,
    ) -> None: ...
    def set_stalled(self, stalled: bool) -> None: ...
    def set_own_mac(self, mac: int) -> None: ...
    def read(self) -> list[tuple[int, bool, bytes, int]]: ...
