"""Machines, alike or not.

Where two fingerprints differ in one of these, a ratio of their numbers compares machines (or what the tester does to
them), not switches.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NO_SETTINGS = "none that matters"
DECISIVE: Mapping[str, str] = {
    "cpu": "CPU",
    "cpus": "number of CPUs",
    "hypervisor": "hypervisor",
    "release": "kernel",
    "layout": "CPU layout",
    "governor": "governor",
    "quota": "CPU quota",
}
_ALL = {  # the last four do not name a machine
    **DECISIVE,
    "siblings": "SMT siblings",
    "mitigations": "mitigations",
    "tcp": "TCP congestion control",
    "settings": "boot parameters",
}
_LATER = ("quota", "siblings", "tcp")  # missing in files of version 2: unknown is not a difference
# Parameters that reserve CPUs, keep them awake or change the kernel's speed.
_SETTINGS = (
    *("isolcpus", "nohz", "nohz_full", "rcu_nocbs", "irqaffinity", "nosmt", "mitigations", "preempt", "idle"),
    *("processor.max_cstate", "intel_idle.max_cstate", "intel_pstate", "amd_pstate"),
    *("nohlt", "threadirqs", "rcu_nocb_poll", "skew_tick", "maxcpus", "nr_cpus", "clocksource", "tsc", "audit"),
    *("transparent_hugepage", "hugepages", "hugepagesz", "default_hugepagesz", "numa_balancing"),
    *("iommu", "intel_iommu", "amd_iommu", "nopti", "pti", "nospectre_v1", "nospectre_v2", "spectre_v2", "retbleed"),
)


def described(fingerprint: Mapping[str, Any]) -> dict[str, Any]:
    """A fingerprint's fields (`dataclasses.asdict`) with the kernel's release on its own, without its build."""
    return {**fingerprint, "release": str(fingerprint["kernel"]).partition(" ")[0]}


def settings_of(command_line: str) -> str:
    """The parameters of a kernel's command line that can change speed. The rest can be secret."""
    settings = {word for word in command_line.split() if word.partition("=")[0] in _SETTINGS}
    return " ".join(sorted(settings)) or NO_SETTINGS


def _compared(machine: Mapping[str, Any]) -> dict[str, Any]:
    return {**machine, "settings": settings_of(str(machine.get("boot", "")))}


def differences(
    here: Mapping[str, Any], there: Mapping[str, Any], names: Mapping[str, str] = _ALL
) -> dict[str, tuple[str, str]]:
    """The differences between two described fingerprints: name → (here, there), in words; {} for like machines."""
    here, there = _compared(here), _compared(there)
    return {
        name: _apart(here.get(key), there.get(key))
        for key, name in names.items()
        if here.get(key) != there.get(key)
        and not (key in _LATER and {here.get(key, "unknown"), there.get(key, "unknown")} & {"unknown"})
    }


def _apart(one: Any, other: Any) -> tuple[str, str]:
    """Both in words; of mappings only the entries that differ."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        differing = [key for key in {**one, **other} if one.get(key) != other.get(key)]
        one, other = ({key: each[key] for key in differing if key in each} or None for each in (one, other))
    return in_words(one), in_words(other)


def in_words(value: Any) -> str:
    """An entry of a fingerprint, in one line."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {part}" for key, part in value.items())
    return "unknown" if value is None else str(value)
