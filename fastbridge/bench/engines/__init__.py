"""Engines, one in each module.

An engine is a switch that the bench can measure. It joins the host ends of a lab, in the lab's own namespace, while a
`with` block lasts. It leaves nothing behind, however the block ends: its programs die with the lab, and its files are
in a tmpfs that goes with the programs.

- engine: the interface of an engine; running: an engine at work; probe: waits until it forwards
- fastbridge, linux_bridge, ovs, vde: switches; testpmd, direct: for comparison with switches
- qdiscs: the kernel's emulated links, behind the Linux bridge
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
from .qdiscs import QDISCS, Qdisc
from .running import InKernel, Programs, Running
from .testpmd import Testpmd
from .vde import Vde, Wirefilter

__all__ = [
    "EMULATORS",
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
    "Qdisc",
    "Running",
    "Testpmd",
    "Vde",
    "Wirefilter",
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
#: That emulate links. Their way of forwarding is another engine's, so "all" leaves them out.
EMULATORS: tuple[Engine, ...] = (Fastbridge(), Wirefilter(), *QDISCS)
ENGINES: Mapping[str, Engine] = MappingProxyType(
    {engine.name: engine for engine in (*_KNOWN, *VARIANTS, *EMULATORS[1:])}
)


def parse_engines(text: str) -> tuple[Engine, ...]:
    """Engines from their names, separated by commas. "all" means every engine, without variants.

    The result includes engines that cannot run here: `missing` and the results say why.
    Raises ConfigError for an unknown or repeated name.
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
