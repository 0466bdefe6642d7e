"""The packaged bench.

Measures switches against each other, by the methods of the field:

    results = compare(progress=lambda share, left, text: print(text))
    results.save("results.json")
    for row in rows(results): ...

A method alone, on any engine:

    with Testbed(ENGINES["linux-bridge"], ports=2) as bed:
        print(METHODS["forwarding-rate"](sizes=(64,)).run(bed).values)
"""

from __future__ import annotations

from .compare import DEFAULT_ENGINES, compare
from .engines import ENGINES, CommandEngine, Engine, Running, parse_engines
from .machine.cpus import Layout
from .machine.fingerprint import Fingerprint
from .methods import Findings, Method
from .methods.measurer import Measurer, Recorder, Replay
from .methods.registry import METHODS
from .profiles import PROFILES, Profile, Task
from .report.rows import Row, rows
from .report.statistics import Ratio
from .results.results import EngineRecord, Results, Run, TaskRecord, Unfit
from .testbed import Testbed
from .tester.offer import Offer, Phase, Stream, steady
from .tester.tester import Tester
from .tester.trial import Samples, Trial

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
    "Testbed",
    "Tester",
    "Trial",
    "Unfit",
    "compare",
    "parse_engines",
    "rows",
    "steady",
]
