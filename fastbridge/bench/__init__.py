"""The packaged bench.

Measures switches against each other, by the methods of the field:

    results = compare(profile=PROFILES["quick"])
    results.save("results.json")
    for row in rows(results): ...

A method alone, on any engine:

    with Testbed(ENGINES["linux-bridge"], ports=2) as bed:
        findings = METHODS["forwarding-rate"](sizes=(64,)).run(bed)

Its parts, from the ground up:

- machine: the CPUs, other programs on them, and child programs
- engines: the switches that can be measured
- tester: sends frames, receives them, and counts a trial
- testbed: an engine in its lab with a tester around it
- methods: decide which trials to run, and what they show
- results: saved as a file, and read again
- report: computed from results, and drawn; trend: the same over commits
- profiles: lists of tasks; compare: all engines, interleaved
"""

from __future__ import annotations

from fastbridge.errors import BenchError
from fastbridge.extras import way_to

try:
    import numpy as _  # noqa: F401
except ImportError:
    raise BenchError(f"the bench takes the package numpy: {way_to('bench')}") from None

from .compare import compare
from .engines import ENGINES, CommandEngine, Engine
from .methods import Findings, Method
from .methods.registry import METHODS
from .profiles import PROFILES, Profile, Task
from .report.rows import Row, rows
from .report.statistics import Ratio
from .results.results import Results
from .testbed import Testbed
from .tester.offer import Offer, Stream
from .tester.trial import Trial

__all__ = [
    "ENGINES",
    "METHODS",
    "PROFILES",
    "CommandEngine",
    "Engine",
    "Findings",
    "Method",
    "Offer",
    "Profile",
    "Ratio",
    "Results",
    "Row",
    "Stream",
    "Task",
    "Testbed",
    "Trial",
    "compare",
    "rows",
]
