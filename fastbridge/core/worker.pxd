# A worker, one thread: its memory and files, its loop, and `breathe`, the whole path of a frame.
#
# Ports are spread over the workers, or, with fanout, read by all of them; every worker sends by every port. A breath
# runs under the worker's own mutex, and needs nobody else's: the ports' settings change only while all workers are
# between two breaths, the FDB is shared as mac_table.pxd says, and queues, counters and traces are each worker's own.
#
# What it comes to on two CPUs, one interleaved run (README, Numbers; two seconds of perf for the shares):
# - 60-byte frames: 1.21 of the Linux bridge, 1.16 of DPDK testpmd on AF_PACKET, 2.4 of Open vSwitch's netdev datapath,
#   and 1.01 of the time a C loop of the same system calls takes without an FDB (benchmarks/test_limit.py, a full ring):
#   what is left is the kernel's part of them.
# - TCP bulk: 0.52 of the bridge (asked for: 0.9). A 64 KB frame is copied into the receive buffer and out of it again;
#   in a profile these two copies lead, _copy_to_iter and _copy_from_iter with 12 to 13 % of all time each and alike,
#   before the receiver's own work, which a veth has done on the sender's CPU, ours. The bridge copies nothing.
#   AF_PACKET has no way around: a ring's slots are copied to as well, and a TX ring copies over veth (transmit.pxd).
# - One UDP flow, coalesced: 2.8 (1518 B) and 3.9 (128 B) of the rate without, emptying a full ring
#   (benchmarks/test_coalescing.py). At the maximum offered load 1.17: one sender offers no more than that.
# - Ping near idle: 2.1 of the bridge while busy polling, 7.7 asleep (asked for: 1.5; benchmarks/test_wake_up.py). The
#   bridge answers in the sender's own context; here each way crosses to another CPU and back. Idle ports kept out of
#   epoll for 100 ms, and no call of epoll while all are, came to 1.9 [1.5 … 2.2], not told from 2.1 [1.6 … 2.8] in the
#   same run, so they are left to it after IDLE_LOOKS as before.
# - A second worker gains nothing where the tester needs the other CPU: 1.17 of the bridge, one alone 1.21.
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc

from .barrier cimport add_release, load_acquire, store_release
from .batch cimport BATCH, FLOODS, Frame
from .blocks cimport close_blocks
from .coalesce cimport HEADERS
from .decide cimport decide
from .events cimport EventQueue
from .inbox cimport prepare_inbox
from .linux cimport (
    EFD_CLOEXEC, EFD_NONBLOCK, EPOLL_CLOEXEC, O_CLOEXEC, O_RDONLY, close, epoll_create1, epoll_wait, errno, eventfd,
    iovec, mmsghdr, open, pthread_mutex_destroy, pthread_mutex_init, pthread_mutex_lock, pthread_mutex_unlock,
    sched_yield,
)
from .plane cimport BIG_SIZE, PIECES, PIECE_HEADERS, READY, Control, Plane, monotonic_ns, notify
from .port cimport Port, Share
from .receive cimport WAKE, adapt_quota, receive, rest_all, wake_ready, watch
from .ring cimport close_ring
from .transmit cimport LONG_BREATH_NS, TIMED_NS, release, transmit

cdef enum:
    MAX_PORTS = 65535           # a port index fits the FDB's 16 bits
    # Breaths between two questions to epoll while frames keep coming: one system call for up to 16 × 64 frames
    # of a busy port, and a newly busy port waits at most 16 breaths; or one that made more copies than BATCH.
    DISCOVER = 16


