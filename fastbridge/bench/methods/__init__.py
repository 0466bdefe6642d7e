"""Methods, one a file.

A method is a frozen dataclass of its parameters with one function: it asks a measurer for trials and says what they
show. It decides from trials alone (no clock, no chance), so a replay finds the same.

- RFC 2544: throughput, latency, frame_loss, back_to_back, recovery, reset
- RFC 2889: mesh, congestion, max_forwarding_rate, address_caching, address_learning, errored_frames, broadcast
- from elsewhere: forwarding_rate, tcp_bulk, request_response, ping, fdb_scaling, port_scaling, emulation
- shared: patterns (who sends to whom), search, bounds, learned_addresses
- measurer: runs the trials, records and replays them; registry: all methods by name
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from fastbridge.bench.wanted_link import WantedLink

from .measurer import Measurer
from .patterns import subject_of


@dataclass(frozen=True)
class Findings:
    """The findings of a method; its `units` has the names."""

    values: Mapping[str, float]
    series: Mapping[str, tuple[tuple[float, float], ...]] = field(default_factory=dict)  #: curves, as (x, y) points
    remarks: tuple[str, ...] = ()  #: irregularities, each with its reason


class Method(ABC):
    """One measurement on one engine: a frozen dataclass of its parameters, all with a default."""

    name: ClassVar[str]  #: in results files: short, with hyphens
    section: ClassVar[str]  #: its definition: "RFC 2544 §26.1"
    units: ClassVar[Mapping[str, str]]  #: of values and of series ("x unit → y unit"), by name
    primary: ClassVar[str]  #: the value by which engines are compared
    higher_is_better: ClassVar[bool] = True

    ports: int = 2  #: pods it needs
    sizes: tuple[int, ...]  #: frame sizes with FCS, sent in turn
    pattern: str = "pair"  #: who sends to whom
    link: WantedLink | None = None  #: that the engine must be able to emulate

    if TYPE_CHECKING:  # every dataclass has its own

        def __init__(self, **parameters: Any) -> None: ...

    @property
    def subject(self) -> str:
        """The parameters in words: "64 B", "5 ports, 64 B"."""
        return subject_of(self.sizes, self.pattern)

    @abstractmethod
    def run(self, measurer: Measurer) -> Findings:
        """Measure; raise BenchError for an unfit DUT."""
