"""A process that a sandbox keeps from the kernel's interfaces of a fast path: what container runtimes do by seccomp."""

from __future__ import annotations

# Python that refuses itself and its children bpf(2), nfnetlink, or both, with EPERM, as they are named in its first
# argument. The filter is classic BPF over struct seccomp_data: the call's number at 0, its arguments from 16 on, of 8
# bytes each; for little-endian machines only.
REFUSE = """
import ctypes, platform, struct, sys
def refuse(what):
    bpf, socket_ = {"x86_64": (321, 41), "aarch64": (280, 198)}[platform.machine()]
    steps = [(0x20, 0, 0, 0)]  # load the call's number
    if "bpf" in what:
        steps += [(0x15, 0, 1, bpf), (0x06, 0, 0, 0x00050001)]  # errno 1
    if "nfnetlink" in what:  # socket(AF_NETLINK, any, NETLINK_NETFILTER)
        steps += [(0x15, 0, 5, socket_), (0x20, 0, 0, 16), (0x15, 0, 3, 16), (0x20, 0, 0, 32), (0x15, 0, 1, 12)]
        steps += [(0x06, 0, 0, 0x00050001)]
    steps += [(0x06, 0, 0, 0x7FFF0000)]
    code = b"".join(struct.pack("HBBI", *step) for step in steps)
    kept = ctypes.create_string_buffer(code)
    program = ctypes.create_string_buffer(struct.pack("HP", len(steps), ctypes.addressof(kept)))
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(38, 1, 0, 0, 0) == 0  # no new privileges
    assert libc.prctl(22, 2, program, 0, 0) == 0, ctypes.get_errno()  # seccomp
"""
