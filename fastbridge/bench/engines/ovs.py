"""Open vSwitch, userspace datapath.

`datapath_type=netdev` over AF_PACKET needs no kernel module. The engine has its own ovsdb-server and ovs-vswitchd. On
veth with default offloads ping works and TCP does not: OVS forwards frames without the checksum that was left to the
interface. So offloads are off, and TCP works. Default settings: an FDB of 8,192 entries, 300 s.
"""

from __future__ import annotations

import shlex
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fastbridge.bench.machine.offloads import turn_off_offloads
from fastbridge.errors import BenchError
from fastbridge.lab.topology import Lab
from fastbridge.programs import find_program

from .engine import Engine, lacks_program, lacks_tun
from .probe import await_forwarding
from .running import Programs, Running

READY_SECONDS = 10
_ENVIRONMENT = ("env", "OVS_RUNDIR=/run")  # for the sockets that have no option
_LOG = ("-vsyslog:off", "-vconsole:err")
_DATABASE = 'ovsdb-tool create /run/conf.db && exec ovsdb-server /run/conf.db --remote=punix:/run/db.sock "$@"'
_CONTROL = (*_ENVIRONMENT, "ovs-vsctl", "--db=unix:/run/db.sock", f"--timeout={READY_SECONDS}")


@dataclass(frozen=True)
class OpenVSwitch(Engine):
    """ovs-vswitchd with one bridge, its flow table the default: one rule, NORMAL."""

    name: str = "ovs"
    offloads_off = True

    def version(self) -> str:
        """The version of ovs-vswitchd."""
        said = subprocess.run(
            [find_program("ovs-vswitchd") or "ovs-vswitchd", "--version"], capture_output=True, text=True, check=True
        )
        return said.stdout.splitlines()[0].split()[-1]

    def missing(self) -> str | None:
        """The programs, or the tun device: the bridge has an interface of its own."""
        programs = ("ovs-vswitchd", "ovsdb-server", "ovsdb-tool", "ovs-vsctl")
        return lacks_tun() or lacks_program("openvswitch-switch", *programs)

    @contextmanager
    def attach(self, lab: Lab, cpu: int) -> Iterator[Running]:
        """Run both daemons until the block ends, their files in a private tmpfs."""
        turn_off_offloads(lab)
        with Programs(self.name, lab, cpu, self._start) as running:
            yield running

    def _start(self, programs: Programs) -> None:
        bridge = ["add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=netdev"]
        for interface in programs.interfaces:
            bridge += ["--", "add-port", "br0", interface]
        programs.command = f"ovs-vswitchd; {shlex.join(['ovs-vsctl', *bridge])}"
        receive_buffer = int(Path("/proc/sys/net/core/rmem_default").read_text())
        programs.buffers = f"receive buffer {receive_buffer >> 10} KiB a port"
        programs.run([*_ENVIRONMENT, "sh", "-c", _DATABASE, "sh", *_LOG], "ovsdb-server", private=True)
        _ask_until_it_listens(programs, [*_CONTROL, "--no-wait", "init"])
        switch = [*_ENVIRONMENT, "ovs-vswitchd", "unix:/run/db.sock", "--disable-system", *_LOG]
        programs.run(switch, "ovs-vswitchd", private=True)
        programs.ask([*_CONTROL, "--", *bridge], timeout=READY_SECONDS + 5)  # returns when the ports are made
        wrong = programs.ask([*_CONTROL, "--bare", "--columns=error", "find", "interface", "error!=[]"], timeout=5)
        if wrong.strip():
            raise BenchError(f"{self.name}: {' '.join(wrong.split())}")
        await_forwarding(programs, READY_SECONDS)  # some 0.15 s later, when the flow table has its rule


def _ask_until_it_listens(programs: Programs, argv: list[str]) -> None:
    # If its first try came too early, ovs-vsctl --retry would wait for a whole second.
    deadline = time.monotonic() + READY_SECONDS
    while True:
        try:
            programs.ask(argv, timeout=READY_SECONDS + 5)
        except BenchError:
            programs.check()
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return
