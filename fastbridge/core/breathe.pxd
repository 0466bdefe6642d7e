# A breath: the whole path of a frame, a stage a file; and the loop that breathes.
from libc.stdint cimport uint32_t, uint64_t

from .barrier cimport load_acquire
from .batch cimport BATCH
from .decide cimport decide
from .linux cimport O_CLOEXEC, O_RDONLY, epoll_wait, open, pthread_mutex_lock, pthread_mutex_unlock, sched_yield
from .plane cimport READY, Plane, monotonic_ns
from .receive cimport adapt_quota, receive, rest_all, wake_ready
from .transmit cimport LONG_BREATH_NS, TIMED_NS, release, transmit

cdef enum:
    # Breaths between two questions to epoll while frames keep coming: one system call for up to 16 × 64 frames
    # of a busy port, and a newly busy port waits at most 16 breaths; or one that made more copies than BATCH.
    DISCOVER = 16


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
