"""The packaged bench.

Measures switches against each other, by the methods of the field:

    results = compare(progress=lambda share, left, text: print(text))
    results.save("results.json")
    for row in rows(results): ...

A method alone, on any switch: attach an engine to a lab, put a Tester around it, and `run` the method on it.
"""

from __future__ import annotations

from .compare import DEFAULT_ENGINES, compare
from .engines import ENGINES, CommandEngine, Engine, Running, parse_engines
from .machine import Layout
from .measurer import Measurer, Recorder, Replay
from .methods import Findings, Method
from .methods.registry import METHODS
from .offer import Offer, Phase, Stream, steady
from .profiles import PROFILES, Profile, Task
from .report import Row, rows
from .results import EngineRecord, Fingerprint, Results, Run, TaskRecord, Unfit
from .statistics import Ratio
from .tester import Tester
from .trial import Samples, Trial

__all__ = [
    "DEFAULT_ENGINES",
    "ENGINES",
    "METHODS",
    "PROFILES",
    "CommandEngine",
    "Engine",
    "EngineRecord",
    "Findings",
    "Fingerprint",
    "Layout",
    "Measurer",
    "Method",
    "Offer",
    "Phase",
    "Profile",
    "Ratio",
    "Recorder",
    "Replay",
    "Results",
    "Row",
    "Run",
    "Running",
    "Samples",
    "Stream",
    "Task",
    "TaskRecord",
    "Tester",
    "Trial",
    "Unfit",
    "compare",
    "parse_engines",
    "rows",
    "steady",
]
