# Send out what another thread than the worker's has queued.
from .transmit cimport release, transmit
from .worker cimport Worker, notify


cdef inline void send_out(Worker *worker) noexcept nogil:
    transmit(worker)
    release(worker)
    if worker.wire.to_pods.count:
        notify(worker.wake_fd)              # a copy may be due before the worker would wake
