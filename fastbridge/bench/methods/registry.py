"""All methods, by name.

The names are those in results files.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from . import Method
from .address_caching import AddressCaching
from .address_learning import AddressLearning
from .back_to_back import BackToBack
from .broadcast import Broadcast
from .congestion import Congestion
from .emulation import Emulation
from .errored_frames import ErroredFrames
from .fdb_scaling import FdbScaling
from .forwarding_rate import ForwardingRate
from .frame_loss import FrameLoss
from .latency import Latency, LatencyAtLoad
from .max_forwarding_rate import MaxForwardingRate
from .mesh import Mesh
from .ping import Ping
from .port_scaling import PortScaling
from .recovery import Recovery
from .request_response import RequestResponse
from .reset import Reset
from .tcp_bulk import TcpBulk
from .throughput import Throughput

_ALL: tuple[type[Method], ...] = (
    ForwardingRate,
    TcpBulk,
    RequestResponse,
    Ping,
    Throughput,
    LatencyAtLoad,
    Latency,
    FrameLoss,
    BackToBack,
    Recovery,
    Reset,
    Mesh,
    Congestion,
    MaxForwardingRate,
    AddressCaching,
    AddressLearning,
    ErroredFrames,
    Broadcast,
    FdbScaling,
    PortScaling,
    Emulation,
)
METHODS: Mapping[str, type[Method]] = MappingProxyType({method.name: method for method in _ALL})
