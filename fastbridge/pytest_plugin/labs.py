"""The labs of tests: pods with running switches, made and closed by a factory."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import fields
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from fastbridge.closes import Closes
from fastbridge.errors import ConfigError, FastbridgeError, PrivilegeError
from fastbridge.lab.plans import some
from fastbridge.lab.topology import Lab, Topology
from fastbridge.links.link import Link
from fastbridge.switch.live import Switch
from fastbridge.switch.options import LiveOptions, LiveOptionWords
from fastbridge.switch.several import Switches

from .flight import Flight

if TYPE_CHECKING:
    from typing_extensions import Unpack

_OF_THE_HOST = {"match", "shield", "take_over"}  # options about interfaces that a lab does not have
#: What a lab of a test may be told.
WORDS = ("pods", "mtu", "link", *(field.name for field in fields(LiveOptions) if field.name not in _OF_THE_HOST))


class SwitchedLab(Lab):
    """A lab whose switches run, and keep their last frames for a report.

    pods, mtu, link: as in Lab; all else as in Switch, for each of its switches. fast_path is "off" unless it is named:
    the flight recorder sees what comes to the core. Raises as both do, and then nothing is left.
    """

    #: By name; most labs have one: `switch`.
    running_switches: Switches

    def __init__(
        self,
        pods: int | Sequence[str] | Topology = 2,
        *,
        mtu: int | None = None,
        link: Link | str | Mapping[Any, Link | str] | None = None,
        **options: Unpack[LiveOptionWords],
    ) -> None:
        self.flights: dict[str, Flight] = {}
        self.is_open = True
        super().__init__(pods, mtu=mtu, link=link)
        try:
            options.setdefault("fast_path", "off")
            self.running_switches = Switches(self.switches, **options)
            self.flights.update((name, Flight(switch)) for name, switch in self.running_switches.items())
            self.running_switches.start()
        except BaseException:
            self.close()
            raise

    @property
    def switch(self) -> Switch:
        """The switch. Raises ConfigError: there are several."""
        __tracebackhide__ = True
        try:
            (switch,) = self.running_switches.values()
        except ValueError:
            names = some(self.running_switches)
            raise ConfigError(f"this lab has several switches, {names}: take one of `switches`") from None
        return switch

    def close(self) -> None:
        """Stop the switches, kill the programs in the pods and remove everything. A second call does nothing."""
        self.is_open = False
        try:
            for flight in self.flights.values():
                flight.end()
        finally:
            if hasattr(self, "running_switches"):
                self.running_switches.stop()
            super().close()


class LabFactory(Closes):
    """Makes labs, and closes them at its end. A call takes the words of SwitchedLab and raises as it does.

    Where the machine refuses namespaces or packet sockets, the test is skipped; or it fails.
    """

    def __init__(self, require: bool) -> None:
        """require: fail where the machine refuses."""
        self._require = require
        self.labs: list[SwitchedLab] = []  #: those of this test that are closed, too

    def __call__(
        self,
        pods: int | Sequence[str] | Topology = 2,
        *,
        mtu: int | None = None,
        link: Link | str | Mapping[Any, Link | str] | None = None,
        **options: Unpack[LiveOptionWords],
    ) -> SwitchedLab:
        """Make a lab; it is complete, and its switch runs. Close it, or use `with`, if it shall end earlier."""
        __tracebackhide__ = True
        for word in options:
            if word not in WORDS:
                _refuse(word)
        try:
            self.labs.append(SwitchedLab(pods, mtu=mtu, link=link, **options))
            return self.labs[-1]
        except PrivilegeError as error:
            refusal = str(error)
        if self._require:
            pytest.fail(f"{refusal} (--lab-require)", pytrace=False)
        pytest.skip(f"no lab: {refusal}")

    def of_test(self, request: pytest.FixtureRequest) -> SwitchedLab:
        """Make the lab that a test asks for. What is wrong with that fails it in one line."""
        try:
            return self(**_words_of(request))
        except FastbridgeError as error:
            wrong = str(error)
        pytest.fail(f"@pytest.mark.lab: {wrong}", pytrace=False)

    def forget_closed(self) -> None:
        """A test is over."""
        self.labs = [lab for lab in self.labs if lab.is_open]

    def close(self) -> None:
        """Close all labs."""
        with contextlib.ExitStack() as stack:
            for lab in self.labs:
                stack.callback(lab.close)


def _words_of(request: pytest.FixtureRequest) -> dict[str, Any]:
    """What the markers of a test say of its lab; the nearer one's word counts, and a parameter's counts most."""
    words: dict[str, Any] = {}
    for mark in reversed(list(request.node.iter_markers("lab"))):
        if len(mark.args) > 1:
            raise ConfigError(f"one value may have no name, the pods; here are {len(mark.args)}")
        if mark.args and "pods" in mark.kwargs:
            raise ConfigError(f"pods are named twice: {mark.args[0]!r}, and pods={mark.kwargs['pods']!r}")
        words.update(zip(["pods"], mark.args, strict=False), **mark.kwargs)
    given = getattr(request, "param", {})
    if not isinstance(given, Mapping):
        raise ConfigError(f"a parameter of the fixture lab is a dictionary of its words, not {given!r}")
    words |= given
    if isinstance(words.get("pods"), str | os.PathLike):  # a file beside the test's
        words["pods"] = Topology.read(request.path.parent / words["pods"])
    return words


def _refuse(word: str) -> NoReturn:
    near = get_close_matches(word, WORDS, 1)
    meant = f"; did you mean {near[0]!r}? A lab takes" if near else "; it takes"
    raise ConfigError(f"a lab takes no {word!r}{meant}: {', '.join(WORDS)}")
