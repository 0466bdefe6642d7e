"""Traffic generator: frames out of pods, as fast as asked.

A Generator has a lane for every stream: a bound AF_PACKET socket and the frames that it sends in turn. Lanes take
turns, without the GIL, in batches of sendmmsg. The generator counts addresses in place, so a million addresses need no
million templates.

With a rate, frame i of a phase is due at i / rate. The generator catches up on late frames and never drops them from
the schedule, so frames that the machine could not send show as sent < intended. It counts the frames that the kernel
accepted (sent) and refused, and derives neither count from the other.

One frame in every `sample` is stamped (see stamp.pxd). It begins a batch and gets its time right before the system
call, because frames before it in the sender's own batch are not the switch's latency. The time is CLOCK_REALTIME, not
CLOCK_MONOTONIC as elsewhere here. The kernel stamps arrivals with CLOCK_REALTIME when the frame gets to the pod, not
when a receiver is next scheduled. The reader of the log must notice a clock set during a trial
(fastbridge.bench.tester.samples).
"""
import os
from typing import NamedTuple

from cpython.buffer cimport Py_buffer, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from libc.stdint cimport UINT64_MAX, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

from .. cimport linux
from . cimport stamp

cdef enum:
    # Frames per system call. Beyond 64 a veth sender gains nothing, and pacing gets coarse.
    BATCH = 64
    # Frames that one of several lanes sends in its turn. This has most of a batch's gain, and no port waits long.
    RUN = 16
    # The sender sleeps through longer gaps (the kernel's timer slack is 50 us) and spins through shorter ones.
    SLEEP_NS = 200_000
    TIMER_SLACK_NS = 60_000
    LARGEST = 65535             # bytes of a frame that can be stamped
    # A sender that lost its CPU near the end gets more time for due frames: 1 %, but at least a time slice. Without it
    # one trial in ten ended short, which a search takes for loss.
    GRACE_NS = 5_000_000
    GRACE_SHARE = 100

cdef extern from *:
    int CYTHON_HEX_VERSION

CYTHON_VERSION = f"{CYTHON_HEX_VERSION >> 24}.{CYTHON_HEX_VERSION >> 16 & 0xff}.{CYTHON_HEX_VERSION >> 8 & 0xff}"


class Addresses(NamedTuple):
    """MAC addresses of one port, by number. 0 is `own`; n is the first 3 bytes of `behind`, then n in 3 bytes."""

    own: bytes
    behind: bytes
    first: int = 0
    amount: int = 1


class Lane(NamedTuple):
    """The frames of one stream, and the socket that sends them.

    Frame n is frames[n % len], from source n % amount. It goes to targets[n % len], and there to address n // len %
    amount. Without sources or targets the frames keep their own addresses.
    """

    fd: int
    frames: list
    sources: Addresses | None = None
    targets: tuple = ()


class PhaseSent(NamedTuple):
    """The counts of one phase."""

    intended: int  #: with a rate: the frames due in that time; without: the frames tried
    sent: int  #: frames the kernel accepted
    refused: int  #: frames the kernel refused: no memory, no queue space, or too long for the interface
    seconds: float


class Sent(NamedTuple):
    """The counts of one call of Generator.send()."""

    intended: int
    sent: tuple  #: by lane
    refused: int
    stamped: int  #: of the frames sent
    started_ns: int  #: CLOCK_MONOTONIC at the first frame
    seconds: float  #: from the first frame to the end of the last phase
    phases: tuple


cdef struct Numbers:
    uint8_t own[6]
    uint8_t behind[6]
    uint32_t first, count

cdef struct Sender:
    int fd
    linux.mmsghdr *messages     # one per position, then the first BATCH again: every batch is one contiguous run
    linux.iovec *vectors
    uint8_t *copies             # of the frames, one per position, if addresses are written into them
    unsigned int positions
    Numbers source              # count 0: as in the frame
    Numbers *targets
    unsigned int destinations
    uint64_t tried, sent

cdef struct Phase:
    uint64_t nanoseconds        # 0: until its frames are sent
    double rate                 # 0: unpaced
    uint64_t frames             # UINT64_MAX: as many as the time allows
    uint64_t tried, refused, started, ended


