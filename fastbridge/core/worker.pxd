# A worker, one thread: its memory and files, made and given back, and its mutex. What it does is breathe.pxd's.
#
# Ports are spread over the workers, or, with fanout, read by all of them; every worker sends by every port. A breath
# runs under the worker's own mutex, and needs nobody else's: the ports' settings change only while all workers are
# between two breaths, the FDB is shared as mac_table.pxd says, and queues, counters and traces are each worker's own.
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.stdlib cimport calloc, free, malloc

from .barrier cimport add_release, store_release
from .batch cimport BATCH, Frame
from .coalesce cimport HEADERS
from .codes cimport FLOODS
from .events cimport EventQueue
from .linux cimport (
    EFD_CLOEXEC, EFD_NONBLOCK, EPOLL_CLOEXEC, close, epoll_create1, errno, eventfd, iovec, mmsghdr,
    pthread_mutex_destroy, pthread_mutex_init, pthread_mutex_lock, pthread_mutex_unlock,
)
from .plane cimport BIG_SIZE, PIECES, PIECE_HEADERS, Plane, notify
from .port cimport Port, Share
from .receive cimport WAKE, watch
from .ring cimport close_ring

cdef enum:
    MAX_PORTS = 65535           # a port index fits the FDB's 16 bits


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
    plane.messages = <mmsghdr *>calloc(BATCH, sizeof(mmsghdr))
    plane.vectors = <iovec *>calloc(BATCH + BATCH // 2, sizeof(iovec))
    plane.spans = <uint16_t *>calloc(BATCH, sizeof(uint16_t))
    plane.headers = <uint8_t *>malloc(<size_t>(BATCH // 2) * HEADERS)
    plane.piece_headers = <uint8_t *>malloc(<size_t>PIECES * PIECE_HEADERS)
    complete = (
        plane.shares and plane.active and plane.touched and plane.events and plane.spare_events and plane.batch
        and plane.big and plane.messages and plane.vectors and plane.spans and plane.headers and plane.piece_headers
    )
    for i in range(<uint32_t>FLOODS):
        plane.flood[i] = <uint16_t *>calloc(MAX_PORTS, sizeof(uint16_t))
        complete = complete and plane.flood[i] != NULL
    if not complete:
        return errno
    return 0


cdef inline void end_worker(Plane *plane) noexcept nogil:
    """Give all back. A plane that make_worker never saw has nothing."""
    cdef uint32_t i
    for i in range(plane.port_count):
        close_ring(&plane.shares[i].ring)
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


cdef inline void dismiss(Plane *plane) noexcept nogil:
    """Make work() return after its present breath, for good."""
    store_release(&plane.stopping, 1)
    notify(plane.wake_fd)
