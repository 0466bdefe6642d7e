"""Mininet's switches, by fastbridge.

`fastbridge mininet` writes a copy of this file for `mn --custom`. The copy runs on the Python that Mininet is installed
for, where there may be no fastbridge. So it needs only Mininet and the standard library, and calls the command by its
path. All switches of a network run in one process. It ends with mn, however mn ends.
"""

from __future__ import annotations

import json
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from itertools import groupby
from typing import Any

from mininet.link import Intf, Link, TCIntf
from mininet.log import error, warn
from mininet.node import Switch
from mininet.util import quietRun

#: How the command is called; in the copy it is the path of the one that wrote it.
COMMAND = [sys.executable, "-m", "fastbridge"]

_PATIENCE = 60.0  # seconds for an answer, and for the end of a process
#: What a plain Link keeps of TCLink's parameters …
_WORDS = ("bw", "delay", "jitter", "loss", "max_queue_size")
# … and what fastbridge's links do not have.
_UNKNOWN = ("enable_ecn", "enable_red", "latency_ms", "speedup")


class FastbridgeSwitch(Switch):
    """A learning switch of fastbridge. Commands find it by its name: `fastbridge fdb show --switch s1`.

    It needs no controller: `--controller none`. The parameters bw (Mb/s), delay, jitter, loss (%) and max_queue_size
    (frames) of its links are those of TCLink: each end has them for what it sends. Links with tc's own interfaces
    (TCLink) are left to tc.
    """

    def __init__(self, name: str, batch: bool = False, **params: Any) -> None:
        """batch: start in one process with all others, when the network starts; a topology's switches do.

        opts: options of `fastbridge run`, such as "--arp suppress".
        """
        Switch.__init__(self, name, **params)
        self.batch = batch
        self._run: _Run | None = None

    @classmethod
    def setup(cls) -> None:
        """See that the command is there."""
        if shutil.which(COMMAND[0]) is None:
            error(f"*** There is no {COMMAND[0]}, which this file calls; make a new file: fastbridge mininet\n")
            sys.exit(1)

    def start(self, controllers: Any) -> None:
        """Forward from now on; with `batch`, from batchStartup() on."""
        if self.batch:
            return
        if self._run is None or not self._run.lives:
            _Run([self])
        elif self not in self._run.started:
            self._run.started.add(self)
            for intf in self.dataIntfs():
                self._plug(intf)

    @classmethod
    def batchStartup(cls, switches: Any, run: Any = None) -> Any:  # noqa: N802 - Mininet's name
        """Start those that wait for it: in one process, but for different `opts` and namespaces."""
        waiting = sorted((switch for switch in switches if switch.batch), key=_place)
        for _, some in groupby(waiting, key=_place):
            _Run(list(some))
        return switches

    def stop(self, deleteIntfs: bool = True) -> None:  # noqa: N803 - Mininet's name
        """Forward no more."""
        run = self._run
        if run is not None and self in run.started:
            run.started.remove(self)
            if not run.started:
                run.close()
            elif run.lives:
                for row in self._ask("port.list"):
                    self._ask("port.remove", port=row["ifname"])
        Switch.stop(self, deleteIntfs)

    @classmethod
    def batchShutdown(cls, switches: Any, run: Any = None) -> Any:  # noqa: N802 - Mininet's name
        """End their processes."""
        for one in {switch._run for switch in switches if switch._run is not None}:
            one.close()
        return switches

    def connected(self) -> bool:
        """Whether it forwards."""
        return self._run is not None and self._run.lives and self in self._run.started

    def attach(self, intf: Any) -> None:
        """Make an interface a port, by its name or as Mininet has it."""
        self.cmd("ifconfig", intf, "up")
        self._plug(self.nameToIntf.get(str(intf), intf))

    def detach(self, intf: Any) -> None:
        """Take a port out. The interface stays."""
        self._ask("port.remove", port=str(intf))

    def dpctl(self, *args: Any) -> Any:
        """Run a command of fastbridge about this switch: dpctl fdb show."""
        return quietRun([*COMMAND, *map(str, args), "--switch", self.name])

    def dataIntfs(self) -> list[Any]:  # noqa: N802 - as Mininet's intfList()
        """The interfaces that are to be ports: not lo, and none with an IP address."""
        return [intf for intf in self.intfList() if self.ports[intf] and not intf.IP()]

    def shape(self, intf: Any) -> None:
        """Have the link of a port as Mininet's interfaces say now. Does nothing while it does not forward."""
        if self.connected() and intf in self.dataIntfs():
            words = _link_of(intf)
            self._ask("link.set" if words else "link.reset", places=[str(intf)], **({"link": words} if words else {}))

    def _plug(self, intf: Any) -> None:
        try:
            self._ask("port.add", port=str(intf))
        except _RefusedError:  # it may have come back by itself
            if not any(row["ifname"] == str(intf) and row["state"] != "gone" for row in self._ask("port.list")):
                raise
        words = _link_of(intf)
        if words:
            self._ask("link.set", places=[str(intf)], link=words)

    def _ask(self, verb: str, **params: Any) -> Any:
        if self._run is None:
            raise Exception(f"{self} has not been started")
        return self._run.ask(self.name, verb, params)