cdef inline uint64_t now() noexcept nogil:
    return stamp.clock_ns(linux.CLOCK_MONOTONIC)


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


cdef inline void write_address(uint8_t *to, const Numbers *numbers, uint64_t turn) noexcept nogil:
    cdef uint32_t number = numbers.first + <uint32_t>(turn % numbers.count)
    if number == 0:
        memcpy(to, numbers.own, 6)
    else:
        memcpy(to, numbers.behind, 3)
        to[3] = number >> 16 & 0xff
        to[4] = number >> 8 & 0xff
        to[5] = number & 0xff


cdef inline void write_addresses(Sender *lane, unsigned int position, unsigned int count) noexcept nogil:
    # Addresses the lane's next `count` frames. An address follows from a frame's number: a refused frame shifts none.
    cdef unsigned int i
    cdef uint64_t turn
    cdef uint8_t *frame
    for i in range(count):
        turn = lane.tried + i
        frame = <uint8_t *>lane.messages[position + i].msg_hdr.msg_iov.iov_base
        if lane.destinations:
            write_address(frame, &lane.targets[turn % lane.destinations], turn // lane.destinations)
        if lane.source.count:
            write_address(frame + 6, &lane.source, turn)


cdef int fill_numbers(Numbers *numbers, addresses) except -1:
    if len(addresses.own) != 6 or len(addresses.behind) != 6:
        raise ValueError("a MAC address has 6 bytes")
    if addresses.first < 0 or addresses.amount < 1 or addresses.first + addresses.amount > 1 << 24:
        raise ValueError(f"a port has addresses 0 to {(1 << 24) - 1}")
    memcpy(numbers.own, <const char *>addresses.own, 6)
    memcpy(numbers.behind, <const char *>addresses.behind, 6)
    numbers.first, numbers.count = addresses.first, addresses.amount
    return 0


cdef int fill_sender(Sender *sender, lane) except -1:
    # Copies the frames' bytes if addresses are counted. If not, the frames must outlive the sender.
    cdef unsigned int i, count = len(lane.frames)
    cdef size_t longest
    cdef bytes frame
    if count == 0 or not all(14 <= len(frame) <= LARGEST for frame in lane.frames):
        raise ValueError(f"a lane needs at least one frame, and each 14 to {LARGEST} bytes")
    counted = lane.sources is not None or len(lane.targets) > 0
    # No buffer may be in a batch twice, with two addresses.
    sender.fd, sender.positions = lane.fd, count * ((BATCH + count - 1) // count if counted else 1)
    sender.messages = <linux.mmsghdr *>PyMem_Calloc(sender.positions + BATCH, sizeof(linux.mmsghdr))
    sender.vectors = <linux.iovec *>PyMem_Calloc(sender.positions, sizeof(linux.iovec))
    longest = max(len(frame) for frame in lane.frames)
    sender.copies = <uint8_t *>PyMem_Calloc(sender.positions if counted else 1, longest)
    sender.destinations = len(lane.targets)
    sender.targets = <Numbers *>PyMem_Calloc(sender.destinations + 1, sizeof(Numbers))
    if not (sender.messages and sender.vectors and sender.copies and sender.targets):
        raise MemoryError()
    for i in range(sender.positions):
        frame = lane.frames[i % count]
        sender.vectors[i].iov_base = <void *><char *>frame
        sender.vectors[i].iov_len = len(frame)
        if counted:
            sender.vectors[i].iov_base = sender.copies + i * longest
            memcpy(sender.vectors[i].iov_base, <const char *>frame, len(frame))
    for i in range(sender.positions + BATCH):
        sender.messages[i].msg_hdr.msg_iov = &sender.vectors[i % sender.positions]
        sender.messages[i].msg_hdr.msg_iovlen = 1
    if lane.sources is not None:
        fill_numbers(&sender.source, lane.sources)
    for i in range(sender.destinations):
        fill_numbers(&sender.targets[i], lane.targets[i])
    return 0


cdef class Generator:
    """Sends frames (whole, without FCS) of `lanes` in turn. The caller owns the sockets and keeps them open.

    With `sample`, one frame in every `sample` over all lanes is stamped for `trial`. Its time of sending goes into
    `log`, a writable buffer with 8 bytes for each sample. Stamping stops when `log` is full. Frames shorter than 60
    bytes are never stamped.
    """

    cdef list frames
    cdef Sender *lanes
    cdef unsigned int count, lane, run, left, sample
    cdef uint64_t tried, next_sample
    cdef uint32_t trial, stamped
    cdef Py_buffer log
    cdef uint8_t *stamp_frame
    cdef linux.iovec stamp_vector
    cdef int error, failed_lane

    def __cinit__(self, lanes, *, unsigned int sample=0, log=None, uint32_t trial=0):
        cdef unsigned int i
        lanes = [lane._replace(frames=[bytes(frame) for frame in lane.frames]) for lane in lanes]
        if not 0 < len(lanes) <= 1 << 16:
            raise ValueError("a generator needs lanes: at least one, and no more than 65,536")
        if (sample > 0) != (log is not None):
            raise ValueError("samples need a log, and a log samples")
        self.frames = [lane.frames for lane in lanes]
        self.sample, self.trial = sample, trial
        self.lanes = <Sender *>PyMem_Calloc(len(lanes), sizeof(Sender))
        self.stamp_frame = <uint8_t *>PyMem_Calloc(1, LARGEST)
        if self.lanes == NULL or self.stamp_frame == NULL:
            raise MemoryError()
        self.stamp_vector.iov_base = self.stamp_frame
        self.count = len(lanes)
        for i in range(self.count):
            fill_sender(&self.lanes[i], lanes[i])
        if log is not None:
            PyObject_GetBuffer(log, &self.log, PyBUF_WRITABLE)

    def __dealloc__(self):
        cdef unsigned int i
        for i in range(self.count):
            PyMem_Free(self.lanes[i].messages)
            PyMem_Free(self.lanes[i].vectors)
            PyMem_Free(self.lanes[i].copies)
            PyMem_Free(self.lanes[i].targets)
        PyMem_Free(self.lanes)
        PyMem_Free(self.stamp_frame)
        if self.log.buf != NULL:
            PyBuffer_Release(&self.log)

    def send(self, phases):
        """Send from the first frame on. `phases` are (seconds, rate, frames); either seconds or frames is None.

        Rate is in frames a second over all lanes. None: as fast as possible. Raises OSError if an interface goes down
        or away.
        """
        cdef Phase phase
        cdef uint64_t started = 0, start = 0, before
        self.begin()
        done = []
        for seconds, rate, frames in phases:
            if (seconds is None) == (frames is None) or min(v for v in (seconds, rate, frames) if v is not None) <= 0:
                raise ValueError("a phase has seconds or frames, greater than 0, as is its rate")
            phase = Phase(0, 0.0, UINT64_MAX, 0, 0, 0, 0)
            phase.nanoseconds = 0 if seconds is None else <uint64_t>(seconds * 1e9)
            phase.rate = 0.0 if rate is None else rate
            if frames is not None:
                phase.frames = frames
            elif rate is not None:
                phase.frames = <uint64_t>(phase.nanoseconds * phase.rate / 1e9 + 0.5)
            before = self.accepted()
            with nogil:
                phase.started = start if start else now()
                self.run_phase(&phase)
            if self.error:
                raise OSError(self.error, f"stream {self.failed_lane}: {os.strerror(self.error)}")
            started = started or phase.started
            start = phase.ended
            intended = phase.tried if phase.frames == UINT64_MAX else phase.frames
            length = (phase.ended - phase.started) / 1e9
            done.append(PhaseSent(intended, self.accepted() - before, phase.refused, length))
        return Sent(
            sum(phase.intended for phase in done),
            tuple(self.lanes[i].sent for i in range(self.count)),
            sum(phase.refused for phase in done),
            self.stamped,
            started,
            (start - started) / 1e9,
            tuple(done),
        )

    cdef void begin(self) noexcept:
        cdef unsigned int i
        for i in range(self.count):
            self.lanes[i].tried = self.lanes[i].sent = 0
        self.lane, self.left, self.run = self.count - 1, 0, 1
        self.tried, self.next_sample, self.stamped = 0, 0, 0
        self.error = 0

    cdef uint64_t accepted(self) noexcept:
        cdef unsigned int i
        cdef uint64_t total = 0
        for i in range(self.count):
            total += self.lanes[i].sent
        return total

    cdef void run_phase(self, Phase *phase) noexcept nogil:
        cdef uint64_t time, due = phase.frames, deadline = UINT64_MAX, end = UINT64_MAX
        if phase.nanoseconds:
            end = deadline = phase.started + phase.nanoseconds
        if phase.nanoseconds and phase.rate:
            end += max(<uint64_t>GRACE_NS, phase.nanoseconds // GRACE_SHARE)
        wait_until(phase.started)
        time = now()
        while phase.tried < phase.frames and time <= end and self.error == 0:
            if phase.rate:
                due = <uint64_t>((time - phase.started) * phase.rate / 1e9) + 1
                due = min(due, phase.frames)
            if due > phase.tried:
                self.take_turn(phase, due - phase.tried)
            else:
                wait_until(phase.started + <uint64_t>(phase.tried * 1e9 / phase.rate))
            time = now()
        phase.ended = time
        if phase.rate and self.error == 0:  # the last frame has its gap, too, so frames / seconds is the rate
            due = phase.started + <uint64_t>(phase.frames * 1e9 / phase.rate)
            wait_until(min(due, deadline))
            phase.ended = max(time, min(due, deadline))

    cdef void take_turn(self, Phase *phase, uint64_t most) noexcept nogil:
        # Sends up to `most` frames of the current lane. Runs grow only as far as all lanes are behind, so paced frames
        # go strictly in turn.
        cdef unsigned int longest = RUN if self.count > 1 else BATCH
        cdef uint64_t each
        if self.left == 0:
            self.lane = self.lane + 1 if self.lane + 1 < self.count else 0
            if self.lane == 0:
                each = min(most // self.count, <uint64_t>longest)
                self.run = <unsigned int>each if each else 1
            self.left = self.run
        self.transmit(phase, <unsigned int>min(self.left, most))

    cdef void transmit(self, Phase *phase, unsigned int count) noexcept nogil:
        # One system call. It stops at the first frame that the kernel refuses, and counts that frame.
        cdef Sender *lane = &self.lanes[self.lane]
        cdef unsigned int position = <unsigned int>(lane.tried % lane.positions)
        cdef linux.mmsghdr *first = lane.messages + position
        cdef linux.iovec *vector = first.msg_hdr.msg_iov
        cdef bint sampled = self.sample != 0 and self.tried == self.next_sample
        cdef bint stamping = False
        cdef int sent
        if self.sample:
            count = <unsigned int>min(count, self.sample if sampled else self.next_sample - self.tried)
        if lane.source.count or lane.destinations:
            write_addresses(lane, position, count)
        if sampled and vector.iov_len >= stamp.LEAST and self.stamped < <uint64_t>self.log.len // 8:
            stamping = True
            self.write_stamp(vector)
            first.msg_hdr.msg_iov = &self.stamp_vector
        sent = linux.sendmmsg(lane.fd, first, count, 0)
        first.msg_hdr.msg_iov = vector
        if sent > 0:
            lane.sent += sent
            self.stamped += stamping
        elif linux.errno in (linux.ENOBUFS, linux.EAGAIN, linux.ENOMEM, linux.EMSGSIZE):
            sent = 1
            phase.refused += 1
        elif linux.errno == linux.EINTR:
            return
        else:
            self.error, self.failed_lane = linux.errno, <int>self.lane
            return
        if sampled:
            self.next_sample += self.sample
        lane.tried += sent
        self.tried += sent
        phase.tried += sent
        self.left -= sent

    cdef inline void write_stamp(self, const linux.iovec *vector) noexcept nogil:
        cdef uint16_t size = <uint16_t>vector.iov_len
        cdef stamp.Stamp contents = stamp.Stamp(self.trial, <uint16_t>self.lane, self.stamped)
        cdef uint64_t time
        memcpy(self.stamp_frame, vector.iov_base, stamp.AT_ETHERTYPE)
        stamp.stamp_frame(self.stamp_frame, size, &contents)
        self.stamp_vector.iov_len = size
        time = stamp.clock_ns(linux.CLOCK_REALTIME)
        memcpy(self.stamp_frame + stamp.AT_TIME, &time, 8)
        (<uint64_t *>self.log.buf)[self.stamped] = time
