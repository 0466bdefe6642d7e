"""All methods, by name.

What a results file names is looked up here.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from . import Method
from .back_to_back import BackToBack
from .forwarding_rate import ForwardingRate
from .frame_loss import FrameLoss
from .latency import Latency, LatencyAtLoad
from .recovery import Recovery
from .reset import Reset
from .tcp_bulk import TcpBulk
from .throughput import Throughput

_ALL: tuple[type[Method], ...] = (
    ForwardingRate,
    TcpBulk,
    Throughput,
    LatencyAtLoad,
    Latency,
    FrameLoss,
    BackToBack,
    Recovery,
    Reset,
)
METHODS: Mapping[str, type[Method]] = MappingProxyType({method.name: method for method in _ALL})
