# cython: language_level=3, boundscheck=False, wraparound=False
"""The core's readers of frames as libFuzzer's targets; which one, FASTBRIDGE_TARGET says. targets.py builds and runs it.

Nothing of Python is used: the functions are those of the core's .pxd files, and each frame lies in memory of its own,
so that AddressSanitizer sees every byte read too many.
"""
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.stdlib cimport abort, free, getenv, malloc
from libc.string cimport memcpy, memset, strcmp

from fastbridge.core.batch cimport Frame
from fastbridge.core.coalesce cimport (
    Run, Segment, append, checksums_ok, continues_run, read_segment, write_headers,
)
from fastbridge.core.codes cimport FORWARDED, NO_REASON
from fastbridge.core.ethernet cimport (
    ETHERNET_HEADER, is_nd, load16, network_offset, read_ip_source, read_vid, tags_are_plain,
)
from fastbridge.core.forward cimport Forwarding, read_kind
from fastbridge.core.ring cimport VNET_HEADER


cdef inline uint8_t *place(const uint8_t *data, size_t size) noexcept nogil:
    """A copy that ends where its memory ends, vnet header in front."""
    cdef uint8_t *memory = <uint8_t *>malloc(VNET_HEADER + size)
    if memory == NULL:
        abort()
    memset(memory, 0, VNET_HEADER)
    memcpy(memory + VNET_HEADER, data, size)
    return memory


cdef inline void check(bint right) noexcept nogil:
    if not right:
        abort()


cdef void parse(const uint8_t *data, uint32_t size) noexcept nogil:
    """Tag, network offset and kind of any frame: within it."""
    cdef Forwarding forwarding
    cdef Frame frame
    cdef uint32_t at
    if size < ETHERNET_HEADER:
        return
    memset(&forwarding, 0, sizeof(forwarding))
    memset(&frame, 0, sizeof(frame))
    forwarding.punting = forwarding.probing = True
    frame.data, frame.length, frame.reason = <uint8_t *>data, size, NO_REASON
    check(-1 <= read_vid(data, size) < 4095)
    at = network_offset(data, size)
    check(ETHERNET_HEADER <= at <= size and at <= ETHERNET_HEADER + 8)
    tags_are_plain(data, size)
    check(read_kind(&forwarding, &frame) <= 5)


cdef void sources(const uint8_t *data, uint32_t size) noexcept nogil:
    """ND behind extension headers, and IP sources, of any bytes behind an EtherType."""
    cdef uint8_t out[16]
    if size < 2:
        return
    is_nd(data + 2, size - 2)
    read_ip_source(load16(data), data + 2, size - 2, out)
    read_ip_source(0x0800, data + 2, size - 2, out)
    read_ip_source(0x86DD, data + 2, size - 2, out)


cdef void coalesce(const uint8_t *data, uint32_t size) noexcept nogil:
    """Two frames, cut where the first two bytes say: whether they are one run; and if, its headers have room."""
    cdef uint8_t headers[136]
    cdef uint8_t *one
    cdef uint8_t *two
    cdef Frame first, second
    cdef Segment other
    cdef Run run
    cdef uint32_t cut
    if size < 2 + 2 * ETHERNET_HEADER:
        return
    cut = ETHERNET_HEADER + load16(data) % (size - 2 - 2 * ETHERNET_HEADER + 1)
    one, two = place(data + 2, cut), place(data + 2 + cut, size - 2 - cut)
    memset(&first, 0, sizeof(first))
    memset(&second, 0, sizeof(second))
    memset(&run, 0, sizeof(run))
    first.data, first.length, first.action = one + VNET_HEADER, cut, FORWARDED
    second.data, second.length, second.action = two + VNET_HEADER, size - 2 - cut, FORWARDED
    if read_segment(&first, &run.head):
        check(run.head.payload < first.length and VNET_HEADER + run.head.payload <= sizeof(headers))
        checksums_ok(&run.head)
        append(&run, &run.head)
        if read_segment(&second, &other) and continues_run(&run, &other):
            checksums_ok(&other)
            append(&run, &other)
        write_headers(&run, headers)
    free(one)
    free(two)


cdef public int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) noexcept nogil:
    cdef uint8_t *memory = place(data, size)
    cdef const char *which = getenv("FASTBRIDGE_TARGET")
    if which == NULL or size > 65535:
        free(memory)
        return 0
    if strcmp(which, "parse") == 0:
        parse(memory + VNET_HEADER, <uint32_t>size)
    elif strcmp(which, "sources") == 0:
        sources(memory + VNET_HEADER, <uint32_t>size)
    elif strcmp(which, "coalesce") == 0:
        coalesce(memory + VNET_HEADER, <uint32_t>size)
    else:
        abort()
    free(memory)
    return 0
