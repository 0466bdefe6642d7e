"""The packaged bench.

Measures switches against each other, by the methods of the field:

    results = compare(progress=lambda done, total, text: print(text))
    results.save("results.json")
    for row in rows(results): ...
"""

from __future__ import annotations

from .compare import ENGINES, QUICK, Profile, compare
from .engines import Engine, Running
from .report import Row, rows
from .results import EngineRecord, Fingerprint, Results, Scenario, Trial, Unfit
from .statistics import Ratio

__all__ = [
    "ENGINES",
    "QUICK",
    "Engine",
    "EngineRecord",
    "Fingerprint",
    "Profile",
    "Ratio",
    "Results",
    "Row",
    "Running",
    "Scenario",
    "Trial",
    "Unfit",
    "compare",
    "rows",
]
