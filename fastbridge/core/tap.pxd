# Tap: frames that somebody wants to see, and what became of them.
#
# A worker has a list of taps. A tap copies the frames that it wants into a ring in bytes, for Python to read without a
# lock; or it mirrors them to a port, straight from where they lie. A full ring loses the newest and counts them; the
# data plane never waits. The filter, in classic BPF, runs before anything is copied (filter.pxd).
#
# One worker writes a ring, between two of whose breaths others may, and one thread reads it. `head` is the writer's and
# `tail` the reader's. Both only grow. A record lies in one piece; a size of 0 sends the reader back to the beginning.
#
# A tap that keeps the last frames forgets the oldest instead. Then `tail` is the writer's, too, and the ring is read
# when nobody writes any more.
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from .barrier cimport fence_all, load_acquire64, store_relaxed64, store_release64
from .batch cimport Frame
from .codes cimport RX_TRUNCATED
from .linux cimport sock_filter, virtio_net_hdr, write
from .ring cimport VNET_HEADER

cdef enum:
    TAP_PORTS = 32              # egress ports that a record holds of a frame, but for a tap of every copy
    TAP_NOBODY = 0xFFFF         # the ingress of a frame that the switch itself sends: no port has this index

cdef enum TapWish:
    TAP_SENT = 1                # received frames that are not dropped
    TAP_DROPS = 2               # dropped frames, and copies that are not sent
    TAP_OWN = 4                 # frames that the switch itself sends

cdef struct TapRecord:          # the egress ports follow, then the frame's bytes
    uint32_t size               # of all that, a multiple of 8
    uint32_t length, kept       # the frame's bytes, and those that are here
    uint16_t ingress, copies, ports
    uint8_t action, learned
    uint8_t reason              # a Reason; of a copy that was not sent a TxReason
    uint8_t unsent              # it is such a copy
    uint64_t time               # ns, CLOCK_MONOTONIC
    uint64_t number             # the frame's, among all that its worker has seen
    virtio_net_hdr vnet

cdef struct Tap:
    Tap *next
    uint8_t wishes              # bit set of TapWish
    uint32_t reasons, tx_reasons        # bit sets: which drops
    const uint8_t *ports        # by index: whether frames from or to it are wanted; NULL: all
    const sock_filter *filter   # NULL: all
    int mirror                  # -1, or the port that the frames are copied to
    uint32_t snap, limit        # bytes of a frame, and unread records, at most
    bint every_copy
    bint keep_last              # a full ring forgets the oldest
    uint8_t *ring
    uint64_t room, head, tail
    uint64_t written, taken     # records
    uint64_t matched, lost
    uint64_t *lost_of           # by the port the frame came from, or was to leave by
    int event_fd                # readable when there are records


cdef inline void lose_frame(Tap *tap, uint16_t port) noexcept nogil:
    store_relaxed64(&tap.lost, tap.lost + 1)
    if tap.lost_of != NULL:
        store_relaxed64(&tap.lost_of[port], tap.lost_of[port] + 1)


cdef inline bint has_room(const Tap *tap, uint64_t size) noexcept nogil:
    return (
        tap.head - load_acquire64(&tap.tail) + size <= tap.room
        and tap.written - load_acquire64(&tap.taken) < tap.limit
    )


cdef inline void forget_oldest(Tap *tap) noexcept nogil:
    cdef uint64_t place = tap.tail % tap.room
    cdef uint32_t size = (<TapRecord *>(tap.ring + place)).size
    if size:
        tap.taken += 1
        tap.tail += size
    else:
        tap.tail += tap.room - place


cdef inline TapRecord *start_record(Tap *tap, uint32_t size) noexcept nogil:
    """Room for a record of this size in the ring; NULL: there is none."""
    cdef uint64_t place = tap.head % tap.room
    cdef uint64_t skipped = tap.room - place if tap.room - place < size else 0
    while not has_room(tap, skipped + size):
        if not tap.keep_last or tap.tail == tap.head:
            return NULL
        forget_oldest(tap)
    if skipped:
        (<TapRecord *>(tap.ring + place)).size = 0
        place = 0
    (<TapRecord *>(tap.ring + place)).size = size
    return <TapRecord *>(tap.ring + place)


cdef inline void end_record(Tap *tap, const TapRecord *record) noexcept nogil:
    """Show the record to the reader; wake it if it may have read all others."""
    cdef uint64_t before = tap.head, one = 1
    cdef uint64_t place = before % tap.room
    cdef uint64_t skipped = tap.room - place if <const uint8_t *>record < tap.ring + place else 0
    tap.written += 1
    store_release64(&tap.head, before + skipped + record.size)
    fence_all()                 # the reader stores its tail, and then looks at the head: one of the two sees the other
    if load_acquire64(&tap.tail) == before:
        write(tap.event_fd, &one, sizeof(one))


cdef inline void record_frame(
    Tap *tap, const Frame *frame, bint unsent, uint8_t reason, const uint16_t *ports, uint32_t copies, uint64_t number,
    uint64_t time
) noexcept nogil:
    """Copy a frame with its fate. ports: those that its copies go to; or, if unsent, the one that this copy did not
    leave by."""
    cdef uint32_t kept = min(frame.length, tap.snap) if frame.reason != RX_TRUNCATED else 0
    cdef uint32_t listed = copies if tap.every_copy else min(copies, <uint32_t>TAP_PORTS)
    cdef uint32_t head = sizeof(TapRecord) + listed * sizeof(uint16_t)
    cdef TapRecord *record = start_record(tap, (head + kept + 7) & ~<uint32_t>7)
    if record == NULL:
        lose_frame(tap, ports[0] if frame.own or unsent else frame.ingress)
        return
    record.length, record.kept = frame.length, kept
    record.ingress = <uint16_t>TAP_NOBODY if frame.own else frame.ingress
    record.copies, record.ports = <uint16_t>copies, <uint16_t>listed
    record.unsent, record.action, record.reason, record.learned = unsent, frame.action, reason, frame.learned
    record.time, record.number = time, number
    if kept:
        memcpy(&record.vnet, frame.data - VNET_HEADER, VNET_HEADER)
    else:
        memset(&record.vnet, 0, VNET_HEADER)
    if listed:
        memcpy(<uint8_t *>record + sizeof(TapRecord), ports, listed * sizeof(uint16_t))
    memcpy(<uint8_t *>record + head, frame.data, kept)
    end_record(tap, record)
