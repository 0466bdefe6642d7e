"""Receiver of samples: when stamped frames get to the pods.

Every port has an AF_PACKET socket with a small TPACKET_V2 ring. It hears only EtherType 0x88b5, and a socket filter
leaves only stamped frames. So no other frame is copied on the CPU that delivers it, which is the DUT's.

The kernel stamps an arrival when it puts it into the ring (CLOCK_REALTIME). So the receiver reads the rings only now
and then, and its own scheduling is not in the latency. If any program on the machine asks the kernel for time stamps,
the kernel takes them earlier: when a frame enters its last queue. With bpf_redirect_peer a frame enters no queue behind
the switch, so its stamp is from before the switch. The receiver counts such arrivals.
"""
import os
from typing import NamedTuple

from cpython.buffer cimport Py_buffer, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from .. cimport linux, ring
from . cimport stamp

cdef enum:
    # Between two readings of the rings. Waking up takes time from a switch on the same CPU. All rings together hold
    # some thousand samples, so this is often enough for some 100,000 samples a second.
    PAUSE_NS = 10_000_000
    SLOTS = 8192                # 16 MiB, over all rings
    SLOTS_MIN = 64
    SLOTS_MAX = 2048


class Heard(NamedTuple):
    """Counts that the log of arrivals lacks."""

    duplicated: int  #: arrivals of a sample that had arrived before (at this port)
    reordered: int  #: arrivals after a later one of the same stream and port (RFC 4737 §3)
    corrupted: int  #: arrivals with an altered payload
    missed: int  #: arrivals for which a ring had no room
    early: int  #: arrivals that the kernel stamped before the ring


cdef int refused(str what) except -1:
    raise OSError(linux.errno, f"{what}: {os.strerror(linux.errno)}")


cdef int attach_filter(int fd) except -1:
    # Call it before the socket is bound, so that no other frame gets into the ring.
    cdef linux.sock_filter code[6]
    cdef linux.sock_fprog program
    code[0] = linux.sock_filter(linux.BPF_LD | linux.BPF_H | linux.BPF_ABS, 0, 0, stamp.AT_ETHERTYPE)
    code[1] = linux.sock_filter(linux.BPF_JMP | linux.BPF_JEQ | linux.BPF_K, 0, 3, stamp.ETHERTYPE)
    code[2] = linux.sock_filter(linux.BPF_LD | linux.BPF_W | linux.BPF_ABS, 0, 0, stamp.AT_MAGIC)
    code[3] = linux.sock_filter(linux.BPF_JMP | linux.BPF_JEQ | linux.BPF_K, 0, 1, <uint32_t>stamp.MAGIC)
    code[4] = linux.sock_filter(linux.BPF_RET | linux.BPF_K, 0, 0, 0xffff)
    code[5] = linux.sock_filter(linux.BPF_RET | linux.BPF_K, 0, 0, 0)
    program.len, program.filter = 6, code
    if linux.setsockopt(fd, linux.SOL_SOCKET, linux.SO_ATTACH_FILTER, &program, sizeof(program)) != 0:
        refused("socket filter")
    return 0


