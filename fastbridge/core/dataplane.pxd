# The data plane's class, declared for those that serve one Python caller each: fdb.pyx, tracing.pyx.
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

cimport cython

from .batch cimport Frame
from .mac_table cimport MacTable
from .plane cimport Plane
from .port cimport Port, Share
from .ring cimport Ring

cdef struct Order:              # one frame to send out, as packet_out() prepares it
    uint8_t *data               # behind a zero vnet header
    uint32_t length
    int ingress, egress


@cython.final
cdef class Dataplane:
    cdef MacTable fdb, bindings
    cdef Plane *planes                  # one a worker
    cdef readonly uint32_t workers
    cdef Port **ports
    cdef uint32_t port_count            # indices in use or once used
    cdef int events_fd, punts_fd, candidates_fd
    cdef uint64_t epoch_ns              # zero of now()
    cdef readonly uint64_t orders_dropped   # packet_out: no such port, or nowhere to go

    cdef Plane *_plane(self, uint32_t worker) except NULL
    cdef void _lock(self) noexcept nogil
    cdef void _unlock(self) noexcept nogil
    cdef Port *_port(self, uint32_t index) noexcept nogil
    cdef void _list_floods(self) noexcept nogil
    cdef int _enter(self, uint32_t index, Port **port, Share **shares) noexcept nogil
    cdef void _leave(self, Plane *plane, uint32_t index, Ring *ring) noexcept nogil
    cdef int _make_punt_queues(self) except -1
    cdef void _note_punting(self) noexcept nogil
    cdef bint _is_live(self) noexcept nogil
    cdef int _send_out_in_memory(self, const Order *orders, list frames, list out) except -1
    cdef void _load(self, const Order *orders, uint32_t count) noexcept nogil
    cdef void _direct(self, Frame *frame, int ingress, int egress) noexcept nogil
    cdef void _send_out(self) noexcept nogil
    cdef int _pass(self, uint32_t ingress, list frames, uint32_t now, bint on_the_wire, list out) except -1
    cdef uint8_t *_inject(self, Plane *plane, uint32_t ingress, list frames, bint on_the_wire) except NULL
    cdef int _collect_messages(self, list out) except -1
    cdef int _read_messages(self, uint16_t egress, uint32_t count, list out) except -1
    cdef int _collect(self, list frames, list out) except -1


cdef inline Port *require_port(Port *port) except NULL:
    """The port, or IndexError for none."""
    if port == NULL:
        raise IndexError("no such port")
    return port
