from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias, final

from typing_extensions import Self

from .dataplane import Dataplane

MEMORY: int
TABLE_STEPS: int

_Key: TypeAlias = tuple[str, int | None, int | None]

@final
class Links:
    def __new__(cls, dataplane: Dataplane) -> Self: ...
    def set(self, links: Mapping[_Key, Any], *, restart: bool = True, now: int | None = None) -> None: ...
    def tidy(self) -> int: ...
    def state(self, now: int | None = None) -> dict[_Key, dict[str, int]]: ...
    def state_of(self, keys: Iterable[_Key], now: int | None = None) -> dict[_Key, dict[str, int]]: ...
    @property
    def memory(self) -> tuple[int, int]: ...
