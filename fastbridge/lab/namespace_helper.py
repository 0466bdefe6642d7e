"""Namespace helper, stand-alone program.

One runs for every lab, started by `namespaces.NamespaceHelper`, which is the only one to talk to it.
A process with several threads can neither enter a user namespace nor fork safely, so this small
single-threaded one makes the network namespaces and opens sockets in them, and hands the file
descriptors over. It imports nothing but the standard library, to be up within milliseconds.

Standard input is a SEQPACKET socket. A request is text fields separated by NUL, at most one file
descriptor with it; so is the answer: `ok …` or `error ERRNO TEXT`. When the socket ends, its owner
is gone: what still runs in the namespaces is killed, and with the last file descriptor they go too.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable

Answer = tuple[list[str], list[int]]

CLONE_NEWNET, CLONE_NEWUSER = 0x40000000, 0x10000000
MS_BIND, MS_REC, MS_SHARED, MNT_DETACH = 0x1000, 0x4000, 0x100000, 2
CAP_NET_ADMIN, CAP_NET_RAW, CAP_SYS_ADMIN = 12, 13, 21
KILL_PATIENCE = 5.0  #: seconds; a killed process is gone in milliseconds unless the kernel is stuck

libc = ctypes.CDLL(None, use_errno=True)


def call(name: str, *arguments: int | bytes | None) -> None:
    """Call a function of the C library that answers 0, or raise OSError."""
    if getattr(libc, name)(*arguments) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def gain_privilege() -> list[int]:
    """Be root over new namespaces; the file descriptor of the user namespace when one was needed."""
    with open("/proc/self/status") as status:  # noqa: PTH123 - pathlib would double the start-up time
        effective = next(int(line.split()[1], 16) for line in status if line.startswith("CapEff:"))
    if all(effective >> capability & 1 for capability in (CAP_NET_ADMIN, CAP_NET_RAW, CAP_SYS_ADMIN)):
        return []
    uid, gid = os.geteuid(), os.getegid()
    call("unshare", CLONE_NEWUSER)
    write("/proc/self/setgroups", "deny")  # without it an ordinary user may not map a group
    write("/proc/self/uid_map", f"0 {uid} 1")
    write("/proc/self/gid_map", f"0 {gid} 1")
    call("unshare", CLONE_NEWNET)  # some kernels allow the user namespace and refuse this: find out now
    return [os.open("/proc/self/ns/user", os.O_RDONLY)]


def write(path: str, text: str) -> None:
    """Write a file of the kernel in one call; never create it."""
    fd = os.open(path, os.O_WRONLY)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


class Helper:
    """Answers requests; a namespace is named by its index in the order of making."""

    def __init__(self, tag: str) -> None:
        self.tag = tag  # programs on their way into a namespace carry it as argv[0]
        self.namespaces: list[int] = []
        self.here = -1

    def answer(self, request: list[str], fds: list[int]) -> Answer:
        """Do one request."""
        name, *arguments = request
        actions: dict[str, Callable[..., Answer]] = {
            "create": self.create,
            "adopt": lambda: self.keep(fds.pop()),
            "socket": self.socket,
            "sysctl": self.sysctl,
            "pin": self.pin,
            "unpin": self.unpin,
            "disown": self.disown,
            "kill": self.kill,
        }
        return actions[name](*arguments)

    def create(self) -> Answer:
        """Make a network namespace."""
        call("unshare", CLONE_NEWNET)
        answer = self.keep(os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC))
        self.here = len(self.namespaces) - 1
        return answer

    def keep(self, fd: int) -> Answer:
        """Hold a namespace, so that its inode number names nothing else while this process lives."""
        self.namespaces.append(fd)
        return [str(len(self.namespaces) - 1)], [fd]

    def enter(self, index: str) -> None:
        """Go to a namespace."""
        if self.here != int(index):
            call("setns", self.namespaces[int(index)], CLONE_NEWNET)
            self.here = int(index)

    def socket(self, index: str, family: str, type_: str, protocol: str) -> Answer:
        """Open a socket in a namespace."""
        self.enter(index)
        return [], [socket.socket(int(family), int(type_), int(protocol)).detach()]

    def sysctl(self, index: str, path: str, value: str) -> Answer:
        """Give a setting below /proc/sys its value: they are those of the network namespace of whoever opens them.

        One that is right already is not written: a container may have them for reading alone.
        """
        self.enter(index)
        with open(f"/proc/sys/{path}") as setting:  # noqa: PTH123 - as above
            if setting.read().strip() == value:
                return [], []
        write(f"/proc/sys/{path}", value)
        return [], []

    def pin(self, index: str, path: str) -> Answer:
        """Give a namespace a name in the file system, the way `ip netns` does."""
        self.enter(index)
        directory = os.path.dirname(path).encode()  # noqa: PTH120 - as above
        os.makedirs(directory, exist_ok=True)  # noqa: PTH103
        try:
            call("mount", b"", directory, b"none", MS_SHARED | MS_REC, None)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            call("mount", directory, directory, b"none", MS_BIND | MS_REC, None)
            call("mount", b"", directory, b"none", MS_SHARED | MS_REC, None)
        os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL, 0))
        call("mount", b"/proc/self/ns/net", path.encode(), b"none", MS_BIND, None)
        return [], []

    def unpin(self, path: str) -> Answer:
        """Take the name away again; a name without a mount is what a crash in `pin` leaves."""
        try:
            call("umount2", path.encode(), MNT_DETACH)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
        os.unlink(path)  # noqa: PTH108
        return [], []

    def disown(self, index: str) -> Answer:
        """Forget a namespace that was adopted by mistake; the other indexes stay."""
        os.close(self.namespaces[int(index)])
        self.namespaces[int(index)] = -1
        self.here = -1
        return [], []

    def kill(self) -> Answer:
        """Kill whatever runs in the namespaces, or is about to, until nothing does."""
        deadline = time.monotonic() + KILL_PATIENCE
        while victims := self.programs():
            for pid in victims:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue  # it ended by itself
            if time.monotonic() > deadline:
                raise OSError(errno.EBUSY, f"processes {victims} survive SIGKILL")
            time.sleep(0.001)
        return [], []

    def programs(self) -> list[int]:
        """The processes in the namespaces, and those on their way in."""
        ours = {os.fstat(fd).st_ino for fd in self.namespaces if fd >= 0}
        pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208
        return [pid for pid in pids if pid != os.getpid() and self.is_program(pid, ours)]

    def is_program(self, pid: int, ours: set[int]) -> bool:
        """Whether a process is one of them; one that has just ended is not."""
        try:
            if os.stat(f"/proc/{pid}/ns/net").st_ino in ours:  # noqa: PTH116
                return True
        except OSError:
            pass  # a zombie, or not ours to look at: then it is in none of our namespaces
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as cmdline:  # noqa: PTH123
                return cmdline.read(64).split(b"\0")[0] == self.tag.encode()
        except OSError:
            return False


def serve(control: socket.socket, helper: Helper) -> None:
    """Answer until the owner closes the socket, or its process is gone."""
    while True:
        data, fds, _, _ = socket.recv_fds(control, 65536, 1)
        if not data:
            return
        request = data.decode().split("\0")
        kept = request[0] in ("create", "adopt")
        try:
            fields, passed = helper.answer(request, fds)
            fields = ["ok", *fields]
        except OSError as error:
            fields, passed = ["error", str(error.errno), error.strerror or str(error)], []
        socket.send_fds(control, ["\0".join(fields).encode()], passed)
        for fd in [] if kept else passed:
            os.close(fd)


def main() -> None:
    """Say whether namespaces can be had, then serve."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    control = socket.socket(fileno=0)
    helper = Helper(sys.argv[1])
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the owner died before its answer
        try:
            user = gain_privilege()
        except OSError as error:
            socket.send_fds(control, [f"error\0{error.errno}\0{error.strerror}".encode()], [])
            return
        socket.send_fds(control, [b"ok"], user)
        serve(control, helper)
    helper.kill()


if __name__ == "__main__":
    main()
