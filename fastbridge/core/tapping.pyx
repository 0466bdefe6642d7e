"""Taps, access from Python.

Frames that the workers show (tap.pxd), read from their rings without a lock; or mirrored to a port. Taps are put into
the workers' lists, and taken out, between two breaths.
"""

cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy

from .barrier cimport fence_all, load_acquire64, load_relaxed64, store_release64
from .checksum cimport finish_checksum
from .codes cimport DROPPED, LEARN_NEW, LEARN_REFUSED
from .dataplane cimport Dataplane, require_port
from .filters cimport Filter
from .linux cimport EFD_CLOEXEC, EFD_NONBLOCK, VIRTIO_NET_HDR_GSO_NONE, close, errno, eventfd, read, write
from .port cimport BLOCKED_MIRROR, MAX_PORTS, Port, is_open
from .tap cimport TAP_DROPS, TAP_NOBODY, TAP_OWN, TAP_SENT, Tap as TapState, TapRecord
from .worker cimport lock, unlock

import os

from . import codes as _codes

_ACTIONS, _LEARNED = list(_codes.ACTIONS), list(_codes.LEARN_RESULTS)
_REASONS, _TX_REASONS = list(_codes.DROP_REASONS), list(_codes.TX_DROP_REASONS)


@cython.final
cdef class Tap:
    """Shows frames of a data plane, of all its workers, from start() to stop().

    snap: the bytes kept of a frame; room: bytes that each worker's ring has; limit: unread frames in it, at most.
    sent, drops, own: show frames that went on, that were dropped (copies that were not sent, too), and that the switch
    itself sends. reasons: of the dropped ones those for these reasons, of received frames or of copies; None: all.
    passing: show only frames that this filter lets pass. every_copy: tell all ports that a flooded frame goes to, not
    just 32. keep_last: a full ring forgets the oldest frames and loses none; read() it after stop().
    mirror: instead of showing them, send the frames by this port, by which nothing else goes in or out meanwhile.

    Raises OSError, MemoryError; start() raises IndexError for no such port, and ValueError for a mirror's port that is
    not up, or mirrors already.
    """

    cdef Dataplane dataplane
    cdef TapState *states               # one a worker
    cdef Filter passing
    cdef bint started
    cdef int mirror

    def __cinit__(
        self, Dataplane dataplane not None, *, uint32_t snap=0, size_t room=8, uint32_t limit=0xFFFFFFFF,
        bint sent=True, bint drops=True, bint own=True, reasons=None, Filter passing=None, bint every_copy=False,
        bint keep_last=False, int mirror=-1,
    ):
        cdef TapState *state
        cdef uint32_t i
        cdef int event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)
        if event_fd < 0:
            raise OSError(errno, os.strerror(errno))
        self.dataplane, self.passing, self.mirror = dataplane, passing, mirror
        self.states = <TapState *>calloc(dataplane.worker_count, sizeof(TapState))
        if self.states == NULL:
            close(event_fd)
            raise MemoryError("no memory to watch frames")
        self.states[0].event_fd = event_fd
        for i in range(dataplane.worker_count):
            state = &self.states[i]
            state.event_fd, state.mirror, state.every_copy = event_fd, mirror, every_copy
            state.keep_last = keep_last
            state.snap, state.room, state.limit = snap, (room + 7) & ~<size_t>7, limit
            state.wishes = (TAP_SENT if sent else 0) | (TAP_DROPS if drops else 0) | (TAP_OWN if own else 0)
            state.reasons, state.tx_reasons = bits(reasons, _REASONS), bits(reasons, _TX_REASONS)
            state.filter = NULL if passing is None else passing.steps
            state.ring = <uint8_t *>malloc(state.room)
            state.lost_of = <uint64_t *>calloc(MAX_PORTS, sizeof(uint64_t))
            if state.ring == NULL or state.lost_of == NULL:
                raise MemoryError(f"no memory to keep {room} bytes of frames for each worker")

    def __dealloc__(self):
        cdef uint32_t i
        if self.states == NULL:
            return
        if self.started:
            self._unlink()
        for i in range(self.dataplane.worker_count):
            free(self.states[i].ring)
            free(self.states[i].lost_of)
            free(<void *>self.states[i].ports)
        close(self.states[0].event_fd)
        free(self.states)

    def fileno(self):
        """Readable when there are frames to read."""
        return self.states[0].event_fd

    def start(self):
        """Show frames from now on."""
        cdef Port *port = NULL
        cdef bint busy = False
        cdef uint32_t i
        with nogil:
            self.dataplane._lock()
            if self.mirror >= 0:
                port = self.dataplane._port(self.mirror)
                busy = port != NULL and not is_open(port)
                if port != NULL and not busy:
                    port.blocked |= BLOCKED_MIRROR
                    self.dataplane._list_floods()
            if self.mirror < 0 or port != NULL and not busy:
                for i in range(self.dataplane.worker_count):
                    self.states[i].next = self.dataplane.workers[i].taps
                    self.dataplane.workers[i].taps = &self.states[i]
                self.started = True
            self.dataplane._unlock()
        if self.mirror >= 0:
            require_port(port)
        if busy:
            raise ValueError("the port is not up, or mirrors already")

    def stop(self):
        """Show no more frames. Those that were shown can still be read."""
        if self.started:
            self._unlink()

    cdef void _unlink(self) noexcept:
        cdef TapState **link
        cdef Port *port
        cdef uint32_t i
        with nogil:
            self.dataplane._lock()
            for i in range(self.dataplane.worker_count):
                link = &self.dataplane.workers[i].taps
                while link[0] != NULL and link[0] != &self.states[i]:
                    link = &link[0].next
                if link[0] != NULL:
                    link[0] = self.states[i].next
            port = self.dataplane._port(self.mirror) if self.mirror >= 0 else NULL
            if port != NULL:
                port.blocked &= <uint8_t>~BLOCKED_MIRROR
                self.dataplane._list_floods()
            self.dataplane._unlock()
        self.started = False

    def set_ports(self, ports):
        """Show only frames that come from one of these ports (by index), or go to one. None: all frames."""
        cdef uint32_t i
        cdef const uint8_t *before
        cdef uint8_t *fresh
        cdef set wanted = None if ports is None else set(ports)
        cdef bytes row = None if ports is None else bytes([index in wanted for index in range(MAX_PORTS)])
        for i in range(self.dataplane.worker_count):
            fresh = NULL if row is None else copy_row(row)
            with nogil:
                lock(&self.dataplane.workers[i])
                before, self.states[i].ports = self.states[i].ports, fresh
                unlock(&self.dataplane.workers[i])
            free(<void *>before)

    @property
    def counts(self):
        """How many frames it was to show or to mirror, and how many of these were lost."""
        cdef uint64_t matched = 0, lost = 0
        cdef uint32_t i
        for i in range(self.dataplane.worker_count):
            matched += load_relaxed64(&self.states[i].matched)
            lost += load_relaxed64(&self.states[i].lost)
        return matched, lost

    def lost_of(self, uint16_t port):
        """How many frames from a port, or copies for it, were not shown for want of room."""
        cdef uint64_t lost = 0
        cdef uint32_t i
        for i in range(self.dataplane.worker_count):
            lost += load_relaxed64(&self.states[i].lost_of[port])
        return lost

    def read(self, uint64_t most=0xFFFFFFFFFFFFFFFF):
        """Take the frames shown so far, of each worker's ring at most so many bytes and a frame: [(time_ns, worker,
        number, ingress, frame, length, segment, action, reason, learned, egress), …], by time; pending checksums are
        complete.

        action is None for a copy that was not sent. ingress is None for a frame of the switch's own. segment: how many
        bytes of payload each frame has that it still must be cut into, or 0. For one thread at a time; raises
        MemoryError, and ValueError before stop() if it keeps the last frames."""
        cdef uint64_t unused, one = 1
        cdef list out = []
        cdef uint32_t i
        cdef bint more = False
        if self.started and self.states[0].keep_last:
            raise ValueError("what keeps the last frames is read after its end")
        read(self.states[0].event_fd, &unused, sizeof(unused))
        for i in range(self.dataplane.worker_count):
            read_ring(&self.states[i], i, most, out)
        fence_all()                     # see end_record()
        for i in range(self.dataplane.worker_count):
            more = more or load_acquire64(&self.states[i].head) != self.states[i].tail
        if more:
            write(self.states[0].event_fd, &one, sizeof(one))
        out.sort(key=_by_time)
        return out


