# A worker, one thread. One struct holds all its state for the stages, and points to the state that workers share.
#
# Ports are spread over the workers, or, with fanout, read by all of them. Every worker sends by every port. A breath
# runs under the worker's own mutex and needs no other. The ports' settings change only while all workers are between
# two breaths. mac_table.pxd describes how the FDB is shared. Queues, counters and taps are each worker's own.
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from .barrier cimport add_release, store_relaxed8, store_release
from .batch cimport BATCH, Frame
from .candidates cimport CandidateQueue
from .codes cimport (
    FLAG_BROADCAST_FLOOD, FLAG_HAIRPIN, FLAG_ISOLATED, FLOODS, LEARN_KNOWN, LINK_DOWN, LINK_GONE, NO_REASON, ORDINARY,
)
from .events cimport EventQueue, add_event
from .flights cimport Wire
from .forward cimport Forwarding
from .linux cimport (
    CLOCK_MONOTONIC, CLOCK_THREAD_CPUTIME_ID, SO_ERROR, SOL_SOCKET, clock_gettime, epoll_event, getsockname, getsockopt,
    iovec, mmsghdr, pthread_mutex_lock, pthread_mutex_t, pthread_mutex_unlock, sockaddr, sockaddr_ll, socklen_t,
    timespec, write,
)
from .port cimport Port, WorkerPort, is_open
from .punt cimport PuntQueue, PuntSlot
from .tap cimport Tap

cdef enum:
    READY = 64                  # ports that epoll names at once
    # Frames too long for a slot wait in these for their sends: GSO builds up to 64 KiB and headers. There is one for
    # each place of the batch; its memory is used only when touched. To stay in the cache, at most BIG_BUFFERS are in
    # use at a time. BIG_SIZE is 3 cache lines more than whole pages, or all frames' headers would lie in the same few
    # sets of the L1 cache.
    BIG_BUFFERS = 64
    BIG_HEADROOM = 16           # before the vnet header: room for a VLAN tag
    BIG_SIZE = 73920
    # The largest frame there is, BIG TCP's (GSO_MAX_SIZE, 8 × 65535), with its headers and a cache line or two. A frame
    # takes no more of the buffers' memory than it fills.
    BIG_MOST = 525312
    PIECES = 64                 # a frame is cut into so many messages, or datagrams of one, at a time: UDP_MAX_SEGMENTS
    PIECE_HEADERS = 512         # room for a piece's headers, vnet header first

cdef struct Worker:
    pthread_mutex_t mutex               # held during a breath
    uint32_t waiting                    # Python threads that wait for it
    uint32_t stopping
    uint64_t busy_poll_ns
    uint64_t epoch_ns                   # zero of the clock by which entries age
    Forwarding forwarding               # the settings and tables that classify uses
    Port **ports                        # those of all workers
    WorkerPort **shares                 # … and this worker's shares of them
    uint32_t port_count                 # indices in use or once used
    uint16_t *flood[FLOODS]             # ports to flood to, ascending, for each kind of flood
    uint32_t flood_count[FLOODS]

    int epoll_fd                        # it watches the ports that are not active, and wake_fd
    int wake_fd, event_fd, punt_fd      # eventfds that wake the loop, the control thread, the policy's thread …
    int candidate_fd                    # … and the fast path's
    epoll_event ready[READY]
    int ready_count
    uint16_t *active                    # ports read every breath
    uint32_t active_count, turn
    uint64_t breaths
    uint64_t now                        # ns, when the breath began

    Frame *batch
    uint32_t batch_count
    uint32_t first                      # frames before it came off links, decided before: the batch begins with them
    uint32_t most                       # frames that this breath may bring the batch to
    Wire wire                           # frames in flight
    uint32_t quota                      # frames the next breath may take (receive.pxd)
    uint32_t copies                     # queued to be sent in this breath
    uint8_t *big                        # BATCH buffers of BIG_SIZE
    uint32_t big_count                  # frames in them, all larger than a slot …
    size_t big_used                     # … and the bytes that these take
    uint64_t timed_until                # ns; sends are timed until then
    int waits_fd                        # the worker's own /proc/thread-self/schedstat
    uint64_t waited                     # ns that the worker had waited for a CPU when last asked
    bint breathing                      # the worker's own thread sends
    uint64_t costly_from                # ns; costly ports may be sent to again from then on
    uint16_t costly_last                # the costly port that was sent to last
    uint16_t *touched                   # egress ports with queued frames
    uint32_t touched_count
    # The next messages of one port's queue: up to BATCH, of which at most BATCH // 2 have several frames.
    mmsghdr *messages
    iovec *vectors                      # one for each frame, and one for the headers of each message of several
    uint16_t *spans                     # how many frames each message carries
    uint8_t *headers                    # HEADERS bytes each, for messages of several frames
    uint8_t *piece_headers              # PIECE_HEADERS bytes each, for PIECES of a frame that is cut up

    Tap *taps                           # NULL: nobody looks
    uint16_t *copy_ports                # of the frame that taps look at
    uint64_t frames                     # of all batches before
    PuntQueue punts
    CandidateQueue candidates
    EventQueue *events
    EventQueue *spare_events            # the reader of events and punts swaps these in
    PuntSlot *spare_slots


