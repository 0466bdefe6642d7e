"""fastbridge: a learning software switch for Linux pods with a Cython core, and the bench that measures it.

A name's module is imported when the name is first used: `fastbridge --help` waits for no core. What type checkers read
is `__init__.pyi`; a test holds the two together.
"""

from importlib import import_module

_HOMES = {
    "addresses": "MacAddress",
    "arp_nd": "Kind Message",
    "control.client": "Client",
    "errors": "BenchError ConfigError FastbridgeError LabError PortError PrivilegeError",
    "link_watch": "LinkCounters",
    "lab.ping": "PingResult",
    "feed": "Monitor",
    "lab.plans": "InterfacePlan PodPlan RoutePlan",
    "lab.pods": "Pod PodEnd Port",
    "lab.topology": "Lab Topology",
    "links.link": "Link",
    "links.loss": "Gilbert gilbert",
    "links.matrix": "matrix",
    "links.scenario": "Scenario",
    "policy.base": "Answer Chain Drop Forward Policy Punt SendTo Verdict Wants",
    "policy.builtin": "Direct Flood Guard RateLimit Suppress parse_policy",
    "policy.neighbour_entry": "Conflict NeighbourEntry",
    "policy.neighbours": "Neighbours",
    "switch.member": "SwitchPort",
    "switch.capture": "Capture",
    "switch.counters": "Counters PortCounters",
    "switch.explain": "Explanation Step",
    "switch.fdb": "Fdb FdbEntry",
    "switch.file_capture": "CaptureError FileCapture",
    "switch.live": "Switch",
    "switch.flight_recorder": "FlightRecorder",
    "switch.load": "Load RingLoad WorkerLoad",
    "switch.memory": "Arrival Egress MemorySwitch",
    "switch.mirror": "Mirror",
    "switch.player": "Playing",
    "switch.port_flags": "PortFlags PortSettings StormControl",
    "switch.port_socket": "PortLike",
    "switch.several": "Switches",
    "switch.socket_port": "SocketPort",
    "switch.status": "Status",
    "switch.trace": "Trace TraceEvent",
    "version": "__version__",
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names.split()}
__all__ = sorted(name for name in _HOME_OF if name != "__version__")


def __getattr__(name: str) -> object:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(f".{_HOME_OF[name]}", __name__), name)
    return found


def __dir__() -> list[str]:
    return [*globals(), *_HOME_OF]
