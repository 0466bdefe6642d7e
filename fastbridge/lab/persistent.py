"""Labs that stay, in named namespaces.

A stored lab outlives the command that made it. Each pod is a namespace NAME-POD under /run/netns, so `ip netns exec`
works. Its host end has the same name and is in the current namespace; so are the two ends of each trunk. `up` writes
the plan to /run/fastbridge/NAME.json before it makes the first pod. All that is ours bears the lab's random identity as
an alias: the host ends, the ends of trunks before they come into the current namespace, and the loopback interface
inside a namespace, which gets it before the namespace gets its name. So `down` removes exactly what `up` made, whenever
`up` died.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import re
import secrets
import socket
import stat
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fastbridge.errors import ConfigError, LabError, PrivilegeError
from fastbridge.links.link import Link
from fastbridge.links.places import Place
from fastbridge.open_files import reserve_files

from .link_counters import await_up
from .links import Links
from .namespaces import NamespaceHelper, helper_command
from .plans import PodPlan, trunk_ends
from .silence import make_silent
from .stack import add_routes, await_active, configure_pod
from .topology import Progress, Topology

_log = logging.getLogger(__name__)

_STATE = Path("/run/fastbridge")
_NETNS = Path("/run/netns")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,11}")
_PATIENCE = 1.0  #: seconds without progress; the kernel removes 1,000 namespaces a second or so
_INTERFACE_MAX = 15  #: characters in the name of an interface


@dataclass(frozen=True, slots=True)
class StoredLab:
    """A lab as its state file has it. `complete` is False when `up` did not finish."""

    name: str
    identity: str
    topology: Topology
    complete: bool
    network: int  #: the inode of the network namespace in which it was made

    @property
    def elsewhere(self) -> bool:
        """Whether its host ends are in another network namespace than the current one."""
        return self.network != _network()

    @property
    def ports(self) -> list[str]:
        """The host ends, and the ends of trunks: interfaces of the namespace in which the lab was made."""
        return [self.port(name) for name in self.topology.ports]

    @property
    def switches(self) -> dict[str, list[str]]:
        """The ports of each switch, by its name."""
        found: dict[str, list[str]] = {switch: [] for switch in self.topology.switches}
        for name, switch in self.topology.ports.items():
            found[switch].append(self.port(name))
        return found

    @property
    def links(self) -> dict[Place, Link]:
        """The emulated links of the topology, by ports and pairs of ports."""
        return {
            self.port(place) if isinstance(place, str) else (self.port(place[0]), self.port(place[1])): link
            for place, link in self.topology.links_at(self.topology.link).items()
        }

    def namespace(self, pod: str) -> str:
        """The name of a pod's namespace, and of the host end of its first interface."""
        return f"{self.name}-{pod}"

    def port(self, name: str) -> str:
        """The name of the interface that a port of the topology is."""
        return f"{self.name}-{name}"

    def path(self, pod: str) -> str:
        """The name of a pod's namespace in the file system."""
        return str(_NETNS / self.namespace(pod))

    def missing(self) -> list[str]:
        """The pods whose namespace, or a host end of which, is gone; lost ends of trunks.

        Host ends that are in another network namespace are not looked for.
        """
        if self.elsewhere:
            return [pod.name for pod in self.topology.pods if not _is_namespace(_NETNS / self.namespace(pod.name))]
        with Links() as links:
            there = {name for name in self.topology.ports if links.alias(self.port(name)) == self.identity}
        pods = [
            pod.name
            for pod in self.topology.pods
            if not _is_namespace(_NETNS / self.namespace(pod.name)) or not there.issuperset(pod.ports)
        ]
        return pods + [end for trunk in self.topology.trunks for end in trunk_ends(trunk) if end not in there]

    def command(self, pod: str, argv: Sequence[str]) -> list[str]:
        """The command line that runs `argv` in a pod."""
        names = [plan.name for plan in self.topology.pods]
        if pod not in names:
            raise LabError(f"lab {self.name} has no pod {pod!r}; its pods are {', '.join(names)}")
        if not _is_namespace(_NETNS / self.namespace(pod)):
            raise LabError(
                f"pod {pod} is gone: its namespace was removed; remove the rest: fastbridge lab down --name {self.name}"
            )
        return [*helper_command(), "exec", self.path(pod), str(_hosts(self.name)), *argv]


def up(name: str, topology: Topology, progress: Progress | None = None) -> StoredLab:
    """Make a lab that stays. When that fails half-way, nothing is left."""
    lab = StoredLab(name, f"fastbridge:{secrets.token_hex(8)}", topology, complete=False, network=_network())
    _check(lab)
    reserve_files(len(topology.ports))
    # The helper may still work when this process is killed, so it holds the lock too.
    with _locked() as lock, NamespaceHelper(inherit=[lock]) as helper:
        _refuse_taken(lab)
        _save(lab)
        try:
            _make(lab, helper, progress)
            lab = replace(lab, complete=True)
            _save(lab)
        except BaseException:
            _remove(lab)
            raise
    return lab


