"""How to install extras.

The package is in no registry, so extras are installed from a clone. In a registry, anybody could own the name.
"""

from __future__ import annotations


def way_to(extra: str) -> str:
    """How to install this extra."""
    return f"in a clone of fastbridge, pip install -e '.[{extra}]'"
