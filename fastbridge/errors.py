"""Errors, one hierarchy.

Every failure that a user can cause or meet is one of these. Its text is one line that names the thing and the way
out. The command line prints that line and exits with `exit_status`: 2 for a wrong request, 1 for a request that failed.
"""

from __future__ import annotations


class FastbridgeError(Exception):
    """Base of all errors that fastbridge raises on purpose."""

    exit_status: int = 1


class ConfigError(FastbridgeError, ValueError):
    """The request itself is wrong: a value out of range, a port named twice, too few ports."""

    exit_status = 2


class PortError(FastbridgeError):
    """An interface cannot be (or no longer is) a port of the switch."""


class PrivilegeError(FastbridgeError):
    """The kernel refused an operation, and gives no user namespace in which it would be allowed."""


class LabError(FastbridgeError):
    """A lab, or a pod of it, cannot be made, found or removed."""


class BenchError(FastbridgeError):
    """A measurement cannot be made, or its results cannot be read."""
