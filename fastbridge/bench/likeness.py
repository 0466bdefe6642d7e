"""Machines, alike or not.

Where two fingerprints differ in one of these, a ratio of their numbers is one of machines (or of the tester's own
interference), and says nothing of a switch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

DECISIVE: Mapping[str, str] = {
    "cpu": "CPU",
    "cpus": "number of CPUs",
    "hypervisor": "hypervisor",
    "release": "kernel",
    "layout": "CPU layout",
}


def described(fingerprint: Mapping[str, Any]) -> dict[str, Any]:
    """A fingerprint's fields (`dataclasses.asdict`) with the kernel's release on its own, without its build."""
    return {**fingerprint, "release": str(fingerprint["kernel"]).partition(" ")[0]}


def differences(
    here: Mapping[str, Any], there: Mapping[str, Any], names: Mapping[str, str] = DECISIVE
) -> dict[str, tuple[str, str]]:
    """What distinguishes two described fingerprints: name → (here, there), in words; {} for like machines."""
    return {
        name: (in_words(here.get(key)), in_words(there.get(key)))
        for key, name in names.items()
        if here.get(key) != there.get(key)
    }


def in_words(value: Any) -> str:
    """A fingerprint's entry, in one line."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {part}" for key, part in value.items())
    return "unknown" if value is None else str(value)
