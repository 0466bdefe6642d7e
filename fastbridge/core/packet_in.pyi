from typing import final

from typing_extensions import Self

from .dataplane import Dataplane

@final
class PacketIn:
    def __new__(cls, dataplane: Dataplane) -> Self: ...
    def receive(self, ingress: int, frame: bytes) -> None: ...