cdef class Arrivals:
    """Takes samples from `fds`, unbound AF_PACKET sockets, one for each port.

    `sent` is the sender's log. `arrived` gets the first arrival of each sample in ns, at its number. If copies go to
    several ports, it is at number * ports + port. Both are buffers with 8 bytes for each entry.
    """

    cdef ring.Ring *rings
    cdef int *fds
    cdef unsigned int ports
    cdef Py_buffer sent, arrived
    cdef uint32_t *expected     # by stream and port: one more than the largest number seen
    cdef unsigned int streams
    cdef uint32_t trial
    cdef bint copies
    cdef uint64_t duplicated, reordered, corrupted, early
    cdef volatile bint stopping

    def __cinit__(self, fds, sent, arrived):
        cdef unsigned int i
        cdef int version = linux.TPACKET_V2, error = 0
        cdef uint32_t slots = max(SLOTS_MIN, min(SLOTS_MAX, SLOTS // len(fds) // 32 * 32))
        self.rings = <ring.Ring *>PyMem_Calloc(len(fds), sizeof(ring.Ring))
        self.fds = <int *>PyMem_Calloc(len(fds), sizeof(int))
        if self.rings == NULL or self.fds == NULL:
            raise MemoryError()
        self.ports = len(fds)
        for i in range(self.ports):
            self.fds[i] = fds[i]
            attach_filter(self.fds[i])
            if linux.setsockopt(self.fds[i], linux.SOL_PACKET, linux.PACKET_VERSION, &version, sizeof(version)) != 0:
                refused("TPACKET_V2")
            error = (
                ring.request_ring(self.fds[i], slots)
                or ring.map_ring(&self.rings[i], self.fds[i], slots)
            )
            if error:
                raise OSError(error, f"receive ring: {os.strerror(error)}")
        PyObject_GetBuffer(sent, &self.sent, PyBUF_WRITABLE)
        PyObject_GetBuffer(arrived, &self.arrived, PyBUF_WRITABLE)

    def __dealloc__(self):
        cdef unsigned int i
        for i in range(self.ports):
            ring.close_ring(&self.rings[i])
        PyMem_Free(self.rings)
        PyMem_Free(self.fds)
        PyMem_Free(self.expected)
        if self.sent.buf != NULL:
            PyBuffer_Release(&self.sent)
        if self.arrived.buf != NULL:
            PyBuffer_Release(&self.arrived)

    def begin(self, uint32_t trial, unsigned int streams, bint copies):
        """Reset, and count the samples of `trial` with `streams` streams. `copies`: each goes to several ports."""
        PyMem_Free(self.expected)
        self.expected = <uint32_t *>PyMem_Calloc(streams * self.ports, sizeof(uint32_t))
        if self.expected == NULL:
            raise MemoryError()
        self.trial, self.streams, self.copies = trial, streams, copies
        self.duplicated = self.reordered = self.corrupted = self.early = 0
        self.stopping = False
        self.misses()

    def run(self):
        """Take samples until another thread calls stop(), then the samples still in the rings."""
        cdef bint last = False
        cdef linux.timespec pause
        pause.tv_sec, pause.tv_nsec = 0, PAUSE_NS
        with nogil:
            while not last:
                last = self.stopping
                self.drain()
                if not last:
                    linux.clock_nanosleep(linux.CLOCK_MONOTONIC, 0, &pause, NULL)
        return Heard(self.duplicated, self.reordered, self.corrupted, self.misses(), self.early)

    def stop(self):
        """Let run() end."""
        self.stopping = True

    cdef uint64_t misses(self) except? 0xffff:
        # The kernel's count since the last call.
        cdef linux.tpacket_stats stats
        cdef linux.socklen_t length
        cdef uint64_t total = 0
        cdef unsigned int i
        for i in range(self.ports):
            length = sizeof(stats)
            if linux.getsockopt(self.fds[i], linux.SOL_PACKET, linux.PACKET_STATISTICS, &stats, &length) != 0:
                refused("PACKET_STATISTICS")
            total += stats.tp_drops
        return total

    cdef void drain(self) noexcept nogil:
        cdef unsigned int port
        cdef linux.tpacket2_hdr *slot
        for port in range(self.ports):
            slot = ring.next_slot(&self.rings[port])
            while slot != NULL:
                self.take(port, slot)
                ring.release_slots(&self.rings[port])
                slot = ring.next_slot(&self.rings[port])

    cdef inline void take(self, unsigned int port, const linux.tpacket2_hdr *slot) noexcept nogil:
        cdef const uint8_t *frame = <const uint8_t *>slot + slot.tp_mac
        cdef uint64_t *sent = <uint64_t *>self.sent.buf
        cdef uint64_t *arrived = <uint64_t *>self.arrived.buf
        cdef stamp.Stamp contents
        cdef uint64_t entry
        cdef uint32_t *expected
        if slot.tp_snaplen < slot.tp_len or not stamp.read_stamp(frame, slot.tp_len, &contents):
            self.corrupted += 1
            return
        if contents.trial != self.trial:
            return
        entry = <uint64_t>contents.number * self.ports + port if self.copies else contents.number
        if (
            contents.stream >= self.streams
            or contents.number >= <uint64_t>self.sent.len // 8
            or entry >= <uint64_t>self.arrived.len // 8
            or stamp.time_of(frame) != sent[contents.number]
        ):
            self.corrupted += 1
            return
        if arrived[entry]:
            self.duplicated += 1
            return
        self.early += slot.tp_status & linux.TP_STATUS_TS_SOFTWARE != 0
        arrived[entry] = <uint64_t>slot.tp_sec * 1_000_000_000 + slot.tp_nsec
        expected = &self.expected[contents.stream * self.ports + port]
        if contents.number < expected[0]:
            self.reordered += 1
        else:
            expected[0] = contents.number + 1
