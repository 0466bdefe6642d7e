"""Namespace helper, stand-alone program.

Each lab has one. `namespaces.NamespaceHelper` starts it and is the only one to talk to it. A process with several
threads can neither enter a user namespace nor fork safely. So this small one with a single thread makes the network
namespaces, opens sockets in them, and hands the file descriptors over. It imports only the standard library, to be up
within milliseconds.

Standard input is a SEQPACKET socket. A request is text fields separated by NUL, with at most one file descriptor. So is
the answer: `ok …` or `error ERRNO TEXT`. When the socket ends, the owner is gone. Then this process kills whatever
still runs in the namespaces, and they vanish with the last file descriptor.

When this process is itself killed, a second one, the guard, does that in its place. The guard has another name, so
`pkill -9 python` and `pkill -9 -f fastbridge` miss it.

Nothing escapes them. A program comes into a namespace through a door, a path in /proc that ends with this process. Once
the door is shut none comes in, not even one that the owner had begun to start when it was killed. The others are all to
be seen: on its way in a process has the lab's tag as its name, and then it is in the namespace. In a namespace that is
only borrowed, programs of others run, too. There, the tag in the environment tells those of the owner.

Called as `namespace_helper.py exec PATH HOSTS PROGRAM …` it is no helper. It becomes that program, in the network
namespace of this name.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import pwd
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence

Answer = tuple[list[str], list[int]]

CLONE_NEWNET, CLONE_NEWUSER, CLONE_NEWNS = 0x40000000, 0x10000000, 0x00020000
MS_NOSUID, MS_NODEV, MS_NOEXEC = 2, 4, 8
MS_BIND, MS_REC, MS_SLAVE, MS_SHARED, MNT_DETACH = 0x1000, 0x4000, 0x80000, 0x100000, 2
MS_OF_STATVFS = 0xF  #: read-only, no setuid, no devices, no execution: mount and statvfs use the same bits
PR_SET_NAME = 15
SYS_NET, SYS_DEVICES, HOSTS = "/sys/class/net", "/sys/devices/virtual/net", "/etc/hosts"
ASIDE = "/proc/driver"
CAP_NET_ADMIN, CAP_NET_RAW, CAP_SYS_ADMIN = 12, 13, 21
MARK = "FASTBRIDGE_LAB"  #: the variable that has the lab's tag, in programs and what they start; as in namespaces.py
ENVIRONMENT_MAX = 6 << 20  #: bytes; the kernel allows no longer arguments and environment
KILL_PATIENCE = 5.0  #: seconds; a killed process is gone in milliseconds unless the kernel is stuck
EXEC_PATIENCE = 0.1  #: seconds; an exec shows nothing of itself for microseconds

libc = ctypes.CDLL(None, use_errno=True)


def call(name: str, *arguments: int | bytes | None) -> None:
    """Call a function of the C library that returns 0 for success. Raises OSError."""
    if getattr(libc, name)(*arguments) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def show_command_line(text: bytes) -> None:
    """Let the process list show this text instead of the command line."""
    with open("/proc/self/stat") as stat:  # noqa: PTH123 - as below
        fields = stat.read().rpartition(")")[2].split()
    start, end = int(fields[45]), int(fields[46])  # arg_start and arg_end, proc(5); 0: not known
    if start:
        ctypes.memset(start, 0, end - start)
        ctypes.memmove(start, text, min(len(text), end - start - 1))


def gain_privilege() -> list[int]:
    """Become root over new namespaces. Returns the file descriptor of the user namespace, if one was needed."""
    with open("/proc/self/status") as status:  # noqa: PTH123 - pathlib would double the start-up time
        effective = next(int(line.split()[1], 16) for line in status if line.startswith("CapEff:"))
    if all(effective >> capability & 1 for capability in (CAP_NET_ADMIN, CAP_NET_RAW, CAP_SYS_ADMIN)):
        return []
    uid, gid = os.geteuid(), os.getegid()
    users, groups = (Mapper(kind, number, uid) for kind, number in (("uid", uid), ("gid", gid)))
    try:
        call("unshare", CLONE_NEWUSER)
    except OSError:
        users.end(go=False)
        groups.end(go=False)
        raise
    if not users.end(go=True):
        write("/proc/self/uid_map", f"0 {uid} 1")
    if not groups.end(go=True):
        write("/proc/self/setgroups", "deny")  # without it an ordinary user may not map a group
        write("/proc/self/gid_map", f"0 {gid} 1")
    call("unshare", CLONE_NEWNET)  # some kernels allow the user namespace and refuse this: find out now
    return [os.open("/proc/self/ns/user", os.O_RDONLY)]


class Mapper:
    """A process that maps the users (or groups) of the coming namespace to those that are lent to this user.

    The programs newuidmap and newgidmap have the privilege to do so. /etc/subuid and /etc/subgid say what is lent to
    whom. The programs work from outside the namespace, so this process is forked before there is one. Where a program
    or an entry is missing, there is no such process.
    """

    def __init__(self, kind: str, own: int, uid: int) -> None:
        """Get ready. `kind` is uid or gid. `own` becomes root, the lent ones become 1, 2 and so on."""
        self.child = 0
        program, lent = find(f"new{kind}map"), lent_to(uid, f"/etc/sub{kind}")
        if program is None or lent is None:
            return
        argv = [program, str(os.getpid()), "0", str(own), "1", "1", *lent]
        waits, self.starts = os.pipe()
        self.child = os.fork()
        if not self.child:
            os.close(self.starts)
            if os.read(waits, 1):
                null = os.open(os.devnull, os.O_RDWR)
                for stream in range(3):
                    os.dup2(null, stream)
                with contextlib.suppress(OSError):
                    os.execv(program, argv)  # noqa: S606 - as found by the user's own PATH
            os._exit(1)
        os.close(waits)

    def end(self, *, go: bool) -> bool:
        """Let it map, or not; returns whether it has mapped."""
        if not self.child:
            return False
        if go:
            os.write(self.starts, b"g")
        os.close(self.starts)
        return os.waitpid(self.child, 0)[1] == 0


def find(program: str) -> str | None:
    """Where a program is. shutil would double the start-up time."""
    paths = [f"{directory}/{program}" for directory in (*os.environ.get("PATH", "").split(":"), "/usr/bin")]
    return next((path for path in paths if os.path.isfile(path) and os.access(path, os.X_OK)), None)  # noqa: PTH113


def lent_to(uid: int, path: str) -> tuple[str, str] | None:
    """The first range of ids that a file lends to a user: its first id, and how many."""
    names = {str(uid)}
    with contextlib.suppress(KeyError):  # a user need not have a name
        names.add(pwd.getpwuid(uid).pw_name)
    try:
        with open(path) as file:  # noqa: PTH123 - as above
            for line in file:
                name, *numbers = line.strip().split(":")
                if name in names and len(numbers) == 2 and all(number.isdigit() for number in numbers):
                    return numbers[0], numbers[1]
    except FileNotFoundError:
        pass
    return None


def write(path: str, text: str) -> None:
    """Write to a file of the kernel in one call. Never creates it."""
    fd = os.open(path, os.O_WRONLY)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def read_some(path: str, most: int) -> bytes:
    """The beginning of a file in /proc, by one call. open() takes twice the time."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, most)
    finally:
        os.close(fd)


