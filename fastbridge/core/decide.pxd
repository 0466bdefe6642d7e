# Decide: every frame of the batch, in arrival order, and queue its copies by egress port.
from libc.stdint cimport uint16_t, uint32_t, uint64_t

from .batch cimport Frame
from .candidates cimport CANDIDATE_STATION, add_candidate, name_pair
from .codes cimport (
    CONSUMED, DROPPED, EVENT_DAMPED, EVENT_LOOP, EVENT_MOVED, FLAG_LEARNING, FLAG_LOCKED, FLOODED, FORWARDED,
    LEARN_DAMPED, LEARN_MOVED, LEARN_REFUSED, LOOP_PROBE, ORDINARY, RX_PUNT_FULL, RX_PUNT_TOO_LONG, RX_SOURCE_GUARD,
    RX_STORM_BROADCAST,
)
from .ethernet cimport load_mac, network_offset
from .forward cimport LOOP_MAGIC, Forwarding, classify, drop, look_up_egress, parse
from .plane cimport Plane, may_flood, monotonic_ns, notify, tell
from .port cimport Port, Share
from .punt cimport PUNT_BYTES, punt
from .trace cimport TraceRecord, record_copy, record_frame


cdef inline void account(Share *share, const Frame *frame) noexcept nogil:
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


cdef inline void enqueue_copy(Plane *plane, uint16_t egress, uint32_t place) noexcept nogil:
    cdef Share *share = plane.shares[egress]
    if share.queued == 0:
        plane.touched[plane.touched_count] = egress
        plane.touched_count += 1
    share.queue[share.queued] = place
    share.queued += 1


cdef inline void enqueue(Plane *plane, const Frame *frame, uint32_t place) noexcept nogil:
    cdef uint32_t i
    if frame.action == FORWARDED:
        enqueue_copy(plane, frame.egress, place)
    elif frame.action == FLOODED:
        for i in range(plane.flood_count[frame.flood]):
            if may_flood(plane, frame, plane.flood[frame.flood][i]):
                enqueue_copy(plane, plane.flood[frame.flood][i], place)


cdef inline void record(Plane *plane, const Frame *frame) noexcept nogil:
    cdef TraceRecord *record = record_frame(&plane.trace, frame, monotonic_ns())
    cdef uint32_t i
    if record == NULL:
        return
    if frame.action == FORWARDED:
        record_copy(record, frame.egress)
    elif frame.action == FLOODED:
        for i in range(plane.flood_count[frame.flood]):
            if may_flood(plane, frame, plane.flood[frame.flood][i]):
                record_copy(record, plane.flood[frame.flood][i])


cdef inline void hand_over(Plane *plane, Frame *frame) noexcept nogil:
    """Give a frame, or a copy of it, to the policy; without room for it, the fallback decides."""
    cdef Port *port = plane.ports[frame.ingress]
    cdef Share *share = plane.shares[frame.ingress]
    cdef bint taken = frame.action == CONSUMED
    cdef bint too_long = frame.length > PUNT_BYTES
    if not too_long and punt(&plane.punts, frame, taken, share.punts):
        share.punts += 1
        if plane.punts.count == 1:
            notify(plane.punt_fd)
        return
    if too_long:
        plane.punts.too_long += 1
    else:
        plane.punts.missed += 1
    if taken and (port.drop_when_full or frame.for_switch):
        drop(frame, RX_PUNT_TOO_LONG if too_long else RX_PUNT_FULL)
    elif taken:
        look_up_egress(&plane.forwarding, port, frame)


cdef inline void nominate(Plane *plane, const Frame *frame) noexcept nogil:
    """Tell the fast path which pair the kernel could forward by itself, or which it must not any more."""
    cdef uint32_t before = plane.candidates.count
    if frame.learned == LEARN_MOVED:
        add_candidate(&plane.candidates, CANDIDATE_STATION, frame, 0)
    if (
        frame.action == FORWARDED and frame.kind == ORDINARY and frame.vid == 0 and frame.learned < LEARN_REFUSED
        and frame.egress != frame.ingress and plane.trace.records == NULL
        and plane.ports[frame.ingress].flags & (FLAG_LEARNING | FLAG_LOCKED) == FLAG_LEARNING
    ):
        name_pair(&plane.candidates, frame, plane.forwarding.now_ms)
    if before == 0 and plane.candidates.count:
        notify(plane.candidate_fd)


cdef inline void decide(Plane *plane, uint64_t now) noexcept nogil:
    """Decide the batch at `now` (ns since the plane's epoch)."""
    cdef Forwarding *forwarding = &plane.forwarding
    cdef Frame *frame
    cdef uint32_t i
    forwarding.now_ns = now
    forwarding.now_ms = <uint32_t>(now // 1000000)
    for i in range(plane.batch_count):
        parse(forwarding, &plane.batch[i])
    for i in range(plane.batch_count):
        frame = &plane.batch[i]
        classify(forwarding, frame)
        if frame.punted:
            hand_over(plane, frame)
        if frame.learned == LEARN_MOVED or frame.learned == LEARN_DAMPED:
            tell(plane, EVENT_MOVED if frame.learned == LEARN_MOVED else EVENT_DAMPED, forwarding.moved_from,
                 frame.ingress, frame.source)
        if frame.kind == LOOP_PROBE:
            tell(plane, EVENT_LOOP, 0, frame.ingress,
                 load_mac(frame.data + network_offset(frame.data, frame.length) + LOOP_MAGIC))
        if plane.candidates.slots != NULL:
            nominate(plane, frame)
        account(plane.shares[frame.ingress], frame)
        enqueue(plane, frame, i)
        if plane.trace.records != NULL:
            record(plane, frame)
