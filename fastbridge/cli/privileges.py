"""Privileges, given up.

What a process needs to open its sockets is more than it needs afterwards, and whoever finds a way into it later must
find little: only the capabilities that are kept, no way to gain others by another program, and no system call that a
switch never makes. Capabilities and filter are a thread's: give them up before threads are started, which inherit it.
"""

from __future__ import annotations

import array
import ctypes
import errno
import os
import platform
import struct
from collections.abc import Iterable

from fastbridge.errors import PrivilegeError

CAP_NET_ADMIN, CAP_NET_RAW, CAP_SYS_RESOURCE = 12, 13, 24
_CAP_SETPCAP = 8
_VERSION_3 = 0x20080522  # linux/capability.h: 64 bits, two of each word
_PR_CAPBSET_READ, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT, _AMBIENT_CLEAR_ALL = (
    23,
    24,
    38,
    47,
    4,
)  # linux/prctl.h
# linux/seccomp.h. With SPEC_ALLOW: else kernels before 5.16 turn speculation off for the thread, which makes it slower.
_SET_MODE_FILTER, _FLAG_SPEC_ALLOW = 1, 1 << 2

# Other programs and their memory, namespaces and mounts, the kernel's own code, keys, and calls of a large surface.
_REFUSED = {
    "x86_64": {
        "execve": 59, "execveat": 322, "ptrace": 101, "process_vm_readv": 310, "process_vm_writev": 311, "kcmp": 312,
        "pidfd_getfd": 438, "setns": 308, "unshare": 272, "mount": 165, "umount2": 166, "pivot_root": 155,
        "chroot": 161, "open_tree": 428, "move_mount": 429, "fsopen": 430, "fsconfig": 431, "fsmount": 432,
        "fspick": 433, "mount_setattr": 442, "swapon": 167, "swapoff": 168, "reboot": 169, "init_module": 175,
        "delete_module": 176, "finit_module": 313, "kexec_load": 246, "kexec_file_load": 320, "bpf": 321,
        "perf_event_open": 298, "userfaultfd": 323, "io_uring_setup": 425, "add_key": 248, "request_key": 249,
        "keyctl": 250, "open_by_handle_at": 304, "iopl": 172, "ioperm": 173, "acct": 163, "personality": 135,
    },
    "aarch64": {
        "execve": 221, "execveat": 281, "ptrace": 117, "process_vm_readv": 270, "process_vm_writev": 271, "kcmp": 272,
        "pidfd_getfd": 438, "setns": 268, "unshare": 97, "mount": 40, "umount2": 39, "pivot_root": 41,
        "chroot": 51, "open_tree": 428, "move_mount": 429, "fsopen": 430, "fsconfig": 431, "fsmount": 432,
        "fspick": 433, "mount_setattr": 442, "swapon": 224, "swapoff": 225, "reboot": 142, "init_module": 105,
        "delete_module": 106, "finit_module": 273, "kexec_load": 104, "kexec_file_load": 294, "bpf": 280,
        "perf_event_open": 241, "userfaultfd": 282, "io_uring_setup": 425, "add_key": 217, "request_key": 218,
        "keyctl": 219, "open_by_handle_at": 265, "acct": 89, "personality": 92,
    },
}  # fmt: skip
_SECCOMP = {"x86_64": 317, "aarch64": 277}
_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # linux/audit.h
_X32 = 0x40000000  # the other numbers that an x86-64 kernel may take
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06  # classic BPF: ld [k], jeq, jge, ret
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000 | errno.EPERM  # linux/seccomp.h
_CALL, _ARCH = 0, 4  # where struct seccomp_data has them


def give_up(keep: Iterable[int]) -> None:
    """Give up every capability but those to `keep`, for good: this thread, and those that it starts from now on.

    Raises PrivilegeError when the kernel does not take it.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    kept = sum(1 << capability for capability in keep)
    effective, permitted, _ = _capabilities(libc)
    _clear_bounding_set(libc, effective)
    _call(libc, "prctl", _PR_CAP_AMBIENT, _AMBIENT_CLEAR_ALL, 0, 0, 0)
    _set_capabilities(libc, effective & kept, permitted & kept)
    _call(libc, "prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def _clear_bounding_set(libc: ctypes.CDLL, effective: int) -> None:
    """No program started from here gains a capability, whatever its file has."""
    if not effective >> _CAP_SETPCAP & 1:  # not allowed to; without new privileges nothing is gained by what is left
        return
    capability = 0
    while libc.prctl(_PR_CAPBSET_READ, capability, 0, 0, 0) >= 0:  # until there is none of this number
        _call(libc, "prctl", _PR_CAPBSET_DROP, capability, 0, 0, 0)
        capability += 1


def _capabilities(libc: ctypes.CDLL) -> tuple[int, int, int]:
    """Those of this thread: effective, permitted and inheritable."""
    data = (ctypes.c_uint32 * 6)()
    _call(libc, "capget", (ctypes.c_uint32 * 2)(_VERSION_3, 0), data)
    low, high = data[:3], data[3:]
    effective, permitted, inheritable = (a | b << 32 for a, b in zip(low, high, strict=True))
    return effective, permitted, inheritable


def _set_capabilities(libc: ctypes.CDLL, effective: int, permitted: int) -> None:
    """None is inheritable."""
    words = [effective, permitted, 0]
    data = (ctypes.c_uint32 * 6)(*(word & 0xFFFFFFFF for word in words), *(word >> 32 for word in words))
    _call(libc, "capset", (ctypes.c_uint32 * 2)(_VERSION_3, 0), data)


def refuse_calls() -> bool:
    """Have the kernel refuse, with EPERM, the calls that a switch never makes: this thread's, and those it starts.

    After give_up(). Returns False where the numbers of this machine's calls are not known here, or the kernel has no
    such filters. Raises PrivilegeError.
    """
    machine = platform.machine()
    if machine not in _REFUSED or struct.calcsize("P") != 8:
        return False
    program = _filter(_AUDIT_ARCH[machine], sorted(_REFUSED[machine].values()))
    code = array.array("B", b"".join(struct.pack("HBBI", *step) for step in program))  # struct sock_filter
    fprog = ctypes.create_string_buffer(struct.pack("HP", len(program), code.buffer_info()[0]))
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        _call(libc, "syscall", _SECCOMP[machine], _SET_MODE_FILTER, _FLAG_SPEC_ALLOW, fprog)
    except PrivilegeError:
        if ctypes.get_errno() in (errno.EINVAL, errno.ENOSYS):  # a kernel without CONFIG_SECCOMP_FILTER
            return False
        raise
    return True


def _filter(architecture: int, refused: list[int]) -> list[tuple[int, int, int, int]]:
    """Classic BPF, (code, jt, jf, k) each: calls of another architecture are refused, and these; all others pass."""
    calls = [(_EQUAL, len(refused) - n, 0, number) for n, number in enumerate(refused)]
    return [
        (_LOAD, 0, 0, _ARCH),
        (_EQUAL, 0, len(calls) + 3, architecture),
        (_LOAD, 0, 0, _CALL),
        (_AT_LEAST, len(calls) + 1, 0, _X32),
        *calls,
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _REFUSE),
    ]


def _call(libc: ctypes.CDLL, name: str, *arguments: object) -> None:
    if getattr(libc, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise PrivilegeError(f"cannot give up privileges: {name}: {os.strerror(number)}")
