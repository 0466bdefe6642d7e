from typing import Any, final

from typing_extensions import Self

from .dataplane import Dataplane

@final
class Foresight:
    def __new__(cls, dataplane: Dataplane) -> Self: ...
    def foresee(self, ingress: int, frame: bytes, now: int) -> dict[str, Any]: ...
    def inject(self, ingress: int, frame: bytes, now: int | None = None) -> dict[str, Any]: ...
