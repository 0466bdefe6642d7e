"""Queues, how full they are: what waits in the ports' rings, and for the policies."""

cimport cython
from libc.stdint cimport int32_t, uint32_t
from libc.stdlib cimport calloc, free

from .barrier cimport load_relaxed32
from .dataplane cimport Dataplane, count_missed
from .port cimport WorkerPort
from .worker cimport lock, unlock


@cython.final
cdef class Queues:
    """The queues of a data plane."""

    cdef Dataplane dataplane

    def __cinit__(self, Dataplane dataplane not None):
        self.dataplane = dataplane

    def waiting(self):
        """How many frames wait: unread in the rings of each port, {index: count}, and punted for the policies, by each
        worker. A worker is looked at between two of its breaths. Raises MemoryError."""
        cdef uint32_t room = load_relaxed32(&self.dataplane.port_count), workers = self.dataplane.worker_count, n, i, j
        cdef uint32_t *unread = <uint32_t *>calloc(room + 1, sizeof(uint32_t))
        cdef uint32_t *punted = <uint32_t *>calloc(workers, sizeof(uint32_t))
        cdef int32_t waits
        if unread == NULL or punted == NULL:
            free(unread)
            free(punted)
            raise MemoryError("no memory to look at the queues")
        with nogil:
            for j in range(workers):
                lock(&self.dataplane.workers[j])
                n = min(room, self.dataplane.workers[j].port_count)
                for i in range(n):
                    waits = unread_of(self.dataplane.workers[j].shares[i])
                    unread[i] += max(waits, 0)
                punted[j] = self.dataplane.workers[j].punts.count
                unlock(&self.dataplane.workers[j])
        found = {i: unread[i] for i in range(room)}, [punted[j] for j in range(workers)]
        free(unread)
        free(punted)
        return found


cdef inline int32_t unread_of(WorkerPort *share) noexcept nogil:
    count_missed(share)
    return <int32_t>(share.arrived - share.taken) if share.rx_fd >= 0 else 0
