# Writes and reads the stamp of a sampled frame.
#
# A stamped frame keeps the size and the addresses of the frame it replaces. EtherType 0x88b5 follows (IEEE 802 local
# experimental, which no kernel answers), then the stamp, then a pattern to the end. The pattern follows from everything
# before it except the time. The time is written last, right before the system call, and the log has it, too.
# Numbers are in host order, because a stamp never leaves the machine. Only the magic is not: a socket filter reads it.
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

from .. cimport linux

cdef enum:
    ETHERTYPE = 0x88b5
    MAGIC = 0xfa57b41d
    LEAST = 60                  # bytes of the smallest stamped frame, without FCS

    AT_ETHERTYPE = 12
    AT_MAGIC = 14
    AT_TRIAL = 18
    AT_STREAM = 22
    AT_SIZE = 24
    AT_NUMBER = 26
    AT_TIME = 30
    AT_PATTERN = 38


cdef struct Stamp:
    uint32_t trial              # a stamp of another trial is late
    uint16_t stream
    uint32_t number             # over all streams


cdef inline uint64_t clock_ns(int clock) noexcept nogil:
    cdef linux.timespec time
    linux.clock_gettime(clock, &time)
    return <uint64_t>time.tv_sec * 1_000_000_000 + <uint64_t>time.tv_nsec


cdef inline uint64_t scramble(uint64_t state) noexcept nogil:
    # The step of Knuth's MMIX generator.
    return state * 6364136223846793005ULL + 1442695040888963407ULL


cdef inline uint64_t pattern_seed(const uint8_t *frame) noexcept nogil:
    cdef uint64_t first = 0, second = 0, third = 0, fourth = 0
    memcpy(&first, frame, 8)
    memcpy(&second, frame + 8, 4)
    memcpy(&third, frame + AT_TRIAL, 8)
    memcpy(&fourth, frame + AT_NUMBER, 4)
    return scramble(scramble(scramble(scramble(first) ^ second) ^ third) ^ fourth)


cdef inline void stamp_frame(uint8_t *frame, uint16_t size, const Stamp *stamp) noexcept nogil:
    """Turn a frame of `size` bytes (LEAST or more), with its addresses set, into a stamped frame without the time."""
    cdef uint8_t start[6]
    cdef uint64_t word
    cdef unsigned int at = AT_PATTERN
    start[:] = [ETHERTYPE >> 8, ETHERTYPE & 0xff, MAGIC >> 24, MAGIC >> 16 & 0xff, MAGIC >> 8 & 0xff, MAGIC & 0xff]
    memcpy(frame + AT_ETHERTYPE, start, sizeof(start))
    memcpy(frame + AT_TRIAL, &stamp.trial, 4)
    memcpy(frame + AT_STREAM, &stamp.stream, 2)
    memcpy(frame + AT_SIZE, &size, 2)
    memcpy(frame + AT_NUMBER, &stamp.number, 4)
    word = pattern_seed(frame)
    while at < size:
        word = scramble(word)
        memcpy(frame + at, &word, min(8, size - at))
        at += 8


cdef inline uint64_t time_of(const uint8_t *frame) noexcept nogil:
    cdef uint64_t time
    memcpy(&time, frame + AT_TIME, 8)
    return time


cdef inline bint read_stamp(const uint8_t *frame, uint32_t length, Stamp *stamp) noexcept nogil:
    """Read the stamp of a frame of `length` bytes. False if any byte has changed since it was sent."""
    cdef uint16_t size
    cdef uint64_t word
    cdef unsigned int at = AT_PATTERN
    if length < LEAST:
        return False
    memcpy(&size, frame + AT_SIZE, 2)
    if size != length:
        return False
    memcpy(&stamp.trial, frame + AT_TRIAL, 4)
    memcpy(&stamp.stream, frame + AT_STREAM, 2)
    memcpy(&stamp.number, frame + AT_NUMBER, 4)
    word = pattern_seed(frame)
    while at < length:
        word = scramble(word)
        if memcmp(frame + at, &word, min(8, length - at)) != 0:
            return False
        at += 8
    return True
