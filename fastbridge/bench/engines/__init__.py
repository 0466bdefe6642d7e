"""Engines, one a module.

An engine is a switch that can be measured: it joins the host ends of a lab, in the lab's own namespace, for as
long as a `with` block lasts, and leaves nothing behind however the block ends: its programs are killed with the
lab, and its files are in a tmpfs that goes with them.

- engine: what an engine is; running: one at work; probe: waits until it forwards
- fastbridge, linux_bridge, ovs, vde: switches; testpmd, direct: what a switch can be compared with
- python_sockets: the switch that anybody would write (forwarder is its program)
- command: any other program, by its command line
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from fastbridge.errors import ConfigError

from .command import CommandEngine, parse_command
from .direct import Direct
from .engine import Engine
from .fastbridge import VARIANTS, Fastbridge
from .linux_bridge import LinuxBridge
from .ovs import OpenVSwitch
from .python_sockets import PythonSockets
from .running import InKernel, Programs, Running
from .testpmd import Testpmd
from .vde import Vde

__all__ = [
    "ENGINES",
    "CommandEngine",
    "Direct",
    "Engine",
    "Fastbridge",
    "InKernel",
    "LinuxBridge",
    "OpenVSwitch",
    "Programs",
    "PythonSockets",
    "Running",
    "Testpmd",
    "Vde",
    "parse_command",
    "parse_engines",
]

_KNOWN: tuple[Engine, ...] = (
    Fastbridge(),
    LinuxBridge(),
    LinuxBridge(netfilter=True),
    PythonSockets(),
    OpenVSwitch(),
    Testpmd(),
    Testpmd(xdp=True),
    Vde(),
    Direct(),
)
ENGINES: Mapping[str, Engine] = MappingProxyType({engine.name: engine for engine in (*_KNOWN, *VARIANTS)})


def parse_engines(text: str) -> tuple[Engine, ...]:
    """Engines from their names with commas between; "all" means every one, in no variants.

    Those that cannot run here are among them: `missing` says why, and so do the results.
    Raises ConfigError for a name that is not known, or named twice.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    if names == ["all"]:
        return _KNOWN
    unknown = [name for name in names if name not in ENGINES]
    if unknown or not names:
        raise ConfigError(
            f"there is no engine {', '.join(unknown) or text!r}; choose from {', '.join(ENGINES)}, or all"
        )
    if len(set(names)) < len(names):
        raise ConfigError(f"an engine is named twice: {text}")
    return tuple(ENGINES[name] for name in names)
