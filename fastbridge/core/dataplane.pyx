"""Data plane, one breath.

`Dataplane.breathe` is the whole path of a frame: receive → parse → classify → enqueue → transmit → release.
It runs without the GIL, on one thread, under one mutex that it takes once a breath; Python takes the same
mutex (`with dataplane:`) to change ports or the FDB between two breaths, so neither ever sees the other
half-way, and the data plane never waits for Python but at that one place.

What is chosen here, and why (two CPUs, 60-byte frames; benchmarks/ repeats the measurements):
- A frame is sent with sendmmsg straight from the RX slot it arrived in, vnet header and all: no copy in user space.
- Slots go back to the kernel after the whole batch is sent, because the sends read from them.
- A port that was just busy is read from memory (its ring's next status word); only when none has frames,
  and every DISCOVER breaths, is epoll asked which others have. So idle ports cost nothing.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

from .barrier cimport add_release, load_acquire, store_release
from .batch cimport (
    BATCH, BURST, CONSUMED, DROPPED, FLOODED, FORWARDED, NO_REASON, RX_REASONS, RX_TRUNCATED, TX_FULL,
    TX_NO_BUFFER, TX_PORT_DOWN, TX_REASONS, TX_REFUSED, TX_TOO_BIG, Frame,
)
from .forward cimport classify, parse
from .linux cimport (
    CLOCK_MONOTONIC, EAGAIN, EFD_CLOEXEC, EFD_NONBLOCK, EINTR, EMSGSIZE, ENETDOWN, ENOBUFS, ENOMEM, ENXIO,
    EPOLL_CLOEXEC, EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLLERR, EPOLLIN, MSG_DONTWAIT, MSG_TRUNC, PACKET_STATISTICS,
    SO_ERROR, SOL_PACKET, SOL_SOCKET, TP_STATUS_COPY, clock_gettime, close, epoll_create1, epoll_ctl, epoll_event,
    epoll_wait, errno, eventfd, getsockname, getsockopt, iovec, mmsghdr, pthread_mutex_destroy, pthread_mutex_init,
    pthread_mutex_lock, pthread_mutex_t, pthread_mutex_unlock, read, recv, sched_yield, sendmmsg, sockaddr,
    sockaddr_ll, socklen_t, timespec, tpacket2_hdr, tpacket_stats, write,
)
from .mac_table cimport LEARN_KNOWN, MacTable, MacTableState
from .ring cimport VNET_HEADER, Ring, close_ring, next_slot, open_ring, release_slots, restore_tag

import os

#: Names of the drop reasons, in the order of batch.pxd's Reason and TxReason.
RX_REASON_NAMES = ("runt", "bad_tag", "bad_source", "link_local", "filtered", "truncated")
TX_REASON_NAMES = ("too_big", "no_buffer", "full", "port_down", "refused")
ACTION_NAMES = ("forwarded", "flooded", "consumed", "dropped")
LEARNED_NAMES = (None, "new", "moved", "refused")
LINK_NAMES = ("free", "up", "down", "gone")

cdef enum:
    MAX_PORTS = 65535           # a port index fits the FDB's 16 bits
    # Frames larger than a slot wait here for their sends: GSO builds up to 64 KiB + headers (DESIGN §5.2).
    BIG_BUFFERS = 64
    BIG_HEADROOM = 16           # before the vnet header: room for a VLAN tag
    BIG_SIZE = 73728
    # Breaths between two questions to epoll while frames keep coming: 1 in 16 made its cost (0.3 µs)
    # vanish in a breath of 64 frames, and a newly busy port waits at most 16 breaths.
    DISCOVER = 16
    # Empty looks at a port's ring before it counts as idle and is left to epoll.
    IDLE_LOOKS = 64
    # Sends of one frame tried against a full send buffer before the frame is dropped as `full`.
    TX_TRIES = 4
    READY = 64                  # ports epoll names at a time
    WAKE = 0xFFFFFFFF           # epoll's tag of the wake-up eventfd
    TRACE_PORTS = 32            # egress ports a trace record holds

cdef enum Link:
    LINK_FREE = 0               # the index is not in use
    LINK_UP = 1
    LINK_DOWN = 2
    LINK_GONE = 3               # the interface was deleted: the socket is dead

cdef struct Port:
    int fd                      # -1: in memory
    uint8_t link
    bint active                 # in the list of ports read every breath
    uint32_t looks              # empty looks in a row
    Ring ring
    uint32_t queued
    uint16_t queue[BATCH]       # frames to send, as indices into the batch, in arrival order
    uint64_t rx_frames, rx_bytes, forwarded, flooded, consumed, rx_missed, tx_frames, tx_bytes
    uint64_t dropped[RX_REASONS]
    uint64_t tx_dropped[TX_REASONS]

cdef struct TraceRecord:
    uint64_t time               # ns, CLOCK_MONOTONIC
    uint32_t length, kept
    uint16_t ingress, copies
    uint8_t action, reason, learned
    uint16_t egress[TRACE_PORTS]

cdef struct Trace:
    TraceRecord *records        # NULL: off
    uint8_t *bytes              # snap bytes a record
    uint32_t limit, snap, first, count
    uint64_t lost


cdef inline uint64_t monotonic_ns() noexcept nogil:
    cdef timespec time
    clock_gettime(CLOCK_MONOTONIC, &time)
    return <uint64_t>time.tv_sec * 1000000000 + <uint64_t>time.tv_nsec


@cython.final
cdef class Dataplane:
    """The ports, the batch and the loop of one switch.

    fdb: its MacTable. filter_link_local: drop 01:80:c2:00:00:00 … :0f as 802.1D does. busy_poll_ns: how long
    after the last frame the loop spins before it sleeps. `with dataplane:` holds it between two breaths.
    """

    cdef MacTable fdb
    cdef bint filter_link_local
    cdef uint64_t busy_poll_ns
    cdef uint64_t epoch_ns              # zero of now()
    cdef pthread_mutex_t mutex
    cdef uint32_t waiting               # Python threads that want the mutex
    cdef uint32_t stopping
    cdef int epoll_fd, wake_fd
    cdef readonly int event_fd          # readable when a port's link has changed

    cdef Port **ports
    cdef uint32_t port_count            # indices in use or once used
    cdef uint16_t *up                   # ports to flood to, ascending
    cdef uint32_t up_count
    cdef uint16_t *active               # ports read every breath
    cdef uint32_t active_count
    cdef uint16_t *touched              # egress ports with queued frames
    cdef uint32_t touched_count
    cdef uint32_t breaths, turn
    cdef epoll_event ready[READY]
    cdef int ready_count

    cdef Frame *batch
    cdef uint32_t batch_count
    cdef uint8_t *big
    cdef uint32_t big_count
    cdef mmsghdr *messages
    cdef iovec *vectors
    cdef Trace trace

    def __cinit__(self, MacTable fdb, *, bint filter_link_local=False, uint64_t busy_poll_ns=50_000):
        cdef uint32_t i
        self.epoll_fd = self.wake_fd = self.event_fd = -1
        self.fdb = fdb
        self.filter_link_local = filter_link_local
        self.busy_poll_ns = busy_poll_ns
        self.epoch_ns = monotonic_ns()
        pthread_mutex_init(&self.mutex, NULL)
        # Room for all indices at once: pages never touched cost nothing, and no array ever moves.
        self.ports = <Port **>calloc(MAX_PORTS, sizeof(Port *))
        self.up = <uint16_t *>calloc(MAX_PORTS, sizeof(uint16_t))
        self.active = <uint16_t *>calloc(MAX_PORTS, sizeof(uint16_t))
        self.touched = <uint16_t *>calloc(MAX_PORTS, sizeof(uint16_t))
        self.batch = <Frame *>calloc(BATCH, sizeof(Frame))
        self.big = <uint8_t *>malloc(<size_t>BIG_BUFFERS * BIG_SIZE)
        self.messages = <mmsghdr *>calloc(BATCH, sizeof(mmsghdr))
        self.vectors = <iovec *>calloc(BATCH, sizeof(iovec))
        if not (self.ports and self.up and self.active and self.touched
                and self.batch and self.big and self.messages and self.vectors):
            raise MemoryError("no memory for the data plane")
        for i in range(<uint32_t>BATCH):
            self.messages[i].msg_hdr.msg_iov = &self.vectors[i]
            self.messages[i].msg_hdr.msg_iovlen = 1
        self.epoll_fd = epoll_create1(EPOLL_CLOEXEC)
        self.wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)
        self.event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)
        if self.epoll_fd < 0 or self.wake_fd < 0 or self.event_fd < 0:
            raise OSError(errno, os.strerror(errno))
        self._watch(self.wake_fd, WAKE)

    def __dealloc__(self):
        cdef uint32_t i
        for i in range(self.port_count):
            close_ring(&self.ports[i].ring)
            free(self.ports[i])
        for fd in (self.epoll_fd, self.wake_fd, self.event_fd):
            if fd >= 0:
                close(fd)
        free(self.ports)
        free(self.up)
        free(self.active)
        free(self.touched)
        free(self.batch)
        free(self.big)
        free(self.messages)
        free(self.vectors)
        free(self.trace.records)
        free(self.trace.bytes)
        pthread_mutex_destroy(&self.mutex)

    # -- between two breaths: what Python may do -----------------------------------------------------

    def __enter__(self):
        with nogil:
            add_release(&self.waiting, 1)
            pthread_mutex_lock(&self.mutex)
            add_release(&self.waiting, <uint32_t>-1)
        return self

    def __exit__(self, *_):
        pthread_mutex_unlock(&self.mutex)

    def now(self):
        """The data plane's clock, ms since it was made: what the FDB's `seen` is in."""
        return <uint32_t>((monotonic_ns() - self.epoch_ns) // 1000000)

    def add_port(self, int fd=-1, uint32_t slots=0):
        """Add a port on a bound AF_PACKET socket (-1: in memory) with an RX ring of `slots`; returns its index.

        Call it while holding the data plane. Raises OSError when the kernel refuses the ring, MemoryError.
        """
        cdef uint32_t index = 0
        cdef Port *port
        cdef int error
        while index < self.port_count and self.ports[index].link != LINK_FREE:
            index += 1
        if index == MAX_PORTS:
            raise MemoryError(f"a switch has at most {MAX_PORTS} ports")
        if self.ports[index] == NULL:
            self.ports[index] = <Port *>malloc(sizeof(Port))
            if self.ports[index] == NULL:
                raise MemoryError("no memory for a port")
        port = self.ports[index]
        memset(port, 0, sizeof(Port))       # link: LINK_FREE until all is done
        self.port_count = max(self.port_count, index + 1)
        port.fd = fd
        if fd >= 0:
            error = open_ring(&port.ring, fd, slots)
            if error:
                raise OSError(error, os.strerror(error))
            try:
                self._watch(fd, index)
            except OSError:
                close_ring(&port.ring)
                raise
        port.link = LINK_UP
        self._list_up()
        return index

    def remove_port(self, uint32_t index):
        """Forget a port and its FDB entries, static ones included; the caller closes its socket."""
        cdef Port *port = self._port(index)
        cdef epoll_event unused
        cdef uint32_t place
        if port.fd >= 0:
            epoll_ctl(self.epoll_fd, EPOLL_CTL_DEL, port.fd, &unused)
            close_ring(&port.ring)
        for place in range(self.active_count):
            if self.active[place] == index:
                self._rest(place)
                break
        port.link = LINK_FREE
        self._list_up()
        self.fdb._sweep(0, index, True)

    def set_link(self, uint32_t index, bint up):
        """Say that a port's interface is up, or down: a port that is down is not flooded to."""
        self._port(index).link = LINK_UP if up else LINK_DOWN
        self._list_up()

    def link(self, uint32_t index):
        """What is known of a port's interface: "up", "down" or "gone" (deleted)."""
        cdef Port *port = self._port(index)
        if port.link == LINK_DOWN and is_dead(port.fd):
            port.link = LINK_GONE
        return LINK_NAMES[port.link]

    def counters(self, uint32_t index):
        """A port's counters: ((rx_frames, rx_bytes, forwarded, flooded, consumed, rx_missed, tx_frames, tx_bytes),
        dropped by RX_REASON_NAMES, tx_dropped by TX_REASON_NAMES)."""
        cdef Port *port = self._port(index)
        cdef int i
        count_missed(port)
        return (
            (port.rx_frames, port.rx_bytes, port.forwarded, port.flooded, port.consumed, port.rx_missed,
             port.tx_frames, port.tx_bytes),
            tuple([port.dropped[i] for i in range(<int>RX_REASONS)]),
            tuple([port.tx_dropped[i] for i in range(<int>TX_REASONS)]),
        )

    cdef Port *_port(self, uint32_t index) except NULL:
        if index >= self.port_count or self.ports[index].link == LINK_FREE:
            raise IndexError(f"no port {index}")
        return self.ports[index]

    cdef int _watch(self, int fd, uint32_t tag) except -1:
        cdef epoll_event event
        event.events = EPOLLIN
        event.data.u32 = tag
        if epoll_ctl(self.epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0:
            raise OSError(errno, os.strerror(errno))
        return 0

    # -- the loop ------------------------------------------------------------------------------------

    def run(self):
        """Forward until stop() is called; the thread that calls it is the data plane's."""
        with nogil:
            self._loop()

    def stop(self):
        """Make run() return after its current breath."""
        store_release(&self.stopping, 1)
        self._notify(self.wake_fd)

    cdef void _notify(self, int fd) noexcept nogil:
        cdef uint64_t one = 1
        write(fd, &one, sizeof(one))    # fails only when it is readable already

    cdef void _loop(self) noexcept nogil:
        cdef uint64_t last = monotonic_ns(), now
        cdef uint32_t received
        cdef int timeout
        while not load_acquire(&self.stopping):
            pthread_mutex_lock(&self.mutex)
            received = self.breathe()
            pthread_mutex_unlock(&self.mutex)
            while load_acquire(&self.waiting):
                sched_yield()
            now = monotonic_ns()
            if received:
                last = now
                if self.breaths % DISCOVER:
                    continue
            timeout = 0 if now - last < self.busy_poll_ns else -1
            self.ready_count = epoll_wait(self.epoll_fd, self.ready, READY, timeout)

    cdef uint32_t breathe(self) noexcept nogil:
        """One batch, from the rings to the wire; returns how many frames were received."""
        cdef uint32_t received, i
        cdef uint32_t now = <uint32_t>((monotonic_ns() - self.epoch_ns) // 1000000)
        self.breaths += 1
        self._wake_ready()
        received = self._receive()
        self._forward(now)
        for i in range(self.touched_count):
            self._transmit(self.ports[self.touched[i]])
        self._release()
        return received

    cdef void _wake_ready(self) noexcept nogil:
        """Put the ports epoll named among those read every breath; note which links were lost."""
        cdef uint64_t unused
        cdef uint32_t tag
        cdef int i
        for i in range(self.ready_count):
            tag = self.ready[i].data.u32
            if tag == WAKE:
                read(self.wake_fd, &unused, sizeof(unused))
                continue
            if self.ports[tag].link == LINK_FREE:       # removed since epoll named it
                continue
            if self.ready[i].events & EPOLLERR:
                self._lose_link(self.ports[tag])
            if not self.ports[tag].active:
                self.ports[tag].active = True
                self.ports[tag].looks = 0
                self.active[self.active_count] = tag
                self.active_count += 1
        self.ready_count = 0

    cdef uint32_t _receive(self) noexcept nogil:
        """Fill the batch from the active ports, each at most BURST, starting with another one each breath."""
        cdef uint32_t n = self.active_count, i
        cdef uint16_t index
        if n == 0:
            return 0
        self.turn += 1
        for i in range(n):
            index = self.active[(self.turn + i) % n]
            if self._receive_from(index):
                self.ports[index].looks = 0
            else:
                self.ports[index].looks += 1
        for i in range(n):
            if self.ports[self.active[n - 1 - i]].looks > IDLE_LOOKS:
                self._rest(n - 1 - i)
        return self.batch_count

    cdef void _rest(self, uint32_t place) noexcept nogil:
        """Leave the port at this place of the active list to epoll."""
        self.ports[self.active[place]].active = False
        self.active_count -= 1
        self.active[place] = self.active[self.active_count]

    cdef uint32_t _receive_from(self, uint16_t index) noexcept nogil:
        cdef Port *port = self.ports[index]
        cdef uint32_t limit = min(<uint32_t>BURST, BATCH - self.batch_count), n = 0
        cdef tpacket2_hdr *slot
        cdef Frame *frame
        while n < limit and self.big_count < BIG_BUFFERS:
            slot = next_slot(&port.ring)
            if slot == NULL:
                break
            frame = &self.batch[self.batch_count + n]
            frame.ingress = index
            frame.reason, frame.learned = NO_REASON, LEARN_KNOWN
            frame.length = slot.tp_len
            frame.data = <uint8_t *>slot + slot.tp_mac
            if slot.tp_status & TP_STATUS_COPY:
                self._receive_big(port, frame)
            elif slot.tp_snaplen < slot.tp_len:
                frame.reason = RX_TRUNCATED
            if frame.reason == NO_REASON:
                restore_tag(slot, frame)
            n += 1
        self.batch_count += n
        return n

    cdef void _receive_big(self, Port *port, Frame *frame) noexcept nogil:
        """Fetch a frame that did not fit its slot into a big buffer, vnet header first."""
        cdef uint8_t *buffer = self.big + <size_t>self.big_count * BIG_SIZE + BIG_HEADROOM
        cdef ssize_t length = recv(port.fd, buffer, BIG_SIZE - BIG_HEADROOM, MSG_DONTWAIT | MSG_TRUNC)
        if length < 0 and errno == ENETDOWN:        # reported once; the frame is still there
            self._lose_link(port)
            length = recv(port.fd, buffer, BIG_SIZE - BIG_HEADROOM, MSG_DONTWAIT | MSG_TRUNC)
        if length <= VNET_HEADER or length > BIG_SIZE - BIG_HEADROOM:
            frame.reason = RX_TRUNCATED
            return
        self.big_count += 1
        frame.data = buffer + VNET_HEADER
        frame.length = <uint32_t>length - VNET_HEADER

    cdef void _forward(self, uint32_t now) noexcept nogil:
        """Decide every frame of the batch, in arrival order, and queue its copies."""
        cdef MacTableState *fdb = &self.fdb.state
        cdef Frame *frame
        cdef uint32_t i
        for i in range(self.batch_count):
            parse(fdb, &self.batch[i])
        for i in range(self.batch_count):
            frame = &self.batch[i]
            classify(fdb, frame, now, self.filter_link_local)
            if frame.action == FORWARDED and self.ports[frame.egress].link != LINK_UP:
                frame.action = FLOODED              # its entries are about to be flushed
            self._account(self.ports[frame.ingress], frame)
            self._enqueue(frame, i)
            if self.trace.records != NULL:
                self._record(frame)

    cdef void _account(self, Port *port, const Frame *frame) noexcept nogil:
        port.rx_frames += 1
        port.rx_bytes += frame.length
        if frame.action == FORWARDED:
            port.forwarded += 1
        elif frame.action == FLOODED:
            port.flooded += 1
        elif frame.action == CONSUMED:
            port.consumed += 1
        else:
            port.dropped[frame.reason] += 1

    cdef void _enqueue(self, const Frame *frame, uint32_t place) noexcept nogil:
        cdef uint32_t i
        if frame.action == FORWARDED:
            self._enqueue_copy(frame.egress, place)
        elif frame.action == FLOODED:
            for i in range(self.up_count):
                if self.up[i] != frame.ingress:
                    self._enqueue_copy(self.up[i], place)

    cdef void _enqueue_copy(self, uint16_t egress, uint32_t place) noexcept nogil:
        cdef Port *port = self.ports[egress]
        if port.queued == 0:
            self.touched[self.touched_count] = egress
            self.touched_count += 1
        port.queue[port.queued] = place
        port.queued += 1

    cdef void _transmit(self, Port *port) noexcept nogil:
        """Send a port's queue with as few calls as it takes; every copy is counted, sent or not."""
        cdef uint32_t n = port.queued, sent = 0, tries = 0, i
        cdef Frame *frame
        cdef int result, reason
        port.queued = 0
        for i in range(n):
            frame = &self.batch[port.queue[i]]
            self.vectors[i].iov_base = frame.data - VNET_HEADER
            self.vectors[i].iov_len = frame.length + VNET_HEADER
        while sent < n:
            # A port in memory has no wire: process() hands its copies over.
            result = n if port.fd < 0 else sendmmsg(port.fd, &self.messages[sent], n - sent, MSG_DONTWAIT)
            if result > 0:
                for i in range(<uint32_t>result):
                    port.tx_bytes += self.batch[port.queue[sent + i]].length
                port.tx_frames += result
                sent += result
                tries = 0
                continue
            reason = self._send_failed(port, &tries)
            if reason >= 0:                         # sendmmsg stopped at this frame: skip it, send the rest
                port.tx_dropped[reason] += 1
                sent += 1
                tries = 0

    cdef int _send_failed(self, Port *port, uint32_t *tries) noexcept nogil:
        """Why the frame sendmmsg stopped at is dropped (a TxReason), or -1: try it again."""
        cdef int error = errno
        tries[0] += 1
        if error == EINTR:
            return -1
        if error == EAGAIN:
            return TX_FULL if tries[0] > TX_TRIES else -1
        if error == ENETDOWN and tries[0] == 1:     # perhaps an old report: it is made once
            return -1
        if error == ENETDOWN or error == ENXIO:
            self._lose_link(port)
            return TX_PORT_DOWN
        if error == EMSGSIZE:
            return TX_TOO_BIG
        return TX_NO_BUFFER if error == ENOBUFS or error == ENOMEM else TX_REFUSED

    cdef void _release(self) noexcept nogil:
        """Forget the batch: its slots go back to the kernel, its big buffers are free."""
        cdef uint32_t i
        for i in range(self.active_count):
            release_slots(&self.ports[self.active[i]].ring)
        self.batch_count = self.big_count = self.touched_count = 0

    cdef void _lose_link(self, Port *port) noexcept nogil:
        """The kernel reported ENETDOWN: flood to the port no more, and tell the control thread."""
        cdef int error = 0
        cdef socklen_t size = sizeof(error)
        getsockopt(port.fd, SOL_SOCKET, SO_ERROR, &error, &size)    # reading clears it
        port.link = LINK_GONE if is_dead(port.fd) else LINK_DOWN
        self._list_up()
        self._notify(self.event_fd)

    cdef void _list_up(self) noexcept nogil:
        cdef uint32_t i
        self.up_count = 0
        for i in range(self.port_count):
            if self.ports[i].link == LINK_UP:
                self.up[self.up_count] = i
                self.up_count += 1

    # -- frames from memory --------------------------------------------------------------------------

    def process(self, uint32_t ingress, frames, uint32_t now):
        """Switch `frames` (a sequence of bytes) arriving on a port in memory at `now` (ms).

        Returns [(egress port, frame), …] in arrival order, a flooded frame's copies by ascending port: the
        very bytes objects given. Raises IndexError (no such port) and TypeError (not bytes). Call it while
        holding the data plane.
        """
        cdef list out = [], chunk
        cdef Py_ssize_t start = 0
        cdef uint32_t i, j
        cdef Frame *frame
        self._port(ingress)
        frames = list(frames)
        while start < len(frames):
            chunk = frames[start:start + BATCH]
            start += BATCH
            self._inject(ingress, chunk)
            self._forward(now)
            for i in range(self.batch_count):
                frame = &self.batch[i]
                if frame.action == FORWARDED:
                    out.append((frame.egress, chunk[i]))
                elif frame.action == FLOODED:
                    for j in range(self.up_count):
                        if self.up[j] != ingress:
                            out.append((self.up[j], chunk[i]))
            for i in range(self.touched_count):
                self._transmit(self.ports[self.touched[i]])
            self._release()
        return out

    def replay(self, uint32_t ingress, list frames, uint32_t now, uint32_t rounds):
        """As process(), for at most BATCH frames, `rounds` times without the GIL; the results show in the
        counters only. What the benchmarks time: the core's own cost."""
        cdef uint32_t j, n
        self._port(ingress)
        if len(frames) > BATCH:
            raise ValueError(f"replay takes at most {BATCH} frames, not {len(frames)}")
        self._inject(ingress, frames)
        n = self.batch_count
        with nogil:
            for _ in range(rounds):
                self.batch_count = n
                for j in range(n):
                    self.batch[j].reason = NO_REASON
                self._forward(now)
                for j in range(self.touched_count):
                    self._transmit(self.ports[self.touched[j]])
                self._release()

    cdef int _inject(self, uint32_t ingress, list frames) except -1:
        """Make a batch of bytes objects, which the caller keeps alive until _release."""
        cdef Frame *frame
        cdef Py_ssize_t i
        for i in range(len(frames)):
            if not isinstance(frames[i], bytes):
                raise TypeError(f"a frame must be bytes, not {type(frames[i]).__name__}")
            frame = &self.batch[i]
            frame.data = <uint8_t *>PyBytes_AS_STRING(frames[i])
            frame.length = <uint32_t>PyBytes_GET_SIZE(frames[i])
            frame.ingress = ingress
            frame.reason, frame.learned = NO_REASON, LEARN_KNOWN
        self.batch_count = <uint32_t>len(frames)
        return 0

    # -- trace ---------------------------------------------------------------------------------------

    def trace_start(self, uint32_t snap, uint32_t limit):
        """Record every frame's decision and first `snap` bytes, at most `limit` unread ones."""
        self.trace_stop()
        self.trace.bytes = <uint8_t *>malloc(<size_t>snap * limit + 1)
        self.trace.records = <TraceRecord *>malloc(<size_t>limit * sizeof(TraceRecord))
        self.trace.limit, self.trace.snap = limit, snap
        if self.trace.bytes == NULL or self.trace.records == NULL:
            self.trace_stop()
            raise MemoryError(f"no memory to trace {limit} frames of {snap} bytes")

    def trace_stop(self):
        free(self.trace.records)
        free(self.trace.bytes)
        memset(&self.trace, 0, sizeof(Trace))

    def trace_read(self):
        """Take the records: ([(time_ns, ingress, frame, length, action, reason, learned, egress), …], lost so far)."""
        cdef list out = []
        cdef TraceRecord *record
        cdef uint32_t place
        while self.trace.count:
            place = self.trace.first
            record = &self.trace.records[place]
            out.append((
                record.time, record.ingress,
                PyBytes_FromStringAndSize(<char *>self.trace.bytes + <size_t>place * self.trace.snap, record.kept),
                record.length, ACTION_NAMES[record.action],
                RX_REASON_NAMES[record.reason] if record.action == DROPPED else None,
                LEARNED_NAMES[record.learned],
                tuple([record.egress[i] for i in range(min(record.copies, TRACE_PORTS))]),
            ))
            self.trace.first = (place + 1) % self.trace.limit
            self.trace.count -= 1
        return out, self.trace.lost

    cdef void _record(self, const Frame *frame) noexcept nogil:
        cdef TraceRecord *record
        cdef uint32_t place, i
        if self.trace.count == self.trace.limit:
            self.trace.lost += 1
            return
        place = (self.trace.first + self.trace.count) % self.trace.limit
        self.trace.count += 1
        record = &self.trace.records[place]
        record.time = monotonic_ns()
        record.length = frame.length
        record.kept = min(frame.length, self.trace.snap) if frame.reason != RX_TRUNCATED else 0
        memcpy(self.trace.bytes + <size_t>place * self.trace.snap, frame.data, record.kept)
        record.ingress, record.action, record.reason = frame.ingress, frame.action, frame.reason
        record.learned = frame.learned
        record.copies = 0
        if frame.action == FORWARDED:
            record.egress[0], record.copies = frame.egress, 1
        elif frame.action == FLOODED:
            for i in range(self.up_count):
                if self.up[i] != frame.ingress:
                    if record.copies < TRACE_PORTS:
                        record.egress[record.copies] = self.up[i]
                    record.copies += 1


cdef bint is_dead(int fd) noexcept nogil:
    """Whether a socket's interface was deleted: the kernel then sets its ifindex to -1 (packet_notifier)."""
    cdef sockaddr_ll address
    cdef socklen_t size = sizeof(address)
    return fd >= 0 and getsockname(fd, <sockaddr *>&address, &size) == 0 and address.sll_ifindex == -1


cdef void count_missed(Port *port) noexcept nogil:
    """Add up what the kernel dropped for want of slots; PACKET_STATISTICS clears on read."""
    cdef tpacket_stats statistics
    cdef socklen_t size = sizeof(statistics)
    if port.fd >= 0 and getsockopt(port.fd, SOL_PACKET, PACKET_STATISTICS, &statistics, &size) == 0:
        port.rx_missed += statistics.tp_drops
