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


class TomlRow(TypedDict):
    """As of `config dump`: the whole file."""

    toml: str


class ChangeRow(TypedDict):
    """As of `config reload`: one thing that was changed, in words."""

    change: str


class FileRow(TypedDict):
    """As of `state save`: where it was written to."""

    file: str


class MirrorRow(TypedDict):
    """As of `port mirror`."""

    to: str
    ports: list[str]
    frames: int
    lost: int


class _Counts(TypedDict, total=False):
    to_pod: dict[str, int]  # of a direction that does something
    from_pod: dict[str, int]


class LinkRow(_Counts):
    """As of `link show`: a port or a pair `from>to`, its link in one text and by words, and what happens there."""

    ifname: str
    link: str
    words: dict[str, Any]
    cut: list[str]
    group: int | None


class ScenarioRow(TypedDict):
    """As of `scenario show`: what is played, what comes next, and when: seconds since it began."""

    scenario: str
    next: str | None
    at: float | None


class CaptureRow(TypedDict):
    """As of `capture.stop`: which."""

    capture: int
