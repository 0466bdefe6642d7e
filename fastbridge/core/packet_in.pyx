"""Packet-in: frames that a port receives from Python. A socket port has no ring; a program hands its frames over.

Worker 0 takes them, as it sends what packet_out.pyx orders.
"""

cimport cython
from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.stdlib cimport free

from .dataplane cimport Dataplane, require_port
from .decide cimport decide
from .emulate cimport enter_links
from .memory_ports cimport copy_frames
from .port cimport Port
from .ring cimport VNET_HEADER
from .send_out cimport send_out
from .worker cimport BIG_SIZE, Worker, lock, monotonic_ns, notify, start_frame, unlock


@cython.final
cdef class PacketIn:
    """Receives on behalf of the ports of a live data plane."""

    cdef Dataplane dataplane

    def __cinit__(self, Dataplane dataplane not None):
        self.dataplane = dataplane

    def receive(self, uint32_t ingress, bytes frame not None):
        """Receive one frame now, as if it had come off the port's wire: its link comes first.

        Raises IndexError (no such port), ValueError (too long), TypeError, MemoryError."""
        cdef Worker *worker = self.dataplane.workers
        cdef uint32_t length = <uint32_t>len(frame)
        cdef uint8_t *memory
        cdef Port *port
        if len(frame) > BIG_SIZE:
            raise ValueError(f"a frame of {len(frame)} bytes is too long: {<uint32_t>BIG_SIZE} at most")
        memory = copy_frames([frame], 0)
        with nogil:
            lock(worker)
            port = self.dataplane._port(ingress)
            if port != NULL:
                take(worker, ingress, memory + VNET_HEADER, length)
            unlock(worker)
        free(memory)
        require_port(port)


cdef void take(Worker *worker, uint32_t ingress, uint8_t *data, uint32_t length) noexcept nogil:
    """Do a breath of one frame."""
    worker.now = monotonic_ns()
    start_frame(&worker.batch[0], <uint16_t>ingress)
    worker.batch[0].data, worker.batch[0].length, worker.batch_count = data, length, 1
    if worker.wire.from_pod_links:
        enter_links(worker)
    decide(worker, worker.now - worker.epoch_ns)
    send_out(worker)
    if worker.wire.from_pods.count:
        notify(worker.wake_fd)              # it may be due before the worker would wake
