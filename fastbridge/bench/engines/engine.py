"""What an engine is.

Apart from the package's `__init__`, which gathers the engines, so that each of them can import it.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from pathlib import Path

from fastbridge.errors import BenchError
from fastbridge.lab.topology import Lab
from fastbridge.programs import find_program

from .running import Running

_TUN = "/dev/net/tun"


class Engine(ABC):
    """A switch that can be measured; a subclass says only where it differs from what most engines are."""

    name: str  #: what the results call it
    ceiling: bool = False  #: True only for the direct veth: no switch, and so what no switch can beat
    most_ports: int | None = None  #: how many ports it can join; None: as many as there are
    #: Whether it cannot pass on what offloads leave to do: `attach` then turns them off on the lab's links.
    offloads_off: bool = False

    def version(self) -> str:
        """What was measured, as its own maker numbers it; "-" where nobody does."""
        return "-"

    def missing(self) -> str | None:
        """Why it cannot run here, and the way out, in one line; None when it can."""
        return None

    @abstractmethod
    def attach(self, lab: Lab, cpu: int) -> AbstractContextManager[Running]:
        """Join the lab's host ends, on `cpu` where it is a process; ready when the block begins.

        Raises BenchError when it cannot.
        """


def lacks_program(package: str, *programs: str) -> str | None:
    """One line on the first of `programs` that is not there, all from the Debian package `package`."""
    absent = next((program for program in programs if find_program(program) is None), None)
    return absent and f"there is no program {absent}: install the Debian package {package}"


def only_two(name: str, lab: Lab) -> None:
    """Raise BenchError unless the lab has two pods."""
    if len(lab) != 2:
        raise BenchError(f"{name} joins two ports, not {len(lab)}")


def lacks_tun() -> str | None:
    """What is wrong with the tun device, if anything: it may be there, and not to be opened by a namespace's root."""
    if not Path(_TUN).exists():
        return f"there is no {_TUN}: modprobe tun"
    if not os.access(_TUN, os.R_OK | os.W_OK):
        return f"{_TUN} is not yours to open: be root, or chmod 666 {_TUN}"
    return None
