"""Traffic generator: frames out of a pod, as fast as asked.

A Generator holds frame templates and sends them in turn on a bound AF_PACKET socket, in batches of
sendmmsg without the GIL. Paced, frame i is due at i / rate: a late frame is caught up with, never
dropped from the schedule, so that what the machine could not send shows as offered < intended.
It counts what the kernel accepted (offered) and what it refused; it guesses neither from the other.
"""
from typing import NamedTuple

from cpython.mem cimport PyMem_Calloc, PyMem_Free
from libc.stdint cimport uint64_t

from . cimport linux

# Frames a system call: beyond 64 a veth sender gains nothing, and pacing gets coarse.
cdef enum:
    BATCH = 64
    # Gaps longer than this are slept through (the kernel's timer slack is 50 us); shorter ones spin.
    SLEEP_NS = 200_000
    TIMER_SLACK_NS = 60_000

cdef extern from *:
    int CYTHON_HEX_VERSION

CYTHON_VERSION = f"{CYTHON_HEX_VERSION >> 24}.{CYTHON_HEX_VERSION >> 16 & 0xff}.{CYTHON_HEX_VERSION >> 8 & 0xff}"


class Sent(NamedTuple):
    """What one call of Generator.send() did."""

    intended: int  #: paced: the frames due in that time; unpaced: the frames tried
    offered: int  #: frames the kernel accepted
    refused: int  #: frames the kernel refused for want of memory or queue space
    started_ns: int  #: CLOCK_MONOTONIC at the first frame
    seconds: float  #: from the first frame to the end of the last


cdef struct Run:
    uint64_t intended, offered, refused, started, ended
    int error


cdef inline uint64_t now() noexcept nogil:
    cdef linux.timespec time
    linux.clock_gettime(linux.CLOCK_MONOTONIC, &time)
    return <uint64_t>time.tv_sec * 1_000_000_000 + <uint64_t>time.tv_nsec


cdef inline void wait_until(uint64_t deadline) noexcept nogil:
    # Sleep through a long gap, spin through a short one.
    cdef uint64_t time = now()
    cdef linux.timespec target
    if deadline > time + SLEEP_NS:
        target.tv_sec = <long>((deadline - TIMER_SLACK_NS) // 1_000_000_000)
        target.tv_nsec = <long>((deadline - TIMER_SLACK_NS) % 1_000_000_000)
        linux.clock_nanosleep(linux.CLOCK_MONOTONIC, linux.TIMER_ABSTIME, &target, NULL)
    while now() < deadline:
        pass


cdef class Generator:
    """Sends `frames` (whole Ethernet frames without FCS) in turn on the AF_PACKET socket `fd`.

    The socket stays the caller's: bound to an interface, and open for as long as send() runs.
    """

    cdef int fd
    cdef list templates
    cdef unsigned int count, position
    cdef linux.mmsghdr *messages
    cdef linux.iovec *vectors

    def __cinit__(self, int fd, frames):
        cdef unsigned int i
        cdef bytes frame
        self.fd = fd
        self.templates = [bytes(frame) for frame in frames]
        self.count = len(self.templates)
        if self.count == 0:
            raise ValueError("a generator needs at least one frame to send")
        # The first BATCH templates again at the end: every batch is one contiguous run of messages.
        self.messages = <linux.mmsghdr *>PyMem_Calloc(self.count + BATCH, sizeof(linux.mmsghdr))
        self.vectors = <linux.iovec *>PyMem_Calloc(self.count + BATCH, sizeof(linux.iovec))
        if self.messages == NULL or self.vectors == NULL:
            raise MemoryError()
        for i in range(self.count + BATCH):
            frame = self.templates[i % self.count]
            self.vectors[i].iov_base = <void *><char *>frame
            self.vectors[i].iov_len = len(frame)
            self.messages[i].msg_hdr.msg_iov = &self.vectors[i]
            self.messages[i].msg_hdr.msg_iovlen = 1

    def __dealloc__(self):
        PyMem_Free(self.messages)
        PyMem_Free(self.vectors)

    def send(self, double seconds, rate=None):
        """Send for `seconds`, paced to `rate` frames a second or, with None, as fast as possible.

        Raise OSError when the interface goes down or away.
        """
        cdef double per_second = 0.0 if rate is None else rate
        if seconds <= 0 or (rate is not None and per_second <= 0):
            raise ValueError("seconds and rate must be greater than 0")
        cdef Run run
        with nogil:
            if per_second:
                run = self.paced(<uint64_t>(seconds * 1e9), per_second)
            else:
                run = self.unpaced(<uint64_t>(seconds * 1e9))
        if run.error:
            raise OSError(run.error, f"cannot send a frame: errno {run.error}")
        return Sent(run.intended, run.offered, run.refused, run.started, (run.ended - run.started) / 1e9)

    cdef Run unpaced(self, uint64_t nanoseconds) noexcept nogil:
        cdef Run run = Run(0, 0, 0, now(), 0, 0)
        cdef uint64_t deadline = run.started + nanoseconds
        run.ended = run.started
        while run.ended < deadline and run.error == 0:
            self.batch(&run, BATCH)
            run.ended = now()
        run.intended = run.offered + run.refused
        return run

    cdef Run paced(self, uint64_t nanoseconds, double rate) noexcept nogil:
        cdef Run run = Run(0, 0, 0, now(), 0, 0)
        cdef uint64_t deadline = run.started + nanoseconds, tried = 0, due
        run.intended = <uint64_t>(nanoseconds * rate / 1e9 + 0.5)
        run.ended = run.started
        while tried < run.intended and run.ended <= deadline and run.error == 0:
            due = <uint64_t>((run.ended - run.started) * rate / 1e9) + 1
            due = min(due, run.intended)
            if due > tried:
                self.batch(&run, <unsigned int>min(due - tried, <uint64_t>BATCH))
                tried = run.offered + run.refused
            else:
                wait_until(run.started + <uint64_t>(tried * 1e9 / rate))
            run.ended = now()
        return run

    cdef void batch(self, Run *run, unsigned int count) noexcept nogil:
        # One system call; it stops at the first frame the kernel refuses, and that frame is counted.
        cdef int sent = linux.sendmmsg(self.fd, self.messages + self.position, count, 0)
        if sent > 0:
            run.offered += sent
        elif linux.errno == linux.ENOBUFS or linux.errno == linux.EAGAIN or linux.errno == linux.ENOMEM:
            sent = 1
            run.refused += 1
        elif linux.errno != linux.EINTR:
            run.error = linux.errno
            return
        else:
            return
        self.position = (self.position + <unsigned int>sent) % self.count
