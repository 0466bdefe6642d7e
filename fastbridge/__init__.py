"""fastbridge: a learning software switch for Linux pods with a Cython core, and the bench that measures it."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .addresses import MacAddress
    from .counters import Counters, PortCounters
    from .errors import BenchError, ConfigError, FastbridgeError, LabError, PortError, PrivilegeError
    from .fdb import FdbEntry
    from .switch import Egress, Switch, SwitchPort
    from .topology import Lab, Topology
    from .trace import TraceEvent
else:  # a name's module is imported when the name is first used: `fastbridge --help` waits for no numpy

    def __getattr__(name: str) -> object:
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found = globals()[name] = getattr(import_module(f".{_MODULES[name]}", __name__), name)
        return found

    def __dir__() -> list[str]:
        return [*globals(), *_MODULES]


__all__ = [
    "BenchError",
    "ConfigError",
    "Counters",
    "Egress",
    "FastbridgeError",
    "FdbEntry",
    "Lab",
    "LabError",
    "MacAddress",
    "PortCounters",
    "PortError",
    "PrivilegeError",
    "Switch",
    "SwitchPort",
    "Topology",
    "TraceEvent",
]

_MODULES = {
    "BenchError": "errors",
    "ConfigError": "errors",
    "Counters": "counters",
    "Egress": "switch",
    "FastbridgeError": "errors",
    "FdbEntry": "fdb",
    "Lab": "topology",
    "LabError": "errors",
    "MacAddress": "addresses",
    "PortCounters": "counters",
    "PortError": "errors",
    "PrivilegeError": "errors",
    "Switch": "switch",
    "SwitchPort": "switch",
    "Topology": "topology",
    "TraceEvent": "trace",
}
