"""A hand in memory: what the kernel does by the fast path, frame by frame."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping

from fastbridge.switch.fast_path.hand import Look, Pair, RefusedError


def key_of(ingress: int, frame: bytes, look: Look) -> Pair | None:
    """The pair that a kernel looks a frame up by; None: it hands it to the core."""
    if len(frame) < 14:
        return None
    destination, source, ethertype = (int.from_bytes(part, "big") for part in (frame[:6], frame[6:12], frame[12:14]))
    ip = b""
    if look is not Look.NOTHING and ethertype == 0x86DD and len(frame) > 20:
        nd = len(frame) > 54 and frame[20] == 58 and frame[54] in (133, 134, 135, 136, 137)
        if nd or frame[20] in (0, 43, 44, 60):
            return None
    if look is Look.SOURCES and ethertype == 0x0800:
        ip = b"\xff" + bytes(11) + frame[26:30]
    if look is Look.SOURCES and ethertype == 0x86DD:
        ip = frame[22:38]
    return None if len(ip) not in (0, 16) else Pair(ingress, destination, source, ethertype, ip)


class FakeHand:
    """A kernel in memory: forwards what is promoted, as the real hands do."""

    name = "fake"

    def __init__(self, clock: Callable[[], float], refuse: int = 0) -> None:
        self.clock, self.refuse = clock, refuse
        self.refusal = RefusedError
        self.broken = False  # it revokes no more
        self.stuck = False  # nor does it clear
        self.pairs: dict[Pair, int] = {}
        self.looks: dict[int, Look] = {}
        self.used: dict[Pair, float] = {}
        self.forwarded: Counter[tuple[int, str]] = Counter()
        self.calls: list[str] = []

    def forward(self, ingress: int, frame: bytes) -> int | None:
        """The port a frame goes to without the core, or None."""
        pair = key_of(ingress, frame, self.looks.get(ingress, Look.NOTHING))
        egress = None if pair is None else self.pairs.get(pair)
        if pair is not None and egress is not None:
            self.used[pair] = self.clock()
            self.forwarded.update({(ingress, "frames"): 1, (ingress, "bytes"): len(frame)})
            self.forwarded.update({(egress, "sent"): 1, (egress, "sent_bytes"): len(frame)})
        return egress

    def look(self, ingress: int, what: Look) -> None:
        assert not any(pair.ingress == ingress for pair in self.pairs)
        if self.broken:
            raise OSError(12, "no memory")
        self.looks[ingress] = what

    def rename(self, index: int, name: str) -> None:
        """It knows no names."""

    def promote(self, pairs: Mapping[Pair, int]) -> None:
        self.calls.append("promote")
        if self.refuse:
            self.refuse -= 1
            raise self.refusal("no room")
        self.pairs.update(pairs)

    def revoke(self, pairs: Iterable[Pair]) -> None:
        self.calls.append("revoke")
        if self.broken:
            raise OSError(12, "no memory")
        for pair in pairs:
            del self.pairs[pair]  # a pair is revoked once, and only if it was promoted
            self.used.pop(pair, None)

    def idle(self) -> Mapping[Pair, float]:
        return {pair: self.clock() - used for pair, used in self.used.items()}

    def clear(self) -> None:
        if self.stuck:
            raise OSError(12, "no memory")
        self.pairs.clear()

    def close(self) -> None:
        self.pairs.clear()
        self.calls.append("close")
