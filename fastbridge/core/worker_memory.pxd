# Makes a worker's memory and files, and gives them back.
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.stdlib cimport calloc, free, malloc

from .batch cimport BATCH, Frame
from .coalesce cimport HEADERS
from .codes cimport FLOODS
from .events cimport EventQueue
from .flights cimport Flight, free_wire
from .linux cimport (
    EFD_CLOEXEC, EFD_NONBLOCK, EPOLL_CLOEXEC, close, epoll_create1, errno, eventfd, iovec, mmsghdr,
    pthread_mutex_destroy, pthread_mutex_init,
)
from .port cimport MAX_PORTS, Port, WorkerPort
from .receive cimport WAKE, watch
from .ring cimport close_ring
from .worker cimport BIG_SIZE, PIECES, PIECE_HEADERS, Worker


cdef inline int make_worker(Worker *worker, Port **ports, int event_fd, int punt_fd) noexcept nogil:
    """Get memory and files for a zeroed worker. Returns 0, or an errno; then end_worker gives back what there is."""
    cdef bint complete
    cdef uint32_t i
    worker.event_fd, worker.punt_fd = event_fd, punt_fd
    worker.quota = BATCH
    pthread_mutex_init(&worker.mutex, NULL)
    worker.epoll_fd = epoll_create1(EPOLL_CLOEXEC)
    if worker.epoll_fd < 0:
        return errno
    worker.wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)
    if worker.wake_fd < 0 or watch(worker, worker.wake_fd, WAKE) < 0:
        return errno
    # Room for all indices at once. Untouched pages cost nothing, and no array ever moves.
    worker.ports = worker.forwarding.ports = ports
    worker.shares = <WorkerPort **>calloc(MAX_PORTS, sizeof(WorkerPort *))
    worker.active = <uint16_t *>calloc(MAX_PORTS, sizeof(uint16_t))
    worker.touched = <uint16_t *>calloc(MAX_PORTS, sizeof(uint16_t))
    worker.events = <EventQueue *>calloc(1, sizeof(EventQueue))
    worker.spare_events = <EventQueue *>calloc(1, sizeof(EventQueue))
    worker.batch = <Frame *>calloc(BATCH, sizeof(Frame))
    worker.big = <uint8_t *>malloc(<size_t>BATCH * BIG_SIZE)
    worker.messages = <mmsghdr *>calloc(BATCH, sizeof(mmsghdr))
    worker.vectors = <iovec *>calloc(BATCH + BATCH // 2, sizeof(iovec))
    worker.spans = <uint16_t *>calloc(BATCH, sizeof(uint16_t))
    worker.headers = <uint8_t *>malloc(<size_t>(BATCH // 2) * HEADERS)
    worker.piece_headers = <uint8_t *>malloc(<size_t>PIECES * PIECE_HEADERS)
    worker.wire.landed = <Flight **>calloc(BATCH, sizeof(Flight *))
    worker.copy_ports = <uint16_t *>calloc(MAX_PORTS, sizeof(uint16_t))
    complete = (
        worker.shares and worker.active and worker.touched and worker.events and worker.spare_events and worker.batch
        and worker.big and worker.messages and worker.vectors and worker.spans and worker.headers
        and worker.piece_headers and worker.copy_ports and worker.wire.landed
    )
    for i in range(<uint32_t>FLOODS):
        worker.flood[i] = <uint16_t *>calloc(MAX_PORTS, sizeof(uint16_t))
        complete = complete and worker.flood[i] != NULL
    if not complete:
        return errno
    return 0


cdef inline void end_worker(Worker *worker) noexcept nogil:
    """Give all back. A worker that make_worker never saw has nothing to give."""
    cdef uint32_t i
    for i in range(worker.port_count):
        close_ring(&worker.shares[i].ring)
        free(worker.shares[i])
    for i in range(<uint32_t>FLOODS):
        free(worker.flood[i])
    if worker.epoll_fd > 0:
        close(worker.epoll_fd)
    if worker.wake_fd > 0:
        close(worker.wake_fd)
    if worker.waits_fd > 0:
        close(worker.waits_fd)
    if worker.wire.timer_fd > 0:
        close(worker.wire.timer_fd)
    free_wire(&worker.wire)
    free(worker.shares)
    free(worker.active)
    free(worker.touched)
    free(worker.events)
    free(worker.spare_events)
    free(worker.batch)
    free(worker.big)
    free(worker.messages)
    free(worker.vectors)
    free(worker.spans)
    free(worker.headers)
    free(worker.piece_headers)
    free(worker.copy_ports)
    free(worker.punts.slots)
    free(worker.spare_slots)
    free(worker.candidates.slots)
    free(worker.candidates.named)
    pthread_mutex_destroy(&worker.mutex)