def show_lab(hosts: bytes) -> bool:
    """Get mounts of our own: in /sys the interfaces of our network namespace, in /etc/hosts these lines first.

    False where there is no /sys. All other mounts stay, and later mounts from outside come in. A sysfs shows the
    network namespace of the process that mounted it. Both directories are needed: the links in one lead to the other.
    """
    if not os.path.isdir(SYS_NET):  # noqa: PTH112 - as above
        return False
    call("unshare", CLONE_NEWNS)
    call("mount", b"", b"/", b"none", MS_SLAVE | MS_REC, None)
    if hosts and os.path.isfile(HOSTS):  # noqa: PTH113 - as above
        show_hosts(hosts)
    flags = os.statvfs("/sys").f_flag & MS_OF_STATVFS
    call("mount", b"fastbridge", SYS_NET.encode(), b"sysfs", flags, None)
    call("mount", (SYS_NET + SYS_DEVICES.removeprefix("/sys")).encode(), SYS_DEVICES.encode(), b"none", MS_BIND, None)
    call("mount", (SYS_NET + SYS_NET.removeprefix("/sys")).encode(), SYS_NET.encode(), b"none", MS_BIND, None)
    return True


def show_hosts(lines: bytes) -> None:
    """Put lines before those of /etc/hosts."""
    with open(HOSTS, "rb") as before:  # noqa: PTH123 - as above
        lay(lines + before.read(), HOSTS)


