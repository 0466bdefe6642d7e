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
    BATCH, BURST, CONSUMED, DROPPED, FLOODED, FLOODS, FORWARDED, LOOP_PROBE, NO_REASON, ORDINARY,
    RX_PUNT_FULL, RX_REASONS, RX_TRUNCATED, TX_FULL, TX_NO_BUFFER, TX_PORT_DOWN, TX_REASONS, TX_REFUSED, TX_TOO_BIG,
    Frame,
)
from .bucket cimport set_rate
from .ethernet cimport load16, load_mac, network_offset, read_vid
from .events cimport EVENT_LOOP, EVENT_MOVED, EVENT_SLOTS, EventQueue, add_event
from .forward cimport LOOP_MAGIC, Forwarding, binding_key, classify, drop, look_up_egress, parse
from .linux cimport (
    CLOCK_MONOTONIC, EAGAIN, EFD_CLOEXEC, EFD_NONBLOCK, EINTR, EMSGSIZE, ENETDOWN, ENOBUFS, ENOMEM, ENXIO,
    EPOLL_CLOEXEC, EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLLERR, EPOLLIN, MSG_DONTWAIT, MSG_TRUNC, PACKET_STATISTICS,
    SO_ERROR, SOL_PACKET, SOL_SOCKET, TP_STATUS_COPY, clock_gettime, close, epoll_create1, epoll_ctl, epoll_event,
    epoll_wait, errno, eventfd, getsockname, getsockopt, iovec, mmsghdr, pthread_mutex_destroy, pthread_mutex_init,
    pthread_mutex_lock, pthread_mutex_t, pthread_mutex_unlock, read, recv, sched_yield, sendmmsg, sockaddr,
    sockaddr_ll, socklen_t, timespec, tpacket2_hdr, tpacket_stats, write,
)
from .mac_table cimport LEARN_KNOWN, LEARN_MOVED, MacTable, hash_key, make_key
from .port cimport (
    FLAG_FLOOD_BROADCAST, FLAG_HAIRPIN, FLAG_ISOLATED, FLAGS_DEFAULT, LINK_BLOCKED, LINK_DOWN, LINK_FREE, LINK_GONE,
    LINK_UP, Port,
)
from .punt cimport PUNT_SLOTS, PuntQueue, PuntSlot, punt
from .ring cimport VNET_HEADER, close_ring, next_slot, open_ring, release_slots, restore_tag
from .trace cimport TRACE_PORTS, Trace, TraceRecord, record_copy, record_frame

import os

#: Names of the drop reasons, in the order of batch.pxd's Reason and TxReason.
RX_REASON_NAMES = (
    "runt", "bad_tag", "bad_source", "link_local", "filtered", "truncated", "blocked", "locked", "isolated",
    "storm_broadcast", "storm_multicast", "storm_unicast", "rate_limited", "punt_full", "source_guard",
)
TX_REASON_NAMES = ("too_big", "no_buffer", "full", "port_down", "refused")
ACTION_NAMES = ("forwarded", "flooded", "consumed", "dropped")
LEARNED_NAMES = (None, "new", "moved", "refused")
LINK_NAMES = ("free", "up", "down", "gone", "blocked")
#: Names of a port's flags, by bit (port.pxd's PortFlag).
FLAG_NAMES = (
    "learning", "broadcast_flood", "multicast_flood", "unicast_flood", "isolated", "hairpin", "locked",
)

cdef uint64_t MAC_MASK = (<uint64_t>1 << 48) - 1

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