class FastIntf(Intf):
    """One end of a FastLink."""

    params: dict[str, Any]

    def config(self, **params: Any) -> Any:
        """As TCIntf.config: bw, delay, jitter, loss and max_queue_size, also while the network runs.

        Where one of them is given, those that are not are as a wire has them. Zero is zero.
        """
        result = Intf.config(self, **params)
        if any(word in params for word in _WORDS):
            kept = {word: value for word, value in self.params.items() if word not in _WORDS}
            self.params = {**kept, **{word: params[word] for word in _WORDS if word in params}}
            for end in (self, _peer(self)):
                if end is not None and isinstance(end.node, FastbridgeSwitch):
                    end.node.shape(end)
        return result


class FastLink(Link):
    """In place of TCLink, where one end at least is a FastbridgeSwitch; between two hosts it is as TCLink."""

    def __init__(self, node1: Any, node2: Any, **params: Any) -> None:
        ours = isinstance(node1, FastbridgeSwitch) or isinstance(node2, FastbridgeSwitch)
        for cls in ("cls1", "cls2"):
            params.setdefault(cls, FastIntf if ours else TCIntf)
        Link.__init__(self, node1, node2, **params)


class _RefusedError(Exception):
    """The switch has said no, and why."""


class _Run:
    """A process of fastbridge with some switches, from its start to the end of this process."""

    def __init__(self, switches: list[Any]) -> None:
        """Returns when all forward. Raises Exception with what the command says."""
        self.started = set(switches)
        options, inside = _place(switches[0])
        command = [*COMMAND, "run", "--json", "--until-eof", *shlex.split(options)]
        for switch in switches:
            command += ["--switch", f"{switch}={','.join(map(str, switch.dataIntfs()))}"]
            for intf in switch.dataIntfs():
                words = _link_of(intf)
                command += ["--link", f"{intf}:{words}"] if words else []
        # Ctrl-C in mn's shell is not for it, and / has no Python file that it could take for one of its own.
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the process
        self._process = subprocess.Popen(
            ["mnexec", "-a", str(inside), *command] if inside else command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            start_new_session=True,
            cwd="/",
        )
        assert self._process.stdout is not None
        self._sockets: dict[str, str] = {}
        try:
            for _ in switches:
                line = self._process.stdout.readline()
                if not line:
                    raise Exception(self._complaint())
                said = json.loads(line)
                self._sockets[said["name"]] = said["socket"]
        except BaseException:
            self.close()
            raise
        threading.Thread(target=self._read_on, daemon=True).start()
        for switch in switches:
            switch._run, switch.batch = self, False

    @property
    def lives(self) -> bool:
        """Whether the process does."""
        return self._process.poll() is None

    def ask(self, name: str, verb: str, params: dict[str, Any]) -> Any:
        """Ask one of its switches. Raises Exception: it refuses, or has ended."""
        if not self.lives:
            raise Exception(self._complaint())
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(_PATIENCE)
            sock.connect(self._sockets[name])
            request = {"jsonrpc": "2.0", "id": 1, "method": verb, "params": params}
            sock.sendall(json.dumps(request).encode() + b"\n")
            with sock.makefile() as answers:
                answer = json.loads(answers.readline())
        if "error" in answer:
            raise _RefusedError(f"fastbridge: switch {name}: {answer['error']['message']}")
        return answer["result"]

    def close(self) -> None:
        """End it: it ends when its stdin does."""
        assert self._process.stdin is not None
        self.started.clear()
        self._process.stdin.close()
        try:
            self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _read_on(self) -> None:
        assert self._process.stdout is not None
        while self._process.stdout.readline():  # what nobody reads would hold up its end
            pass

    def _complaint(self) -> str:
        """The last line that it has said on stderr."""
        self._process.wait(_PATIENCE)
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").splitlines()
        return lines[-1] if lines else f"fastbridge has ended with status {self._process.returncode}"


def _place(switch: Any) -> tuple[str, int]:
    """What switches of one process have in common: options, and the process whose namespace they are in; 0: this."""
    return switch.opts, switch.pid if switch.inNamespace else 0


def _peer(intf: Any) -> Any:
    """The other end of an interface's link; None: there is none."""
    ends = [getattr(intf.link, end, None) for end in ("intf1", "intf2")]
    return next((end for end in ends if end is not None and end is not intf), None) if intf in ends else None


def _link_of(intf: Any) -> str:
    """The link of a port in fastbridge's words; "": a perfect one.

    Each end of a Mininet link has parameters for what it sends. What comes from another of our switches is its port's.
    """
    words = _words(intf, "to_pod")
    peer = _peer(intf) if isinstance(intf, Intf) else None
    if peer is not None and not isinstance(peer.node, FastbridgeSwitch):
        words += _words(peer, "from_pod")
    return ",".join(words)


def _words(intf: Any, direction: str) -> list[str]:
    if not isinstance(intf, Intf) or isinstance(intf, TCIntf):
        return []
    given = {word: value for word, value in intf.params.items() if value}  # zero and None are what a wire has
    for word in _UNKNOWN:
        if given.get(word):
            warn(f"*** {intf}: fastbridge's links have no {word}\n")
    words = []
    if "bw" in given:
        words.append(f"rate={given['bw']}mbit")
        if "max_queue_size" in given:
            words.append(f"limit={given['max_queue_size']}p")
    words += [f"{word}={given[word]}" for word in ("delay", "jitter") if word in given]
    if "loss" in given:
        words.append(f"loss={str(given['loss']).rstrip('%')}%")
    return [f"{direction}.{word}" for word in words]


switches = {"fastbridge": FastbridgeSwitch}
links = {"fast": FastLink}

# mn 2.3 takes no `links` from a file: in its list of names a comma is missing.
_known = getattr(sys.modules["__main__"], "LINKS", None)
if isinstance(_known, dict):
    _known.update(links)
