"""Rows, what the verbs answer with.

Plain JSON, with iproute2's keys where `bridge -j` and `ip -j` show the same thing.
"""

from __future__ import annotations

from typing import Any, TypedDict

Row = dict[str, Any]


class PortRow(TypedDict):
    """As of `port list`."""

    ifname: str
    port: int
    state: str
    flags: list[str]
    policy: str
    stations: int
    storm_control: dict[str, float]


class PolicyRow(TypedDict):
    """As of `policy show`."""

    ifname: str | None
    policy: str
    own: bool


class _Entry(TypedDict, total=False):
    vlan: int  # of a tagged one
    age: float  # seconds, of a learned one


class FdbRow(_Entry):
    """As of `bridge -j fdb`."""

    mac: str
    ifname: str
    flags: list[str]
    state: str


class NeighRow(_Entry):
    """As of `ip -j neigh`."""

    dst: str
    dev: str
    lladdr: str
    state: list[str]
    source: str


class FlushedRow(TypedDict):
    """As of `fdb flush`: how many."""

    flushed: int