def list_labs() -> list[StoredLab]:
    """All labs on this machine, complete or not, by name. The log says which files cannot be read."""
    found = []
    for path in _files():
        try:
            found.append(_load(path))
        except LabError as error:
            _log.error("%s", error)
    return found


def has_files() -> bool:
    """Whether there is any lab's file, readable or not."""
    return bool(_files())


def _files() -> list[Path]:
    return sorted(_STATE.glob("*.json"))


def get(name: str) -> StoredLab:
    """The lab of this name."""
    path = _path(name)
    if not path.exists():
        known = ", ".join(lab.name for lab in list_labs())
        way_out = f"there are: {known}" if known else "make one with fastbridge lab up"
        raise LabError(f"there is no lab {name!r}; {way_out}")
    return _load(path)


def down(name: str) -> StoredLab:
    """Remove a lab, complete or not, and the programs in its pods; nothing else."""
    with _locked():
        lab = get(name)
        _remove(lab)
    return lab


def _check(lab: StoredLab) -> None:
    _path(lab.name)
    for port in lab.ports:
        if len(port) > _INTERFACE_MAX:
            raise ConfigError(f"{port} is too long for an interface ({_INTERFACE_MAX} characters): use a shorter name")


def _refuse_taken(lab: StoredLab) -> None:
    if _path(lab.name).exists():
        down = f"fastbridge lab down --name {lab.name}"
        raise LabError(f"there is a lab {lab.name!r} already; remove it ({down}) or choose another --name")
    taken = {name for _, name in socket.if_nameindex()}
    for port in lab.ports:
        if port in taken:
            raise LabError(f"there is an interface {port} already, and it is not ours: choose another --name")
    for pod in lab.topology.pods:
        name = lab.namespace(pod.name)
        if (_NETNS / name).exists():
            raise LabError(f"there is a network namespace {name} already, and it is not ours: choose another --name")


def _make(lab: StoredLab, helper: NamespaceHelper, progress: Progress | None) -> None:
    pods = lab.topology.pods
    with Links() as links, socket.socket(socket.AF_NETLINK, socket.SOCK_RAW) as states:
        for n, plan in enumerate(pods, 1):
            _make_pod(lab, plan, helper, links, states)
            if progress is not None:
                progress(n, len(pods))
        if lab.topology.trunks:
            _make_trunks(lab, helper, links, states)


def _make_pod(lab: StoredLab, plan: PodPlan, helper: NamespaceHelper, links: Links, states: socket.socket) -> None:
    namespace = helper.create()
    with Links(namespace) as inside:
        inside.set("lo", ifalias=lab.identity)
    namespace.pin(str(_NETNS / lab.namespace(plan.name)))
    for name, end in plan.ports.items():
        port = lab.port(name)
        links.add_pair(port, None, end.name, end.mac, namespace.fd, lab.topology.mtu)
        links.set(port, ifalias=lab.identity)
        _set_up(links, port)
    configure_pod(namespace, plan)
    await_active(namespace, *(end.name for end in plan.interfaces))
    for name in plan.ports:
        await_up(states, lab.port(name))
    if plan.routes:
        add_routes(namespace, plan.routes)
    namespace.close()


def _make_trunks(lab: StoredLab, helper: NamespaceHelper, links: Links, states: socket.socket) -> None:
    """They are made aside, in a namespace that ends with the helper, and come here when they bear the identity."""
    aside = helper.create()
    with Links(aside) as there, Path("/proc/thread-self/ns/net").open() as here:
        for trunk in lab.topology.trunks:
            one, other = map(lab.port, trunk_ends(trunk))
            there.add_pair(one, None, other, None, aside.fd, lab.topology.mtu)
            for port in (one, other):
                there.set(port, ifalias=lab.identity)
            for port in (one, other):
                there.set(port, net_ns_fd=here.fileno())
            for port in (one, other):
                _set_up(links, port)
            for port in (one, other):
                await_up(states, port)
    aside.close()


def _set_up(links: Links, port: str) -> None:
    make_silent(links, port)
    links.set(port, state="up")


def _remove(lab: StoredLab) -> None:
    """Remove all that bears the lab's identity, then its files."""
    with Links() as links:
        for trunk in lab.topology.trunks:
            for port in map(lab.port, trunk_ends(trunk)):
                if links.alias(port) == lab.identity:
                    links.delete(port, missing_ok=True)  # and with it the other end
        ours = {port for port in lab.ports if links.alias(port) == lab.identity}
        with NamespaceHelper() as helper:
            for pod in lab.topology.pods:
                path = _NETNS / lab.namespace(pod.name)
                unmarked = [end.name for name, end in pod.ports.items() if lab.port(name) not in ours]
                if path.exists() and _adopt(helper, path, lab.identity, unmarked):
                    helper.unpin(str(path))
        _remove_host_ends(links, sorted(ours))
    _hosts(lab.name).unlink(missing_ok=True)
    _path(lab.name).unlink()


