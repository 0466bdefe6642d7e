"""Network namespaces, made and entered.

The user's process has threads and may be unprivileged, so it never changes its namespace and never forks. A helper
process does both (see `namespace_helper`). Only file descriptors hold a namespace, so the kernel removes it with the
process that has them, also after SIGKILL.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import logging
import os
import secrets
import socket
import subprocess
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fastbridge.closes import Closes
from fastbridge.errors import LabError, PrivilegeError
from fastbridge.forks import in_child
from fastbridge.programs import find_program, find_python, search_path

_log = logging.getLogger(__name__)

Argv = Sequence[str | os.PathLike[str]]

_DIED = "the lab's namespace helper process has died; close the lab"
#: The way out in a container that refuses something.
CONTAINER = "a container needs --cap-add SYS_ADMIN --cap-add NET_ADMIN --cap-add NET_RAW"
SETTINGS_WRITABLE = (
    "run as root; in a container with --security-opt unmask=/proc/sys (podman) or systempaths=unconfined (docker)"
)

_MARK = "FASTBRIDGE_LAB"  #: the variable by which the helper knows programs, also after their exec and fork
_PROGRAM = Path(__file__).with_name("namespace_helper.py")
# As its file would be run, but compiled only once: to compile it takes a quarter of the time until it is ready.
_RUN = (
    "import sys; from importlib.machinery import SourceFileLoader as Loader; "
    "exec(Loader('__main__', sys.argv.pop(1)).get_code('__main__'))"
)


class ProgramFailed(subprocess.CalledProcessError):
    """A program that ended with a failure. Its text ends with what the program said of it."""

    def __str__(self) -> str:
        said = self.stderr or ""
        words = (said if isinstance(said, str) else said.decode(errors="replace")).strip()
        return f"{super().__str__()}\n{words}" if words else super().__str__()


class NamespaceHelper(Closes):
    """The namespaces of one lab, and the process that makes them."""

    def __init__(self, inherit: Sequence[int] = (), hosts: str = "") -> None:
        """`inherit`: file descriptors, such as a lock, that the helper holds as long as it lives.

        `hosts`: lines that programs in the namespaces find in their /etc/hosts, before those of this machine.
        """
        command = helper_command()
        self._tag = f"fastbridge-{secrets.token_hex(8)}"
        self._lock = threading.Lock()
        self._owner = os.getpid()
        self._programs: list[subprocess.Popen[Any]] = []
        self._user_fd: int | None = None
        self._has_mounts = True
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        in_child(self, NamespaceHelper._let_go)
        with theirs:
            # A session of its own: neither Ctrl-C nor the kill of a process group may end it before its work is done.
            self._process = subprocess.Popen(
                [*command, self._tag],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                cwd="/",
                # In a pod of another lab: that one's end kills who bears its mark, and this helper ends by itself.
                env={name: value for name, value in os.environ.items() if name != _MARK},
                pass_fds=inherit,
                start_new_session=True,
            )
        try:
            (door,), fds = self._receive()
        except OSError as error:
            self.close()
            raise PrivilegeError(
                f"the kernel gives no network namespaces ({error.strerror}): run as root, or allow user namespaces "
                "(sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone, "
                f"kernel.apparmor_restrict_unprivileged_userns); {CONTAINER}"
            ) from error
        except BaseException:
            self.close()
            raise
        self._door = f"/proc/{self._process.pid}/fd/{door}"
        self._user_fd = fds[0] if fds else None
        if hosts:
            try:
                self._pass_hosts(hosts)
            except BaseException:
                self.close()
                raise

    @property
    def is_ours(self) -> bool:
        """False in a forked child of the process that made the lab. The child may neither use nor end it."""
        return os.getpid() == self._owner

    def closed(self) -> LabError:
        """The error of whoever uses the lab after its end, or in a forked child."""
        if self.is_ours:
            return LabError("the lab is closed")
        return LabError(f"this lab belongs to process {self._owner}; a forked child makes a Lab of its own")

    def _pass_hosts(self, hosts: str) -> None:
        with os.fdopen(os.memfd_create("hosts"), "w+") as file:  # a request has no room for many
            file.write(hosts)
            file.seek(0)
            self._request("hosts", fds=[file.fileno()])

    def create(self) -> Namespace:
        """Make a network namespace. It has no name, and only a loopback interface that is down."""
        try:
            (number,), (fd,) = self._request("create")
        except OSError as error:
            raise LabError(f"cannot make a network namespace: {os_reason(error)}") from error
        return Namespace(self, number, fd)

    def adopt(self, path: str) -> Namespace:
        """Take up the network namespace that has this name in the file system. What runs in it ends with the helper."""
        return self._open("adopt", path)

    def borrow(self, path: str) -> Namespace:
        """The same, but what runs in it stays, except for programs that this process starts there."""
        return self._open("borrow", path)

    def _open(self, how: str, path: str) -> Namespace:
        fd = os.open(path, os.O_RDONLY)
        try:
            (number,), (kept,) = self._request(how, fds=[fd])
        finally:
            os.close(fd)
        return Namespace(self, number, kept)

    def unpin(self, path: str) -> None:
        """Undo `Namespace.pin`."""
        self._request("unpin", path)

    def kill_programs(self) -> None:
        """Kill every process that runs in one of the namespaces; returns when they are gone."""
        self._request("kill")
        self._reap()

    def close(self) -> None:
        """Kill the programs in the namespaces, and end the helper. A second call does nothing."""
        if self._control.fileno() < 0 or not self.is_ours:
            return
        self._end()
        self._close_user_fd()

    def _let_go(self) -> None:
        self._lock = threading.Lock()
        self._control.close()
        self._close_user_fd()

    def _close_user_fd(self) -> None:
        if self._user_fd is not None:
            os.close(self._user_fd)
            self._user_fd = None

    def _end(self) -> None:
        if self._process.poll() is None:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it died just now
                self._control.shutdown(socket.SHUT_WR)
        self._control.close()
        self._process.wait()
        self._reap()

    def _reap(self) -> None:
        for program in self._programs:
            program.kill()  # the helper did not find it if it went to another namespace
            program.wait()

    @contextlib.contextmanager
    def command(
        self, namespace: Namespace, argv: Argv | str, options: dict[str, Any]
    ) -> Iterator[tuple[list[str], dict[str, Any]]]:
        """Arguments for `subprocess` that start `argv` in a namespace. They are good until the context ends."""
        if self._control.fileno() < 0 or not self.is_ours:
            raise self.closed()
        if self._process.poll() is not None:
            raise LabError(_DIED)
        options = dict(options)
        if options.pop("shell", False):
            argv = ["/bin/sh", "-c", argv] if isinstance(argv, str) else ["/bin/sh", "-c", *argv]
        words = [argv] if isinstance(argv, str) else [os.fspath(word) for word in argv]
        given = options.get("env")
        environment = dict(os.environ if given is None else given)
        environment["PATH"] = search_path(environment.get("PATH"))
        environment[_MARK] = self._tag
        if "/" not in words[0] and find_program(words[0], environment["PATH"]) is None:
            raise LabError(f"there is no program {words[0]!r} on the PATH; install it, or give its whole path")
        nsenter = find_program("nsenter")
        if nsenter is None:
            raise LabError("there is no program 'nsenter' on the PATH: install util-linux")
        fds = []
        # Not a descriptor of our own: the helper shuts this door before it kills what has come in.
        entry = [f"--net={self.door(namespace)}"]
        if self._user_fd is not None:
            fds.append(self._user_fd)
            entry = [f"--user=/proc/self/fd/{self._user_fd}", *entry, "--preserve-credentials"]
        place = _working_directory(options.get("cwd"))
        env = _env_with_chdir()
        mounts = None
        # /sys stays the host's where nothing can change the directory, or env would take the program for a variable.
        if place is not None and env is not None and "=" not in words[0]:
            mounts = self._mounts(namespace)
        if mounts is not None and place is not None and env is not None:
            fds.append(mounts)
            entry.append(f"--mount=/proc/self/fd/{mounts}")
            words = [env, "-C", place, "--", *words]  # enters the directory of this name in the new mount namespace
        # By the tag as argv[0] the helper knows the processes that are still on their way in.
        options |= {"executable": nsenter, "env": environment, "pass_fds": (*options.get("pass_fds", ()), *fds)}
        try:
            yield [self._tag, *entry, "--", *words], options
        finally:
            if mounts is not None:
                os.close(mounts)

    def popen_beside(self, program: str, arguments: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """See `Namespace.popen_beside`."""
        if self._control.fileno() < 0 or not self.is_ours:
            raise self.closed()
        # By the beginning of argv[0] the helper knows it; by the rest the program knows what it is.
        argv = [f"{self._tag}/{Path(program).name}", *arguments]
        started = subprocess.Popen(argv, executable=program, stdin=subprocess.DEVNULL, **options)
        self.watch(started)
        return started

    def door(self, namespace: Namespace) -> str:
        """See `Namespace.door`."""
        return f"{self._door}/{namespace.number}"

    @property
    def user_door(self) -> str | None:
        """See `Namespace.user_door`."""
        return None if self._user_fd is None else f"/proc/{self._process.pid}/ns/user"

    def _mounts(self, namespace: Namespace) -> int | None:
        """A mount namespace for a network namespace, with its /sys and /etc/hosts; None where it is refused."""
        if not self._has_mounts:
            return None
        try:
            _, (fd,) = self._request("mounts", namespace.number)
        except PermissionError as error:
            self._has_mounts = False
            _log.info(
                "/sys and /etc/hosts in pods are those of this process: the kernel gives pods no mounts (%s)",
                error.strerror,
            )
            return None
        except OSError as error:
            raise LabError(f"cannot show a pod's interfaces in its /sys: {os_reason(error)}") from error
        return fd

    def watch(self, program: subprocess.Popen[Any]) -> None:
        """Reap this program when the namespaces end, so that it leaves no zombie."""
        self._programs = [running for running in self._programs if running.returncode is None] + [program]

    def _request(self, *fields: str, fds: Sequence[int] = ()) -> tuple[list[str], list[int]]:
        with self._lock:
            if self._control.fileno() < 0 or not self.is_ours:
                raise self.closed()
            try:
                socket.send_fds(self._control, ["\0".join(fields).encode()], fds)
            except (BrokenPipeError, ConnectionResetError):
                raise LabError(_DIED) from None
            return self._receive()

    def _receive(self) -> tuple[list[str], list[int]]:
        try:
            data, fds, flags, _ = socket.recv_fds(self._control, 65536, 1)
        except ConnectionResetError:  # it died with a request unread
            raise LabError(_DIED) from None
        if not data:
            raise LabError(_DIED)
        if flags & socket.MSG_CTRUNC:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        for fd in fds:
            os.set_inheritable(fd, False)
        status, *fields = data.decode().split("\0")
        if status == "error":
            raise OSError(int(fields[0]), fields[1])
        return fields, fds


class Namespace:
    """One network namespace: a file descriptor, and all that can be done through it."""

    def __init__(self, helper: NamespaceHelper, number: str, fd: int) -> None:
        self._helper = helper
        self._number = number
        self._fd = fd
        in_child(self, Namespace.close)

    @property
    def is_ours(self) -> bool:
        """False in a forked child of the process that made it."""
        return self._helper.is_ours

    @property
    def fd(self) -> int:
        """The file descriptor that holds it."""
        if self._fd < 0:
            raise self._helper.closed()
        return self._fd

    @property
    def number(self) -> str:
        """The number of the helper's descriptor."""
        if self._fd < 0:
            raise self._helper.closed()
        return self._number

    @property
    def path(self) -> str:
        """A path that other programs of this user can open while this process holds the namespace."""
        return f"/proc/{os.getpid()}/fd/{self.fd}"

    def open_socket(self, family: int, type: int, protocol: int = 0) -> socket.socket:  # noqa: A002 - as in socket
        """A socket that lives in this namespace."""
        _, (fd,) = self._helper._request("socket", self._number, *map(str, map(int, (family, type, protocol))))
        # Given all three: Python cannot ask the kernel for them where it does not know the family.
        return socket.socket(family, type, protocol, fileno=fd)

    def write_sysctl(self, name: str, value: int) -> bool:
        """Set `net/…` below /proc/sys to this value; False when this kernel has no such setting."""
        try:
            self._helper._request("sysctl", self._number, name, str(value))
        except FileNotFoundError:
            return False
        except OSError as error:
            raise PrivilegeError(f"cannot write /proc/sys/{name}: {error.strerror}; {SETTINGS_WRITABLE}") from error
        return True

    def read_net(self, name: str) -> str:
        """The text of /proc/net/NAME in this namespace. Raises FileNotFoundError where this kernel has no such file."""
        _, (fd,) = self._helper._request("proc", self._number, name)
        with open(fd) as file:  # noqa: PTH123 - there is no path
            return file.read()

    def pin(self, path: str) -> None:
        """Give it a name in the file system. Then it outlives every process."""
        try:
            self._helper._request("pin", self._number, path)
        except OSError as error:
            kind = PrivilegeError if isinstance(error, PermissionError) else LabError
            way_out = f"; {CONTAINER}" if isinstance(error, PermissionError) else ""
            raise kind(f"cannot name a network namespace {path}: {error.strerror}{way_out}") from error

    def popen(self, argv: Argv | str, **options: Any) -> subprocess.Popen[Any]:
        """Start a program here. It is killed with the lab."""
        with self._helper.command(self, argv, options) as (command, options):
            program: subprocess.Popen[Any] = subprocess.Popen(command, **options)
        self._helper.watch(program)
        return program

    def run(self, argv: Argv | str, **options: Any) -> subprocess.CompletedProcess[Any]:
        """Run a program here to its end. What it raises names the program, not what brought it here."""
        with self._helper.command(self, argv, options) as (command, options):
            try:
                return subprocess.run(command, **options)
            except subprocess.CalledProcessError as error:
                raise ProgramFailed(error.returncode, argv, error.stdout, error.stderr) from None
            except subprocess.TimeoutExpired as error:
                error.cmd = argv
                raise

    @property
    def door(self) -> str:
        """A path by which programs of this user enter it as long as the lab lives; not by a descriptor of our own."""
        return self._helper.door(self)

    @property
    def user_door(self) -> str | None:
        """The same for the user namespace that it belongs to; None where that is this process's own."""
        return self._helper.user_door

    def popen_beside(self, program: str, arguments: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """Start a program outside, by its path, which ends with the lab all the same if it enters by the door."""
        return self._helper.popen_beside(program, arguments, **options)

    def cover(self, path: str, text: str) -> None:
        """Lay a file of this text over another, for the programs here. Raises OSError where the kernel refuses."""
        self._helper._request("cover", self._number, path, text)

    def uncover(self, path: str) -> None:
        """Take away what covers it."""
        self._helper._request("uncover", self._number, path)

    def disown(self) -> None:
        """Give it up as not ours: `kill_programs` and the end of the helper spare its processes."""
        self._helper._request("disown", self._number)
        self.close()

    def close(self) -> None:
        """Let go. The kernel removes the namespace once nobody holds it."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __del__(self) -> None:
        self.close()


def helper_command() -> list[str]:
    """The command line of the helper program, to which its arguments are added."""
    return [find_python(), "-I", "-S", "-c", _RUN, str(_PROGRAM)]


def _working_directory(given: str | bytes | os.PathLike[Any] | None) -> str | None:
    """The directory in which a program shall start; None if it has no name, or no longer."""
    try:
        return os.path.join(os.getcwd(), *([] if given is None else [os.fsdecode(given)]))  # noqa: PTH109, PTH118
    except FileNotFoundError:
        return None


@functools.cache
def _env_with_chdir() -> str | None:
    """The program env, if it can change the directory. BusyBox's cannot."""
    env = find_program("env")
    if env is None or subprocess.run([env, "-C", "/", "--", "true"], capture_output=True).returncode:
        return None
    return env


def os_reason(error: OSError) -> str:
    """The kernel's words; the way out, where a limit can be raised."""
    if error.errno == errno.ENOSPC:
        return "the kernel's limit is reached; raise the sysctl user.max_net_namespaces"
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return "too many open files; raise the limit with ulimit -n"
    return error.strerror or str(error)
