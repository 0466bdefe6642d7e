"""bpf(2), as far as the fast path needs it.

Maps, one program and its links, by the system call itself. union bpf_attr is stable (include/uapi/linux/bpf.h). So this
needs no library, no compiler and no file on the user's machine.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Sequence

_NUMBERS = {"x86_64": 321, "aarch64": 280}
_MAP_CREATE, _MAP_UPDATE, _MAP_DELETE, _PROG_LOAD, _PROG_TEST_RUN = 0, 2, 3, 5, 10
_LOOKUP_BATCH, _UPDATE_BATCH, _DELETE_BATCH, _LINK_CREATE = 24, 26, 27, 28
_SCHED_CLS, _TCX_INGRESS = 3, 46
MAP_HASH, MAP_NO_PREALLOC = 1, 1
_LOG_BYTES = 1 << 16
_libc = ctypes.CDLL(None, use_errno=True)


class BpfError(OSError):
    """The kernel refused a call: errno, and the purpose of the call."""


def _bpf(command: int, attr: bytes) -> tuple[int, int, bytes]:
    """The result, errno when that is negative, and the attributes as the kernel left them."""
    number = _NUMBERS.get(platform.machine())
    if number is None:
        return -1, errno.ENOSYS, attr
    memory = ctypes.create_string_buffer(attr, len(attr))
    result = _libc.syscall(ctypes.c_long(number), ctypes.c_long(command), memory, ctypes.c_ulong(len(attr)))
    return result, ctypes.get_errno() if result < 0 else 0, memory.raw


def _call(command: int, attr: bytes, what: str) -> int:
    """The result. Raises BpfError."""
    result, error, _ = _bpf(command, attr)
    if result < 0:
        raise BpfError(error, f"{what}: {os.strerror(error)}")
    return result


def _address(buffer: ctypes.Array[ctypes.c_char]) -> int:
    return ctypes.addressof(buffer)


def _name(name: str) -> bytes:
    return name.encode()[:15].ljust(16, b"\0")


def create_map(name: str, key_bytes: int, value_bytes: int, entries: int) -> int:
    """A hash map's descriptor; memory is taken as it fills. Raises BpfError."""
    attr = struct.pack("=7I16s", MAP_HASH, key_bytes, value_bytes, entries, MAP_NO_PREALLOC, 0, 0, _name(name))
    return _call(_MAP_CREATE, attr, "a map")


def load_program(name: str, instructions: bytes) -> int:
    """The descriptor of a program for tcx ingress. Raises BpfError, with the verifier's last line."""
    code = ctypes.create_string_buffer(instructions, len(instructions))
    licence = ctypes.create_string_buffer(b"Apache-2.0")
    log = ctypes.create_string_buffer(_LOG_BYTES)

    def attr(level: int) -> bytes:
        head = struct.pack("=IIQQ", _SCHED_CLS, len(instructions) // 8, _address(code), _address(licence))
        logged = struct.pack("=IIQ", level, _LOG_BYTES if level else 0, _address(log) if level else 0)
        return head + logged + struct.pack("=II16sII", 0, 0, _name(name), 0, _TCX_INGRESS)

    try:
        return _call(_PROG_LOAD, attr(0), "a program")
    except BpfError as error:
        if error.errno == errno.EPERM:
            raise
        try:
            return _call(_PROG_LOAD, attr(1), "a program")
        except BpfError as again:
            lines = log.value.decode(errors="replace").strip().splitlines() or [""]
            raise BpfError(again.errno, f"{again.strerror}: {' / '.join(lines[-4:])}") from None


def attach(program: int, ifindex: int) -> int:
    """Run the program on the frames that an interface of this thread's namespace receives.

    Returns the descriptor of the link. The program runs as long as it is open. Raises BpfError.
    """
    attr = struct.pack("=IIIIIIQ", program, ifindex, _TCX_INGRESS, 0, 0, 0, 0)
    return _call(_LINK_CREATE, attr, f"a link to interface {ifindex}")


def update(map_fd: int, elements: Sequence[tuple[bytes, bytes]]) -> None:
    """Add elements to a map, or change their values. Raises BpfError; the elements before the refused one are in."""
    for key, value in elements:
        memory = ctypes.create_string_buffer(key + value, len(key) + len(value))
        at = ctypes.addressof(memory)
        _call(_MAP_UPDATE, struct.pack("=I4xQQQ", map_fd, at, at + len(key), 0), "an element")


def delete(map_fd: int, keys: Sequence[bytes]) -> None:
    """Remove elements from a map; missing ones are no error. Raises BpfError."""
    for key in keys:
        memory = ctypes.create_string_buffer(key, len(key))
        result, error, _ = _bpf(_MAP_DELETE, struct.pack("=I4xQQQ", map_fd, ctypes.addressof(memory), 0, 0))
        if result < 0 and error != errno.ENOENT:
            raise BpfError(error, f"an element: {os.strerror(error)}")


def read_all(map_fd: int, key_bytes: int, value_bytes: int, room: int) -> list[tuple[bytes, bytes]]:
    """All elements of a hash map of at most `room`: (key, value). Raises BpfError."""
    keys = ctypes.create_string_buffer(key_bytes * room)
    values = ctypes.create_string_buffer(value_bytes * room)
    place = ctypes.create_string_buffer(8)
    attr = struct.pack("=QQQQIIQQ", 0, _address(place), _address(keys), _address(values), room, map_fd, 0, 0)
    result, error, left = _bpf(_LOOKUP_BATCH, attr)
    if result < 0 and error != errno.ENOENT:  # ENOENT: there are no more than these
        raise BpfError(error, f"a map's elements: {os.strerror(error)}")
    count = struct.unpack_from("=I", left, 32)[0]
    found, about = memoryview(keys), memoryview(values)
    return [
        (bytes(found[n * key_bytes : (n + 1) * key_bytes]), bytes(about[n * value_bytes : (n + 1) * value_bytes]))
        for n in range(count)
    ]


def test_run(program: int, frame: bytes, ifindex: int) -> int:
    """What a program returns for a frame that came in by an interface. Raises BpfError."""
    data = ctypes.create_string_buffer(frame, len(frame))
    context = ctypes.create_string_buffer(192)  # struct __sk_buff
    struct.pack_into("=I", context, 36, 0)
    struct.pack_into("=I", context, 40, ifindex)
    attr = struct.pack(
        "=IIIIQQIIIIQQ", program, 0, len(frame), 0, _address(data), 0, 1, 0, 192, 0, _address(context), 0
    )
    result, error, left = _bpf(_PROG_TEST_RUN, attr)
    if result < 0:
        raise BpfError(error, f"a trial of a program: {os.strerror(error)}")
    returned: int = struct.unpack_from("=I", left, 4)[0]
    return returned
