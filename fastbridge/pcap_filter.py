"""Filters in tcpdump's words.

libpcap compiles them (pcap-filter(7)), if it is installed; the core runs what comes of it (core/filter.pxd).
"""

from __future__ import annotations

import ctypes
import threading

from .core.filters import Filter
from .errors import ConfigError

_NAMES = ("libpcap.so.1", "libpcap.so.0.8")  # everybody's, and Debian's
_ETHERNET = 1  # DLT_EN10MB
_NO_NETMASK = 0xFFFFFFFF  # PCAP_NETMASK_UNKNOWN
_ACCEPT = 0x40000
_MOST_BYTES = 2000  # of an expression: the time to compile one grows with the square of its length

_compiling = threading.Lock()  # libpcap before 1.8 compiles one filter at a time


class _Step(ctypes.Structure):
    """struct bpf_insn."""

    _fields_ = (("code", ctypes.c_ushort), ("jt", ctypes.c_ubyte), ("jf", ctypes.c_ubyte), ("k", ctypes.c_uint32))


class _Program(ctypes.Structure):
    """struct bpf_program."""

    _fields_ = (("count", ctypes.c_uint), ("steps", ctypes.POINTER(_Step)))


def compile_filter(text: str) -> Filter:
    """Compile an expression such as "tcp port 80". It takes long where names are looked up. Raises ConfigError."""
    words = text.encode(errors="replace")
    if len(words) > _MOST_BYTES:
        raise ConfigError(f"the filter has {len(words):,} bytes; write one of {_MOST_BYTES:,} at most")
    pcap = _library()
    with _compiling:
        return _compile(pcap, text, words)


def _compile(pcap: ctypes.CDLL, text: str, words: bytes) -> Filter:
    handle = ctypes.c_void_p(pcap.pcap_open_dead(_ETHERNET, _ACCEPT))
    if not handle:
        raise MemoryError("no memory to compile a filter")
    program = _Program()
    try:
        if pcap.pcap_compile(handle, ctypes.byref(program), words, 1, _NO_NETMASK) != 0:
            why = ctypes.string_at(pcap.pcap_geterr(handle)).decode(errors="replace")
            raise ConfigError(f"{text!r} is no filter: {why}; pcap-filter(7) describes them")
        try:
            return Filter((step.code, step.jt, step.jf, step.k) for step in program.steps[: program.count])
        except ValueError as error:
            raise ConfigError(f"the filter {text!r} cannot be used: {error}; write a simpler one") from None
        finally:
            pcap.pcap_freecode(ctypes.byref(program))
    finally:
        pcap.pcap_close(handle)


def _library() -> ctypes.CDLL:
    for name in _NAMES:
        try:
            pcap = ctypes.CDLL(name)
        except OSError:
            continue
        pcap.pcap_open_dead.restype = ctypes.c_void_p
        pcap.pcap_geterr.restype = ctypes.c_void_p
        return pcap
    raise ConfigError("a filter needs libpcap, which is not installed; install libpcap0.8 (Debian) or libpcap (Fedora)")
