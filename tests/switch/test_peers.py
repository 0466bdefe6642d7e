"""The other end of a veth pair, as rtnetlink tells of it."""

from __future__ import annotations

import struct
from types import SimpleNamespace
from typing import Any

import pytest

from fastbridge.netlink import attribute, nested
from fastbridge.switch.fast_path.peers import Peers

MAC = bytes.fromhex("020000000001")


class Kernel:
    """Tells of a veth interface whose other end is in the namespace of this id, and of that end."""

    def __init__(self, space: int) -> None:
        self.space, self.asked = space, 0

    def ask(self, request: bytes) -> Any:
        self.asked += 1
        if self.asked == 2:
            return SimpleNamespace(payload=bytes(16) + attribute(1, MAC))
        kind, link = nested(18, attribute(1, b"veth\0")), attribute(5, struct.pack("=i", 7))
        return SimpleNamespace(payload=bytes(16) + kind + link + attribute(37, struct.pack("=i", self.space)))


@pytest.mark.parametrize(("space", "address"), [(0, int.from_bytes(MAC, "big")), (5, int.from_bytes(MAC, "big"))])
def test_it_is_asked_for_in_its_namespace(space: int, address: int) -> None:
    kernel: Any = Kernel(space)
    assert Peers(kernel).address(3) == address and kernel.asked == 2


def test_in_a_namespace_that_is_ending_it_is_not_to_be_seen() -> None:
    """The kernel has no id for one (NETNSA_NSID_NOT_ASSIGNED, -1)."""
    kernel: Any = Kernel(-1)
    assert Peers(kernel).address(3) is None and Peers(kernel).received([3]) == {}
