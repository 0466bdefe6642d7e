# Decide every frame of the batch, in arrival order, and queue its copies by egress port.
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memset

from .batch cimport Frame
from .candidates cimport CANDIDATE_STATION, add_candidate, name_pair
from .codes cimport (
    CONSUMED, DROPPED, EVENT_DAMPED, EVENT_LOOP, EVENT_MOVED, FLAG_LEARNING, FLAG_LOCKED, FLOODED, FORWARDED,
    LEARN_DAMPED, LEARN_MOVED, LEARN_REFUSED, LOOP_PROBE, ORDINARY, RX_PUNT_FULL, RX_PUNT_TOO_LONG, RX_SOURCE_GUARD,
    RX_STORM_BROADCAST,
)
from .emulate cimport takes_link
from .ethernet cimport load_mac, network_offset
from .forward cimport LOOP_MAGIC, Forwarding, classify, drop, look_up_egress, parse
from .port cimport Port, WorkerPort
from .punt cimport PUNT_BYTES, punt
from .watch cimport watch
from .worker cimport Worker, enqueue_copy, may_flood, notify, tell


cdef inline void account(WorkerPort *share, const Frame *frame) noexcept nogil:
    """rx = forwarded + flooded + consumed + Σ dropped, always."""
    if frame.action == DROPPED and RX_STORM_BROADCAST <= frame.reason <= RX_SOURCE_GUARD:
        share.excess += 1
    else:
        share.excess = 0
    share.tally.rx_frames += 1
    share.tally.rx_bytes += frame.length
    if frame.action == FORWARDED:
        share.tally.forwarded += 1
    elif frame.action == FLOODED:
        share.tally.flooded += 1
    elif frame.action == CONSUMED:
        share.tally.consumed += 1
    else:
        share.tally.dropped[frame.reason] += 1


cdef inline void send_copy(Worker *worker, const Frame *frame, uint16_t egress, uint32_t place) noexcept nogil:
    if worker.ports[egress].links == NULL or not takes_link(worker, frame, egress, place):
        enqueue_copy(worker, egress, place)


cdef inline void enqueue(Worker *worker, const Frame *frame, uint32_t place) noexcept nogil:
    cdef uint32_t i
    if frame.action == FORWARDED:
        send_copy(worker, frame, frame.egress, place)
    elif frame.action == FLOODED:
        for i in range(worker.flood_count[frame.flood]):
            if may_flood(worker, frame, worker.flood[frame.flood][i]):
                send_copy(worker, frame, worker.flood[frame.flood][i], place)


cdef inline void fall_back(Forwarding *forwarding, Port *port, Frame *frame, uint8_t reason) noexcept nogil:
    """Decide a frame that the policy has no room for."""
    if frame.action == CONSUMED and (port.drop_when_full or frame.for_switch):
        drop(frame, reason)
    elif frame.action == CONSUMED:
        look_up_egress(forwarding, port, frame)


cdef inline void hand_over(Worker *worker, Frame *frame) noexcept nogil:
    """Give a frame, or a copy of it, to the policy. Without room for it the fallback decides."""
    cdef Port *port = worker.ports[frame.ingress]
    cdef WorkerPort *share = worker.shares[frame.ingress]
    cdef bint too_long = frame.length > PUNT_BYTES
    if not too_long and punt(&worker.punts, frame, frame.action == CONSUMED, share.punts, worker.now):
        share.punts += 1
        if worker.punts.count == 1:
            notify(worker.punt_fd)
        return
    if too_long:
        worker.punts.too_long += 1
    else:
        worker.punts.missed += 1
    fall_back(&worker.forwarding, port, frame, RX_PUNT_TOO_LONG if too_long else RX_PUNT_FULL)


cdef inline void nominate(Worker *worker, const Frame *frame) noexcept nogil:
    """Tell the fast path which pair the kernel could forward by itself, or must forward no longer."""
    cdef uint32_t before = worker.candidates.count
    cdef Port *port = worker.ports[frame.ingress]
    cdef uint8_t no_ip[16]
    if frame.learned == LEARN_MOVED:
        memset(no_ip, 0, 16)
        add_candidate(&worker.candidates, CANDIDATE_STATION, frame, 0, no_ip)
    if (
        frame.action == FORWARDED and frame.kind == ORDINARY and frame.vid == 0 and frame.learned < LEARN_REFUSED
        and frame.egress != frame.ingress and port.links == NULL and worker.ports[frame.egress].links == NULL
        and port.flags & (FLAG_LEARNING | FLAG_LOCKED) == FLAG_LEARNING
    ):
        name_pair(&worker.candidates, frame, port.guarded and not port.routes, worker.forwarding.now_ms)
    if before == 0 and worker.candidates.count:
        notify(worker.candidate_fd)


cdef inline void decide(Worker *worker, uint64_t now) noexcept nogil:
    """Decide the batch, from `first` on, at `now` (ns since the worker's epoch)."""
    cdef Forwarding *forwarding = &worker.forwarding
    cdef Frame *frame
    cdef uint32_t i
    forwarding.now_ns = now
    forwarding.now_ms = <uint32_t>(now // 1000000)
    for i in range(worker.first, worker.batch_count):
        parse(forwarding, &worker.batch[i])
    for i in range(worker.first, worker.batch_count):
        frame = &worker.batch[i]
        classify(forwarding, frame)
        if frame.punted:
            hand_over(worker, frame)
        if frame.learned == LEARN_MOVED or frame.learned == LEARN_DAMPED:
            tell(worker, EVENT_MOVED if frame.learned == LEARN_MOVED else EVENT_DAMPED, forwarding.moved_from,
                 frame.ingress, frame.source)
        if frame.kind == LOOP_PROBE:
            tell(worker, EVENT_LOOP, 0, frame.ingress,
                 load_mac(frame.data + network_offset(frame.data, frame.length) + LOOP_MAGIC))
        if worker.candidates.slots != NULL:
            nominate(worker, frame)
        account(worker.shares[frame.ingress], frame)
        enqueue(worker, frame, i)
        if worker.taps != NULL:
            watch(worker, frame, i)
