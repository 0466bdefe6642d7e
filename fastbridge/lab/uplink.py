"""A way out of a lab, off by default.

pasta or slirp4netns gives a pod one more interface. What the pod sends there, the program sends by sockets of its own,
from the namespace of this process. So it takes no privilege, no forwarding on the host and no NAT there. The program
runs outside the pod, and yet ends with the lab, as those inside do.
"""

from __future__ import annotations

import functools
import logging
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from ipaddress import IPv4Network
from typing import IO, Any

from fastbridge.closes import Closes
from fastbridge.errors import ConfigError, LabError
from fastbridge.programs import find_program

from .namespaces import Namespace
from .pods import Pod

_log = logging.getLogger(__name__)

INTERFACE = "uplink"
NETWORK = IPv4Network("10.0.2.0/24")  #: where slirp4netns and QEMU have it
HOST, DNS, POD = (NETWORK[n] for n in (2, 3, 100))
_PATIENCE = 10.0  #: seconds; both are up in some milliseconds
_RESOLVER = "/etc/resolv.conf"


def _pasta(namespace: Namespace) -> list[str]:
    own = ["--ns-ifname", INTERFACE, "--address", str(POD), "--netmask", str(NETWORK.netmask), "--gateway", str(HOST)]
    no_ports = [word for option in ("-t", "-u", "-T", "-U") for word in (option, "none")]
    options = ["--foreground", "--ipv4-only", "--config-net", "--dns-forward", str(DNS), *no_ports]
    return [*options, *own, "--userns", str(namespace.user_door), "--netns", namespace.door]


def _slirp4netns(namespace: Namespace) -> list[str]:
    rights = [] if namespace.user_door is None else [f"--userns-path={namespace.user_door}"]
    return ["--configure", f"--cidr={NETWORK}", *rights, "--netns-type=path", namespace.door, INTERFACE]


_PROGRAMS: dict[str, Callable[[Namespace], list[str]]] = {"pasta": _pasta, "slirp4netns": _slirp4netns}
_PACKAGES = {"pasta": "pasta (package passt)", "slirp4netns": "slirp4netns"}
_OF_ROOT = "slirp4netns"  #: pasta gives up the right to enter a namespace that root has made


class Uplink(Closes):
    """The way out of one pod; a context manager. It is there when the constructor returns."""

    def __init__(self, pod: Pod) -> None:
        self._namespace = pod.namespace
        self._program = _start(pod)
        try:
            self._has_resolver = self._name_server()
        except BaseException:
            _end(self._program)
            raise

    def close(self) -> None:
        """End it. The pod's interface goes with the program."""
        if not self._namespace.is_ours:  # a forked child that ends must leave it
            return
        _end(self._program)
        if self._has_resolver:
            try:
                self._namespace.uncover(_RESOLVER)
            except LabError:  # the lab was closed, and its mounts are gone
                pass
            except OSError as error:
                _tell_rewrite(error.strerror)

    def _name_server(self) -> bool:
        """Let the pod's programs ask the host's name servers; returns whether they can."""
        try:
            self._namespace.cover(_RESOLVER, f"nameserver {DNS}\n")
        except OSError as error:
            _log.warning("pods keep the host's %s, which may name servers that they do not reach: %s", _RESOLVER, error)
            return False
        return True


def refuse_taken(pods: Sequence[Pod]) -> None:
    """Raise ConfigError where a pod has an address of the uplink's network."""
    for pod in pods:
        for end in pod.interfaces.values():
            if end.ipv4 is not None and end.ipv4.ip in NETWORK:
                raise ConfigError(f"pod {pod.name} has {end.ipv4.ip}, and {NETWORK} is the uplink's: give it another")


@functools.cache
def _tell_rewrite(reason: str) -> None:
    """Say, once, that there was nothing to uncover."""
    _log.warning("pods had lost their %s: the host has replaced its own meanwhile (%s)", _RESOLVER, reason)


def _start(pod: Pod) -> subprocess.Popen[Any]:
    """The program of a pod's uplink, ready. Where one that is installed fails, the other is tried."""
    if name := _default_route(pod.namespace):
        raise LabError(
            f"pod {pod.name} has a default route by {name} already: remove it, or give another pod the uplink"
        )
    names = list(_PROGRAMS) if pod.namespace.user_door else [_OF_ROOT]
    complaints = []
    for name in names:
        if path := find_program(name):
            with tempfile.TemporaryFile() as errors:
                program = pod.namespace.popen_beside(path, _PROGRAMS[name](pod.namespace), stdout=errors, stderr=errors)
                if _is_ready(pod.namespace, program):
                    return program
                complaints.append(f"{name}: {_last_line(errors)}")
    if not complaints:
        raise LabError(f"an uplink takes the program {' or '.join(_PACKAGES[name] for name in names)}: install it")
    raise LabError(f"pod {pod.name} gets no uplink: {'; '.join(complaints)}")


def _is_ready(namespace: Namespace, program: subprocess.Popen[Any]) -> bool:
    """Wait until the pod has its route, which comes last. A program that fails is gone when this returns False."""
    deadline = time.monotonic() + _PATIENCE
    try:
        while program.poll() is None and time.monotonic() < deadline:
            if _default_route(namespace) == INTERFACE:
                return True
            time.sleep(0.01)
    except BaseException:
        _end(program)
        raise
    _end(program)
    return False


def _end(program: subprocess.Popen[Any]) -> None:
    program.kill()
    program.wait()


def _default_route(namespace: Namespace) -> str | None:
    """The interface of the default route. A line of /proc/net/route: `IFACE DESTINATION GATEWAY … MASK …`."""
    lines = [line.split() for line in namespace.read_net("route").splitlines()[1:]]
    return next((words[0] for words in lines if words[1] == words[7] == "00000000"), None)


def _last_line(errors: IO[bytes]) -> str:
    errors.seek(0)
    lines = errors.read().decode(errors="replace").strip().splitlines()
    return lines[-1].strip() if lines else "it says nothing"
