"""Punting: the policies' side of the data plane.

Here are the wishes of each port's policy, the frames that the workers punt to it (punt.pxd), and the switch's own
address, to which answers come. To take the frames, each worker's queue is swapped for an empty one between two of its
breaths.
"""

cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc

from .bucket cimport set_rate
from .codes cimport KINDS
from .dataplane cimport Dataplane, require_port
from .port cimport Port
from .punt cimport PUNT_SLOTS, PuntSlot
from .worker cimport Worker, lock, unlock

from .codes import FRAME_KINDS as _FRAME_KINDS


@cython.final
cdef class Punting:
    """The frames that the policies of a data plane's ports want, and get."""

    cdef Dataplane dataplane

    def __cinit__(self, Dataplane dataplane not None):
        self.dataplane = dataplane

    @property
    def fd(self):
        """An eventfd. It is readable when there are punted frames."""
        return self.dataplane.punts_fd

    @property
    def lost(self):
        """How many frames were not punted: (for want of room in the queue, because they are longer than PUNT_BYTES)."""
        cdef uint64_t missed = 0, too_long = 0
        cdef uint32_t i
        with nogil:
            for i in range(self.dataplane.worker_count):
                lock(&self.dataplane.workers[i])
                missed += self.dataplane.workers[i].punts.missed
                too_long += self.dataplane.workers[i].punts.too_long
                unlock(&self.dataplane.workers[i])
        return missed, too_long

    def set_policy(
        self, uint32_t index, punts, double rate=0, double burst=0, bint guarded=False, bint strict=False,
        bint routes=False, bint drop_when_full=False,
    ):
        """Set the wishes of a port's policy.

        The frames that it wants: {frame kind: punt}, by the names and numbers of codes.pyx. How many ARP and as many ND
        frames a second the port may send (0: any number). Whether its sources are checked, whether those without a
        binding are dropped, and whether only the MAC is checked. Whether a frame is dropped for which the punt queue
        has no room, or goes its plain way. Raises MemoryError."""
        cdef uint8_t punt[KINDS]
        cdef Port *port
        cdef int i
        for kind, i in _FRAME_KINDS.items():
            if 1 <= i < <int>KINDS:
                punt[i] = punts[kind]
        if any(punts.values()):
            self._make_punt_queues()
        with nogil:
            self.dataplane._lock()
            port = self.dataplane._port(index)
            if port != NULL:
                for i in range(1, <int>KINDS):
                    port.punt[i] = punt[i]
                set_rate(&port.arp, rate, burst)
                set_rate(&port.nd, rate, burst)
                port.guarded, port.strict, port.routes = guarded, strict, routes
                port.drop_when_full = drop_when_full
            self._note_punting()
            self.dataplane._unlock()
        require_port(port)

    def set_stalled(self, bint stalled):
        """Say that the policies do not return, or are back. Until then each port's fallback decides, without punts."""
        cdef uint32_t i
        with nogil:
            self.dataplane._lock()
            for i in range(self.dataplane.worker_count):
                self.dataplane.workers[i].punts.stalled = stalled
            self.dataplane._unlock()

    def set_own_mac(self, uint64_t mac):
        """Set the switch's own address. The policies ask neighbours from it, and frames to it are consumed."""
        cdef uint32_t i
        with nogil:
            self.dataplane._lock()
            for i in range(self.dataplane.worker_count):
                self.dataplane.workers[i].forwarding.own_mac = mac
            self.dataplane._unlock()

    def read(self):
        """Take the punted frames, [(ingress, taken, frame, since), …], each worker's in order of arrival; taken: the
        policy decides, else it is a copy; since: when it was received, by time.monotonic_ns(), 0 in memory. For one
        thread at a time."""
        cdef list out = []
        cdef PuntSlot *slots
        cdef uint32_t count, i, j
        cdef Worker *worker
        for i in range(self.dataplane.worker_count):
            worker = &self.dataplane.workers[i]
            if worker.spare_slots == NULL:
                continue
            with nogil:
                lock(worker)
                slots, count = worker.punts.slots, worker.punts.count
                worker.punts.slots, worker.punts.count = worker.spare_slots, 0
                for j in range(worker.port_count):
                    worker.shares[j].punts = 0
                unlock(worker)
            for j in range(count):
                out.append((slots[j].ingress, slots[j].taken != 0,
                            PyBytes_FromStringAndSize(<char *>slots[j].data, slots[j].length), slots[j].since))
            worker.spare_slots = slots
        return out

    cdef int _make_punt_queues(self) except -1:
        cdef PuntSlot *slots
        cdef PuntSlot *spare
        cdef uint32_t i
        for i in range(self.dataplane.worker_count):
            if self.dataplane.workers[i].spare_slots != NULL:
                continue
            slots = <PuntSlot *>malloc(PUNT_SLOTS * sizeof(PuntSlot))
            spare = <PuntSlot *>malloc(PUNT_SLOTS * sizeof(PuntSlot))
            if slots == NULL or spare == NULL:
                free(slots)
                free(spare)
                raise MemoryError("no memory for the punt queue")
            with nogil:
                lock(&self.dataplane.workers[i])
                if self.dataplane.workers[i].spare_slots == NULL:      # else another thread was faster
                    self.dataplane.workers[i].punts.slots, self.dataplane.workers[i].spare_slots = slots, spare
                    slots = spare = NULL
                unlock(&self.dataplane.workers[i])
            free(slots)
            free(spare)
        return 0

    cdef void _note_punting(self) noexcept nogil:
        """Whether any port's policy makes it worth looking for ARP and ND."""
        cdef bint punting = False
        cdef Port *port
        cdef uint32_t index
        cdef int i
        for index in range(self.dataplane.port_count):
            port = self.dataplane._port(index)
            if port == NULL:
                continue
            for i in range(1, <int>KINDS):
                punting |= port.punt[i] != 0
            punting |= port.arp.interval != 0
        for index in range(self.dataplane.worker_count):
            self.dataplane.workers[index].forwarding.punting = punting
