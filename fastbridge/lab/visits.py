"""Visits to labs that stay: their pods, as those of a Lab."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

from fastbridge.addresses import MacAddress
from fastbridge.errors import LabError, PrivilegeError
from fastbridge.named import NamedList

from .namespaces import Namespace, NamespaceHelper
from .persistent import StoredLab
from .pods import Pod, Port


@contextlib.contextmanager
def visit(lab: StoredLab) -> Iterator[NamedList[Pod]]:
    """The pods of a lab. What is started in them meanwhile ends with the visit; all else stays as it is.

    Raises LabError where a pod is gone, and PrivilegeError where this user may not enter them.
    """
    if missing := lab.missing():
        gone = ", ".join(missing)
        raise LabError(f"lab {lab.name} is not whole, {gone} gone; remove it: fastbridge lab down --name {lab.name}")
    with contextlib.ExitStack() as held, NamespaceHelper(hosts=lab.topology.hosts) as helper:
        pods: dict[str, Pod] = {}

        def borrow(path: str) -> Namespace:
            namespace = helper.borrow(path)
            held.callback(namespace.close)
            return namespace

        here = borrow("/proc/thread-self/ns/net")
        for plan in lab.topology.pods:
            ports = [Port(here, lab.port(name), MacAddress(0)) for name in plan.ports]
            pods[plan.name] = Pod(plan, borrow(lab.path(plan.name)), ports, pods.__getitem__)
        _check_entry(lab, pods)
        yield NamedList(pods.values())


def _check_entry(lab: StoredLab, pods: dict[str, Pod]) -> None:
    try:
        for pod in list(pods.values())[:1]:  # all have the same owner
            pod.socket(socket.AF_UNIX, socket.SOCK_DGRAM).close()
    except PermissionError as error:
        raise PrivilegeError(f"lab {lab.name} is root's; run as root") from error
