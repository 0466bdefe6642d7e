# The frame trace: each frame's decision and first bytes. It is bounded. The data plane fills it until Python takes it
# and puts an empty one in its place. A full trace loses the newest frames and counts them. It never waits.
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

from .batch cimport Frame
from .codes cimport RX_TRUNCATED

cdef enum:
    TRACE_PORTS = 32            # egress ports that a record holds; of a wider flood it has the count

cdef struct TraceRecord:
    uint64_t time               # ns, CLOCK_MONOTONIC
    uint32_t length, kept
    uint16_t ingress, copies
    uint8_t action, reason, learned
    uint16_t egress[TRACE_PORTS]

cdef struct Trace:
    TraceRecord *records        # NULL: off
    uint8_t *bytes              # `snap` bytes for each record
    uint32_t limit, snap, count
    uint64_t lost


cdef inline TraceRecord *record_frame(Trace *trace, const Frame *frame, uint64_t time) noexcept nogil:
    """Begin a record of the frame's decision, without its copies. NULL when the trace is full."""
    cdef TraceRecord *record
    cdef uint32_t place
    if trace.count == trace.limit:
        trace.lost += 1
        return NULL
    place = trace.count
    trace.count += 1
    record = &trace.records[place]
    record.time = time
    record.length = frame.length
    record.kept = min(frame.length, trace.snap) if frame.reason != RX_TRUNCATED else 0
    memcpy(trace.bytes + <size_t>place * trace.snap, frame.data, record.kept)
    record.ingress, record.action, record.reason = frame.ingress, frame.action, frame.reason
    record.learned = frame.learned
    record.copies = 0
    return record


cdef inline void record_copy(TraceRecord *record, uint16_t egress) noexcept nogil:
    if record.copies < TRACE_PORTS:
        record.egress[record.copies] = egress
    record.copies += 1
