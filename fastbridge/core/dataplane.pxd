# The data plane's class, declared for the classes over it. Each of those serves one Python caller and has its own file.
from libc.stdint cimport uint32_t, uint64_t

cimport cython

from .mac_table cimport MacTable
from .port cimport Port, WorkerPort
from .ring cimport Ring
from .worker cimport Worker


@cython.final
cdef class Dataplane:
    cdef MacTable fdb, bindings
    cdef Worker *workers
    cdef uint32_t worker_count
    cdef Port **ports
    cdef uint32_t port_count            # indices in use or once used: it never falls. Written under all workers' locks
    cdef int events_fd, punts_fd, candidates_fd
    cdef uint64_t epoch_ns              # zero of now()
    cdef bint in_memory                 # memory_ports.pyx feeds it: its time is not the machine's
    cdef uint64_t orders_dropped        # packet_out.pyx: no such port, or nowhere to go

    cdef Worker *_worker(self, uint32_t number) except NULL
    cdef void _lock(self) noexcept nogil
    cdef void _unlock(self) noexcept nogil
    cdef Port *_port(self, uint32_t index) noexcept nogil
    cdef void _list_floods(self) noexcept nogil
    cdef int _enter(self, uint32_t index, Port **port, WorkerPort **shares) noexcept nogil
    cdef void _unlink(self, uint32_t index) noexcept nogil
    cdef void _leave(self, Worker *worker, uint32_t index, Ring *ring) noexcept nogil


# Add up the frames the kernel dropped for want of room, and those it kept. The worker is between two breaths.
cdef void count_missed(WorkerPort *share) noexcept nogil


cdef inline Port *require_port(Port *port) except NULL:
    """The port. Raises IndexError when there is none."""
    if port == NULL:
        raise IndexError("no such port")
    return port
