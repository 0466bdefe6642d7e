from collections.abc import Collection, Iterable
from typing import final

from typing_extensions import Self

from .dataplane import Dataplane
from .filters import Filter

#: See Tap.read().
Row = tuple[int, int, int, int | None, bytes, int, int, str | None, str | None, str | None, tuple[int, ...]]

@final
class Tap:
    def __new__(
        cls,
        dataplane: Dataplane,
        *,
        snap: int = 0,
        room: int = 8,
        limit: int = 0xFFFFFFFF,
        sent: bool = True,
        drops: bool = True,
        own: bool = True,
        reasons: Collection[str] | None = None,
        passing: Filter | None = None,
        every_copy: bool = False,
        keep_last: bool = False,
        mirror: int = -1,
    ) -> Self: ...
    def fileno(self) -> int: ...
    def start(self) -> None: ...
    def stop(self) -> None: ...
    def set_ports(self, ports: Iterable[int] | None) -> None: ...
    @property
    def counts(self) -> tuple[int, int]: ...
    def lost_of(self, port: int) -> int: ...
    def read(self, most: int = 0xFFFFFFFFFFFFFFFF) -> list[Row]: ...
