"""The data plane and its workers.

`breathe` (breathe.pxd) is the whole path of a frame: receive → decide → transmit → release, one file for each stage.
Each worker runs it on a thread of its own, without the GIL, under the worker's mutex, which is taken once a breath.

What Python does besides with ports, links and workers is in classes of their own over it, a file each: port_rules, fdb,
punting, source_guard, packet_out, events, nominations, tapping, memory_ports.
"""

cimport cython
from libc.stddef cimport size_t
from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memset

from .barrier cimport load_relaxed8, load_relaxed32, load_relaxed64, store_relaxed32
from .breathe cimport work
from .codes cimport (
    FLAGS_DEFAULT, LINK_BLOCKED, LINK_DOWN, LINK_FREE, LINK_GONE, LINK_UP, RX_PUNT_FULL, RX_RATE_LIMITED, TX_FULL,
    TX_NO_BUFFER,
)
from .emulate cimport cut_off_links
from .events cimport EventQueue
from .link cimport NOBODY
from .link_memory cimport free_link, free_links
from .linux cimport (
    EFD_CLOEXEC, EFD_NONBLOCK, EPOLL_CTL_DEL, PACKET_STATISTICS, SOL_PACKET, close, epoll_ctl, epoll_event, errno,
    eventfd, getsockopt, pthread_mutex_init, pthread_mutex_lock, pthread_mutex_unlock, socklen_t, tpacket_stats,
)
from .mac_table cimport MacTable, sweep
from .port cimport BLOCKED_LOOP, BLOCKED_MIRROR, MAX_PORTS, Port, Tally, WorkerPort
from .punt cimport PuntQueue
from .receive cimport watch
from .ring cimport SLOT, Ring, close_ring, map_ring, request_ring
from .worker cimport Worker, dismiss, is_dead, list_floods, lock, monotonic_ns, notify, unlock
from .worker_memory cimport end_worker, make_worker

import os

from .codes import DROP_REASONS as _DROP_REASONS, LINKS as _LINKS, TX_DROP_REASONS as _TX_DROP_REASONS

#: Bytes of a slot of a port's receive ring.
RING_SLOT = SLOT

cdef enum:
    MAX_WORKERS = 1024


def open_ring(int fd, uint32_t slots):
    """Give an AF_PACKET socket (TPACKET_V2) an RX ring of `slots`. Raises OSError when the kernel refuses.

    This takes some 10 ms, without the GIL. So many rings are best opened by several threads.
    """
    cdef int error
    with nogil:
        error = request_ring(fd, slots)
    if error:
        raise OSError(error, os.strerror(error))


