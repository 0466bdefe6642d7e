"""Port rules: flags, storm control, and what may leave by a port.

They change while all workers are between two breaths.
"""

cimport cython
from libc.stdint cimport uint8_t, uint32_t

from .batch cimport FLOODS
from .bucket cimport set_rate
from .dataplane cimport Dataplane, require_port
from .port cimport Port
from .worker cimport lock, unlock

#: What may leave by a port: port.pxd's Takes.
TAKES_NAMES = ("all", "unmerged", "single")
#: Names of a port's flags, by bit (port.pxd's PortFlag).
FLAG_NAMES = (
    "learning", "broadcast_flood", "multicast_flood", "unicast_flood", "isolated", "hairpin", "locked", "coalesce",
)


@cython.final
cdef class PortRules:
    """The rules of a data plane's ports; its methods raise IndexError for a port that is not there."""

    cdef Dataplane dataplane

    def __cinit__(self, Dataplane dataplane not None):
        self.dataplane = dataplane

    def flags(self, uint32_t index):
        """A port's flags as a bit set, in the order of FLAG_NAMES."""
        cdef Port *port
        cdef uint8_t flags = 0
        with nogil:
            lock(self.dataplane.planes)
            port = self.dataplane._port(index)
            if port != NULL:
                flags = port.flags
            unlock(self.dataplane.planes)
        require_port(port)
        return flags

    def set_flags(self, uint32_t index, uint8_t flags):
        """Set a port's flags, a bit set in the order of FLAG_NAMES."""
        cdef uint32_t i
        cdef Port *port
        with nogil:
            self.dataplane._lock()
            port = self.dataplane._port(index)
            if port != NULL:
                port.flags = flags
                for i in range(self.dataplane.workers):   # whoever sets them again wants it tried again
                    self.dataplane.planes[i].shares[index].unmergeable = 0
                self.dataplane._list_floods()
            self.dataplane._unlock()
        require_port(port)

    def set_takes(self, uint32_t index, str takes):
        """Say what may leave by a port: one of TAKES_NAMES."""
        cdef uint8_t value = TAKES_NAMES.index(takes)
        cdef Port *port
        with nogil:
            self.dataplane._lock()
            port = self.dataplane._port(index)
            if port != NULL:
                port.takes = value
            self.dataplane._unlock()
        require_port(port)

    def set_storm_control(self, uint32_t index, int what, double rate, double burst):
        """Limit what a port may have flooded: frames a second, and at once; a rate of 0: no limit.

        what: 0 broadcast, 1 multicast, 2 unknown unicast.
        """
        cdef Port *port
        if not 0 <= what < <int>FLOODS:
            raise ValueError(f"what is flooded is 0 … 2, not {what}")
        with nogil:
            self.dataplane._lock()
            port = self.dataplane._port(index)
            if port != NULL:
                set_rate(&port.storm[what], rate, burst)
            self.dataplane._unlock()
        require_port(port)
