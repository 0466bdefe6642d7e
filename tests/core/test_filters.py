"""Filters: the core's classic BPF against libpcap's own."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastbridge import ConfigError, pcap_filter
from fastbridge.core.filters import Filter
from fastbridge.pcap_filter import compile_filter

Step = tuple[int, int, int, int]
LENGTH = 64

LOADS = [0x20, 0x28, 0x30, 0x40, 0x48, 0x50, 0x80, 0x81, 0x00, 0x01]  # ld[x] of bytes, length, constants
SCRATCH = [0x60, 0x61, 0x02, 0x03]
SUMS = [operation | source for operation in (0x04, 0x14, 0x24, 0x44, 0x54, 0xA4) for source in (0x00, 0x08)]
SHIFTS, DIVISIONS = [0x64, 0x74], [0x34, 0x94]
TESTS = [test | source for test in (0x15, 0x25, 0x35, 0x45) for source in (0x00, 0x08)]
RETURN_K, RETURN_A = 0x06, 0x16

numbers = st.one_of(st.integers(0, LENGTH + 4), st.integers(0, 0xFFFFFFFF))
plain = st.one_of(
    st.tuples(st.sampled_from(LOADS + SUMS + [0x84, 0x07, 0x87]), st.just(0), st.just(0), numbers),
    st.tuples(st.just(0xB1), st.just(0), st.just(0), st.integers(0, LENGTH + 4)),
    st.tuples(st.sampled_from(SCRATCH), st.just(0), st.just(0), st.integers(0, 15)),
    st.tuples(st.sampled_from(SHIFTS), st.just(0), st.just(0), st.integers(0, 31)),
    st.tuples(st.sampled_from([0x6C, 0x7C]), st.just(0), st.just(0), st.just(0)),
    st.tuples(st.sampled_from(DIVISIONS), st.just(0), st.just(0), st.integers(1, 0xFFFFFFFF)),
    st.tuples(st.sampled_from([0x3C, 0x9C]), st.just(0), st.just(0), st.just(0)),
    st.tuples(st.sampled_from([RETURN_K, RETURN_A]), st.just(0), st.just(0), numbers),
)


@st.composite
def programs(draw: st.DrawFn) -> list[Step]:
    """Programs that end: steps without jumps, some of which become jumps to what follows them."""
    steps: list[Step] = draw(st.lists(plain, max_size=24))
    for place in range(len(steps)):
        left = len(steps) - place - 1
        if draw(st.integers(0, 3)) == 0:
            near = st.integers(0, min(left, 255))
            jump = (draw(st.sampled_from(TESTS)), draw(near), draw(near), draw(numbers))
            steps[place] = draw(st.sampled_from([jump, (0x05, 0, 0, draw(st.integers(0, left)))]))
    cleared = [(0x02, 0, 0, place) for place in range(16)]  # libpcap's memory has anything in it, ours zeros
    return [*cleared, *steps, draw(st.tuples(st.sampled_from([RETURN_K, RETURN_A]), st.just(0), st.just(0), numbers))]


@pytest.fixture(scope="module")
def libpcap() -> Callable[[list[Step], bytes, int], int]:
    """pcap_offline_filter: what a program returns for a frame."""
    try:
        pcap = pcap_filter._library()
    except ConfigError as error:
        pytest.skip(str(error))

    def run(program: list[Step], frame: bytes, length: int) -> int:
        code = b"".join(struct.pack("=HBBI", *step) for step in program)
        steps = ctypes.create_string_buffer(code, len(code))
        fp = pcap_filter._Program(len(program), ctypes.cast(steps, ctypes.POINTER(pcap_filter._Step)))
        header = struct.pack("@llII", 0, 0, len(frame), length)  # struct pcap_pkthdr
        return int(pcap.pcap_offline_filter(ctypes.byref(fp), header, frame)) & 0xFFFFFFFF

    return run


@given(programs(), st.binary(max_size=LENGTH), st.integers(0, 100))
def test_the_core_returns_what_libpcap_returns(
    libpcap: Callable[[list[Step], bytes, int], int], program: list[Step], frame: bytes, more: int
) -> None:
    assert Filter(program).run(frame, len(frame) + more) == libpcap(program, frame, len(frame) + more)


@pytest.mark.parametrize(
    ("program", "why"),
    [
        ([], "1 … 4096 steps"),
        ([(0x28, 0, 0, 12)], "leads behind its end"),
        ([(0x15, 1, 0, 0), (RETURN_K, 0, 0, 1)], "leads behind its end"),
        ([(0x05, 0, 0, 0xFFFFFFFF), (RETURN_K, 0, 0, 1)], "leads behind its end"),
        ([(0x02, 0, 0, 16), (RETURN_K, 0, 0, 1)], "memory that there is not"),
        ([(0x34, 0, 0, 0), (RETURN_K, 0, 0, 1)], "divides by zero"),
        ([(0xFF, 0, 0, 0), (RETURN_K, 0, 0, 1)], "no known code"),
    ],
)
def test_a_program_that_may_not_end_is_refused(program: list[Step], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Filter(program)


FRAMES = {
    "tcp": bytes.fromhex("020000000002 020000000001 0800")
    + bytes.fromhex("45000028 00000000 40060000 0a000001 0a000002")
    + bytes.fromhex("04d20050 00000000 00000000 50020000 00000000"),
    "arp": bytes.fromhex("ffffffffffff 020000000001 0806") + bytes(46),
    "vlan": bytes.fromhex("ffffffffffff 020000000001 8100 0007 0806") + bytes(42),
}


@pytest.mark.parametrize(
    ("words", "matches"),
    [
        ("tcp port 80", {"tcp"}),
        ("arp", {"arp"}),
        ("ether broadcast", {"arp", "vlan"}),
        ("vlan 7 and arp", {"vlan"}),
        ("ip[8] > 63 and tcp[tcpflags] & tcp-syn != 0", {"tcp"}),
        ("host 10.0.0.9", set()),
    ],
)
def test_words_are_what_tcpdump_takes_them_for(libpcap: object, words: str, matches: set[str]) -> None:
    compiled = compile_filter(words)
    assert {name for name, frame in FRAMES.items() if compiled.run(frame, len(frame))} == matches


def test_what_is_no_filter_is_named(libpcap: object) -> None:
    with pytest.raises(ConfigError, match=r"'tcp port' is no filter: .*pcap-filter"):
        compile_filter("tcp port")


def test_a_long_filter_is_refused_before_anybody_reads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pcap_filter, "_NAMES", ())
    with pytest.raises(ConfigError, match=r"^the filter has 2,001 bytes; write one of 2,000 at most$"):
        compile_filter("é" * 1000 + "x")
    with pytest.raises(ConfigError, match="needs libpcap"):
        compile_filter("é" * 1000)


def test_text_that_is_no_unicode_is_no_filter(libpcap: object) -> None:
    with pytest.raises(ConfigError, match="is no filter"):
        compile_filter("host \ud800")


def test_without_libpcap_its_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pcap_filter, "_NAMES", ("libnone.so.0",))
    with pytest.raises(ConfigError, match=r"install libpcap0\.8"):
        compile_filter("arp")
