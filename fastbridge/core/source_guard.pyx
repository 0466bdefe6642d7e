"""Source guard: Python's access to the addresses that stations may send from.

The bindings are a MAC table of their own, which the workers look up. A port's policy says whether it is guarded
(punting.pyx).
"""

cimport cython
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free

from .codes cimport RX_SOURCE_GUARD
from .dataplane cimport Dataplane
from .forward cimport binding_key
from .linux cimport pthread_mutex_lock, pthread_mutex_unlock
from .mac_table cimport MacTableState, mac_of, make_key, remove_key, set_static
from .port cimport MAX_PORTS


@cython.final
cdef class SourceGuard:
    """The bindings of a data plane."""

    cdef Dataplane dataplane

    def __cinit__(self, Dataplane dataplane not None):
        self.dataplane = dataplane

    def bind(self, rows):
        """Change who may send from guarded ports: rows of (port, vlan, mac, IP address).

        The address has 16 bytes, IPv4 as ff00::…. A MAC of 0: the address is bound with any MAC. An address of zeros:
        the MAC is bound with any address; of two tags only the outer one counts, as in the FDB. A port of -1: the
        binding ends. Frames pass meanwhile. Raises ValueError, MemoryError."""
        cdef MacTableState *bindings = &self.dataplane.bindings.state
        cdef const uint8_t[::1] ip
        cdef uint64_t key
        cdef int port, result
        cdef uint32_t vlan
        cdef uint64_t mac
        for port, vlan, mac, address in rows:
            ip = address
            if len(address) != 16:
                raise ValueError(f"an IP address here has 16 bytes, not {len(address)}")
            key = binding_key(bindings, &ip[0], make_key(mac_of(mac), vlan & 0xFFF), vlan >> 12)
            with nogil:
                pthread_mutex_lock(bindings.lock)
                result = 0
                if port < 0:
                    remove_key(bindings, key)
                else:
                    result = set_static(bindings, key, port)
                pthread_mutex_unlock(bindings.lock)
            if result < 0:
                raise MemoryError("no memory for the bindings")

    def drops(self):
        """How many frames of each port source guard has dropped, {index: count}."""
        cdef uint64_t *counts = <uint64_t *>calloc(MAX_PORTS, sizeof(uint64_t))
        cdef uint32_t n, i, j
        if counts == NULL:
            raise MemoryError("no memory for the counters")
        with nogil:
            self.dataplane._lock()
            n = self.dataplane.port_count
            for i in range(n):
                for j in range(self.dataplane.worker_count):
                    if self.dataplane.ports[i].guarded:
                        counts[i] += self.dataplane.workers[j].shares[i].tally.dropped[<int>RX_SOURCE_GUARD]
            self.dataplane._unlock()
        found = {i: counts[i] for i in range(n) if counts[i]}
        free(counts)
        return found