def _remove_host_ends(links: Links, host_ends: list[str]) -> None:
    """Wait until the host ends are gone. The kernel removes them in bulk with the pods' namespaces, which is quicker.

    When that makes no progress, somebody holds a namespace open. Then the host ends are deleted one by one.
    """
    patience = time.monotonic() + _PATIENCE
    while host_ends:
        present = {name for _, name in socket.if_nameindex()}
        left = [port for port in host_ends if port in present]
        if len(left) < len(host_ends):
            patience = time.monotonic() + _PATIENCE
        elif time.monotonic() > patience:
            links.delete(left.pop(), missing_ok=True)
        host_ends = left
        time.sleep(0.005)


def _adopt(helper: NamespaceHelper, path: Path, identity: str, unmarked: Iterable[str]) -> bool:
    """Take up the namespace of this name; returns whether it is ours. A crash may have left a name alone.

    The programs in it end with the helper. The pod ends in `unmarked`, whose host ends are not marked as ours yet, are
    removed now.
    """
    if not _is_namespace(path):
        return True
    namespace = helper.adopt(str(path))
    with Links(namespace) as inside:
        if inside.alias("lo") != identity:
            namespace.disown()
            return False
        for end in unmarked:
            if inside.exists(end):
                inside.delete(end)
    namespace.close()
    return True


def _is_namespace(path: Path) -> bool:
    """Whether a namespace has this name. Then it is in another file system than its directory."""
    try:
        return path.stat().st_dev != path.parent.stat().st_dev
    except FileNotFoundError:
        return False


def _path(name: str) -> Path:
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{name!r} cannot be a lab's name: 1 to 12 of A-Z a-z 0-9 _ -")
    return _STATE / f"{name}.json"


def _hosts(name: str) -> Path:
    """The lines of the pods' /etc/hosts."""
    return _STATE / f"{name}.hosts"


@contextlib.contextmanager
def _locked() -> Iterator[int]:
    """Let one `up` or `down` run at a time on this machine. The kernel unlocks when the processes are dead.

    Whoever can open the lock, even for reading, can hold it. So only its owner can.
    """
    lock = _STATE / ".lock"
    try:
        _STATE.mkdir(mode=0o755, exist_ok=True)
        _refuse_others_directory()
        file = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise PrivilegeError(
            f"cannot write {lock}: {error.strerror}; run as root, which labs that stay need"
        ) from error
    try:
        os.fchmod(file, 0o600)  # older versions let everybody read it
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _log.warning("waiting for %s, which holds %s; Ctrl-C ends the wait", _holder(file), lock)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield file
    finally:
        os.close(file)


def _refuse_others_directory() -> None:
    """Raise LabError where somebody else could have written to the state directory, or PrivilegeError: it is root's."""
    found = _STATE.lstat()
    if os.geteuid() != 0 and found.st_uid == 0:
        raise PrivilegeError(f"{_STATE} is root's, and keeps root's labs: labs that stay take root (sudo)")
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise LabError(f"others may write to {_STATE}, or it is no directory of this user's: remove it")


def _holder(file: int) -> str:
    """The process that holds the lock. A line of /proc/locks: `12: FLOCK ADVISORY WRITE PID MAJ:MIN:INODE 0 EOF`."""
    found = os.fstat(file)
    key = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"  # each /run may have this inode
    for line in Path("/proc/locks").read_text().splitlines():
        words = line.split()
        if words[1] == "FLOCK" and words[-3] == key and "->" not in words:
            with contextlib.suppress(OSError):  # it has ended, and a process that it started holds the lock
                command = Path(f"/proc/{words[-4]}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                return f"process {words[-4]} ({command.strip()})"
    return "another process"


def _network() -> int:
    """A number of the current network namespace, unique as long as there is one."""
    return Path("/proc/thread-self/ns/net").stat().st_ino


def _save(lab: StoredLab) -> None:
    """Write its files. A reader sees the whole old state or the whole new one, also after a crash."""
    state = {
        "name": lab.name,
        "identity": lab.identity,
        "complete": lab.complete,
        "network": lab.network,
        "topology": lab.topology.to_dict(),
    }
    path = _path(lab.name)
    fresh = path.with_suffix(".new")
    try:
        fresh.write_text(json.dumps(state, indent=1))
        fresh.replace(path)
        _hosts(lab.name).write_text(lab.topology.hosts)  # after the state, by which `down` finds it
    except OSError as error:
        raise LabError(f"cannot write {path}: {error.strerror}") from error


def _load(path: Path) -> StoredLab:
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
        topology = Topology.from_dict(state["topology"])
        lab = StoredLab(state["name"], state["identity"], topology, state["complete"], state["network"])
        if lab.name != path.stem or not _NAME.fullmatch(lab.name):
            raise ValueError(f"it is the file of another lab, {lab.name!r}")
        if not (isinstance(lab.identity, str) and isinstance(lab.complete, bool) and isinstance(lab.network, int)):
            raise TypeError("its identity or its state is missing")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise LabError(
            f"{path} is not a lab's file that this version reads: {error}; to remove such a lab by hand, delete its "
            f"namespaces {path.stem}-… (ip netns), its interfaces {path.stem}-… (ip link), and then the file"
        ) from error
    return lab
