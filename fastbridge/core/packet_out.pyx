"""Packet-out: frames that Python orders worker 0 to send. They are the policies' answers and the loop probes."""

cimport cython
from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.stdlib cimport free, malloc

from .batch cimport BATCH, Frame
from .codes cimport DROPPED, FORWARDED
from .dataplane cimport Dataplane
from .decide cimport enqueue
from .ethernet cimport ETHERNET_HEADER, load_mac, read_vid
from .forward cimport look_up_egress
from .mac_table cimport hash_key, make_key
from .memory_ports cimport collect_copies, collect_queued, copy_frames, place_of
from .port cimport is_open
from .ring cimport VNET_HEADER
from .send_out cimport send_out
from .watch cimport watch
from .worker cimport BIG_SIZE, Worker, lock, may_flood, monotonic_ns, start_frame, unlock

cdef struct Order:              # one frame to send
    uint8_t *data               # behind a zero vnet header
    uint32_t length
    int ingress, egress


@cython.final
cdef class PacketOut:
    """Sends by the ports of a data plane."""

    cdef Dataplane dataplane

    def __cinit__(self, Dataplane dataplane not None):
        self.dataplane = dataplane

    @property
    def longest_frame(self):
        """The most bytes of a frame that send() takes."""
        return BIG_SIZE

    @property
    def dropped(self):
        """How many orders could not be sent: there was no port for them that is up."""
        return self.dataplane.orders_dropped

    def send(self, orders):
        """Send orders of (frame, ingress, egress).

        egress: the port to send to. ingress -1: the frame is the switch's own; else it is sent on behalf of that port,
        as far as isolation allows. egress -1: the frame goes where its destination leads from the ingress port, without
        policy, without learning, and not counted as received. Returns the copies of a switch in memory, [(egress port,
        frame), …]. Raises TypeError, ValueError, MemoryError.
        """
        cdef list frames = [frame for frame, _, _ in orders], out = []
        cdef Py_ssize_t total = len(frames), i, start = 0
        cdef uint32_t count
        cdef bint live, singly
        cdef uint8_t *memory = copy_frames(frames, 0)
        cdef uint8_t *at = memory + VNET_HEADER
        cdef Order *prepared = <Order *>malloc((total + 1) * sizeof(Order))
        try:
            if prepared == NULL:
                raise MemoryError(f"no memory to send {total} frames")
            for i in range(total):
                if len(frames[i]) > BIG_SIZE:
                    raise ValueError(f"a frame of {len(frames[i])} bytes is too large to send")
                _, prepared[i].ingress, prepared[i].egress = orders[i]
                prepared[i].data, prepared[i].length = at, <uint32_t>len(frames[i])
                at += place_of(prepared[i].length)
            with nogil:
                lock(self.dataplane.workers)
                live = not self.dataplane.in_memory
                singly = not live and self.dataplane.workers.wire.used      # their copies are read from the queues
                unlock(self.dataplane.workers)
            while start < total:
                count = 1 if singly else <uint32_t>min(<Py_ssize_t>BATCH, total - start)
                if live:
                    with nogil:
                        lock(self.dataplane.workers)
                        load(self.dataplane, prepared + start, count)
                        send_out(self.dataplane.workers)
                        unlock(self.dataplane.workers)
                else:
                    send_in_memory(self.dataplane, prepared + start, frames[start:start + count], out)
                start += count
        finally:
            free(memory)
            free(prepared)
        return out


cdef int send_in_memory(Dataplane dataplane, const Order *orders, list frames, list out) except -1:
    with nogil:
        lock(dataplane.workers)
    try:
        load(dataplane, orders, <uint32_t>len(frames))
        if dataplane.workers.wire.used:
            collect_queued(dataplane.workers, 0, out)
        else:
            collect_copies(dataplane.workers, frames, out)
    finally:
        send_out(dataplane.workers)
        unlock(dataplane.workers)
    return 0


cdef void load(Dataplane dataplane, const Order *orders, uint32_t count) noexcept nogil:
    """Make a batch of orders, decided and queued."""
    cdef Worker *worker = dataplane.workers
    cdef Frame *frame
    cdef uint32_t i
    if not dataplane.in_memory:         # there the time is that of the last process()
        worker.now = monotonic_ns()
        worker.forwarding.now_ns = worker.now - dataplane.epoch_ns
        worker.forwarding.now_ms = <uint32_t>(worker.forwarding.now_ns // 1000000)
    for i in range(count):
        frame = &worker.batch[i]
        # Of no port, it takes no pair's link: a port has none to itself.
        start_frame(frame, <uint16_t>max(orders[i].ingress if orders[i].ingress >= 0 else orders[i].egress, 0))
        frame.data, frame.length, frame.action = orders[i].data, orders[i].length, DROPPED
        frame.own = True
        if frame.length >= ETHERNET_HEADER:
            direct(dataplane, frame, orders[i].ingress, orders[i].egress)
        if frame.action == DROPPED:
            dataplane.orders_dropped += 1
            continue
        enqueue(worker, frame, i)
        if worker.taps != NULL:
            watch(worker, frame, i)
    worker.batch_count = count


cdef void direct(Dataplane dataplane, Frame *frame, int ingress, int egress) noexcept nogil:
    """Decide one ordered frame by send()'s rules. It stays dropped when it may go nowhere."""
    cdef Worker *worker = dataplane.workers
    cdef int vid
    if ingress >= 0:
        if dataplane._port(ingress) == NULL:
            return
        frame.ingress = ingress
        if egress < 0:
            vid = read_vid(frame.data, frame.length)
            frame.destination = make_key(load_mac(frame.data), max(vid, 0))
            frame.destination_hash = hash_key(worker.forwarding.fdb, frame.destination)
            look_up_egress(&worker.forwarding, worker.ports[ingress], frame)
            return
    if egress < 0 or dataplane._port(egress) == NULL or not is_open(worker.ports[egress]):
        return
    if ingress < 0 or may_flood(worker, frame, egress):
        frame.action, frame.egress = FORWARDED, egress
