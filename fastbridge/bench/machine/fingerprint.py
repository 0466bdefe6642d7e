"""Machine and software, described.

A number means nothing without its machine. What cannot be read (another architecture, a container's /sys) is "unknown",
and is never left out.
"""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from fastbridge.core.tester.traffic import CYTHON_VERSION

from .disturbance import cpu_quota
from .likeness import settings_of

UNKNOWN = "unknown"
NAMELESS = "one without a name"  #: a hypervisor


@dataclass(frozen=True)
class Fingerprint:
    """The machine and the software behind the numbers."""

    cpu: str
    cpus: int
    microcode: str
    hypervisor: str
    kernel: str
    boot: str  #: of the kernel's command line, the parameters that can make a difference
    governor: str
    mitigations: Mapping[str, str]
    versions: Mapping[str, str]
    layout: Mapping[str, str]  #: role → CPU
    offloads: Mapping[str, str]  #: end of a veth pair → its default features, as `ethtool -k` shows them
    load: str = "unknown"  #: averages over 1, 5 and 15 minutes, when it began
    quota: str = "unknown"  #: how many CPUs the control groups allow, or "none"
    siblings: str = "unknown"  #: CPUs of the layout that share a core with others, or "none"
    tcp: str = (
        "unknown"  #: congestion control that TCP has without a choice of its own: what fills a queue, and what not
    )


def take_fingerprint(layout: Mapping[str, str], offloads: Mapping[str, str]) -> Fingerprint:
    """Describe this machine; `layout` says which role of the bench runs on which CPU, `offloads` what veths do."""
    cpu = _cpuinfo()
    return Fingerprint(
        cpu=cpu.get("model name", platform.processor() or platform.machine()),
        cpus=os.cpu_count() or 1,
        microcode=cpu.get("microcode", UNKNOWN),
        hypervisor=_hypervisor(cpu),
        kernel=f"{platform.release()} {platform.version()}",
        boot=settings_of(_read("/proc/cmdline")),
        governor=_read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        mitigations={
            path.name: _read(path) for path in sorted(Path("/sys/devices/system/cpu/vulnerabilities").glob("*"))
        },
        versions=_versions(),
        layout=dict(layout),
        offloads=dict(offloads),
        load=" ".join(_read("/proc/loadavg").split()[:3]),
        quota="none" if (quota := cpu_quota()) is None else f"{quota:.3g} CPUs",
        siblings=_siblings(layout),
        tcp=_read("/proc/sys/net/ipv4/tcp_congestion_control"),
    )


def _siblings(layout: Mapping[str, str]) -> str:
    """CPUs of the layout that share a core with others: two threads of a core slow each other down."""
    cpus = dict.fromkeys(cpu.split()[-1] for cpu in layout.values())
    lists = [_read(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list") for cpu in cpus]
    if UNKNOWN in lists:
        return UNKNOWN
    shared = [each for each in dict.fromkeys(lists) if not each.isdecimal()]
    return "; ".join(f"CPUs {each}" for each in shared) or "none"


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version(), "cython": CYTHON_VERSION}
    for package in ("fastbridge", "numpy", "pyroute2", "MLRsearch", "hdrhistogram"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:  # run from a source tree; or the extra is missing
            versions[package] = UNKNOWN
    return {**versions, "commit": _commit()}


def _commit() -> str:
    """The git commit of a source tree, with "-dirty" where it was changed since; an installed package has none."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        # Ask for this very file: an environment inside another repository must not get that repository's commit.
        for arguments in (["ls-files", "--error-unmatch", Path(__file__).name], ["describe", "--always", "--dirty"]):
            done = subprocess.run([*git, *arguments], capture_output=True, text=True, timeout=5)
            if done.returncode != 0:
                return UNKNOWN
    except (OSError, subprocess.TimeoutExpired):
        return UNKNOWN
    return done.stdout.strip()


def _cpuinfo() -> dict[str, str]:
    first = _read("/proc/cpuinfo").split("\n\n")[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def _hypervisor(cpu: Mapping[str, str]) -> str:
    if "hypervisor" not in cpu.get("flags", "").split():
        return "none seen"
    product = _read("/sys/class/dmi/id/product_name")
    return _hypervisor_vendor() if product == UNKNOWN else product


def _hypervisor_vendor() -> str:
    """What the hypervisor calls itself to programs that ask the CPU, as lscpu does."""
    try:
        done = subprocess.run(["lscpu"], capture_output=True, text=True, timeout=5, env=os.environ | {"LC_ALL": "C"})
    except (OSError, subprocess.TimeoutExpired):
        return NAMELESS
    found = [
        line.partition(":")[2].strip() for line in done.stdout.splitlines() if line.startswith("Hypervisor vendor")
    ]
    return found[0] if found else NAMELESS


def _read(path: str | Path) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip() or UNKNOWN
    except OSError:
        return UNKNOWN
