"""Verbs about scenarios, over a switch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastbridge.errors import ConfigError
from fastbridge.links.scenario import Flap, Scenario

from .link_verbs import read_places
from .rows import ScenarioRow

if TYPE_CHECKING:
    from .base import SwitchBase
    from .player import Playing


class ScenarioVerbs:
    """The verbs `scenario.…` of a switch, and `link.flap`."""

    def __init__(self, switch: SwitchBase) -> None:
        self._switch = switch

    def play(self, toml: str, name: str = "the scenario") -> list[ScenarioRow]:
        """Do what a scenario in TOML says, from now on. name: what errors and the log call it."""
        return [_row(self._switch.play(Scenario.parse(toml, name)))]

    def flap(self, places: list[str], schedule: str) -> list[ScenarioRow]:
        """Let links fail again and again: `10s/2s` (10 s up, 2 s without a carrier) or `10s/2s cut`."""
        with self._switch.still():
            flap = Flap.parse(schedule)
            return [_row(self._switch.play(Scenario.flapping(read_places(self._switch, places), flap)))]

    def show(self) -> list[ScenarioRow]:
        """The scenarios and flaps that are played now, and what each does next."""
        return [_row(playing) for playing in self._switch.playing]

    def stop(self, name: str | None = None) -> list[ScenarioRow]:
        """End the scenarios of this name, or all; links stay as they are, but a flap's are there again."""
        found = [playing for playing in self._switch.playing if name in (None, playing.scenario.source)]
        if name is not None and not found:
            raise ConfigError(f"no scenario {name!r} is played; `scenario show` lists those that are")
        rows = [_row(playing) for playing in found]
        for playing in found:
            playing.close()
        return rows


def _row(playing: Playing) -> ScenarioRow:
    step = playing.next_step
    return {
        "scenario": playing.scenario.source,
        "next": None if step is None else str(step),
        "at": None if step is None else step.at / 1e9,
    }
