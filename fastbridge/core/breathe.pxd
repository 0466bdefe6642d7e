# A breath: the whole path of a frame, one file for each stage; and the loop that breathes.
from libc.stdint cimport uint32_t, uint64_t

from .barrier cimport load_acquire, store_relaxed64
from .batch cimport BATCH
from .decide cimport decide
from .emulate cimport arm, enter_links, is_due_soon, land
from .linux cimport O_CLOEXEC, O_RDONLY, epoll_wait, open, pthread_mutex_lock, pthread_mutex_unlock, sched_yield
from .receive cimport adapt_quota, receive, park_all, wake_ready
from .transmit cimport LONG_BREATH_NS, TIMED_NS, release, transmit
from .worker cimport READY, Worker, monotonic_ns

cdef enum:
    # While frames keep coming, epoll is asked once in so many breaths. That is one system call for up to 16 × 64 frames
    # of a busy port. A newly busy port waits at most 16 breaths, or until a breath has made more copies than BATCH.
    DISCOVER = 16


cdef inline uint32_t breathe(Worker *worker) noexcept nogil:
    """One batch, from the rings to the wire; returns how many frames came, off links too."""
    cdef uint32_t received
    store_relaxed64(&worker.breaths, worker.breaths + 1)    # a watchdog reads it
    worker.now = monotonic_ns()
    wake_ready(worker)
    worker.most = worker.quota
    if worker.wire.to_pods.count or worker.wire.from_pods.count:
        land(worker)
    worker.most = min(<uint32_t>BATCH, worker.most)
    received = receive(worker)
    if received and worker.wire.used:
        worker.now = monotonic_ns()     # what came while the worker had no CPU enters its link now, not before it came
    if worker.wire.from_pod_links:
        enter_links(worker)
    if received:
        decide(worker, worker.now - worker.epoch_ns)
        worker.breathing = True
        transmit(worker)
        worker.breathing = False
        adapt_quota(worker)
        release(worker)
    return received


cdef inline void work(Worker *worker) noexcept nogil:
    """Breathe until dismissed."""
    cdef uint64_t last = monotonic_ns(), now
    cdef uint32_t received
    cdef int timeout
    cdef bint looks
    worker.waits_fd = open(b"/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC)
    while not load_acquire(&worker.stopping):
        pthread_mutex_lock(&worker.mutex)
        received = breathe(worker)
        now = monotonic_ns()
        if received:
            last = now
            if now - worker.now > LONG_BREATH_NS:
                worker.timed_until = now + TIMED_NS
        if received or now - last < worker.busy_poll_ns or is_due_soon(worker, now):
            timeout = 0
        else:
            timeout = park_all(worker)
            arm(worker)
        looks = not received or worker.copies > BATCH or worker.breaths % DISCOVER == 0
        pthread_mutex_unlock(&worker.mutex)
        while load_acquire(&worker.waiting):
            sched_yield()
        if looks:
            worker.ready_count = epoll_wait(worker.epoll_fd, worker.ready, READY, timeout)
