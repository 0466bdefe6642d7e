"""Memory ports: a data plane whose ports have no sockets. Python feeds and reads them.

The stages are those of a breath, without receiving. The copies go back to Python before they would be sent. Worker 0
does all of it, except for replay().
"""

cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free

from .batch cimport BATCH, Frame
from .cut cimport Cut, make_messages, must_cut
from .dataplane cimport Dataplane, require_port
from .decide cimport decide
from .emulate cimport enter_links, first_due, land_from_pods, land_to_pods
from .flights cimport next_due
from .link cimport FOR_EVER
from .linux cimport iovec
from .memory_ports cimport collect_copies, copy_frames, place_of
from .port cimport WorkerPort
from .ring cimport VNET_HEADER
from .transmit cimport gather, release, transmit
from .worker cimport Worker, lock, start_frame, unlock


@cython.final
cdef class MemoryPorts:
    """Feeds a data plane that receives nothing else. Copies for socket ports go to their sockets as well."""

    cdef Dataplane dataplane

    def __cinit__(self, Dataplane dataplane not None):
        self.dataplane = dataplane
        dataplane.in_memory = True

    def process(self, uint32_t ingress, list frames, uint64_t now):
        """Switch `frames` (bytes) arriving on a port at `now` (ns).

        Returns [(egress port, frame), …] in arrival order, a flooded frame's copies by ascending port. The frames are
        the given bytes objects themselves. On a switch with links (links.pyx) they may be others, and those that do not
        pass at once are returned by advance(). Raises IndexError (no such port), TypeError (not bytes), MemoryError.
        """
        cdef Worker *worker = self.dataplane.workers
        cdef list out = [], chunk
        # The ports' queues, which are read then, do not say which frame of several came first.
        cdef Py_ssize_t start = 0, most = 1 if worker.wire.used else BATCH
        with nogil:
            lock(worker)
        try:
            require_port(self.dataplane._port(ingress))
            while start < len(frames):
                chunk = frames[start:start + most]
                start += most
                run_breath(worker, ingress, chunk, now, False, out)
        finally:
            unlock(worker)
        return out

    def advance(self, uint64_t until, bint offloaded=False):
        """Let time pass up to `until` (ns): deliver the frames in flight that are due, each at its own time.

        Returns [(time in ns, egress port, frame), …] in the order of time; offloaded: with their vnet headers. At one
        time, copies for pods come before frames from pods, which are decided then. Raises MemoryError."""
        cdef Worker *worker = self.dataplane.workers
        cdef uint32_t before = VNET_HEADER if offloaded else 0
        cdef uint64_t now
        cdef list out = []
        with nogil:
            lock(worker)
        try:
            while first_due(worker) <= until:
                now = first_due(worker)
                copies = []
                land_at(worker, now, before, copies)
                out += [(now, egress, frame) for egress, frame in copies]
        finally:
            unlock(worker)
        return out

    def next_due(self):
        """When the next frame in flight is due (ns); None: there is none."""
        cdef Worker *worker = self.dataplane.workers
        cdef uint64_t due
        with nogil:
            lock(worker)
            due = first_due(worker)
            unlock(worker)
        return None if due == <uint64_t>FOR_EVER else due

    def process_offloaded(self, uint32_t ingress, list messages, uint64_t now):
        """As process(), for at most BATCH frames as the kernel has them: each behind its struct virtio_net_hdr.

        Returns the messages that a live switch would send in one breath, port by port, coalesced where the port's flag
        says so: [(egress port, vnet header and frame), …]. Raises also ValueError: too many frames, or one too short
        for a vnet header.
        """
        cdef Worker *worker = self.dataplane.workers
        cdef list out = []
        if len(messages) > BATCH:
            raise ValueError(f"a breath takes at most {BATCH} frames, not {len(messages)}")
        with nogil:
            lock(worker)
        try:
            require_port(self.dataplane._port(ingress))
            run_breath(worker, ingress, messages, now, True, out)
        finally:
            unlock(worker)
        return out

    def replay(self, uint32_t ingress, list frames, uint32_t now, uint32_t rounds, uint32_t number=0):
        """As process(), for at most BATCH frames, `rounds` times by the worker of this number, without the GIL.

        Only the counters show the results. Benchmarks time it: the core's own cost. Several threads can call it at the
        same time, each as another worker. Raises ValueError for more frames, IndexError (no such port, or worker)."""
        cdef uint32_t j, n = <uint32_t>len(frames)
        cdef uint8_t *memory = NULL
        cdef Worker *worker = self.dataplane._worker(number)
        if len(frames) > BATCH:
            raise ValueError(f"replay takes at most {BATCH} frames, not {len(frames)}")
        with nogil:
            lock(worker)
        try:
            require_port(self.dataplane._port(ingress))
            memory = fill_batch(worker, ingress, frames, 0)
            with nogil:
                for _ in range(rounds):
                    worker.batch_count = n
                    for j in range(n):
                        start_frame(&worker.batch[j], ingress)
                    decide(worker, <uint64_t>now * 1000000)
                    transmit(worker)
                    release(worker)
        finally:
            unlock(worker)
            free(memory)


