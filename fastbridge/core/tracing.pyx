"""Python's access to the trace.

The workers note each frame's decision (trace.pxd). To take the records, each worker's are swapped for fresh ones
between two of its breaths.
"""

cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from .codes cimport DROPPED, LEARN_NEW, LEARN_REFUSED
from .dataplane cimport Dataplane
from .trace cimport TRACE_PORTS, Trace, TraceRecord
from .worker cimport Worker, lock, unlock

from . import codes as _codes

_ACTIONS, _REASONS, _LEARNED = list(_codes.ACTIONS), list(_codes.DROP_REASONS), list(_codes.LEARN_RESULTS)


@cython.final
cdef class Tracer:
    """Records the decisions of all workers of a data plane."""

    cdef Dataplane dataplane

    def __cinit__(self, Dataplane dataplane):
        self.dataplane = dataplane

    def start(self, uint32_t snap, uint32_t limit):
        """Record every frame's decision and first `snap` bytes, at most `limit` unread records for each worker.

        Raises MemoryError."""
        cdef Trace fresh
        cdef uint32_t i
        try:
            for i in range(self.dataplane.worker_count):
                fresh = make_trace(snap, limit)
                swap_trace(&self.dataplane.workers[i], &fresh)
                free_trace(&fresh)
        except MemoryError:
            self.stop()
            raise

    def stop(self):
        """Stop recording. Unread records are lost."""
        cdef Trace off
        cdef uint32_t i
        for i in range(self.dataplane.worker_count):
            memset(&off, 0, sizeof(off))
            swap_trace(&self.dataplane.workers[i], &off)
            free_trace(&off)

    def read(self):
        """Take the records by time, [(time_ns, ingress, frame, length, action, reason, learned, egress), …], and how
        many were lost so far.

        For one thread at a time. Raises MemoryError."""
        cdef uint64_t lost = 0
        cdef list out = []
        cdef uint32_t i
        for i in range(self.dataplane.worker_count):
            lost += read_trace(&self.dataplane.workers[i], out)
        out.sort(key=_by_time)
        return out, lost


cdef uint64_t read_trace(Worker *worker, list out) except? 0:
    cdef Trace trace
    cdef TraceRecord *record
    cdef uint64_t lost
    cdef uint32_t at
    if worker.trace.records == NULL:
        return 0
    trace = make_trace(worker.trace.snap, worker.trace.limit)
    trace.lost = worker.trace.lost
    swap_trace(worker, &trace)
    lost = trace.lost
    for at in range(trace.count):
        record = &trace.records[at]
        out.append((
            record.time, record.ingress,
            PyBytes_FromStringAndSize(<char *>trace.bytes + <size_t>at * trace.snap, record.kept),
            record.length, _ACTIONS[record.action],
            _REASONS[record.reason] if record.action == DROPPED else None,
            _LEARNED[record.learned] if LEARN_NEW <= record.learned <= LEARN_REFUSED else None,
            tuple([record.egress[i] for i in range(min(record.copies, <uint16_t>TRACE_PORTS))]),
        ))
    free_trace(&trace)
    return lost


cdef Trace make_trace(uint32_t snap, uint32_t limit) except *:
    cdef Trace trace
    memset(&trace, 0, sizeof(trace))
    trace.limit, trace.snap = limit, snap
    trace.bytes = <uint8_t *>malloc(<size_t>snap * limit + 1)
    trace.records = <TraceRecord *>malloc(<size_t>limit * sizeof(TraceRecord))
    if trace.bytes == NULL or trace.records == NULL:
        free_trace(&trace)
        raise MemoryError(f"no memory to trace {limit} frames of {snap} bytes")
    return trace


cdef void swap_trace(Worker *worker, Trace *trace) noexcept:
    """Give a worker this trace, and take the one it had."""
    cdef Trace before
    with nogil:
        lock(worker)
        before = worker.trace
        trace.lost = before.lost if trace.records != NULL and before.records != NULL else 0
        worker.trace = trace[0]
        trace[0] = before
        unlock(worker)


cdef void free_trace(Trace *trace) noexcept nogil:
    free(trace.records)
    free(trace.bytes)


def _by_time(record):
    return record[0]
