# FDB changes, noted for those who monitor, bounded: written by the FDB's writer under its lock, until Python swaps an
# empty log in. A full one loses the oldest and counts them. Without a log (NULL) a change costs one test. A frame of a
# known station changes nothing, and costs none.
from libc.stdint cimport uint8_t, uint16_t, uint64_t

from .linux cimport CLOCK_REALTIME, clock_gettime, timespec, write

cdef enum:
    # Read every 20 ms (monitoring.py), it holds what 200,000 new stations a second make.
    CHANGE_SLOTS = 4096

cdef struct FdbChange:
    uint64_t time               # ns, CLOCK_REALTIME
    uint64_t key
    uint16_t was, now           # ports; the same one but for a move
    uint8_t kind                # a ChangeKind

cdef struct FdbChanges:
    FdbChange changes[CHANGE_SLOTS]
    uint64_t noted              # so far; the last CHANGE_SLOTS of them are there
    int fd                      # an eventfd to write to with the first one; -1: none


cdef inline void note_change(FdbChanges *log, uint8_t kind, uint16_t was, uint16_t now, uint64_t key) noexcept nogil:
    cdef FdbChange *change
    cdef timespec time
    cdef uint64_t one = 1
    if log == NULL:
        return
    clock_gettime(CLOCK_REALTIME, &time)
    change = &log.changes[log.noted % CHANGE_SLOTS]
    change.time = <uint64_t>time.tv_sec * 1000000000 + <uint64_t>time.tv_nsec
    change.key, change.was, change.now, change.kind = key, was, now, kind
    log.noted += 1
    if log.noted == 1 and log.fd >= 0:
        write(log.fd, &one, sizeof(one))        # fails only when it is readable already