cdef int read_ring(TapState *tap, uint32_t worker, uint64_t most, list out) except -1:
    cdef uint64_t head = load_acquire64(&tap.head), tail = tap.tail, first = tail
    cdef const TapRecord *record
    while tail != head and tail - first < most:
        record = <const TapRecord *>(tap.ring + tail % tap.room)
        if record.size == 0:
            tail += tap.room - tail % tap.room
            continue
        out.append(read_record(record, worker))
        tail += record.size
        store_release64(&tap.taken, tap.taken + 1)
        store_release64(&tap.tail, tail)
    return 0


cdef object read_record(const TapRecord *record, uint32_t worker):
    cdef const uint16_t *ports = <const uint16_t *>(<const uint8_t *>record + sizeof(TapRecord))
    cdef bytes frame = PyBytes_FromStringAndSize(<const char *>(ports + record.ports), record.kept)
    cdef uint32_t i
    if record.kept == record.length:
        finish_checksum(&record.vnet, <uint8_t *><char *>frame, record.kept)
    return (
        record.time, worker, record.number,
        None if record.ingress == TAP_NOBODY else record.ingress,
        frame, record.length,
        record.vnet.gso_size if record.vnet.gso_type != VIRTIO_NET_HDR_GSO_NONE else 0,
        None if record.unsent else _ACTIONS[record.action],
        _TX_REASONS[record.reason] if record.unsent
        else _REASONS[record.reason] if record.action == DROPPED else None,
        _LEARNED[record.learned] if LEARN_NEW <= record.learned <= LEARN_REFUSED else None,
        tuple([ports[i] for i in range(record.ports)]),
    )


cdef uint8_t *copy_row(bytes row) except NULL:
    cdef uint8_t *copy = <uint8_t *>malloc(MAX_PORTS)
    if copy == NULL:
        raise MemoryError("no memory to choose ports")
    memcpy(copy, <const char *>row, MAX_PORTS)
    return copy


cdef uint32_t bits(reasons, list names) except? 0:
    """The bit set of those of the names that are wanted."""
    return sum([1 << place for place, name in enumerate(names) if reasons is None or name in reasons])


def _by_time(record):
    return record[0]