cdef inline int make_worker(Plane *plane, Port **ports, int event_fd, int punt_fd) noexcept nogil:
    """Get what a zeroed plane needs; 0, or an errno. What it got by then is end_worker's to give back."""
    cdef bint complete
    cdef uint32_t i
    plane.event_fd, plane.punt_fd = event_fd, punt_fd
    plane.quota = BATCH
    pthread_mutex_init(&plane.mutex, NULL)
    plane.epoll_fd = epoll_create1(EPOLL_CLOEXEC)
    if plane.epoll_fd < 0:
        return errno
    plane.wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)
    if plane.wake_fd < 0 or watch(plane, plane.wake_fd, WAKE) < 0:
        return errno
    # Room for all indices at once: pages never touched cost nothing, and no array ever moves.
    plane.ports = plane.forwarding.ports = ports
    plane.shares = <Share **>calloc(MAX_PORTS, sizeof(Share *))
    plane.active = <uint16_t *>calloc(MAX_PORTS, sizeof(uint16_t))
    plane.touched = <uint16_t *>calloc(MAX_PORTS, sizeof(uint16_t))
    plane.events = <EventQueue *>calloc(1, sizeof(EventQueue))
    plane.spare_events = <EventQueue *>calloc(1, sizeof(EventQueue))
    plane.batch = <Frame *>calloc(BATCH, sizeof(Frame))
    plane.big = <uint8_t *>malloc(<size_t>BATCH * BIG_SIZE)
    plane.inbox.messages = <mmsghdr *>calloc(BATCH, sizeof(mmsghdr))
    plane.inbox.vectors = <iovec *>calloc(BATCH, sizeof(iovec))
    plane.inbox.controls = <Control *>calloc(BATCH, sizeof(Control))
    plane.messages = <mmsghdr *>calloc(BATCH, sizeof(mmsghdr))
    plane.vectors = <iovec *>calloc(BATCH + BATCH // 2, sizeof(iovec))
    plane.spans = <uint16_t *>calloc(BATCH, sizeof(uint16_t))
    plane.headers = <uint8_t *>malloc(<size_t>(BATCH // 2) * HEADERS)
    plane.piece_headers = <uint8_t *>malloc(<size_t>PIECES * PIECE_HEADERS)
    complete = (
        plane.shares and plane.active and plane.touched and plane.events and plane.spare_events and plane.batch
        and plane.big and plane.messages and plane.vectors and plane.spans and plane.headers and plane.piece_headers
        and plane.inbox.messages and plane.inbox.vectors and plane.inbox.controls
    )
    for i in range(<uint32_t>FLOODS):
        plane.flood[i] = <uint16_t *>calloc(MAX_PORTS, sizeof(uint16_t))
        complete = complete and plane.flood[i] != NULL
    if not complete:
        return errno
    prepare_inbox(plane)
    return 0


cdef inline void end_worker(Plane *plane) noexcept nogil:
    """Give all back. A plane that make_worker never saw has nothing."""
    cdef uint32_t i
    for i in range(plane.port_count):
        close_ring(&plane.shares[i].ring)
        close_blocks(&plane.shares[i].blocks)
        free(plane.shares[i])
    for i in range(<uint32_t>FLOODS):
        free(plane.flood[i])
    if plane.epoll_fd > 0:
        close(plane.epoll_fd)
    if plane.wake_fd > 0:
        close(plane.wake_fd)
    if plane.waits_fd > 0:
        close(plane.waits_fd)
    free(plane.shares)
    free(plane.active)
    free(plane.touched)
    free(plane.events)
    free(plane.spare_events)
    free(plane.batch)
    free(plane.big)
    free(plane.inbox.messages)
    free(plane.inbox.vectors)
    free(plane.inbox.controls)
    free(plane.messages)
    free(plane.vectors)
    free(plane.spans)
    free(plane.headers)
    free(plane.piece_headers)
    free(plane.trace.records)
    free(plane.trace.bytes)
    free(plane.punts.slots)
    free(plane.spare_slots)
    free(plane.candidates.slots)
    free(plane.candidates.named)
    pthread_mutex_destroy(&plane.mutex)


cdef inline void lock(Plane *plane) noexcept nogil:
    """Keep the worker between two breaths; it lets who waits go first."""
    add_release(&plane.waiting, 1)
    pthread_mutex_lock(&plane.mutex)
    add_release(&plane.waiting, <uint32_t>-1)


cdef inline void unlock(Plane *plane) noexcept nogil:
    pthread_mutex_unlock(&plane.mutex)


cdef inline uint32_t breathe(Plane *plane) noexcept nogil:
    """One batch, from the rings to the wire; returns how many frames were received."""
    cdef uint32_t received
    plane.breaths += 1
    plane.now = monotonic_ns()
    wake_ready(plane)
    received = receive(plane)
    if received:
        decide(plane, plane.now - plane.epoch_ns)
        plane.breathing = True
        transmit(plane)
        plane.breathing = False
        adapt_quota(plane)
        release(plane)
    return received


cdef inline void work(Plane *plane) noexcept nogil:
    """Breathe until dismissed."""
    cdef uint64_t last = monotonic_ns(), now
    cdef uint32_t received
    cdef int timeout
    cdef bint looks
    plane.waits_fd = open(b"/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC)
    while not load_acquire(&plane.stopping):
        pthread_mutex_lock(&plane.mutex)
        received = breathe(plane)
        now = monotonic_ns()
        if received:
            last = now
            if now - plane.now > LONG_BREATH_NS:
                plane.timed_until = now + TIMED_NS
        timeout = 0 if received or now - last < plane.busy_poll_ns else rest_all(plane)
        looks = not received or plane.copies > BATCH or plane.breaths % DISCOVER == 0
        pthread_mutex_unlock(&plane.mutex)
        while load_acquire(&plane.waiting):
            sched_yield()
        if looks:
            plane.ready_count = epoll_wait(plane.epoll_fd, plane.ready, READY, timeout)


cdef inline void dismiss(Plane *plane) noexcept nogil:
    """Make work() return after its present breath, for good."""
    store_release(&plane.stopping, 1)
    notify(plane.wake_fd)
