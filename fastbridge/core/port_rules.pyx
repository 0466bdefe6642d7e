"""Port rules: flags, storm control, and the frames that may leave by a port.

They change while all workers are between two breaths.
"""

cimport cython
from libc.stdint cimport uint8_t, uint32_t

from .bucket cimport set_rate
from .dataplane cimport Dataplane, require_port
from .port cimport Port
from .worker cimport lock, unlock

from .codes import FLOOD_KINDS as _FLOOD_KINDS, PORT_FLAGS as _PORT_FLAGS, TAKES as _TAKES


@cython.final
cdef class PortRules:
    """The rules of a data plane's ports; its methods raise IndexError for a port that is not there."""

    cdef Dataplane dataplane

    def __cinit__(self, Dataplane dataplane not None):
        self.dataplane = dataplane

    def flags(self, uint32_t index):
        """A port's flags, {name: whether it is set}."""
        cdef Port *port
        cdef uint8_t flags = 0
        with nogil:
            lock(self.dataplane.workers)
            port = self.dataplane._port(index)
            if port != NULL:
                flags = port.flags
            unlock(self.dataplane.workers)
        require_port(port)
        return {name: flags & bit != 0 for name, bit in _PORT_FLAGS.items()}

    def set_flags(self, uint32_t index, flags):
        """Set the flags of these names, and no others. Raises also KeyError."""
        cdef uint8_t bits = sum({_PORT_FLAGS[name] for name in flags})
        cdef uint32_t i
        cdef Port *port
        with nogil:
            self.dataplane._lock()
            port = self.dataplane._port(index)
            if port != NULL:
                port.flags = bits
                for i in range(self.dataplane.worker_count):   # who sets them again wants another try
                    self.dataplane.workers[i].shares[index].unmergeable = 0
                self.dataplane._list_floods()
            self.dataplane._unlock()
        require_port(port)

    def set_takes(self, uint32_t index, str takes):
        """Say what may leave by a port: a name of codes.TAKES."""
        cdef uint8_t value = _TAKES[takes]
        cdef Port *port
        with nogil:
            self.dataplane._lock()
            port = self.dataplane._port(index)
            if port != NULL:
                port.takes = value
            self.dataplane._unlock()
        require_port(port)

    def set_storm_control(self, uint32_t index, str kind, double rate, double burst):
        """Limit a port's floods of a kind (codes.FLOOD_KINDS): frames a second, and at once. A rate of 0: no limit."""
        cdef uint8_t what = _FLOOD_KINDS[kind]
        cdef Port *port
        with nogil:
            self.dataplane._lock()
            port = self.dataplane._port(index)
            if port != NULL:
                set_rate(&port.storm[what], rate, burst)
            self.dataplane._unlock()
        require_port(port)
