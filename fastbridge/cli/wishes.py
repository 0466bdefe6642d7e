"""What a run shall be, from a file and options.

The options of the command line come before what the file says, also when it is read again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import rich_click as click
from click.core import ParameterSource

if TYPE_CHECKING:
    from fastbridge.lab.persistent import StoredLab
    from fastbridge.switch.config import Config


class Wishes:
    """A configuration file (or none), and the options that were given."""

    def __init__(self, file: str | None, options: Mapping[str, Any]) -> None:
        self._file, self._options = file, options

    @classmethod
    def of(cls, context: click.Context, file: str | None) -> Wishes:
        """With the options of a command that stood on its command line."""
        given = ParameterSource.COMMANDLINE
        options = {name: value for name, value in context.params.items() if context.get_parameter_source(name) is given}
        return cls(file, options)

    def read(self) -> Config:
        """All of it, checked. Raises ConfigError."""
        from fastbridge.switch.config import Config, ConfigFile, check

        if self._file is None:
            config = self._over(Config())
            check(config)
            return config
        file = ConfigFile.read(self._file)
        config = self._over(file.config)
        check(config, file)
        return config

    def read_each(self, switches: Sequence[str]) -> list[Config]:
        """What it says of each of several switches, all that there are; (): of the only one. Raises ConfigError."""
        from fastbridge.errors import ConfigError

        config = self.read()
        if not switches:
            return [config]
        apart = config.apart()
        if set(apart) != set(switches):
            known = ", ".join(apart) or "none"
            raise ConfigError(
                f"{self._file} has other switches: {known}, not {', '.join(switches)}; restart, or put them back"
            )
        return [apart[name] for name in switches]

    def _over(self, config: Config) -> Config:
        """The configuration, with the options in place of what it says."""
        from fastbridge.switch.config import PortConfig, SwitchConfig

        words = {"interfaces": "ports", "arp": "policy", "cpu": "cpu"}
        negated = {"no_loop_detection": "loop_detection", "no_coalesce": "coalesce"}
        changes: dict[str, Any] = {}
        if lab := self._options.get("lab"):
            config = _joining(lab)
        for name, value in self._options.items():
            if name in negated:
                changes[negated[name]] = not value
            elif name == "arp_ports":
                own = {port: replace(config.port.get(port, PortConfig()), policy=text) for port, text in value.items()}
                changes["port"] = config.port | own
            elif name == "switches":
                changes["switch"] = {switch: SwitchConfig(ports=ports) for switch, ports in value.items()}
            elif name == "links":
                changes["link"] = config.link | value
            elif name == "ageing":
                changes[name] = "never" if value is None else value
            elif (word := words.get(name, name)) in config.__dataclass_fields__:
                changes[word] = list(value) if isinstance(value, tuple) else value
        return replace(config, **changes)


def _joining(lab: StoredLab) -> Config:
    """The switches of a lab that stays, and its links. The switch s1 of the lab fb is fb-s1."""
    from fastbridge.links.places import spoken
    from fastbridge.switch.config import Config, SwitchConfig

    switches = {lab.port(name): ports for name, ports in lab.switches.items()}
    links = {spoken(place): str(link) for place, link in lab.links.items()}
    if len(switches) > 1:
        return Config(link=links, switch={name: SwitchConfig(ports=ports) for name, ports in switches.items()})
    ((name, ports),) = switches.items()
    return Config(name=name, ports=ports, link=links)