def lay(text: bytes, path: str) -> None:
    """Lay a file of this text over another. It is in a tmpfs that only its mount there keeps.

    So nobody else can put a file in its place. For a moment the tmpfs is over a directory that all have and hardly
    anybody looks into.
    """
    call("mount", b"fastbridge", ASIDE.encode(), b"tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, b"mode=755")
    try:
        file = f"{ASIDE}/file"
        with open(file, "wb") as fresh:  # noqa: PTH123 - as above
            fresh.write(text)
        os.chmod(file, 0o644)  # noqa: PTH101 - as above
        call("mount", file.encode(), path.encode(), b"none", MS_BIND, None)
    finally:
        call("umount2", ASIDE.encode(), MNT_DETACH)


def is_entered_whole() -> bool:
    """Whether a program that enters our mount namespace by a descriptor gets our root directory: not after a chroot."""
    before = os.stat("/")  # noqa: PTH116
    fd = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    call("setns", fd, CLONE_NEWNS)
    os.close(fd)
    return os.path.samestat(before, os.stat("/"))  # noqa: PTH116


class Helper:
    """Answers requests. The name of a namespace is the number of this process's descriptor."""

    def __init__(self, tag: str) -> None:
        self.tag = tag  # programs on their way into a namespace carry it as argv[0]
        self.guard: socket.socket | None = None
        self.namespaces: set[int] = set()
        self.mounts: dict[str, int] = {}
        self.hosts = b""
        self.here = -1
        # Leads to the namespaces, as /proc/PID/fd/DOOR/NUMBER.
        self.door = os.open("/proc/self/fd", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def answer(self, request: list[str], fds: list[int]) -> Answer:
        """Do one request."""
        name, *arguments = request
        actions: dict[str, Callable[..., Answer]] = {
            "create": self.create,
            "adopt": lambda: self.keep(fds.pop()),
            "borrow": lambda: self.lend(fds.pop()),
            "hosts": lambda: self.take_hosts(fds.pop()),
            "socket": self.open_socket,
            "sysctl": self.sysctl,
            "proc": self.open_proc,
            "mounts": self.make_mounts,
            "cover": self.cover,
            "uncover": self.uncover,
            "pin": self.pin,
            "unpin": self.unpin,
            "disown": self.disown,
            "kill": self.kill,
        }
        return actions[name](*arguments)

    def create(self) -> Answer:
        """Make a network namespace."""
        call("unshare", CLONE_NEWNET)
        self.here = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self.tell_guard(b"made", [self.here])
        return self.keep(self.here)

    def keep(self, fd: int) -> Answer:
        """Hold a namespace, so that no other can get its inode number while this process lives."""
        self.namespaces.add(fd)
        return [str(fd)], [fd]

    @staticmethod
    def lend(fd: int) -> Answer:
        """Hold a namespace that is another's: who runs in it is left alone."""
        return [str(fd)], [fd]

    def enter(self, number: str) -> None:
        """Go to a namespace."""
        if self.here != int(number):
            call("setns", int(number), CLONE_NEWNET)
            self.here = int(number)

    def open_socket(self, number: str, family: str, type_: str, protocol: str) -> Answer:
        """Open a socket in a namespace."""
        self.enter(number)
        return [], [socket.socket(int(family), int(type_), int(protocol)).detach()]

    def sysctl(self, number: str, path: str, value: str) -> Answer:
        """Give a setting below /proc/sys a value, in the network namespace that this process is in.

        A setting that has the value already is not written: in a container /proc/sys may be read-only.
        """
        self.enter(number)
        with open(f"/proc/sys/{path}") as setting:  # noqa: PTH123 - as above
            if setting.read().strip() == value:
                return [], []
        write(f"/proc/sys/{path}", value)
        return [], []

    def open_proc(self, number: str, path: str) -> Answer:
        """Open a file below /proc/self/net for reading. It shows the network namespace in which it was opened."""
        self.enter(number)
        return [], [os.open(f"/proc/self/net/{path}", os.O_RDONLY | os.O_CLOEXEC)]

    def take_hosts(self, fd: int) -> Answer:
        """Take the lines that programs in the network namespaces find in their /etc/hosts."""
        with open(fd, "rb") as file:
            self.hosts = file.read()
        return [], []

    def make_mounts(self, number: str) -> Answer:
        """The mount namespace for the programs in a network namespace, made once. Raises OSError if refused."""
        if number not in self.mounts:
            self.enter(number)
            answers, answer = os.pipe()
            ends, end = os.pipe()
            child = os.fork()
            if not child:
                os.close(answers)
                os.close(end)
                os.write(answer, str(self.show_lab()).encode())
                os.read(ends, 1)  # until our parent has the descriptor, or is dead
                os._exit(0)
            os.close(answer)
            os.close(ends)
            try:
                code = int(os.read(answers, 16) or errno.ECHILD)
                if code:
                    raise OSError(code, os.strerror(code))
                self.mounts[number] = os.open(f"/proc/{child}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
            finally:
                os.close(answers)
                os.close(end)
                os.waitpid(child, 0)
        return [], [self.mounts[number]]

    def show_lab(self) -> int:
        """The same, for the parent: 0, or the error's number."""
        try:
            return 0 if show_lab(self.hosts) and is_entered_whole() else errno.EPERM
        except OSError as error:
            return error.errno or errno.EIO

    def cover(self, number: str, path: str, text: str) -> Answer:
        """Lay a file of this text over another, for the programs in a network namespace."""
        self.make_mounts(number)
        return self.in_mounts(number, lambda: lay(text.encode(), path))

    def uncover(self, number: str, path: str) -> Answer:
        """Take it away again."""
        return self.in_mounts(number, lambda: call("umount2", path.encode(), MNT_DETACH))

    def in_mounts(self, number: str, action: Callable[[], None]) -> Answer:
        """Act in the mount namespace of a network namespace. That takes a child: it is no way back for this process."""
        child = os.fork()
        if not child:
            code = errno.EIO
            try:
                call("setns", self.mounts[number], CLONE_NEWNS)
                action()
                code = 0
            except OSError as error:
                code = error.errno or errno.EIO
            finally:
                os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if code:
            raise OSError(code, os.strerror(code))
        return [], []

    def pin(self, number: str, path: str) -> Answer:
        """Give a namespace a name in the file system, the way `ip netns` does."""
        self.enter(number)
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
        """Take the name away again. A crash in `pin` may have left a name without a mount."""
        try:
            call("umount2", path.encode(), MNT_DETACH)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
        os.unlink(path)  # noqa: PTH108
        return [], []

    def disown(self, number: str) -> Answer:
        """Forget a namespace that was adopted by mistake."""
        self.namespaces.remove(int(number))
        os.close(int(number))
        if number in self.mounts:
            os.close(self.mounts.pop(number))
        self.here = -1
        return [], []

    def start_guard(self) -> int:
        """Start the guard, before there is a namespace; returns its process id."""
        self.guard, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        child = os.fork()
        if not child:
            self.guard.close()
            self.stand_guard(theirs)
            os._exit(0)
        theirs.close()
        self.guard.recv(1)  # the guard has closed its copy of the owner's socket
        return child

    def stand_guard(self, told: socket.socket) -> None:
        """Kill whatever runs in the namespaces when the helper ends without a word."""
        os.setsid()  # so that a signal to the helper's group misses the guard
        for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(ignored, signal.SIG_IGN)
        call("prctl", PR_SET_NAME, b"fastbridge-lab", 0, 0, 0)
        show_command_line(b"lab guard")
        os.close(0)  # the owner's socket: the owner must notice the helper's death
        told.send(b"r")
        while True:
            text, fds, _, _ = socket.recv_fds(told, 16, 1)
            if text == b"end":
                return
            if not text:
                break
            self.namespaces.update(fds)
        self.kill()

    def tell_guard(self, text: bytes, fds: Sequence[int] = ()) -> None:
        """Tell the guard of a new namespace, or of the end."""
        if self.guard is not None:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # somebody killed it
                socket.send_fds(self.guard, [text], fds)

    def shut(self) -> None:
        """Let no more programs come in."""
        os.close(self.door)

    def kill(self) -> Answer:
        """Kill whatever runs in the namespaces, or is about to, until nothing is left.

        Each process is looked at once, but one within an exec, which shows nothing of itself for some microseconds,
        until that is over. The last list has none that is new, so no child of a killed one was missed.
        """
        began = time.monotonic()
        ours = {os.fstat(fd).st_ino for fd in self.namespaces}
        others = {os.getpid()}
        while unknown := {int(name) for name in os.listdir("/proc") if name.isdigit()} - others:  # noqa: PTH208
            late = time.monotonic() - began
            unclear = {pid for pid in unknown if late < EXEC_PATIENCE and is_within_exec(pid)}
            victims = {pid for pid in unknown - unclear if self.is_program(pid, ours)}
            others |= unknown - unclear - victims
            for pid in victims:
                with contextlib.suppress(ProcessLookupError):  # it ended by itself
                    os.kill(pid, signal.SIGKILL)
            if victims or unclear:
                if late > KILL_PATIENCE:
                    raise OSError(errno.EBUSY, f"processes {sorted(victims)} survive SIGKILL")
                time.sleep(0.001)
        return [], []

    def is_program(self, pid: int, ours: set[int]) -> bool:
        """Whether a process is on its way into the namespaces, or in one. In this order, or it could pass in between.

        So is one that the owner, or a program of his, started in a borrowed namespace. A process that has just ended is
        none of these.
        """
        tag = self.tag.encode()
        try:
            name = read_some(f"/proc/{pid}/cmdline", 64).split(b"\0")[0]
            if name.split(b"/")[0] == tag or os.stat(f"/proc/{pid}/ns/net").st_ino in ours:  # noqa: PTH116
                return True
            variables = read_some(f"/proc/{pid}/environ", ENVIRONMENT_MAX).split(b"\0")
        except OSError:  # a zombie, or a process that we may not look at: neither is in one
            return False
        return MARK.encode() + b"=" + tag in variables


def is_within_exec(pid: int) -> bool:
    """Whether a process has a program, but neither a command line nor an environment yet."""
    try:
        os.readlink(f"/proc/{pid}/exe")  # noqa: PTH115 - fails for a kernel thread
        return not read_some(f"/proc/{pid}/cmdline", 1) and not read_some(f"/proc/{pid}/environ", 1)
    except OSError:
        return False


def serve(control: socket.socket, helper: Helper) -> None:
    """Answer until the owner closes the socket, or its process is gone."""
    while True:
        data, fds, _, _ = socket.recv_fds(control, 65536, 1)
        if not data:
            return
        request = data.decode().split("\0")
        kept = request[0] in ("create", "adopt", "borrow", "mounts")
        try:
            fields, passed = helper.answer(request, fds)
            fields = ["ok", *fields]
        except OSError as error:
            fields, passed = ["error", str(error.errno), error.strerror or str(error)], []
        socket.send_fds(control, ["\0".join(fields).encode()], passed)
        for fd in [] if kept else passed:
            os.close(fd)


def become(path: str, hosts: str, argv: list[str]) -> None:
    """Become a program in the network namespace of this name, with the lines of a file in its /etc/hosts."""
    lines = b""
    with contextlib.suppress(FileNotFoundError), open(hosts, "rb") as file:  # noqa: PTH123 - as above
        lines = file.read()
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        call("setns", fd, CLONE_NEWNET)
        with contextlib.suppress(PermissionError):  # then /sys is not the pod's
            show_lab(lines)
    except OSError as error:
        sys.exit(f"cannot enter {path}: {error.strerror}")
    for ignored in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them; the program must not
        signal.signal(ignored, signal.SIG_DFL)
    program = argv[0] if "/" in argv[0] else find(argv[0])
    if program is None:
        print(f"there is no program {argv[0]!r} on the PATH", file=sys.stderr)
        sys.exit(127)
    try:
        os.execv(program, argv)  # noqa: S606 - what it is for
    except OSError as error:
        print(f"cannot run {argv[0]}: {error.strerror}", file=sys.stderr)
        sys.exit(127 if error.errno == errno.ENOENT else 126)


def main() -> None:
    """Say whether the kernel gives namespaces, then serve."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    control = socket.socket(fileno=0)
    helper = Helper(sys.argv[1])
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the owner died before its answer
        try:
            user = gain_privilege()
            guard = helper.start_guard()
        except OSError as error:
            socket.send_fds(control, [f"error\0{error.errno}\0{error.strerror}".encode()], [])
            return
        socket.send_fds(control, [f"ok\0{helper.door}".encode()], user)
        serve(control, helper)
    helper.kill()  # silently: a program that finds no way in says so
    helper.shut()
    helper.kill()
    helper.tell_guard(b"end")
    os.waitpid(guard, 0)


if __name__ == "__main__":
    if sys.argv[1] == "exec":
        become(sys.argv[2], sys.argv[3], sys.argv[4:])
    else:
        main()