cdef inline void start_frame(Frame *frame, uint16_t ingress) noexcept nogil:
    """What is known of a frame before it is parsed."""
    frame.ingress = ingress
    frame.reason = NO_REASON
    frame.learned = LEARN_KNOWN
    frame.kind = ORDINARY
    frame.punted = False


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

    cdef MacTable fdb, bindings
    cdef Forwarding forwarding
    cdef uint64_t busy_poll_ns
    cdef uint64_t epoch_ns              # zero of now()
    cdef pthread_mutex_t mutex
    cdef uint32_t waiting               # Python threads that want the mutex
    cdef uint32_t stopping
    cdef int epoll_fd, wake_fd
    cdef readonly int event_fd          # readable when a link has changed, or there are events
    cdef readonly int punt_fd           # readable when there are punted frames

    cdef Port **ports
    cdef uint32_t port_count            # indices in use or once used
    cdef uint16_t *flood[FLOODS]        # ports to flood to, ascending, by what is flooded
    cdef uint32_t flood_count[FLOODS]
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
    cdef PuntQueue punts
    cdef readonly uint64_t orders_dropped   # packet_out: no such port, or nowhere to go
    cdef bint drop_when_full            # what happens to a frame the punt queue has no room for; else: flooded
    cdef EventQueue *events

    def __cinit__(self, MacTable fdb, *, bint filter_link_local=False, uint64_t busy_poll_ns=50_000):
        cdef uint32_t i
        self.epoll_fd = self.wake_fd = self.event_fd = self.punt_fd = -1
        self.fdb = fdb
        self.bindings = MacTable(1 << 20, None)
        self.forwarding.fdb = &self.fdb.state
        self.forwarding.bindings = &self.bindings.state
        self.forwarding.filter_link_local = filter_link_local
        self.busy_poll_ns = busy_poll_ns
        self.epoch_ns = monotonic_ns()
        pthread_mutex_init(&self.mutex, NULL)
        # Room for all indices at once: pages never touched cost nothing, and no array ever moves.
        self.ports = <Port **>calloc(MAX_PORTS, sizeof(Port *))
        self.forwarding.ports = self.ports
        for i in range(<uint32_t>FLOODS):
            self.flood[i] = <uint16_t *>calloc(MAX_PORTS, sizeof(uint16_t))
        self.events = <EventQueue *>calloc(1, sizeof(EventQueue))
        self.active = <uint16_t *>calloc(MAX_PORTS, sizeof(uint16_t))
        self.touched = <uint16_t *>calloc(MAX_PORTS, sizeof(uint16_t))
        self.batch = <Frame *>calloc(BATCH, sizeof(Frame))
        self.big = <uint8_t *>malloc(<size_t>BIG_BUFFERS * BIG_SIZE)
        self.messages = <mmsghdr *>calloc(BATCH, sizeof(mmsghdr))
        self.vectors = <iovec *>calloc(BATCH, sizeof(iovec))
        if not (self.ports and self.flood[0] and self.flood[1] and self.flood[2] and self.events
                and self.active and self.touched and self.batch and self.big and self.messages and self.vectors):
            raise MemoryError("no memory for the data plane")
        for i in range(<uint32_t>BATCH):
            self.messages[i].msg_hdr.msg_iov = &self.vectors[i]
            self.messages[i].msg_hdr.msg_iovlen = 1
        self.epoll_fd = epoll_create1(EPOLL_CLOEXEC)
        self.wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)
        self.event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)
        self.punt_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)
        if self.epoll_fd < 0 or self.wake_fd < 0 or self.event_fd < 0 or self.punt_fd < 0:
            raise OSError(errno, os.strerror(errno))
        self._watch(self.wake_fd, WAKE)

    def __dealloc__(self):
        cdef uint32_t i
        for i in range(self.port_count):
            close_ring(&self.ports[i].ring)
            free(self.ports[i])
        for fd in (self.epoll_fd, self.wake_fd, self.event_fd, self.punt_fd):
            if fd >= 0:
                close(fd)
        free(self.ports)
        for i in range(<uint32_t>FLOODS):
            free(self.flood[i])
        free(self.events)
        free(self.punts.slots)
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
        port.flags = FLAGS_DEFAULT
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
        self.bindings._sweep(0, index, True)

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

    def block(self, uint32_t index, bint blocked):
        """Let nothing in or out of a port that is part of a loop; or let it forward again, if its link is up."""
        cdef Port *port = self._port(index)
        if blocked and port.link == LINK_UP:
            port.link = LINK_BLOCKED
        elif not blocked and port.link == LINK_BLOCKED:
            port.link = LINK_UP
        self._list_up()

    def flags(self, uint32_t index):
        """A port's flags as a bit set, in the order of FLAG_NAMES."""
        return self._port(index).flags

    def set_flags(self, uint32_t index, uint8_t flags):
        """Set a port's flags, a bit set in the order of FLAG_NAMES."""
        self._port(index).flags = flags
        self._list_up()

    def set_storm_control(self, uint32_t index, int what, double rate, double burst):
        """Limit what a port may have flooded: frames a second and at once; a rate of 0: no limit.

        what: 0 broadcast, 1 multicast, 2 unknown unicast.
        """
        set_rate(&self._port(index).storm[what], rate, burst)

    def set_policy(self, uint32_t index, punts, double rate, double burst, bint guarded):
        """What a port's policy wants: a Punt (0 none, 1 copy, 2 take) for ARP to group and to unicast addresses
        and ND likewise; how many ARP and as many ND frames a second it may send (0: any number); whether its IP
        sources are checked. Raises MemoryError."""
        cdef Port *port = self._port(index)
        cdef int i
        for i in range(4):
            port.punt[1 + i] = punts[i]
        set_rate(&port.arp, rate, burst)
        set_rate(&port.nd, rate, burst)
        port.guarded = guarded
        if any(punts) and self.punts.slots == NULL:
            self.punts.slots = <PuntSlot *>malloc(PUNT_SLOTS * sizeof(PuntSlot))
            if self.punts.slots == NULL:
                raise MemoryError("no memory for the punt queue")
        if any(punts) or rate > 0:
            self.forwarding.punting = True

    def set_fallback(self, bint dropped):
        """What becomes of a frame the punt queue has no room for: dropped as `punt_full`, or flooded."""
        self.drop_when_full = dropped

    def set_bindings(self, rows, bint strict):
        """Who may send IP from guarded ports: rows of (port, vlan, mac, IP address as 16 bytes, IPv4 as ::ffff:…);
        strict: addresses without a row are dropped too."""
        cdef const uint8_t[::1] ip
        cdef uint64_t key
        self.bindings = MacTable(1 << 20, None)
        self.forwarding.bindings = &self.bindings.state
        self.forwarding.guard_strict = strict
        for port, vlan, mac, address in rows:
            ip = address
            if len(address) != 16:
                raise ValueError(f"an IP address here has 16 bytes, not {len(address)}")
            for extra in (make_key(mac, vlan), make_key(0, vlan)):
                key = binding_key(&self.bindings.state, &ip[0], extra)
                self.bindings._set_static(key, port)

    def set_probe_magic(self, bytes magic):
        """Recognise this switch's own loop probes by these 16 bytes."""
        cdef const uint8_t *data = magic
        if len(magic) != LOOP_MAGIC:
            raise ValueError(f"{LOOP_MAGIC} bytes, not {len(magic)}")
        memcpy(self.forwarding.loop_magic, data, LOOP_MAGIC)
        self.forwarding.probing = True

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
        self.breaths += 1
        self._wake_ready()
        received = self._receive()
        self._forward(monotonic_ns() - self.epoch_ns)
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
            start_frame(frame, index)
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

    cdef void _forward(self, uint64_t now) noexcept nogil:
        """Decide every frame of the batch at `now` (ns), in arrival order, and queue its copies."""
        cdef Forwarding *forwarding = &self.forwarding
        cdef Frame *frame
        cdef uint32_t i
        forwarding.now_ns = now
        forwarding.now_ms = <uint32_t>(now // 1000000)
        for i in range(self.batch_count):
            parse(forwarding, &self.batch[i])
        for i in range(self.batch_count):
            frame = &self.batch[i]
            classify(forwarding, frame)
            if frame.punted:
                self._punt(frame)
            if frame.learned == LEARN_MOVED:
                self._tell(EVENT_MOVED, self.fdb.state.moved_from, frame.ingress, frame.source)
            if frame.kind == LOOP_PROBE:
                self._tell(EVENT_LOOP, load16(frame.data + network_offset(frame.data, frame.length) + LOOP_MAGIC),
                           frame.ingress, 0)
            self._account(self.ports[frame.ingress], frame)
            self._enqueue(frame, i)
            if self.trace.records != NULL:
                self._record(frame)

    cdef void _punt(self, Frame *frame) noexcept nogil:
        """Hand a frame, or a copy of it, to the policy; without room for it, the fallback decides."""
        cdef Port *port = self.ports[frame.ingress]
        cdef bint taken = frame.action == CONSUMED
        if punt(&self.punts, frame, taken, port.fd >= 0):
            if self.punts.count == 1:
                self._notify(self.punt_fd)
        elif taken and self.drop_when_full:
            drop(frame, RX_PUNT_FULL)
        elif taken:
            look_up_egress(&self.forwarding, port, frame)

    cdef void _tell(self, uint8_t kind, uint16_t was, uint16_t now, uint64_t key) noexcept nogil:
        add_event(self.events, kind, was, now, key)
        if self.events.count == 1:
            self._notify(self.event_fd)

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
            for i in range(self.flood_count[frame.flood]):
                if self._may_flood(frame, self.flood[frame.flood][i]):
                    self._enqueue_copy(self.flood[frame.flood][i], place)

    cdef bint _may_flood(self, const Frame *frame, uint16_t egress) noexcept nogil:
        """Not back to where it came from, unless that is a hairpin; not between isolated ports."""
        cdef uint8_t flags = self.ports[frame.ingress].flags
        if egress == frame.ingress:
            return flags & FLAG_HAIRPIN != 0
        return not (flags & FLAG_ISOLATED and self.ports[egress].flags & FLAG_ISOLATED)

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
        """List anew which ports are flooded to: those that are up, by their flags."""
        cdef uint32_t i, what
        for what in range(<uint32_t>FLOODS):
            self.flood_count[what] = 0
            for i in range(self.port_count):
                if self.ports[i].link == LINK_UP and self.ports[i].flags & (FLAG_FLOOD_BROADCAST << what):
                    self.flood[what][self.flood_count[what]] = i
                    self.flood_count[what] += 1

    # -- frames from memory --------------------------------------------------------------------------

    def process(self, uint32_t ingress, frames, uint32_t now):
        """Switch `frames` (a sequence of bytes) arriving on a port in memory at `now` (ms).

        Returns [(egress port, frame), …] in arrival order, a flooded frame's copies by ascending port: the
        very bytes objects given. Raises IndexError (no such port) and TypeError (not bytes). Call it while
        holding the data plane.
        """
        cdef list out = [], chunk
        cdef Py_ssize_t start = 0
        cdef uint32_t i
        self._port(ingress)
        frames = list(frames)
        while start < len(frames):
            chunk = frames[start:start + BATCH]
            start += BATCH
            self._inject(ingress, chunk)
            self._forward(<uint64_t>now * 1000000)
            for i in range(self.batch_count):
                self._collect(&self.batch[i], chunk[i], out)
            for i in range(self.touched_count):
                self._transmit(self.ports[self.touched[i]])
            self._release()
        return out

    cdef int _collect(self, const Frame *frame, data, list out) except -1:
        cdef uint32_t i
        if frame.action == FORWARDED:
            out.append((frame.egress, data))
        elif frame.action == FLOODED:
            for i in range(self.flood_count[frame.flood]):
                if self._may_flood(frame, self.flood[frame.flood][i]):
                    out.append((self.flood[frame.flood][i], data))
        return 0

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
                    start_frame(&self.batch[j], ingress)
                self._forward(<uint64_t>now * 1000000)
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
            start_frame(frame, ingress)
        self.batch_count = <uint32_t>len(frames)
        return 0

    # -- the policy's side ---------------------------------------------------------------------------

    def read_punts(self, uint32_t most):
        """Take at most `most` punted frames: [(ingress, taken, frame), …]; taken: the policy decides, else a copy."""
        cdef list out = []
        cdef PuntSlot *slot
        while self.punts.count and len(out) < <Py_ssize_t>most:
            slot = &self.punts.slots[self.punts.first]
            out.append((slot.ingress, bool(slot.taken), PyBytes_FromStringAndSize(<char *>slot.data, slot.length)))
            self.punts.first = (self.punts.first + 1) % PUNT_SLOTS
            self.punts.count -= 1
        return out

    @property
    def punts_missed(self):
        """Frames the punt queue had no room for."""
        return self.punts.missed

    def read_events(self):
        """Take the events: [(kind, was, now, vlan, mac), …] (events.pxd), and how many were lost so far."""
        cdef list out = []
        cdef uint64_t key
        cdef uint32_t i
        for i in range(self.events.count):
            event = &self.events.events[(self.events.first + i) % EVENT_SLOTS]
            key = event.key
            out.append((event.kind, event.was, event.now, (key >> 48) & 0xFFF, key & MAC_MASK))
        self.events.first = (self.events.first + self.events.count) % EVENT_SLOTS
        self.events.count = 0
        return out, self.events.lost

    def packet_out(self, orders):
        """Send what the policy decided: orders of (frame, egress port), or (frame, -1 - ingress port): as a frame
        of that port would go by its destination alone, with no policy, learning or counting as received.

        Returns the copies, [(egress port, frame), …]. An order for a port that is not up any more, or that would
        go back where it came from, is counted in orders_dropped. Call it while holding the data plane.
        """
        cdef list out = [], chunk
        cdef Py_ssize_t start = 0
        cdef uint32_t i
        orders = list(orders)
        while start < len(orders):
            chunk = orders[start:start + BIG_BUFFERS]
            start += BIG_BUFFERS
            self._load_orders(chunk)
            for i in range(self.batch_count):
                self._collect(&self.batch[i], chunk[i][0], out)
            with nogil:
                for i in range(self.touched_count):
                    self._transmit(self.ports[self.touched[i]])
                self._release()
        return out

    cdef int _load_orders(self, list orders) except -1:
        """Make a batch of the policy's orders: frames behind zero vnet headers, already decided."""
        cdef Frame *frame
        cdef int port, vid
        self.forwarding.now_ns = monotonic_ns() - self.epoch_ns
        for data, port in orders:
            frame = &self.batch[self.batch_count]
            frame.data = self.big + <size_t>self.batch_count * BIG_SIZE + VNET_HEADER
            frame.length = <uint32_t>min(len(data), BIG_SIZE - VNET_HEADER)
            memset(frame.data - VNET_HEADER, 0, VNET_HEADER)
            memcpy(frame.data, PyBytes_AS_STRING(data), frame.length)
            start_frame(frame, port if port >= 0 else -1 - port)
            frame.action = DROPPED
            if port >= 0 and self._is_up(port):
                frame.action, frame.egress = FORWARDED, port
            elif port < 0 and self._is_up(frame.ingress) and frame.length >= 14:
                vid = read_vid(frame.data, frame.length)
                frame.destination = make_key(load_mac(frame.data), max(vid, 0))
                frame.destination_hash = hash_key(&self.fdb.state, frame.destination)
                look_up_egress(&self.forwarding, self.ports[frame.ingress], frame)
            if frame.action == DROPPED:
                self.orders_dropped += 1
            self._enqueue(frame, self.batch_count)
            self.batch_count += 1
        return 0

    cdef bint _is_up(self, uint32_t index) noexcept nogil:
        return index < self.port_count and self.ports[index].link == LINK_UP

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
        cdef TraceRecord *record = record_frame(&self.trace, frame, monotonic_ns())
        cdef uint32_t i
        if record == NULL:
            return
        if frame.action == FORWARDED:
            record_copy(record, frame.egress)
        elif frame.action == FLOODED:
            for i in range(self.flood_count[frame.flood]):
                if self._may_flood(frame, self.flood[frame.flood][i]):
                    record_copy(record, self.flood[frame.flood][i])


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
