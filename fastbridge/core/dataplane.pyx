"""Data plane, its workers.

`breathe` (breathe.pxd) is the whole path of a frame: receive → decide → transmit → release, a stage a file. It runs
without the GIL, on a thread a worker, under the worker's mutex taken once a breath. Python changes ports and policies
between two breaths of all workers, under all their mutexes; what it does there is C and waits for nothing: above all
never for the GIL, or a busy Python thread elsewhere would stop the traffic. So every method here prepares first, then
locks, changes or copies, and unlocks without the GIL, and makes Python objects afterwards. The FDB has a lock of its
own for those who change it, which comes after the workers' (mac_table.pxd); look-ups take none.

What the switch itself sends, and frames from memory, are worker 0's.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stddef cimport size_t
from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

from .barrier cimport load_relaxed8
from .batch cimport (
    BATCH, DROPPED, FLOODED, FLOODS, FORWARDED, KINDS, RX_PUNT_FULL, RX_RATE_LIMITED, RX_REASONS, RX_SOURCE_GUARD,
    TX_FULL, TX_NO_BUFFER, TX_REASONS, Frame,
)
from .breathe cimport work
from .bucket cimport set_rate
from .cut cimport Cut, make_messages, must_cut
from .decide cimport decide, enqueue
from .ethernet cimport ETHERNET_HEADER, load_mac, read_vid
from .events cimport EventQueue
from .forward cimport LOOP_MAGIC, binding_key, look_up_egress
from .linux cimport (
    EFD_CLOEXEC, EFD_NONBLOCK, EPOLL_CTL_DEL, PACKET_STATISTICS, SOL_PACKET, close, epoll_ctl, epoll_event, errno,
    eventfd, getsockopt, iovec, pthread_mutex_init, pthread_mutex_lock, pthread_mutex_unlock, socklen_t, tpacket_stats,
)
from .mac_table cimport MacTable, MacTableState, hash_key, make_key, remove_key, set_static, sweep
from .plane cimport BIG_SIZE, Plane, is_dead, list_floods, may_flood, monotonic_ns, start_frame
from .port cimport (
    FLAGS_DEFAULT, LINK_DOWN, LINK_FREE, LINK_GONE, LINK_UP, Port, Share, Tally, is_open,
)
from .punt cimport PUNT_SLOTS, PuntQueue, PuntSlot
from .receive cimport watch
from .ring cimport SLOT, VNET_HEADER, Ring, close_ring, map_ring, request_ring
from .transmit cimport gather, release, transmit
from .worker cimport MAX_PORTS, dismiss, end_worker, lock, make_worker, unlock

import os

#: Names of the drop reasons, in the order of batch.pxd's Reason and TxReason.
RX_REASON_NAMES = (
    "runt", "bad_tag", "bad_source", "link_local", "filtered", "truncated", "blocked", "locked", "isolated",
    "storm_broadcast", "storm_multicast", "storm_unicast", "rate_limited", "punt_full", "punt_too_long", "source_guard",
)
TX_REASON_NAMES = ("too_big", "no_buffer", "full", "port_down", "refused", "costly", "tagged_too_big")
#: What may leave by a port: port.pxd's Takes.
TAKES_NAMES = ("all", "unmerged", "single")
#: Bytes of a slot of a port's receive ring.
RING_SLOT = SLOT
LINK_NAMES = ("free", "up", "down", "gone")
#: Names of a port's flags, by bit (port.pxd's PortFlag).
FLAG_NAMES = (
    "learning", "broadcast_flood", "multicast_flood", "unicast_flood", "isolated", "hairpin", "locked", "coalesce",
)

cdef uint64_t MAC_MASK = (<uint64_t>1 << 48) - 1

cdef enum:
    BLOCKED_NAME = 4            # behind the last of LINK_NAMES
    MAX_WORKERS = 1024


def open_ring(int fd, uint32_t slots):
    """Give an AF_PACKET socket (TPACKET_V2) an RX ring of `slots`; raises OSError when the kernel refuses.

    Takes some 10 ms, without the GIL, so many are best opened by several threads.
    """
    cdef int error
    with nogil:
        error = request_ring(fd, slots)
    if error:
        raise OSError(error, os.strerror(error))


@cython.final
cdef class Dataplane:
    """The ports and workers of one switch.

    fdb: its MacTable, from now on used by the data plane alone. filter_link_local: drop 01:80:c2:00:00:00 … :0f as
    802.1D does. busy_poll_ns: how long after the last frame a worker spins before it sleeps. workers: how many threads
    will run(), each with its own number from 0 on.
    """

    def __cinit__(
        self, MacTable fdb, *, bint filter_link_local=False, uint64_t busy_poll_ns=50_000, uint32_t workers=1
    ):
        cdef Plane *plane
        cdef uint32_t i
        cdef int error = 0
        if not 1 <= workers <= MAX_WORKERS:
            raise ValueError(f"workers must be 1 … {MAX_WORKERS}, not {workers}")
        self.fdb, self.bindings = fdb, MacTable(1 << 20, None)
        self.epoch_ns = monotonic_ns()
        self.ports = <Port **>calloc(MAX_PORTS, sizeof(Port *))
        self.planes = <Plane *>calloc(workers, sizeof(Plane))
        if self.ports == NULL or self.planes == NULL:
            raise MemoryError("no memory for the data plane")
        self.events_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)
        self.punts_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)
        self.candidates_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)
        if min(self.events_fd, self.punts_fd, self.candidates_fd) < 0:
            raise OSError(errno, os.strerror(errno))
        for i in range(workers):
            plane = &self.planes[i]
            plane.forwarding.fdb = &fdb.state
            plane.forwarding.bindings = &self.bindings.state
            plane.forwarding.filter_link_local = filter_link_local
            plane.busy_poll_ns, plane.epoch_ns = busy_poll_ns, self.epoch_ns
            plane.candidate_fd = self.candidates_fd
            error = make_worker(plane, self.ports, self.events_fd, self.punts_fd)
            self.workers += 1
            if error:
                raise OSError(error, os.strerror(error))

    def __dealloc__(self):
        cdef uint32_t i
        for i in range(self.workers):
            end_worker(&self.planes[i])
        free(self.planes)
        for i in range(self.port_count):
            free(self.ports[i])
        free(self.ports)
        for fd in (self.events_fd, self.punts_fd, self.candidates_fd):
            if fd > 0:                              # 0: not even begun
                close(fd)

    # -- the workers ---------------------------------------------------------------------------------

    def run(self, uint32_t worker=0):
        """Forward until stop() is called; the thread that calls it is that worker's. Raises IndexError."""
        cdef Plane *plane = self._plane(worker)
        with nogil:
            work(plane)

    def stop(self):
        """Make all run() return after their present breaths, for good."""
        cdef uint32_t i
        for i in range(self.workers):
            dismiss(&self.planes[i])

    def abandon(self):
        """For a forked child, which has none of the workers: unmap the rings, forget the sockets (the caller closes
        them), and make all locks anew, as whoever held one is not here. Nothing is read of what the parent uses."""
        cdef uint32_t i, j
        cdef Share *share
        for i in range(self.workers):
            pthread_mutex_init(&self.planes[i].mutex, NULL)
            for j in range(self.planes[i].port_count):
                share = self.planes[i].shares[j]
                close_ring(&share.ring)
                share.active = False
                share.rx_fd = share.tx_fd = -1
        pthread_mutex_init(self.fdb.state.lock, NULL)
        pthread_mutex_init(self.bindings.state.lock, NULL)

    cdef Plane *_plane(self, uint32_t worker) except NULL:
        if worker >= self.workers:
            raise IndexError("no such worker")
        return &self.planes[worker]

    # -- between two breaths -------------------------------------------------------------------------

    cdef void _lock(self) noexcept nogil:
        """Keep all workers between two breaths."""
        cdef uint32_t i
        for i in range(self.workers):
            lock(&self.planes[i])

    cdef void _unlock(self) noexcept nogil:
        cdef uint32_t i
        for i in range(self.workers):
            unlock(&self.planes[i])

    cdef Port *_port(self, uint32_t index) noexcept nogil:
        """A port in use, or NULL."""
        if index >= self.port_count or load_relaxed8(&self.ports[index].link) == LINK_FREE:
            return NULL
        return self.ports[index]

    cdef void _list_floods(self) noexcept nogil:
        cdef uint32_t i
        for i in range(self.workers):
            list_floods(&self.planes[i])

    def now(self):
        """The data plane's clock, ms since it was made: what the FDB's `seen` is in."""
        return <uint32_t>((monotonic_ns() - self.epoch_ns) // 1000000)

    @property
    def event_fd(self):
        """An eventfd: readable when a link has changed, or there are events."""
        return self.events_fd

    @property
    def punt_fd(self):
        """An eventfd: readable when there are punted frames."""
        return self.punts_fd

    def add_port(self, receivers=(), int tx_fd=-1):
        """Add a port and return its index: on bound AF_PACKET sockets; or, without any, in memory.

        receivers: (worker, socket, slots) each; a socket has a ring of so many slots (see open_ring). tx_fd: a
        socket without a ring, that all workers send by. The port is blocked until set_blocked() says otherwise, so that
        it can be configured first. Raises OSError, MemoryError, IndexError (no such worker)."""
        cdef Port *port
        cdef Share **shares
        cdef uint32_t index = 0, i
        cdef int error = 0
        for worker, _, _ in receivers:
            self._plane(worker)
        port = <Port *>calloc(1, sizeof(Port))
        shares = <Share **>calloc(self.workers, sizeof(Share *))
        try:
            if port == NULL or shares == NULL:
                raise MemoryError("no memory for a port")
            port.flags, port.link, port.blocked = FLAGS_DEFAULT, LINK_UP, True
            for i in range(self.workers):
                shares[i] = <Share *>calloc(1, sizeof(Share))
                if shares[i] == NULL:
                    raise MemoryError("no memory for a port")
                shares[i].rx_fd, shares[i].tx_fd = -1, tx_fd
            for worker, fd, slots in receivers:
                shares[<uint32_t>worker].rx_fd = fd
                error = map_ring(&shares[<uint32_t>worker].ring, fd, slots)
                if error:
                    raise OSError(error, os.strerror(error))
            with nogil:
                self._lock()
                while index < self.port_count and (
                    self.ports[index].link != LINK_FREE or self.ports[index].leaving
                ):
                    index += 1
                if index < MAX_PORTS:
                    error = self._enter(index, &port, shares)
                self._unlock()
            if error:
                raise OSError(error, os.strerror(error))
            if index == MAX_PORTS:
                raise MemoryError(f"a switch has at most {MAX_PORTS} ports")
        finally:                # what was not taken; or what had the place before, as far as there was any
            free(port)
            if shares != NULL:
                for i in range(self.workers):
                    free_share(shares[i])
            free(shares)
        return index

    cdef int _enter(self, uint32_t index, Port **port, Share **shares) noexcept nogil:
        """Give a port its index; 0, or an errno, and nothing has changed. Hands back what had the place before: a
        removed port, or NULL."""
        cdef Port *before
        cdef Share *share
        cdef epoll_event unused
        cdef uint32_t i, j
        cdef int error
        for i in range(self.workers):
            shares[i].index = index
            if shares[i].rx_fd >= 0 and watch(&self.planes[i], shares[i].rx_fd, index) < 0:
                error = errno
                for j in range(i):
                    if shares[j].rx_fd >= 0:
                        epoll_ctl(self.planes[j].epoll_fd, EPOLL_CTL_DEL, shares[j].rx_fd, &unused)
                return error
        before, self.ports[index] = self.ports[index], port[0]
        port[0] = before
        self.port_count = max(self.port_count, index + 1)
        for i in range(self.workers):
            share, self.planes[i].shares[index] = self.planes[i].shares[index], shares[i]
            shares[i] = share
            self.planes[i].port_count = self.port_count
        self._list_floods()
        return 0

    def remove_port(self, uint32_t index):
        """Forget a port, its FDB entries, static ones included, and what is queued of it; returns its last counters, as
        snapshot() has them. Until its entries are all removed, in steps between which frames pass, its index is given
        to no other port, and frames to stations behind it are flooded. The caller closes its sockets afterwards."""
        cdef Port *port
        cdef Tally tally
        cdef uint32_t i
        cdef Ring *rings = <Ring *>calloc(self.workers, sizeof(Ring))
        if rings == NULL:
            raise MemoryError("no memory to remove a port")
        memset(&tally, 0, sizeof(tally))
        with nogil:
            self._lock()
            port = self._port(index)
            if port != NULL:
                for i in range(self.workers):
                    self._leave(&self.planes[i], index, &rings[i])
                    add_tally(&tally, &self.planes[i].shares[index].tally)
                port.link, port.leaving = LINK_FREE, True
                self._list_floods()
            self._unlock()
            for i in range(self.workers):
                close_ring(&rings[i])
        free(rings)
        require_port(port)
        with nogil:
            sweep(&self.fdb.state, 0, index, True)
            self._lock()
            port.leaving = False
            self._unlock()
        return tally_tuple(&tally)

    cdef void _leave(self, Plane *plane, uint32_t index, Ring *ring) noexcept nogil:
        """End one worker's share of a port; its rings are the caller's to close."""
        cdef Share *share = plane.shares[index]
        cdef epoll_event unused
        cdef uint32_t place
        count_unread(share)
        for place in range(plane.active_count):
            if plane.active[place] == index:
                plane.active_count -= 1
                plane.active[place] = plane.active[plane.active_count]
                break
        share.active = False
        if share.rx_fd >= 0:
            epoll_ctl(plane.epoll_fd, EPOLL_CTL_DEL, share.rx_fd, &unused)
            share.rx_fd = -1
        ring[0] = share.ring
        share.ring.memory = NULL
        forget_queued(plane, index)

    def links(self):
        """The state of each port, {index: name}: "up", "down", "gone" (deleted), or "blocked" while its link is up."""
        cdef uint32_t n, i
        cdef uint8_t *links = <uint8_t *>malloc(MAX_PORTS)
        cdef Port *port
        if links == NULL:
            raise MemoryError("no memory to look at the ports")
        with nogil:
            self._lock()
            n = self.port_count
            for i in range(n):
                port = self.ports[i]
                if port.link == LINK_DOWN and is_dead(self.planes[0].shares[i].tx_fd):
                    port.link = LINK_GONE
                links[i] = BLOCKED_NAME if port.blocked and port.link == LINK_UP else port.link
            self._list_floods()     # one worker alone may have found a link lost
            self._unlock()
        found = {i: (*LINK_NAMES, "blocked")[links[i]] for i in range(n) if links[i] != LINK_FREE}
        free(links)
        return found

    def set_link(self, uint32_t index, str state):
        """Say that a port's link is "up" or "down": only one that is up is flooded to."""
        cdef uint8_t link = LINK_NAMES.index(state)
        cdef Port *port
        with nogil:
            self._lock()
            port = self._port(index)
            if port != NULL and port.link != LINK_GONE:
                port.link = link
                self._list_floods()
            self._unlock()
        require_port(port)

    def set_blocked(self, uint32_t index, bint blocked):
        """Let nothing in or out of a port, whatever its link; or let it forward again."""
        cdef Port *port
        with nogil:
            self._lock()
            port = self._port(index)
            if port != NULL:
                port.blocked = blocked
                self._list_floods()
            self._unlock()
        require_port(port)

    def give_up(self):
        """For a loop that has ended: count what the ports have received and nobody will read as missed."""
        cdef uint32_t i, j
        with nogil:
            self._lock()
            for i in range(self.port_count):
                for j in range(self.workers):
                    count_unread(self.planes[j].shares[i])
            self._unlock()

    def snapshot(self):
        """All counters between the same breaths of all workers: ({port index: ((rx_frames, rx_bytes, forwarded,
        flooded, consumed, rx_missed, tx_frames, tx_bytes, coalesced, split, messages, shed), dropped by
        RX_REASON_NAMES, tx_dropped by TX_REASON_NAMES)}, (learned, moved, aged, evicted, refused))."""
        cdef uint32_t n, i, j, room = self.port_count + 64
        cdef Tally *tallies = <Tally *>calloc(room, sizeof(Tally))
        cdef uint8_t *links = <uint8_t *>malloc(room)
        cdef uint64_t events[5]
        if tallies == NULL or links == NULL:
            free(tallies)
            free(links)
            raise MemoryError("no memory for the counters")
        with nogil:
            self._lock()
            n = min(self.port_count, room)
            for i in range(n):
                links[i] = self.ports[i].link
                for j in range(self.workers):
                    if links[i] != LINK_FREE:
                        count_missed(self.planes[j].shares[i])
                    add_tally(&tallies[i], &self.planes[j].shares[i].tally)
            pthread_mutex_lock(self.fdb.state.lock)     # whoever sweeps counts under this one alone
            events[0], events[1], events[2] = self.fdb.state.learned, self.fdb.state.moved, self.fdb.state.aged
            events[3], events[4] = self.fdb.state.evicted, self.fdb.state.refused
            pthread_mutex_unlock(self.fdb.state.lock)
            self._unlock()
        ports = {i: tally_tuple(&tallies[i]) for i in range(n) if links[i] != LINK_FREE}
        free(tallies)
        free(links)
        return ports, tuple([events[i] for i in range(5)])

    # -- rules of the ports --------------------------------------------------------------------------

    def flags(self, uint32_t index):
        """A port's flags as a bit set, in the order of FLAG_NAMES."""
        cdef Port *port
        cdef uint8_t flags = 0
        with nogil:
            lock(self.planes)
            port = self._port(index)
            if port != NULL:
                flags = port.flags
            unlock(self.planes)
        require_port(port)
        return flags

    def set_flags(self, uint32_t index, uint8_t flags):
        """Set a port's flags, a bit set in the order of FLAG_NAMES."""
        cdef uint32_t i
        cdef Port *port
        with nogil:
            self._lock()
            port = self._port(index)
            if port != NULL:
                port.flags = flags
                for i in range(self.workers):   # whoever sets them again wants it tried again
                    self.planes[i].shares[index].unmergeable = 0
                self._list_floods()
            self._unlock()
        require_port(port)

    def set_takes(self, uint32_t index, str takes):
        """Say what may leave by a port: one of TAKES_NAMES."""
        cdef uint8_t value = TAKES_NAMES.index(takes)
        cdef Port *port
        with nogil:
            self._lock()
            port = self._port(index)
            if port != NULL:
                port.takes = value
            self._unlock()
        require_port(port)

    def set_storm_control(self, uint32_t index, int what, double rate, double burst):
        """Limit what a port may have flooded: frames a second, and at once; a rate of 0: no limit.

        what: 0 broadcast, 1 multicast, 2 unknown unicast.
        """
        cdef Port *port
        if not 0 <= what < <int>FLOODS:
            raise ValueError(f"what is flooded is 0 … 2, not {what}")
        with nogil:
            self._lock()
            port = self._port(index)
            if port != NULL:
                set_rate(&port.storm[what], rate, burst)
            self._unlock()
        require_port(port)

    def set_policy(
        self, uint32_t index, punts, double rate=0, double burst=0, bint guarded=False, bint strict=False,
        bint routes=False, bint drop_when_full=False,
    ):
        """What a port's policy wants: a Punt (0 none, 1 copy, 2 take) for ARP to group and to unicast addresses
        and ND likewise; how many ARP and as many ND frames a second it may send (0: any number); whether its sources
        are checked, whether those without a binding are dropped, and whether the MAC alone is checked; whether a frame
        the punt queue has no room for is dropped or goes its plain way. Raises MemoryError."""
        cdef uint8_t punt[KINDS]
        cdef Port *port
        cdef int i
        for i in range(1, <int>KINDS):
            punt[i] = punts[i - 1]
        if any(punts):
            self._make_punt_queues()
        with nogil:
            self._lock()
            port = self._port(index)
            if port != NULL:
                for i in range(1, <int>KINDS):
                    port.punt[i] = punt[i]
                set_rate(&port.arp, rate, burst)
                set_rate(&port.nd, rate, burst)
                port.guarded, port.strict, port.routes = guarded, strict, routes
                port.drop_when_full = drop_when_full
            self._note_punting()
            self._unlock()
        require_port(port)

    cdef int _make_punt_queues(self) except -1:
        cdef PuntSlot *slots
        cdef PuntSlot *spare
        cdef uint32_t i
        for i in range(self.workers):
            if self.planes[i].spare_slots != NULL:
                continue
            slots = <PuntSlot *>malloc(PUNT_SLOTS * sizeof(PuntSlot))
            spare = <PuntSlot *>malloc(PUNT_SLOTS * sizeof(PuntSlot))
            if slots == NULL or spare == NULL:
                free(slots)
                free(spare)
                raise MemoryError("no memory for the punt queue")
            with nogil:
                lock(&self.planes[i])
                if self.planes[i].spare_slots == NULL:      # else somebody was faster
                    self.planes[i].punts.slots, self.planes[i].spare_slots = slots, spare
                    slots = spare = NULL
                unlock(&self.planes[i])
            free(slots)
            free(spare)
        return 0

    cdef void _note_punting(self) noexcept nogil:
        """Whether any port's policy makes it worth looking for ARP and ND."""
        cdef bint punting = False
        cdef Port *port
        cdef uint32_t index
        cdef int i
        for index in range(self.port_count):
            port = self._port(index)
            if port == NULL:
                continue
            for i in range(1, <int>KINDS):
                punting |= port.punt[i] != 0
            punting |= port.arp.interval != 0
        for index in range(self.workers):
            self.planes[index].forwarding.punting = punting

    def set_stalled(self, bint stalled):
        """The policies do not return: punt nothing, each port's fallback decides; or they are back."""
        cdef uint32_t i
        with nogil:
            self._lock()
            for i in range(self.workers):
                self.planes[i].punts.stalled = stalled
            self._unlock()

    def change_bindings(self, rows):
        """Change who may send from guarded ports: rows of (port, vlan, mac, IP address as 16 bytes, IPv4 as
        ff00::…). A MAC of 0: whatever the MAC, the address is bound; an address of zeros: whatever the address, the
        MAC is, where of two tags the outer one alone counts, as in the FDB. A port of -1: it is bound no more.
        Frames pass meanwhile. Raises ValueError, MemoryError."""
        cdef MacTableState *bindings = &self.bindings.state
        cdef const uint8_t[::1] ip
        cdef uint64_t key
        cdef int port, result
        cdef uint32_t vlan
        cdef uint64_t mac
        for port, vlan, mac, address in rows:
            ip = address
            if len(address) != 16:
                raise ValueError(f"an IP address here has 16 bytes, not {len(address)}")
            key = binding_key(bindings, &ip[0], make_key(mac & MAC_MASK, vlan & 0xFFF), vlan >> 12)
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

    def losses(self, uint32_t index):
        """How many frames to or from a port were lost at the switch for want of room, or by its policy's limits; 0 for
        a port that is not there."""
        cdef uint64_t lost = 0
        cdef Share *share
        cdef uint32_t i
        with nogil:
            self._lock()
            if self._port(index) != NULL:
                for i in range(self.workers):
                    share = self.planes[i].shares[index]
                    count_missed(share)
                    lost += share.tally.rx_missed + share.tally.dropped[<int>RX_RATE_LIMITED]
                    lost += share.tally.dropped[<int>RX_PUNT_FULL]
                    lost += share.tally.tx_dropped[<int>TX_NO_BUFFER] + share.tally.tx_dropped[<int>TX_FULL]
            self._unlock()
        return lost

    def guard_drops(self):
        """How many frames source guard dropped of each port, {index: count}."""
        cdef uint64_t *counts = <uint64_t *>calloc(MAX_PORTS, sizeof(uint64_t))
        cdef uint32_t n, i, j
        if counts == NULL:
            raise MemoryError("no memory for the counters")
        with nogil:
            self._lock()
            n = self.port_count
            for i in range(n):
                for j in range(self.workers):
                    if self.ports[i].guarded:
                        counts[i] += self.planes[j].shares[i].tally.dropped[<int>RX_SOURCE_GUARD]
            self._unlock()
        found = {i: counts[i] for i in range(n) if counts[i]}
        free(counts)
        return found

    def set_own_mac(self, uint64_t mac):
        """The switch's own address, which the policies ask neighbours from; frames to it are consumed."""
        cdef uint32_t i
        with nogil:
            self._lock()
            for i in range(self.workers):
                self.planes[i].forwarding.own_mac = mac
            self._unlock()

    def set_probe_magic(self, bytes magic):
        """Recognise this switch's own loop probes by these 16 bytes."""
        cdef const uint8_t *data = magic
        cdef uint32_t i
        if len(magic) != LOOP_MAGIC:
            raise ValueError(f"{LOOP_MAGIC} bytes, not {len(magic)}")
        with nogil:
            self._lock()
            for i in range(self.workers):
                memcpy(self.planes[i].forwarding.loop_magic, data, LOOP_MAGIC)
                self.planes[i].forwarding.probing = True
            self._unlock()

    # -- the control and the policy threads' side ----------------------------------------------------

    def read_events(self):
        """Take the events: [(kind, was, now, vlan, mac), …] (events.pxd), and how many were lost so far."""
        cdef list out = []
        cdef uint64_t lost = 0
        cdef uint32_t i, j
        cdef EventQueue *queue
        cdef Plane *plane
        for i in range(self.workers):
            plane = &self.planes[i]
            with nogil:
                lock(plane)
                queue = plane.events
                plane.spare_events.lost = queue.lost
                plane.events = plane.spare_events
                unlock(plane)
            for j in range(queue.count):
                out.append((queue.events[j].kind, queue.events[j].was, queue.events[j].now,
                            (queue.events[j].key >> 48) & 0xFFF, queue.events[j].key & MAC_MASK))
            queue.count = 0
            lost += queue.lost
            plane.spare_events = queue
        return out, lost

    def read_punts(self):
        """Take the punted frames, [(ingress, taken, frame), …], each worker's in order of arrival; taken: the policy
        decides, else it is a copy. For one thread at a time."""
        cdef list out = []
        cdef PuntSlot *slots
        cdef uint32_t count, i, j
        cdef Plane *plane
        for i in range(self.workers):
            plane = &self.planes[i]
            if plane.spare_slots == NULL:
                continue
            with nogil:
                lock(plane)
                slots, count = plane.punts.slots, plane.punts.count
                plane.punts.slots, plane.punts.count = plane.spare_slots, 0
                for j in range(plane.port_count):
                    plane.shares[j].punts = 0
                unlock(plane)
            for j in range(count):
                out.append((slots[j].ingress, slots[j].taken != 0,
                            PyBytes_FromStringAndSize(<char *>slots[j].data, slots[j].length)))
            plane.spare_slots = slots
        return out

    @property
    def punts_missed(self):
        """Frames the punt queue had no room for."""
        cdef uint64_t missed = 0
        cdef uint32_t i
        with nogil:
            for i in range(self.workers):
                lock(&self.planes[i])
                missed += self.planes[i].punts.missed
                unlock(&self.planes[i])
        return missed

    @property
    def punts_too_long(self):
        """Frames longer than what a policy is handed."""
        cdef uint64_t too_long = 0
        cdef uint32_t i
        with nogil:
            for i in range(self.workers):
                lock(&self.planes[i])
                too_long += self.planes[i].punts.too_long
                unlock(&self.planes[i])
        return too_long

    @property
    def longest_frame(self):
        """Bytes of a frame that packet_out() takes."""
        return BIG_SIZE

    def packet_out(self, orders):
        """Send what the policies decided: orders of (frame, ingress, egress).

        egress: the port to send to, from the switch itself (ingress -1) or, as far as isolation allows, on behalf of
        a port; egress -1: where a frame of the ingress port would go by its destination alone, with no policy,
        learning or counting as received. An order that no port that is up may be sent is counted in orders_dropped.
        Returns the copies of a switch in memory, [(egress port, frame), …]. Raises TypeError, ValueError, MemoryError.
        """
        cdef list frames = [frame for frame, _, _ in orders], out = []
        cdef Py_ssize_t total = len(frames), i, start = 0
        cdef size_t size = 0, room = 1
        cdef uint32_t count
        cdef Order *prepared
        cdef uint8_t *memory
        for frame in frames:
            if not isinstance(frame, bytes):
                raise TypeError(f"a frame must be bytes, not {type(frame).__name__}")
            if PyBytes_GET_SIZE(frame) > BIG_SIZE:
                raise ValueError(f"a frame of {PyBytes_GET_SIZE(frame)} bytes is too large to send")
            room += place_of(<size_t>PyBytes_GET_SIZE(frame))
        prepared = <Order *>malloc((total + 1) * sizeof(Order))
        memory = <uint8_t *>calloc(1, room)
        try:
            if memory == NULL or prepared == NULL:
                raise MemoryError(f"no memory to send {total} frames")
            for i in range(total):
                _, prepared[i].ingress, prepared[i].egress = orders[i]
                prepared[i].length = <uint32_t>PyBytes_GET_SIZE(frames[i])
                prepared[i].data = memory + size + VNET_HEADER
                memcpy(prepared[i].data, PyBytes_AS_STRING(frames[i]), prepared[i].length)
                size += place_of(prepared[i].length)
            while start < total:
                count = <uint32_t>min(<Py_ssize_t>BATCH, total - start)
                if self._is_live():
                    with nogil:
                        lock(self.planes)
                        self._load(prepared + start, count)
                        self._send_out()
                        unlock(self.planes)
                else:
                    self._send_out_in_memory(prepared + start, frames[start:start + count], out)
                start += count
        finally:
            free(memory)
            free(prepared)
        return out

    cdef bint _is_live(self) noexcept nogil:
        return self.port_count and self.planes[0].shares[0].tx_fd >= 0

    cdef int _send_out_in_memory(self, const Order *orders, list frames, list out) except -1:
        with nogil:
            lock(self.planes)
        try:
            self._load(orders, <uint32_t>len(frames))
            self._collect(frames, out)
        finally:
            self._send_out()
            unlock(self.planes)
        return 0

    cdef void _load(self, const Order *orders, uint32_t count) noexcept nogil:
        """Make a batch of orders, decided and queued."""
        cdef Plane *plane = self.planes
        cdef Frame *frame
        cdef uint32_t i
        if self._is_live():             # in memory it is the time of the last process()
            plane.forwarding.now_ns = monotonic_ns() - self.epoch_ns
            plane.forwarding.now_ms = <uint32_t>(plane.forwarding.now_ns // 1000000)
        for i in range(count):
            frame = &plane.batch[i]
            start_frame(frame, 0)
            frame.data, frame.length, frame.action = orders[i].data, orders[i].length, DROPPED
            if frame.length >= ETHERNET_HEADER:
                self._direct(frame, orders[i].ingress, orders[i].egress)
            if frame.action == DROPPED:
                self.orders_dropped += 1
            enqueue(plane, frame, i)
        plane.batch_count = count

    cdef void _direct(self, Frame *frame, int ingress, int egress) noexcept nogil:
        """Decide one ordered frame by packet_out's rules; it stays dropped when it may go nowhere."""
        cdef Plane *plane = self.planes
        cdef int vid
        if ingress >= 0:
            if self._port(ingress) == NULL:
                return
            frame.ingress = ingress
            if egress < 0:
                vid = read_vid(frame.data, frame.length)
                frame.destination = make_key(load_mac(frame.data), max(vid, 0))
                frame.destination_hash = hash_key(plane.forwarding.fdb, frame.destination)
                look_up_egress(&plane.forwarding, plane.ports[ingress], frame)
                return
        if egress < 0 or self._port(egress) == NULL or not is_open(plane.ports[egress]):
            return
        if ingress < 0 or may_flood(plane, frame, egress):
            frame.action, frame.egress = FORWARDED, egress

    cdef void _send_out(self) noexcept nogil:
        transmit(self.planes)
        release(self.planes)

    # -- frames from memory --------------------------------------------------------------------------

    def process(self, uint32_t ingress, list frames, uint32_t now):
        """Switch `frames` (bytes) arriving on a port in memory at `now` (ms).

        Returns [(egress port, frame), …] in arrival order, a flooded frame's copies by ascending port: the
        very bytes objects given. Raises IndexError (no such port), TypeError (not bytes), MemoryError.
        """
        cdef list out = [], chunk
        cdef Py_ssize_t start = 0
        with nogil:
            lock(self.planes)
        try:
            require_port(self._port(ingress))
            while start < len(frames):
                chunk = frames[start:start + BATCH]
                start += BATCH
                self._pass(ingress, chunk, now, False, out)
        finally:
            unlock(self.planes)
        return out

    def wire(self, uint32_t ingress, list messages, uint32_t now):
        """As process(), for at most BATCH frames, on the kernel's terms: each behind its struct virtio_net_hdr.

        Returns the messages a live switch would send in one breath, port by port, coalesced where the port's flag says
        so: [(egress port, vnet header and frame), …]. Raises ValueError too: too many, or too short for a vnet header.
        """
        cdef list out = []
        if len(messages) > BATCH:
            raise ValueError(f"a breath takes at most {BATCH} frames, not {len(messages)}")
        with nogil:
            lock(self.planes)
        try:
            require_port(self._port(ingress))
            self._pass(ingress, messages, now, True, out)
        finally:
            unlock(self.planes)
        return out

    cdef int _pass(self, uint32_t ingress, list frames, uint32_t now, bint on_the_wire, list out) except -1:
        """One breath of frames from memory."""
        cdef uint8_t *memory = self._inject(self.planes, ingress, frames, on_the_wire)
        try:
            decide(self.planes, <uint64_t>now * 1000000)
            if on_the_wire:
                self._collect_messages(out)
            else:
                self._collect(frames, out)
        finally:
            self._send_out()
            free(memory)
        return 0

    def replay(self, uint32_t ingress, list frames, uint32_t now, uint32_t rounds, uint32_t worker=0):
        """As process(), for at most BATCH frames, `rounds` times by a worker, without the GIL; the results show in the
        counters only. What the benchmarks time, the core's own cost, and what several threads can do at the same time,
        each as another worker. Raises ValueError for more frames, IndexError (no such port, or worker)."""
        cdef uint32_t j, n = <uint32_t>len(frames)
        cdef uint8_t *memory = NULL
        cdef Plane *plane = self._plane(worker)
        if len(frames) > BATCH:
            raise ValueError(f"replay takes at most {BATCH} frames, not {len(frames)}")
        with nogil:
            lock(plane)
        try:
            require_port(self._port(ingress))
            memory = self._inject(plane, ingress, frames, False)
            with nogil:
                for _ in range(rounds):
                    plane.batch_count = n
                    for j in range(n):
                        start_frame(&plane.batch[j], ingress)
                    decide(plane, <uint64_t>now * 1000000)
                    transmit(plane)
                    release(plane)
        finally:
            unlock(plane)
            free(memory)

    cdef uint8_t *_inject(self, Plane *plane, uint32_t ingress, list frames, bint on_the_wire) except NULL:
        """Make a batch of bytes objects: copied, each behind a vnet header as in a ring, a zero one unless the object
        begins with its own. Returns the memory, to be freed when the batch is released."""
        cdef uint32_t before = VNET_HEADER if on_the_wire else 0
        cdef size_t room = 1, size = 0
        cdef uint8_t *memory
        cdef Frame *frame
        cdef Py_ssize_t i
        for message in frames:
            if not isinstance(message, bytes):
                raise TypeError(f"a frame must be bytes, not {type(message).__name__}")
            if PyBytes_GET_SIZE(message) < before:
                raise ValueError(f"{PyBytes_GET_SIZE(message)} bytes are no vnet header and frame")
            room += place_of(<size_t>PyBytes_GET_SIZE(message))
        memory = <uint8_t *>calloc(1, room)
        if memory == NULL:
            raise MemoryError(f"no memory for {len(frames)} frames")
        for i in range(len(frames)):
            frame = &plane.batch[i]
            start_frame(frame, ingress)
            frame.data = memory + size + VNET_HEADER
            frame.length = <uint32_t>PyBytes_GET_SIZE(frames[i]) - before
            memcpy(frame.data - before, PyBytes_AS_STRING(frames[i]), frame.length + before)
            size += place_of(frame.length)
        plane.batch_count = <uint32_t>len(frames)
        return memory

    cdef int _collect_messages(self, list out) except -1:
        """Append the messages that will be sent of a decided batch, (egress port, vnet header and frame)."""
        cdef Plane *plane = self.planes
        cdef Share *share
        cdef uint32_t i, j, at, count, start
        cdef Frame *frame
        cdef Cut cut
        for i in range(plane.touched_count):
            share = plane.shares[plane.touched[i]]
            at = 0
            while at < share.queued:
                frame = &plane.batch[share.queue[at]]
                if must_cut(plane.ports[share.index], share, frame, &cut):
                    start, at = 0, at + 1
                    count = make_messages(plane, frame, &cut, &start)
                    while count:
                        self._read_messages(share.index, count, out)
                        count = make_messages(plane, frame, &cut, &start)
                    continue
                count = gather(plane, share, at, 0)
                self._read_messages(share.index, count, out)
                for j in range(count):
                    at += plane.spans[j]
        return 0

    cdef int _read_messages(self, uint16_t egress, uint32_t count, list out) except -1:
        """Append the first messages of those made, (egress port, vnet header and frame)."""
        cdef iovec *vectors
        cdef uint32_t j, k
        for j in range(count):
            vectors = self.planes.messages[j].msg_hdr.msg_iov
            out.append((egress, b"".join([
                PyBytes_FromStringAndSize(<char *>vectors[k].iov_base, vectors[k].iov_len)
                for k in range(self.planes.messages[j].msg_hdr.msg_iovlen)
            ])))
        return 0

    cdef int _collect(self, list frames, list out) except -1:
        """Append the copies of a decided batch, (egress port, frame), in arrival order."""
        cdef Plane *plane = self.planes
        cdef Frame *frame
        cdef uint16_t egress
        cdef uint32_t i, j
        for i in range(plane.batch_count):
            frame = &plane.batch[i]
            if frame.action == FORWARDED:
                out.append((frame.egress, frames[i]))
            elif frame.action == FLOODED:
                for j in range(plane.flood_count[frame.flood]):
                    egress = plane.flood[frame.flood][j]
                    if may_flood(plane, frame, egress):
                        out.append((egress, frames[i]))
        return 0


cdef void forget_queued(Plane *plane, uint32_t index) noexcept nogil:
    """The index may be another port's soon: nothing of the old one may be waiting for a policy or as an event."""
    cdef PuntQueue *punts = &plane.punts
    cdef EventQueue *events = plane.events
    cdef uint32_t i, kept = 0
    for i in range(punts.count):
        if punts.slots[i].ingress != index:
            if kept != i:
                punts.slots[kept] = punts.slots[i]
            kept += 1
    punts.count = kept
    kept = 0
    for i in range(events.count):
        if events.events[i].was != index and events.events[i].now != index:
            events.events[kept] = events.events[i]
            kept += 1
    events.count = kept


cdef void free_share(Share *share) noexcept nogil:
    if share != NULL:
        close_ring(&share.ring)
        free(share)


cdef void add_tally(Tally *total, const Tally *more) noexcept nogil:
    """Nothing but uint64_t, one after the other."""
    cdef uint64_t *into = <uint64_t *>total
    cdef const uint64_t *those = <const uint64_t *>more
    cdef size_t i
    for i in range(sizeof(Tally) // sizeof(uint64_t)):
        into[i] += those[i]


cdef inline size_t place_of(size_t length) noexcept nogil:
    """What a frame takes of a block of memory, its vnet header included, so that the next one's is aligned."""
    return (VNET_HEADER + length + 7) & ~<size_t>7


cdef tuple tally_tuple(const Tally *tally):
    cdef int i
    return (
        (tally.rx_frames, tally.rx_bytes, tally.forwarded, tally.flooded, tally.consumed, tally.rx_missed,
         tally.tx_frames, tally.tx_bytes, tally.coalesced, tally.split, tally.messages, tally.shed),
        tuple([tally.dropped[i] for i in range(<int>RX_REASONS)]),
        tuple([tally.tx_dropped[i] for i in range(<int>TX_REASONS)]),
    )


cdef void count_missed(Share *share) noexcept nogil:
    """Add up what the kernel dropped for want of room, and what it kept; PACKET_STATISTICS clears on read."""
    cdef tpacket_stats statistics
    cdef socklen_t size = sizeof(statistics)
    if share.rx_fd >= 0 and getsockopt(
        share.rx_fd, SOL_PACKET, PACKET_STATISTICS, &statistics, &size
    ) == 0:
        share.tally.rx_missed += statistics.tp_drops
        share.arrived += statistics.tp_packets - statistics.tp_drops


cdef void count_unread(Share *share) noexcept nogil:
    """Count what waits in the ring and the receive buffer, and nobody will read any more, as missed.

    By the kernel's count of what it put there: what waits in a receive buffer can only be counted by receiving it."""
    cdef int32_t unread
    count_missed(share)
    unread = <int32_t>(share.arrived - share.taken)
    if unread > 0:
        share.tally.rx_missed += unread
        share.taken += unread
