"""fastbridge: a learning software switch for Linux pods with a Cython core, and the bench that measures it."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .addresses import MacAddress
    from .arp_nd import Kind, Message
    from .errors import BenchError, ConfigError, FastbridgeError, LabError, PortError, PrivilegeError
    from .lab.topology import Lab, Topology
    from .policy.base import Answer, Chain, Drop, Forward, Policy, Punt, SendTo, Verdict, Wants
    from .policy.builtin import Direct, Flood, Guard, RateLimit, Suppress, parse_policy
    from .policy.neighbour_entry import Conflict, NeighbourEntry
    from .policy.neighbours import Neighbours
    from .switch.base import SwitchPort
    from .switch.counters import Counters, PortCounters
    from .switch.fdb import FdbEntry
    from .switch.live import Egress, Switch
    from .switch.port_flags import PortFlags, StormControl
    from .switch.trace import TraceEvent
    from .version import __version__ as __version__
else:  # a name's module is imported when the name is first used: `fastbridge --help` waits for no numpy

    def __getattr__(name: str) -> object:
        home = "version" if name == "__version__" else _MODULES.get(name)
        if home is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found = globals()[name] = getattr(import_module(f".{home}", __name__), name)
        return found

    def __dir__() -> list[str]:
        return [*globals(), "__version__", *_MODULES]


__all__ = [
    "Answer",
    "BenchError",
    "Chain",
    "ConfigError",
    "Conflict",
    "Counters",
    "Direct",
    "Drop",
    "Egress",
    "FastbridgeError",
    "FdbEntry",
    "Flood",
    "Forward",
    "Guard",
    "Kind",
    "Lab",
    "LabError",
    "MacAddress",
    "Message",
    "NeighbourEntry",
    "Neighbours",
    "Policy",
    "PortCounters",
    "PortError",
    "PortFlags",
    "PrivilegeError",
    "Punt",
    "RateLimit",
    "SendTo",
    "StormControl",
    "Suppress",
    "Switch",
    "SwitchPort",
    "Topology",
    "TraceEvent",
    "Verdict",
    "Wants",
    "parse_policy",
]

_MODULES = {
    "Answer": "policy",
    "BenchError": "errors",
    "Chain": "policy",
    "ConfigError": "errors",
    "Conflict": "neighbour_entry",
    "Counters": "counters",
    "Direct": "policies",
    "Drop": "policy",
    "Egress": "switch",
    "FastbridgeError": "errors",
    "FdbEntry": "fdb",
    "Flood": "policies",
    "Forward": "policy",
    "Guard": "policies",
    "Kind": "arp_nd",
    "Lab": "topology",
    "LabError": "errors",
    "MacAddress": "addresses",
    "Message": "arp_nd",
    "NeighbourEntry": "neighbour_entry",
    "Neighbours": "neighbours",
    "Policy": "policy",
    "PortCounters": "counters",
    "PortError": "errors",
    "PortFlags": "rules",
    "PrivilegeError": "errors",
    "Punt": "policy",
    "RateLimit": "policies",
    "SendTo": "policy",
    "StormControl": "rules",
    "Suppress": "policies",
    "Switch": "switch",
    "SwitchPort": "plane",
    "Topology": "topology",
    "TraceEvent": "trace",
    "Verdict": "policy",
    "Wants": "policy",
    "parse_policy": "policies",
}
