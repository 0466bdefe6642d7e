"""What an engine is.

Not in the package's `__init__`, which gathers the engines: each of them imports this file.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from pathlib import Path

from fastbridge.bench.wanted_link import WantedLink
from fastbridge.errors import BenchError
from fastbridge.lab.topology import Lab
from fastbridge.programs import find_program

from .running import Running

_TUN = "/dev/net/tun"


class Engine(ABC):
    """A switch that can be measured. A subclass says where it differs from most engines."""

    name: str  #: its name in the results
    ceiling: bool = False  #: True only for the direct veth: no switch can beat it
    most_ports: int | None = None  #: how many ports it can join; None: any number
    #: Whether it cannot pass on what offloads leave to do: `attach` then turns them off on the lab's links.
    offloads_off: bool = False

    def version(self) -> str:
        """The version of the switch, or "-" if it has none."""
        return "-"

    def missing(self) -> str | None:
        """Why the engine cannot run here, and the way out, in one line; None if it can run."""
        return None

    def refuses(self, link: WantedLink) -> str | None:
        """Why it cannot emulate such a link, in a few words; None if it can. Its `attach` then heeds Running.link."""
        return "emulates no links"

    @abstractmethod
    def attach(self, lab: Lab, cpu: int) -> AbstractContextManager[Running]:
        """Join the lab's host ends, with processes on `cpu`. The engine is ready when the block begins.

        Raises BenchError if it cannot join.
        """


def lacks_program(package: str, *programs: str) -> str | None:
    """A line about the first missing one of `programs`, all from the Debian package `package`; None if all exist."""
    absent = next((program for program in programs if find_program(program) is None), None)
    return absent and f"there is no program {absent}: install the Debian package {package}"


def only_two(name: str, lab: Lab) -> None:
    """Raise BenchError unless the lab has two pods."""
    if len(lab) != 2:
        raise BenchError(f"{name} joins two ports, not {len(lab)}")


def lacks_tun() -> str | None:
    """The fault of the tun device, if any: it may exist and still be closed to the root of a namespace."""
    if not Path(_TUN).exists():
        return f"there is no {_TUN}: modprobe tun"
    if not os.access(_TUN, os.R_OK | os.W_OK):
        return f"{_TUN} is not yours to open: be root, or chmod 666 {_TUN}"
    return None
