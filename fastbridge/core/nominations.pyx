"""Nominations: the fast path's side of the data plane.

The workers name pairs of stations that the kernel could forward by itself (candidates.pxd). The fast path reads their
names here and promotes them.
"""

cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memset

from .candidates cimport CANDIDATE_SLOTS, NAMED, Candidate, CandidateQueue
from .dataplane cimport Dataplane
from .forward cimport Forwarding, ip_allowed, mac_allowed
from .mac_table cimport make_key
from .codes cimport FLAG_ISOLATED, FLAG_LEARNING, FLAG_LOCKED
from .port cimport Port, is_open
from .worker cimport Worker, lock, unlock

cdef uint64_t KEY_MASK = (<uint64_t>1 << 60) - 1      # of a key: vlan << 48 | mac
cdef bytes NO_IP = bytes(16)


@cython.final
cdef class Nominations:
    """The pairs that a data plane's workers name."""

    cdef Dataplane dataplane

    def __cinit__(self, Dataplane dataplane not None):
        self.dataplane = dataplane

    @property
    def fd(self):
        """An eventfd. It is readable when there are candidates."""
        return self.dataplane.candidates_fd

    def switch_on(self, bint on):
        """Name the pairs of stations that the kernel could forward by itself. Or name none, and forget those named.

        Raises MemoryError."""
        cdef CandidateQueue before
        cdef CandidateQueue fresh
        cdef uint32_t i
        for i in range(self.dataplane.worker_count):
            memset(&fresh, 0, sizeof(fresh))
            if on:
                fresh.slots = <Candidate *>malloc(CANDIDATE_SLOTS * sizeof(Candidate))
                fresh.named = <uint64_t *>calloc(NAMED, sizeof(uint64_t))
                if fresh.slots == NULL or fresh.named == NULL:
                    free_candidates(&fresh)
                    raise MemoryError("no memory for the fast path's candidates")
            with nogil:
                lock(&self.dataplane.workers[i])
                before = self.dataplane.workers[i].candidates
                self.dataplane.workers[i].candidates = fresh
                unlock(&self.dataplane.workers[i])
            free_candidates(&before)

    def read(self):
        """Take the candidates, [(moved, ingress, egress, ethertype, source, destination, ip), …], and the number lost.

        Stations are keys, `vlan << 48 | mac`. moved: the station `source` is behind another port now; else the pair was
        just forwarded. ip: the IP source address that the port's guard let pass, 16 bytes, IPv4 as ff00::…; b"": there
        was none to check. For one thread at a time. Raises MemoryError."""
        cdef list out = []
        cdef uint64_t lost = 0
        cdef Candidate *slots
        cdef Candidate *spare
        cdef uint32_t count, i, j
        cdef Worker *worker
        for i in range(self.dataplane.worker_count):
            worker = &self.dataplane.workers[i]
            spare = <Candidate *>malloc(CANDIDATE_SLOTS * sizeof(Candidate))
            if spare == NULL:
                raise MemoryError("no memory to read the fast path's candidates")
            with nogil:
                lock(worker)
                slots, count = worker.candidates.slots, worker.candidates.count
                if slots != NULL:
                    worker.candidates.slots, worker.candidates.count = spare, 0
                    spare = NULL
                lost += worker.candidates.lost
                unlock(worker)
            free(spare)
            if slots == NULL:
                continue
            for j in range(count):
                out.append((slots[j].kind != 0, slots[j].ingress, slots[j].egress, slots[j].ethertype,
                            slots[j].source & KEY_MASK, slots[j].destination & KEY_MASK, ip_of(slots[j].ip)))
            free(slots)
        return out, lost

    def allows(self, uint16_t ingress, uint16_t egress, uint64_t mac, bytes ip):
        """Whether two ports' rules let untagged frames of this source pass from one to the other now.

        ip: as read() has it. Raises ValueError for an ip of another length."""
        cdef Worker *worker = &self.dataplane.workers[0]
        cdef bint allowed = False
        cdef bint by_ip = len(ip) != 0
        cdef Port *port
        cdef Port *out
        cdef const uint8_t *address = ip
        cdef uint64_t source = make_key(mac, 0)
        if len(ip) != 0 and len(ip) != 16:
            raise ValueError(f"an IP address here has 16 bytes, not {len(ip)}")
        with nogil:
            lock(worker)  # whoever changes rules holds it
            port, out = self.dataplane._port(ingress), self.dataplane._port(egress)
            if port != NULL and out != NULL:
                allowed = allowed_now(&worker.forwarding, port, out, ingress, source, by_ip, address)
            unlock(worker)
        return allowed


cdef bint allowed_now(Forwarding *f, const Port *port, const Port *out, uint16_t ingress, uint64_t source, bint by_ip,
                      const uint8_t *address) noexcept nogil:
    if port.blocked or not is_open(out) or port.links != NULL or out.links != NULL:
        return False
    if port.flags & (FLAG_LEARNING | FLAG_LOCKED) != FLAG_LEARNING or port.flags & out.flags & FLAG_ISOLATED:
        return False
    if not port.guarded:
        return True
    if not mac_allowed(f, ingress, source):
        return False
    return port.routes or not by_ip or ip_allowed(f, ingress, source, 0, 0, address)


cdef bytes ip_of(const uint8_t *ip):
    cdef bytes found = PyBytes_FromStringAndSize(<const char *>ip, 16)
    return b"" if found == NO_IP else found


cdef void free_candidates(CandidateQueue *queue) noexcept nogil:
    free(queue.slots)
    free(queue.named)
