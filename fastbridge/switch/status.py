"""Status, plain values.

What a switch is and how it does, on one page.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

# linux/capability.h, in the order of their numbers.
_CAPABILITIES = (
    "chown", "dac_override", "dac_read_search", "fowner", "fsetid", "kill", "setgid", "setuid", "setpcap",
    "linux_immutable", "net_bind_service", "net_broadcast", "net_admin", "net_raw", "ipc_lock", "ipc_owner",
    "sys_module", "sys_rawio", "sys_chroot", "sys_ptrace", "sys_pacct", "sys_admin", "sys_boot", "sys_nice",
    "sys_resource", "sys_time", "sys_tty_config", "mknod", "lease", "audit_write", "audit_control", "setfcap",
    "mac_override", "mac_admin", "syslog", "wake_alarm", "block_suspend", "audit_read", "perfmon", "bpf",
    "checkpoint_restore",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Table:
    """How full a table is."""

    entries: int
    capacity: int
    ageing: float | None  #: seconds; None: entries stay for ever


@dataclass(frozen=True, slots=True)
class Status:
    """What a switch is and how it does."""

    name: str  #: of its control socket; "" without one
    pid: int
    version: str
    running: bool
    uptime: float  #: seconds since it was started, 0 before
    fast_path: str  #: "nft", "bpf" or "off"
    workers: int
    cpus: Sequence[int]  #: of the workers; empty: any
    shield: str  #: "on", "off", or why there is none although it was asked for
    policy: str  #: of the ports without their own
    ports: Mapping[str, int]  #: how many are "up", "down", "blocked" and "gone"
    fdb: Table
    neighbours: Table
    links: Mapping[str, int]  #: emulated `links`, frames `in_flight` on them, and the `bytes` that these take
    #: what any thread of the process may do: its effective capabilities
    capabilities: Sequence[str]
    lost: Mapping[str, int]  #: frames and copies by drop reason, and `rx_missed`; only what is not 0

    def as_dict(self) -> dict[str, Any]:
        """The same as plain JSON values."""
        return {**asdict(self), "cpus": list(self.cpus), "capabilities": list(self.capabilities)}


def held_capabilities() -> list[str]:
    """The effective capabilities of all threads of this process together, as `capsh --print` names them."""
    held = 0
    for task in Path("/proc/self/task").iterdir():
        try:
            lines = (task / "status").read_text().splitlines()
        except (FileNotFoundError, ProcessLookupError):  # the thread has just ended
            continue
        held |= next(int(line.split()[1], 16) for line in lines if line.startswith("CapEff:"))
    names = {number: f"cap_{name}" for number, name in enumerate(_CAPABILITIES)}
    return [names.get(number, f"cap_{number}") for number in range(held.bit_length()) if held >> number & 1]
