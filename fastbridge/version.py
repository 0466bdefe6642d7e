"""The installed version."""

from __future__ import annotations

from importlib import metadata

try:
    __version__ = metadata.version("fastbridge")
except metadata.PackageNotFoundError:
    __version__ = "(source tree)"