cdef inline uint64_t monotonic_ns() noexcept nogil:
    cdef timespec time
    clock_gettime(CLOCK_MONOTONIC, &time)
    return <uint64_t>time.tv_sec * 1000000000 + <uint64_t>time.tv_nsec


cdef inline uint64_t thread_ns() noexcept nogil:
    """The CPU time of the calling thread."""
    cdef timespec time
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time)
    return <uint64_t>time.tv_sec * 1000000000 + <uint64_t>time.tv_nsec


cdef inline void start_frame(Frame *frame, uint16_t ingress) noexcept nogil:
    """Begin a frame, before it is parsed."""
    frame.ingress = ingress
    frame.reason = NO_REASON
    frame.learned = LEARN_KNOWN
    frame.kind = ORDINARY
    frame.punted = frame.own = False


cdef inline void enqueue_copy(Worker *worker, uint16_t egress, uint32_t place) noexcept nogil:
    cdef WorkerPort *share = worker.shares[egress]
    if share.queued == 0:
        worker.touched[worker.touched_count] = egress
        worker.touched_count += 1
    share.queue[share.queued] = place
    share.queued += 1


cdef inline bint big_is_full(const Worker *worker) noexcept nogil:
    """Whether this batch has no more room for a frame larger than a slot."""
    return worker.big_count == BIG_BUFFERS or worker.big_used + BIG_MOST > <size_t>BATCH * BIG_SIZE


cdef inline void notify(int fd) noexcept nogil:
    """Make an eventfd readable."""
    cdef uint64_t one = 1
    write(fd, &one, sizeof(one))        # fails only when it is readable already


cdef inline void tell(Worker *worker, uint8_t kind, uint16_t was, uint16_t now, uint64_t key) noexcept nogil:
    """Queue an event for the control thread."""
    add_event(worker.events, kind, was, now, key)
    if worker.events.count == 1:
        notify(worker.event_fd)


cdef inline void list_floods(Worker *worker) noexcept nogil:
    """List the ports to flood to: those that are up, by their flags."""
    cdef uint32_t i, what
    for what in range(<uint32_t>FLOODS):
        worker.flood_count[what] = 0
        for i in range(worker.port_count):
            if is_open(worker.ports[i]) and worker.ports[i].flags & (FLAG_BROADCAST_FLOOD << what):
                worker.flood[what][worker.flood_count[what]] = i
                worker.flood_count[what] += 1


cdef inline bint may_flood(const Worker *worker, const Frame *frame, uint16_t egress) noexcept nogil:
    """Whether a frame may go there: not back, unless the port is a hairpin, and not between isolated ports."""
    cdef uint8_t flags = worker.ports[frame.ingress].flags
    if egress == frame.ingress:
        return flags & FLAG_HAIRPIN != 0
    return not (flags & FLAG_ISOLATED and worker.ports[egress].flags & FLAG_ISOLATED)


cdef inline bint is_dead(int fd) noexcept nogil:
    """Whether a socket's interface was deleted. Then the kernel has set its ifindex to -1 (packet_notifier)."""
    cdef sockaddr_ll address
    cdef socklen_t size = sizeof(address)
    address.sll_ifindex = 0                     # a socket port's has no interface, and its address ends before it
    return fd >= 0 and getsockname(fd, <sockaddr *>&address, &size) == 0 and address.sll_ifindex == -1


cdef inline void lose_link(Worker *worker, WorkerPort *share) noexcept nogil:
    """Note that the kernel reported ENETDOWN. This worker floods to the port no more.

    It tells the control thread, which tells the other workers. Their frames for the port are dropped as `port_down`."""
    cdef int error = 0
    cdef socklen_t size = sizeof(error)
    if share.rx_fd >= 0:
        getsockopt(share.rx_fd, SOL_SOCKET, SO_ERROR, &error, &size)        # reading clears it
    store_relaxed8(&worker.ports[share.index].link, LINK_GONE if is_dead(share.tx_fd) else LINK_DOWN)
    list_floods(worker)
    notify(worker.event_fd)


cdef inline void lock(Worker *worker) noexcept nogil:
    """Hold the worker between two breaths. It lets those who wait go first."""
    add_release(&worker.waiting, 1)
    pthread_mutex_lock(&worker.mutex)
    add_release(&worker.waiting, <uint32_t>-1)


cdef inline void unlock(Worker *worker) noexcept nogil:
    pthread_mutex_unlock(&worker.mutex)


cdef inline void dismiss(Worker *worker) noexcept nogil:
    """Make work() return after its present breath, for good."""
    store_release(&worker.stopping, 1)
    notify(worker.wake_fd)