@cython.final
cdef class Dataplane:
    """The ports and workers of one switch.

    fdb: its MacTable; from now on only the data plane uses it. filter_link_local: drop 01:80:c2:00:00:00 … :0f as
    802.1D does. busy_poll_ns: how long after the last frame a worker spins before it sleeps. workers: how many threads
    will call run(), each with its own number from 0 on.
    """

    def __cinit__(
        self, MacTable fdb, *, bint filter_link_local=False, uint64_t busy_poll_ns=50_000, uint32_t workers=1
    ):
        cdef Worker *worker
        cdef uint32_t i
        cdef int error = 0
        if not 1 <= workers <= MAX_WORKERS:
            raise ValueError(f"workers must be 1 … {MAX_WORKERS}, not {workers}")
        self.fdb, self.bindings = fdb, MacTable(1 << 20, None)
        self.epoch_ns = monotonic_ns()
        self.ports = <Port **>calloc(MAX_PORTS, sizeof(Port *))
        self.workers = <Worker *>calloc(workers, sizeof(Worker))
        if self.ports == NULL or self.workers == NULL:
            raise MemoryError("no memory for the data plane")
        self.events_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)
        self.punts_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)
        self.candidates_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)
        if min(self.events_fd, self.punts_fd, self.candidates_fd) < 0:
            raise OSError(errno, os.strerror(errno))
        for i in range(workers):
            worker = &self.workers[i]
            worker.forwarding.fdb = &fdb.state
            worker.forwarding.bindings = &self.bindings.state
            worker.forwarding.filter_link_local = filter_link_local
            worker.busy_poll_ns, worker.epoch_ns = busy_poll_ns, self.epoch_ns
            worker.candidate_fd = self.candidates_fd
            error = make_worker(worker, self.ports, self.events_fd, self.punts_fd)
            self.worker_count += 1
            if error:
                raise OSError(error, os.strerror(error))

    def __dealloc__(self):
        cdef uint32_t i
        for i in range(self.worker_count):
            end_worker(&self.workers[i])
        free(self.workers)
        for i in range(self.port_count):
            if self.ports[i] != NULL:
                free_links(self.ports[i], self.port_count)
            free(self.ports[i])
        free(self.ports)
        for fd in (self.events_fd, self.punts_fd, self.candidates_fd):
            if fd > 0:                              # 0: not yet opened
                close(fd)

    # -- the workers ---------------------------------------------------------------------------------

    def run(self, uint32_t number=0):
        """Forward until stop() is called, as the worker of this number. Raises IndexError."""
        cdef Worker *worker = self._worker(number)
        with nogil:
            work(worker)

    def stop(self):
        """Make all run() return after their present breaths, for good."""
        cdef uint32_t i
        for i in range(self.worker_count):
            dismiss(&self.workers[i])

    def breaths(self):
        """How many breaths each worker has taken. Takes no lock, which a worker that is stuck may hold."""
        cdef uint32_t i
        return tuple([load_relaxed64(&self.workers[i].breaths) for i in range(self.worker_count)])

    def prompt(self):
        """Have each worker take another breath."""
        cdef uint32_t i
        for i in range(self.worker_count):
            notify(self.workers[i].wake_fd)

    def abandon(self):
        """Unmap the rings, forget the sockets (the caller closes them), and make all locks anew.

        For a forked child, which has neither the workers nor the locks' holders. It reads nothing that the parent
        uses."""
        cdef uint32_t i, j
        cdef WorkerPort *share
        for i in range(self.worker_count):
            pthread_mutex_init(&self.workers[i].mutex, NULL)
            for j in range(self.workers[i].port_count):
                share = self.workers[i].shares[j]
                close_ring(&share.ring)
                share.active = False
                share.rx_fd = share.tx_fd = -1
        pthread_mutex_init(self.fdb.state.lock, NULL)
        pthread_mutex_init(self.bindings.state.lock, NULL)

    cdef Worker *_worker(self, uint32_t number) except NULL:
        if number >= self.worker_count:
            raise IndexError("no such worker")
        return &self.workers[number]

    # -- between two breaths -------------------------------------------------------------------------

    cdef void _lock(self) noexcept nogil:
        """Hold all workers between two breaths."""
        cdef uint32_t i
        for i in range(self.worker_count):
            lock(&self.workers[i])

    cdef void _unlock(self) noexcept nogil:
        cdef uint32_t i
        for i in range(self.worker_count):
            unlock(&self.workers[i])

    cdef Port *_port(self, uint32_t index) noexcept nogil:
        """A port in use, or NULL."""
        if index >= self.port_count or load_relaxed8(&self.ports[index].link) == LINK_FREE:
            return NULL
        return self.ports[index]

    cdef void _list_floods(self) noexcept nogil:
        cdef uint32_t i
        for i in range(self.worker_count):
            list_floods(&self.workers[i])

    def now(self):
        """The data plane's clock, ms since it was made. The FDB's `seen` uses it."""
        return <uint32_t>((monotonic_ns() - self.epoch_ns) // 1000000)

    @property
    def event_fd(self):
        """An eventfd. It is readable when a link has changed or there are events."""
        return self.events_fd

    def add_port(self, receivers=(), int tx_fd=-1):
        """Add a port on bound AF_PACKET sockets; without receivers one for which Python receives. Returns its index.

        receivers: (worker, socket, slots) each; the socket has a ring of so many slots (see open_ring). tx_fd: a socket
        without a ring that all workers send by, each frame behind its vnet header; -1: only Python gets the copies. The
        port is blocked until set_blocked() says otherwise, so it can be configured first. Raises OSError, MemoryError,
        IndexError (no such worker)."""
        cdef Port *port
        cdef WorkerPort **shares
        cdef uint32_t index = 0, i
        cdef int error = 0
        for worker, _, _ in receivers:
            self._worker(worker)
        port = <Port *>calloc(1, sizeof(Port))
        shares = <WorkerPort **>calloc(self.worker_count, sizeof(WorkerPort *))
        try:
            if port == NULL or shares == NULL:
                raise MemoryError("no memory for a port")
            port.flags, port.link, port.blocked = FLAGS_DEFAULT, LINK_UP, BLOCKED_LOOP
            for i in range(self.worker_count):
                shares[i] = <WorkerPort *>calloc(1, sizeof(WorkerPort))
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
        finally:                # what was not taken, or had the place before
            free(port)
            if shares != NULL:
                for i in range(self.worker_count):
                    free_share(shares[i])
            free(shares)
        return index

    cdef int _enter(self, uint32_t index, Port **port, WorkerPort **shares) noexcept nogil:
        """Give a port its index. Hands back the removed port that had the place before, or NULL.

        Returns 0, or an errno when nothing has changed."""
        cdef Port *before
        cdef WorkerPort *share
        cdef epoll_event unused
        cdef uint32_t i, j
        cdef int error
        for i in range(self.worker_count):
            shares[i].index = index
            if shares[i].rx_fd >= 0 and watch(&self.workers[i], shares[i].rx_fd, index) < 0:
                error = errno
                for j in range(i):
                    if shares[j].rx_fd >= 0:
                        epoll_ctl(self.workers[j].epoll_fd, EPOLL_CTL_DEL, shares[j].rx_fd, &unused)
                return error
        before, self.ports[index] = self.ports[index], port[0]
        port[0] = before
        store_relaxed32(&self.port_count, max(self.port_count, index + 1))
        for i in range(self.worker_count):
            share, self.workers[i].shares[index] = self.workers[i].shares[index], shares[i]
            shares[i] = share
            self.workers[i].port_count = self.port_count
        self._list_floods()
        return 0

    def remove_port(self, uint32_t index):
        """Forget a port, all its FDB entries and its queued frames. Returns its last counters, as snapshot() has them.

        The entries are removed in steps, and frames pass in between. Until then no other port gets the index, and
        frames to stations behind the port are flooded. The caller closes its sockets afterwards."""
        cdef Port *port
        cdef Tally tally
        cdef uint32_t i
        cdef Ring *rings = <Ring *>calloc(self.worker_count, sizeof(Ring))
        if rings == NULL:
            raise MemoryError("no memory to remove a port")
        memset(&tally, 0, sizeof(tally))
        with nogil:
            self._lock()
            port = self._port(index)
            if port != NULL:
                self._unlink(index)
                for i in range(self.worker_count):
                    self._leave(&self.workers[i], index, &rings[i])
                    add_tally(&tally, &self.workers[i].shares[index].tally)
                port.link, port.leaving = LINK_FREE, True
                self._list_floods()
            self._unlock()
            for i in range(self.worker_count):
                close_ring(&rings[i])
        free(rings)
        require_port(port)
        with nogil:
            sweep(&self.fdb.state, 0, index, True)
            self._lock()
            port.leaving = False
            self._unlock()
        return name_tally(&tally)

    cdef void _unlink(self, uint32_t index) noexcept nogil:
        """Cut all links of a port with the frames that are on them, and free them."""
        cdef uint32_t i
        if not self.workers.wire.used:
            return
        for i in range(self.worker_count):
            cut_off_links(&self.workers[i], index)
        if self.ports[index].links != NULL and self.ports[index].links.from_pod != NULL:
            for i in range(self.worker_count):
                self.workers[i].wire.from_pod_links -= 1
        free_links(self.ports[index], self.port_count)
        for i in range(self.port_count):
            if self.ports[i].links != NULL and self.ports[i].links.pairs != NULL:
                free_link(&self.ports[i].links.pairs[index])

    cdef void _leave(self, Worker *worker, uint32_t index, Ring *ring) noexcept nogil:
        """End one worker's share of a port. The caller closes its rings."""
        cdef WorkerPort *share = worker.shares[index]
        cdef epoll_event unused
        cdef uint32_t place
        miss_unread(share)
        for place in range(worker.active_count):
            if worker.active[place] == index:
                worker.active_count -= 1
                worker.active[place] = worker.active[worker.active_count]
                break
        share.active = False
        if share.rx_fd >= 0:
            epoll_ctl(worker.epoll_fd, EPOLL_CTL_DEL, share.rx_fd, &unused)
            share.rx_fd = -1
        ring[0] = share.ring
        share.ring.memory = NULL
        forget_queued(worker, index)

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
                if port.link == LINK_DOWN and is_dead(self.workers[0].shares[i].tx_fd):
                    port.link = LINK_GONE
                links[i] = LINK_BLOCKED if port.blocked and port.link == LINK_UP else port.link
            self._list_floods()     # only one worker may have found the link lost
            self._unlock()
        names = list(_LINKS)
        found = {i: names[links[i]] for i in range(n) if links[i] != LINK_FREE}
        free(links)
        return found

    def set_link(self, uint32_t index, str state):
        """Say that a port's link is "up" or "down". Frames are flooded only to ports that are up."""
        cdef uint8_t link = _LINKS[state]
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
        """Let nothing in or out of a port, whatever its link is. Or let it forward again."""
        cdef Port *port
        with nogil:
            self._lock()
            port = self._port(index)
            if port != NULL:
                port.blocked = port.blocked & BLOCKED_MIRROR | (BLOCKED_LOOP if blocked else 0)
                self._list_floods()
            self._unlock()
        require_port(port)

    def count_unread(self):
        """Count received but unread frames of the ports as missed, and those in flight as `link_cut`.

        For a loop that has ended."""
        cdef uint32_t i, j
        with nogil:
            self._lock()
            for i in range(self.port_count):
                for j in range(self.worker_count):
                    miss_unread(self.workers[j].shares[i])
            for j in range(self.worker_count):
                cut_off_links(&self.workers[j], NOBODY)
            self._unlock()

    def snapshot(self):
        """All counters, of one moment between breaths of all workers.

        ({port index: {name: count}}, (learned, moved, aged, evicted, refused)). The names are those of port.pxd's
        Tally; `dropped` and `tx_dropped` are by reason."""
        cdef uint32_t n, i, j, room = load_relaxed32(&self.port_count) + 64    # for ports that come meanwhile
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
                for j in range(self.worker_count):
                    if links[i] != LINK_FREE:
                        count_missed(self.workers[j].shares[i])
                    add_tally(&tallies[i], &self.workers[j].shares[i].tally)
            pthread_mutex_lock(self.fdb.state.lock)     # a sweep counts under this lock alone
            events[0], events[1], events[2] = self.fdb.state.learned, self.fdb.state.moved, self.fdb.state.aged
            events[3], events[4] = self.fdb.state.evicted, self.fdb.state.refused
            pthread_mutex_unlock(self.fdb.state.lock)
            self._unlock()
        ports = {i: name_tally(&tallies[i]) for i in range(n) if links[i] != LINK_FREE}
        free(tallies)
        free(links)
        return ports, tuple([events[i] for i in range(5)])

    def losses(self, uint32_t index):
        """How many frames to or from a port the switch lost for want of room, or by its policy's limits.

        0 for a port that is not there."""
        cdef uint64_t lost = 0
        cdef WorkerPort *share
        cdef uint32_t i
        with nogil:
            self._lock()
            if self._port(index) != NULL:
                for i in range(self.worker_count):
                    share = self.workers[i].shares[index]
                    count_missed(share)
                    lost += share.tally.rx_missed + share.tally.dropped[<int>RX_RATE_LIMITED]
                    lost += share.tally.dropped[<int>RX_PUNT_FULL]
                    lost += share.tally.tx_dropped[<int>TX_NO_BUFFER] + share.tally.tx_dropped[<int>TX_FULL]
            self._unlock()
        return lost


cdef void forget_queued(Worker *worker, uint32_t index) noexcept nogil:
    """Let nothing of a removed port wait for a policy or as an event: its index may be another port's soon."""
    cdef PuntQueue *punts = &worker.punts
    cdef EventQueue *events = worker.events
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


cdef void free_share(WorkerPort *share) noexcept nogil:
    if share != NULL:
        close_ring(&share.ring)
        free(share)


cdef void add_tally(Tally *total, const Tally *more) noexcept nogil:
    """All fields are uint64_t, one after the other."""
    cdef uint64_t *into = <uint64_t *>total
    cdef const uint64_t *those = <const uint64_t *>more
    cdef size_t i
    for i in range(sizeof(Tally) // sizeof(uint64_t)):
        into[i] += those[i]


cdef dict name_tally(const Tally *tally):
    cdef dict named = tally[0]
    named["rx_frames"] += named["rx_in_flight"]
    named["dropped"] = dict(zip(_DROP_REASONS, named["dropped"]))
    named["tx_dropped"] = dict(zip(_TX_DROP_REASONS, named["tx_dropped"]))
    return named


cdef void count_missed(WorkerPort *share) noexcept nogil:
    """Add up the frames that the kernel dropped for want of room, and those it kept.

    PACKET_STATISTICS clears on read."""
    cdef tpacket_stats statistics
    cdef socklen_t size = sizeof(statistics)
    if share.rx_fd >= 0 and getsockopt(
        share.rx_fd, SOL_PACKET, PACKET_STATISTICS, &statistics, &size
    ) == 0:
        share.tally.rx_missed += statistics.tp_drops
        share.arrived += statistics.tp_packets - statistics.tp_drops


cdef void miss_unread(WorkerPort *share) noexcept nogil:
    """Count the frames that wait unread in the ring and the receive buffer as missed.

    Their number follows from the kernel's counts. Frames in a receive buffer cannot be counted without receiving
    them."""
    cdef int32_t unread
    count_missed(share)
    unread = <int32_t>(share.arrived - share.taken)
    if unread > 0:
        share.tally.rx_missed += unread
        share.taken += unread
