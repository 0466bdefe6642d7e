# The data plane's class, declared for those that serve one Python caller each, a file each.
from libc.stdint cimport uint32_t, uint64_t

cimport cython

from .mac_table cimport MacTable
from .plane cimport Plane
from .port cimport Port, Share
from .ring cimport Ring


@cython.final
cdef class Dataplane:
    cdef MacTable fdb, bindings
    cdef Plane *planes                  # one a worker
    cdef readonly uint32_t workers
    cdef Port **ports
    cdef uint32_t port_count            # indices in use or once used
    cdef int events_fd, punts_fd, candidates_fd
    cdef uint64_t epoch_ns              # zero of now()
    cdef uint64_t orders_dropped        # packet_out.pyx: no such port, or nowhere to go

    cdef Plane *_plane(self, uint32_t worker) except NULL
    cdef void _lock(self) noexcept nogil
    cdef void _unlock(self) noexcept nogil
    cdef Port *_port(self, uint32_t index) noexcept nogil
    cdef void _list_floods(self) noexcept nogil
    cdef int _enter(self, uint32_t index, Port **port, Share **shares) noexcept nogil
    cdef void _leave(self, Plane *plane, uint32_t index, Ring *ring) noexcept nogil


cdef inline Port *require_port(Port *port) except NULL:
    """The port, or IndexError for none."""
    if port == NULL:
        raise IndexError("no such port")
    return port