cdef int run_breath(Worker *worker, uint32_t ingress, list frames, uint64_t now, bint offloaded, list out) except -1:
    """Do one breath of frames from memory. Offloaded frames are each behind their vnet header."""
    cdef uint8_t *memory = fill_batch(worker, ingress, frames, VNET_HEADER if offloaded else 0)
    try:
        worker.now = now
        enter_links(worker)
        decide(worker, now)
        if offloaded:
            collect_messages(worker, out)
        elif worker.wire.used:
            collect_queued(worker, 0, out)
        else:
            collect_copies(worker, frames, out)
    finally:
        transmit(worker)
        release(worker)
        free(memory)
    return 0


cdef int land_at(Worker *worker, uint64_t now, uint32_t before, list out) except -1:
    """Do one breath of what is due at `now`: copies for pods, or else one frame from a pod."""
    cdef uint32_t i
    worker.now = now
    try:
        if next_due(&worker.wire.to_pods) <= now:
            land_to_pods(worker, BATCH)
            for i in range(worker.wire.landed_count):
                out.append((worker.wire.landed[i].link.egress, read_frame(&worker.batch[i], before)))
        else:
            land_from_pods(worker, 1)
            decide(worker, now)
            collect_queued(worker, before, out)
    finally:
        transmit(worker)
        release(worker)
    return 0


cdef uint8_t *fill_batch(Worker *worker, uint32_t ingress, list frames, uint32_t before) except NULL:
    """Make a batch of bytes objects, as copy_frames() copies them.

    Returns the memory. It must be freed when the batch is released."""
    cdef uint8_t *memory = copy_frames(frames, before)
    cdef uint8_t *at = memory + VNET_HEADER
    cdef Frame *frame
    cdef Py_ssize_t i
    for i in range(len(frames)):
        frame = &worker.batch[i]
        start_frame(frame, ingress)
        frame.data, frame.length = at, <uint32_t>PyBytes_GET_SIZE(frames[i]) - before
        at += place_of(frame.length)
    worker.batch_count = <uint32_t>len(frames)
    return memory


cdef int collect_messages(Worker *worker, list out) except -1:
    """Append the messages of a decided batch, (egress port, vnet header and frame)."""
    cdef WorkerPort *share
    cdef uint32_t i, j, at, count, start
    cdef Frame *frame
    cdef Cut cut
    for i in range(worker.touched_count):
        share = worker.shares[worker.touched[i]]
        at = 0
        while at < share.queued:
            frame = &worker.batch[share.queue[at]]
            if must_cut(worker.ports[share.index], share, frame, &cut):
                start, at = 0, at + 1
                count = make_messages(worker, frame, &cut, &start)
                while count:
                    read_messages(worker, share.index, count, out)
                    count = make_messages(worker, frame, &cut, &start)
                continue
            count = gather(worker, share, at, 0)
            read_messages(worker, share.index, count, out)
            for j in range(count):
                at += worker.spans[j]
    return 0


cdef int read_messages(Worker *worker, uint16_t egress, uint32_t count, list out) except -1:
    """Append the first `count` messages that were made, (egress port, vnet header and frame)."""
    cdef iovec *vectors
    cdef uint32_t j, k
    for j in range(count):
        vectors = worker.messages[j].msg_hdr.msg_iov
        out.append((egress, b"".join([
            PyBytes_FromStringAndSize(<char *>vectors[k].iov_base, vectors[k].iov_len)
            for k in range(worker.messages[j].msg_hdr.msg_iovlen)
        ])))
    return 0
