"""The core's FDB, as it is."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbridge.core.fdb import FdbAccess
from fastbridge.switch.fdb_arrays import ENTRY_DTYPE


def exported(core: FdbAccess) -> NDArray[Any]:
    """All entries, live or not, as a structured array."""
    return np.frombuffer(core.export(), ENTRY_DTYPE)
