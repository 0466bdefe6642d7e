"""Extras, how to get them.

The package is in no registry: what an extra needs is installed from a clone. A name in a registry could be
anybody's.
"""

from __future__ import annotations


def way_to(extra: str) -> str:
    """How to install what the extra of this name brings."""
    return f"in a clone of fastbridge, pip install -e '.[{extra}]'"
