"""One interface that cannot be a port costs the next ones neither the shield nor the fast path."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from fast import need
from host import Host

from fastbridge import PortError, Switch
from fastbridge.journal import Journal
from fastbridge.lab.namespaces import NamespaceHelper
from fastbridge.switch.port_links import PortLinks
from fastbridge.switch.port_socket import Interface

pytestmark = pytest.mark.live


@pytest.fixture
def host() -> Iterator[Host]:
    with NamespaceHelper() as helper, closing(Host(helper)) as made:
        yield made


def refuse(*_: Any) -> None:
    raise OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS))


def test_an_interface_that_cannot_be_shielded(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may have vanished since it was found."""
    with closing(PortLinks(Journal(), shield=True)) as links:
        shield: Any = links._shield_of(links.open_here())
        assert shield is not None, links.unshielded
        (lost,) = links.find([Interface("p1")])
        with monkeypatch.context() as patched, pytest.raises(PortError, match="cannot shield the host from p1"):
            patched.setattr(shield, "add", refuse)
            links.hold([lost], [Interface("p1")])
        links.release(lost)
        (port,) = links.find([Interface("p1")])
        links.hold([port], [Interface("p1")])
        assert (port.shielded, links.unshielded) == (True, "")


def test_a_punt_pair_that_cannot_be_made(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    need("nft")
    with Switch([], match=(), fast_path="auto") as switch:
        hand = switch.fast_path
        assert hand != "off"
        lane: Any = switch._fast.lane
        with monkeypatch.context() as patched:
            patched.setattr(lane, "make", refuse)
            with pytest.raises(PortError, match="cannot make a punt pair for p1: No buffer space"):
                switch.add_port("p1")
        switch.add_port("p1")
        assert switch.fast_path == hand and switch._members[0].listen is not None
