"""The bpf hand: for root, on kernel ≥ 6.6.

The nf_tables hand with a quicker look-up before it: a tcx program on the ports (bpf_program.py) takes what is promoted,
and leaves all else to the table. Where a frame is for the very interface at the other end of the egress port's veth
pair, in another namespace, it goes there without the queue in between (bpf_redirect_peer): half of the CPU time. A
pair's frames go all that way or none, so none overtakes another.

The program is attached to a port when its first pair is promoted: each time the kernel waits some 10 ms, until nobody
runs the ones before (tcx_entry_sync).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping

from . import bpf_syscall as bpf
from .bpf_program import KEY, REDIRECT, REDIRECT_PEER, VALUE, program
from .hand import Pair, RefusedError
from .nft import NftHand, OpenSocket, PortLinks


class BpfHand(NftHand):
    """See `hand.Hand`."""

    name = "bpf"

    def __init__(self, open_socket: OpenSocket, size: int, within: Callable[[Callable[[], int]], int]) -> None:
        """within: calls a function in the ports' network namespace. Raises OSError."""
        self._within, self._size = within, size
        self._attached: dict[int, int] = {}
        self._map = bpf.create_map("fb_pairs", KEY.size, VALUE.size, size)
        try:
            self._program = bpf.load_program("fb_ingress", program(self._map))
            super().__init__(open_socket, 1)
        except BaseException:
            os.close(self._map)
            raise

    def detach(self, index: int) -> None:
        """See NftHand."""
        link = self._attached.pop(index, -1)
        if link >= 0:
            os.close(link)
        super().detach(index)

    def promote(self, pairs: Mapping[Pair, int]) -> None:
        """See Hand."""
        try:
            for ingress in {pair.ingress for pair in pairs} - self._attached.keys():
                interface = self._links[ingress].ifindex
                self._attached[ingress] = self._within(lambda at=interface: bpf.attach(self._program, at))  # type: ignore[misc]
            bpf.update(self._map, [(self._bpf_key(p), self._value(p, self._links[e])) for p, e in pairs.items()])
        except bpf.BpfError as error:
            bpf.delete(self._map, [self._bpf_key(pair) for pair in pairs])
            raise RefusedError(str(error)) from None

    def revoke(self, pairs: Iterable[Pair]) -> None:
        """See Hand."""
        bpf.delete(self._map, [self._bpf_key(pair) for pair in pairs])

    def idle(self) -> Mapping[Pair, float]:
        """See Hand."""
        now = time.monotonic_ns()
        found: dict[Pair, float] = {}
        for key, value in bpf.read_all(self._map, KEY.size, VALUE.size, self._size):
            header, interface = KEY.unpack(key)
            used = VALUE.unpack(value)[2]
            ingress = self._by_link.get(interface)
            if used and ingress is not None:
                destination, source = int.from_bytes(header[:6], "big"), int.from_bytes(header[6:12], "big")
                pair = Pair(ingress, destination, source, int.from_bytes(header[12:], "big"))
                found[pair] = max(0, now - used) / 1e9
        return found

    def clear(self) -> None:
        """See Hand."""
        bpf.delete(self._map, [key for key, _ in bpf.read_all(self._map, KEY.size, VALUE.size, self._size)])

    def close(self) -> None:
        """See Hand."""
        for link in self._attached.values():
            os.close(link)
        self._attached.clear()
        super().close()
        os.close(self._program)
        os.close(self._map)

    def _bpf_key(self, pair: Pair) -> bytes:
        header = (
            pair.destination.to_bytes(6, "big") + pair.source.to_bytes(6, "big") + pair.ethertype.to_bytes(2, "big")
        )
        return KEY.pack(header, self._links[pair.ingress].ifindex)

    @staticmethod
    def _value(pair: Pair, egress: PortLinks) -> bytes:
        return VALUE.pack(egress.ifindex, REDIRECT_PEER if pair.destination == egress.peer else REDIRECT, 0)
