"""Privileges, given up.

A process needs more privileges to open its sockets than afterwards. Whoever breaks into it later must find little: only
the kept capabilities, no other program to gain more by, and no system call that a switch never makes. Capabilities and
filter belong to a thread, and new threads inherit them. So give up before you start threads.
"""

from __future__ import annotations

import array
import ctypes
import errno
import os
import platform
import struct
from collections.abc import Collection, Iterable, Mapping, Sequence

from fastbridge.errors import PrivilegeError

CAP_NET_ADMIN, CAP_NET_RAW, CAP_SYS_NICE, CAP_SYS_RESOURCE = 12, 13, 23, 24
_CAP_SETPCAP = 8
_VERSION_3 = 0x20080522  # linux/capability.h: 64 bits in two words
_PR_CAPBSET_READ, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 23, 24, 38  # linux/prctl.h
_PR_CAP_AMBIENT, _AMBIENT_CLEAR_ALL = 47, 4
# linux/seccomp.h. Without SPEC_ALLOW kernels before 5.16 turn off speculation for the thread, which makes it slower.
_SET_MODE_FILTER, _FLAG_SPEC_ALLOW = 1, 1 << 2

# Calls for other programs and their memory, namespaces and mounts, kernel code and keys, and calls with many bugs.
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
# Of bpf(2): change, delete and read elements, and attach a program. Maps and programs are made before.
BPF_COMMANDS = 2, 3, 24, 28
_SECCOMP = {"x86_64": 317, "aarch64": 277}
_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # linux/audit.h
_X32 = 0x40000000  # from here on: the numbers of x86-64's second set of calls
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06  # classic BPF: ld [k], jeq, jge, ret
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000 | errno.EPERM  # linux/seccomp.h
_CALL, _ARCH, _FIRST_ARGUMENT = 0, 4, 16  # offsets in struct seccomp_data


def give_up(keep: Iterable[int]) -> None:
    """Give up all capabilities but those to `keep`, for good: in this thread, and those that it starts later.

    Raises PrivilegeError when the kernel refuses.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    kept = sum(1 << capability for capability in keep)
    effective, permitted, _ = _capabilities(libc)
    _clear_bounding_set(libc, effective)
    _call(libc, "prctl", _PR_CAP_AMBIENT, _AMBIENT_CLEAR_ALL, 0, 0, 0)
    _set_capabilities(libc, effective & kept, permitted & kept)
    _call(libc, "prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def _clear_bounding_set(libc: ctypes.CDLL, effective: int) -> None:
    """Let no program that is started from here gain a capability by its file."""
    if not effective >> _CAP_SETPCAP & 1:  # we may not; no_new_privs has the same effect
        return
    capability = 0
    while libc.prctl(_PR_CAPBSET_READ, capability, 0, 0, 0) >= 0:  # until the kernel knows no such number
        _call(libc, "prctl", _PR_CAPBSET_DROP, capability, 0, 0, 0)
        capability += 1


def _capabilities(libc: ctypes.CDLL) -> tuple[int, int, int]:
    """The thread's capabilities: effective, permitted and inheritable."""
    data = (ctypes.c_uint32 * 6)()
    _call(libc, "capget", (ctypes.c_uint32 * 2)(_VERSION_3, 0), data)
    low, high = data[:3], data[3:]
    effective, permitted, inheritable = (a | b << 32 for a, b in zip(low, high, strict=True))
    return effective, permitted, inheritable


def _set_capabilities(libc: ctypes.CDLL, effective: int, permitted: int) -> None:
    """Set the thread's capabilities, none of them inheritable."""
    words = [effective, permitted, 0]
    data = (ctypes.c_uint32 * 6)(*(word & 0xFFFFFFFF for word in words), *(word >> 32 for word in words))
    _call(libc, "capset", (ctypes.c_uint32 * 2)(_VERSION_3, 0), data)


def refuse_calls(but: Collection[int] = ()) -> bool:
    """Have the kernel refuse, with EPERM, calls that a switch never makes, to this thread and those it starts later.

    but: commands of bpf(2) that it makes. Call it after give_up(). Returns False where the call numbers of this machine
    are not known here, or the kernel has no such filters. Raises PrivilegeError.
    """
    machine = platform.machine()
    if machine not in _REFUSED or struct.calcsize("P") != 8:
        return False
    calls = _REFUSED[machine]
    program = _filter(_AUDIT_ARCH[machine], sorted(calls.values()), {calls["bpf"]: but} if but else {})
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


def _filter(
    architecture: int, refused: Sequence[int], but: Mapping[int, Collection[int]]
) -> list[tuple[int, int, int, int]]:
    """Classic BPF, each step (code, jt, jf, k). Refuses these calls, and all of another architecture.

    but: of a call, the values of its first argument that pass.
    """
    calls = [number for number in refused if number not in but]
    some = [step for call, values in but.items() for step in _unless_first(call, sorted(values))]
    refuse = len(some) + len(calls) + 1  # how far it is from the first of `some`
    return [
        (_LOAD, 0, 0, _ARCH),
        (_EQUAL, 0, refuse + 2, architecture),
        (_LOAD, 0, 0, _CALL),
        (_AT_LEAST, refuse, 0, _X32),
        *some,
        *((_EQUAL, len(calls) - n, 0, number) for n, number in enumerate(calls)),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _REFUSE),
    ]


def _unless_first(call: int, values: Sequence[int]) -> list[tuple[int, int, int, int]]:
    """End here if it is this call: it passes with one of these first arguments (an int), and is refused with others."""
    return [
        (_EQUAL, 0, len(values) + 3, call),
        (_LOAD, 0, 0, _FIRST_ARGUMENT),
        *((_EQUAL, len(values) - n, 0, value) for n, value in enumerate(values)),
        (_RETURN, 0, 0, _REFUSE),
        (_RETURN, 0, 0, _ALLOW),
    ]


def _call(libc: ctypes.CDLL, name: str, *arguments: object) -> None:
    if getattr(libc, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise PrivilegeError(f"cannot give up privileges: {name}: {os.strerror(number)}")
