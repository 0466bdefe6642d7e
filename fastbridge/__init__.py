"""fastbridge: a learning software switch for Linux pods with a Cython core, and the bench that measures it."""

from .addresses import MacAddress
from .counters import Counters, PortCounters
from .errors import BenchError, ConfigError, FastbridgeError, LabError, PortError, PrivilegeError
from .fdb import FdbEntry
from .switch import Egress, Switch, SwitchPort
from .topology import Lab, Topology
from .trace import TraceEvent

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
