"""Python's access to events: the workers' reports, and the loop probes that they recognise.

The events are taken by swapping each worker's queue for an empty one between two of its breaths.
"""

cimport cython
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from .dataplane cimport Dataplane
from .forward cimport LOOP_MAGIC
from .mac_table cimport mac_of, vid_of
from .worker cimport Worker, lock, unlock

from .codes import EVENT_KINDS as _EVENT_KINDS


@cython.final
cdef class Events:
    """The events of a data plane."""

    cdef Dataplane dataplane

    def __cinit__(self, Dataplane dataplane not None):
        self.dataplane = dataplane

    def read(self):
        """Take the events: [(kind, was, now, vlan, mac), …], and how many were lost so far.

        They are as in events.pxd; the kind is its name in codes.EVENT_KINDS."""
        cdef list out = [], kinds = list(_EVENT_KINDS)
        cdef uint64_t lost = 0
        cdef uint32_t i, j
        cdef EventQueue *queue
        cdef Worker *worker
        for i in range(self.dataplane.worker_count):
            worker = &self.dataplane.workers[i]
            with nogil:
                lock(worker)
                queue = worker.events
                worker.spare_events.lost = queue.lost
                worker.events = worker.spare_events
                unlock(worker)
            for j in range(queue.count):
                out.append((kinds[queue.events[j].kind], queue.events[j].was, queue.events[j].now,
                            vid_of(queue.events[j].key), mac_of(queue.events[j].key)))
            queue.count = 0
            lost += queue.lost
            worker.spare_events = queue
        return out, lost

    def set_probe_magic(self, bytes magic):
        """Recognise this switch's own loop probes by these 16 bytes."""
        cdef const uint8_t *data = magic
        cdef uint32_t i
        if len(magic) != LOOP_MAGIC:
            raise ValueError(f"{LOOP_MAGIC} bytes, not {len(magic)}")
        with nogil:
            self.dataplane._lock()
            for i in range(self.dataplane.worker_count):
                memcpy(self.dataplane.workers[i].forwarding.loop_magic, data, LOOP_MAGIC)
                self.dataplane.workers[i].forwarding.probing = True
            self.dataplane._unlock()
