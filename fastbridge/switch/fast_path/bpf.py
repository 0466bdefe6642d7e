"""The bpf hand: for root, on kernel ≥ 6.6.

The nf_tables hand with a quicker look-up before it. A tcx program on the ports (bpf_program.py) forwards the promoted
frames and leaves all others to the table. The egress port may be one end of a veth pair with the other end in another
namespace. A frame addressed to that other end skips the queue in between (bpf_redirect_peer), for half of the CPU time.
All frames of a pair take the same way, so none overtakes another.

The program is attached to a port when its first pair is promoted. Each attachment takes some 10 ms, because the kernel
waits until no CPU runs the earlier programs (tcx_entry_sync).
"""

from __future__ import annotations

import errno
import os
import struct
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

from . import bpf_syscall as bpf
from .bpf_program import KEY, KEY_BY_IP, REDIRECT, REDIRECT_PEER, VALUE, program
from .hand import Look, NoInterfaceError, Pair, RefusedError
from .headers import header_of, ip_of, read_pair
from .nft import NftHand, OpenSocket, PortEnds


class BpfHand(NftHand):
    """See `hand.Hand`."""

    name = "bpf"

    def __init__(self, open_socket: OpenSocket, size: int, within: Callable[[Callable[[], int]], int]) -> None:
        """within: calls a function in the ports' network namespace. Raises OSError."""
        self._within, self._size = within, size
        self._attached: dict[int, int] = {}
        self._fds: list[int] = []
        self._programs: dict[Look, int] = {}
        try:
            self._map = self._keep(bpf.create_map("fb_pairs", KEY.size, VALUE.size, size))
            self._by_ip = self._keep(bpf.create_map("fb_pairs_by_ip", KEY_BY_IP.size, VALUE.size, size))
            for look in Look:
                code = program(self._map, self._by_ip, look)
                self._programs[look] = self._keep(bpf.load_program(f"fb_{look.name.lower()}", code))
            super().__init__(open_socket, 1)
        except BaseException:
            self._close_all()
            raise

    def detach(self, index: int) -> None:
        """See NftHand."""
        self._take_off(index)
        super().detach(index)

    def look(self, ingress: int, what: Look) -> None:
        """See Hand. The next promoted pair attaches another program."""
        self._take_off(ingress)
        super().look(ingress, what)

    def promote(self, pairs: Mapping[Pair, int]) -> None:
        """See Hand."""
        try:
            for ingress in {pair.ingress for pair in pairs} - self._attached.keys():
                chosen = self._programs[self._looks.get(ingress, Look.NOTHING)]
                interface = self._links[ingress].ifindex
                self._attached[ingress] = self._within(lambda by=chosen, at=interface: bpf.attach(by, at))  # type: ignore[misc]
            for pair, egress in pairs.items():
                bpf.update(self._map_of(pair), [(self._bpf_key(pair), self._value(pair, self._links[egress]))])
        except OSError as error:
            self.revoke(pairs)
            raise (NoInterfaceError if error.errno == errno.ENODEV else RefusedError)(str(error)) from None

    def revoke(self, pairs: Iterable[Pair]) -> None:
        """See Hand."""
        for pair in pairs:
            bpf.delete(self._map_of(pair), [self._bpf_key(pair)])

    def idle(self) -> Mapping[Pair, float]:
        """See Hand."""
        now = time.monotonic_ns()
        found: dict[Pair, float] = {}
        by_interface = {links.ifindex: index for index, links in list(self._links.items())}
        for fd, layout in self._maps():
            for key, value in bpf.read_all(fd, layout.size, VALUE.size, self._size):
                header, interface, *ip = layout.unpack(key)
                used = VALUE.unpack(value)[2]
                ingress = by_interface.get(interface)
                if used and ingress is not None:
                    found[read_pair(ingress, header, b"".join(ip))] = max(0, now - used) / 1e9
        return found

    def clear(self) -> None:
        """See Hand."""
        for fd, layout in self._maps():
            bpf.delete(fd, [key for key, _ in bpf.read_all(fd, layout.size, VALUE.size, self._size)])

    def close(self) -> None:
        """See Hand."""
        for index in list(self._attached):
            self._take_off(index)
        super().close()
        self._close_all()

    def _keep(self, fd: int) -> int:
        self._fds.append(fd)
        return fd

    def _close_all(self) -> None:
        while self._fds:
            os.close(self._fds.pop())

    def _take_off(self, index: int) -> None:
        """Run no program on a port."""
        link = self._attached.pop(index, -1)
        if link >= 0:
            os.close(link)

    def _maps(self) -> Sequence[tuple[int, struct.Struct]]:
        return (self._map, KEY), (self._by_ip, KEY_BY_IP)

    def _map_of(self, pair: Pair) -> int:
        return self._by_ip if pair.ip else self._map

    def _bpf_key(self, pair: Pair) -> bytes:
        interface = self._links[pair.ingress].ifindex
        return (
            KEY_BY_IP.pack(header_of(pair), interface, ip_of(pair)) if pair.ip else KEY.pack(header_of(pair), interface)
        )

    @staticmethod
    def _value(pair: Pair, egress: PortEnds) -> bytes:
        return VALUE.pack(egress.ifindex, REDIRECT_PEER if pair.destination == egress.peer else REDIRECT, 0)
