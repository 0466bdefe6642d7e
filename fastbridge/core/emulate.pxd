# Emulate: the way of frames over links (link.pxd). A frame enters a link, is in flight, and lands.
#
# Frames from a pod enter their port's link when they are received, and are decided when they land: the switch learns
# behind the wire. Copies for a pod enter when they are decided, and are sent when they land. The data plane never
# waits: a frame in flight is a copy, the slot that it came in is free again. A timer wakes the worker shortly before
# the next one is due, and it spins for the rest.
#
# Rate, loss, jitter and the like act on what a wire would see: the segments of a GSO frame. A link with delay alone
# keeps frames whole; so does one that loses, when all segments of a frame come through.
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from .batch cimport Frame
from .checksum cimport finish_checksum
from .codes cimport DROPPED, NO_REASON, RX_LINK_LOSS, TX_LINK_LOSS, TX_PORT_DOWN
from .cut cimport CUT_MOST, Cut, locate, write_piece
from .flights cimport (
    Flight, Flights, add_flight, free_flight, make_flight, next_due, order_flights, pool_is_full, pop_flight,
)
from .link cimport FOR_EVER, NOBODY, Link, draw_copies, draw_corruption, schedule
from .linux cimport (
    TFD_TIMER_ABSTIME, VIRTIO_NET_HDR_GSO_NONE, VIRTIO_NET_HDR_F_NEEDS_CSUM, itimerspec, pthread_mutex_lock,
    pthread_mutex_unlock, timerfd_settime, virtio_net_hdr,
)
from .port cimport PortLinks, WorkerPort, is_open
from .ring cimport VNET_HEADER
from .watch cimport watch_drop, watch_loss
from .worker cimport Worker, enqueue_copy

cdef enum Fate:
    # The first three are in the order of RX_LINK_LOSS and TX_LINK_LOSS.
    FATE_LOST = 0
    FATE_QUEUE = 1
    FATE_CUT = 2
    FATE_FLIES = 3
    FATE_PASSES = 4             # at once, and as it is


# -- one frame, or one segment -------------------------------------------------------------------------


cdef inline void flip(Frame *frame, uint64_t bit) noexcept nogil:
    """Flip a bit, counted from 1. A pending checksum is completed first, or nobody would see the fault."""
    cdef virtio_net_hdr *vnet = <virtio_net_hdr *>(frame.data - VNET_HEADER)
    finish_checksum(vnet, frame.data, frame.length)
    memset(vnet, 0, VNET_HEADER)            # nothing is pending any more, nor left to cut
    frame.data[(bit - 1) // 8] ^= <uint8_t>(1 << (bit - 1) % 8)


cdef inline Flight *copy_unit(
    Worker *worker, Flights *flights, const Frame *frame, const Cut *cut, uint32_t start, uint32_t bytes
) noexcept nogil:
    """Copy a frame, or its segment with `bytes` of payload from `start` on. NULL: there is no room."""
    cdef Flight *flight
    cdef uint8_t *into
    cdef uint32_t headers
    if cut == NULL:
        flight = make_flight(&worker.wire, flights, frame, frame.length)
        if flight != NULL:
            memcpy(flight.frame.data - VNET_HEADER, frame.data - VNET_HEADER, VNET_HEADER + frame.length)
        return flight
    flight = make_flight(&worker.wire, flights, frame, cut.payload + bytes)
    if flight != NULL:
        into = flight.frame.data - VNET_HEADER
        headers = write_piece(cut, frame, start, bytes, into)
        memcpy(into + headers, frame.data + cut.payload + start, bytes)
        flight.frame.length = headers - VNET_HEADER + bytes
    return flight


cdef inline int fly(
    Worker *worker, Link *link, Flights *flights, const Frame *frame, const Cut *cut, uint32_t start, uint32_t bytes,
    bint may_pass, uint64_t earliest
) noexcept nogil:
    """Send one copy along a link, due at `earliest` or later. Returns its Fate."""
    cdef uint32_t length = frame.length if cut == NULL else cut.payload - cut.jumbo + bytes
    cdef uint64_t bit = draw_corruption(link, length), due
    cdef Flight *flight
    if (link.stages.timed or link.stages.delay) and pool_is_full(&worker.wire, length):
        link.counts.queue_full += 1         # before it takes a turn of the rate
        return FATE_QUEUE
    due = schedule(link, worker.now, length)
    if due == <uint64_t>FOR_EVER:
        return FATE_QUEUE
    due = max(due, earliest)
    # Frames that are overdue, when the worker is behind, may be on the link that this one takes the place of.
    if may_pass and bit == 0 and due <= worker.now and link.waiting == 0 and next_due(flights) >= worker.now:
        return FATE_PASSES
    flight = copy_unit(worker, flights, frame, cut, start, bytes)
    if flight == NULL:
        link.counts.queue_full += 1
        return FATE_QUEUE
    if bit:
        flip(&flight.frame, bit)
    flight.due, flight.link = due, link
    add_flight(flights, flight)
    link.waiting += 1
    link.waiting_bytes += flight.frame.length
    return FATE_FLIES


cdef inline void lose_unit(
    Worker *worker, WorkerPort *share, const Frame *frame, const Cut *cut, uint32_t start, uint32_t bytes, int fate,
    bint entering, uint64_t number
) noexcept nogil:
    """Count a frame or a segment that a link drops, and show it to the taps."""
    cdef uint32_t length = frame.length if cut == NULL else cut.payload - cut.jumbo + bytes
    cdef Flights unused
    cdef Flight *flight = NULL
    cdef Frame lost
    if entering:
        share.tally.rx_frames += 1
        share.tally.rx_bytes += length
        share.tally.dropped[<int>RX_LINK_LOSS + fate] += 1
    else:
        share.tally.tx_dropped[<int>TX_LINK_LOSS + fate] += 1
    if worker.taps == NULL:
        return
    lost = frame[0]
    if cut != NULL:
        unused.count, unused.room = 0, 1        # the segment is put together for the taps alone
        flight = copy_unit(worker, &unused, frame, cut, start, bytes)
        if flight != NULL:                      # without room for that they see the whole frame
            lost = flight.frame
    if entering:
        lost.action, lost.reason = DROPPED, <uint8_t>(<int>RX_LINK_LOSS + fate)
        watch_drop(worker, &lost, number)
    else:
        watch_loss(worker, share.index, &lost, number, <int>TX_LINK_LOSS + fate)
    if flight != NULL:
        free_flight(&worker.wire, flight)


# -- a frame -------------------------------------------------------------------------------------------


cdef inline uint32_t count_units(const Link *link, const Frame *frame, Cut *cut) noexcept nogil:
    """Of how many segments a frame consists to this link."""
    cdef const virtio_net_hdr *vnet = <const virtio_net_hdr *>(frame.data - VNET_HEADER)
    if (
        not link.stages.per_unit or vnet.gso_type == VIRTIO_NET_HDR_GSO_NONE
        or not vnet.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM or not locate(frame, vnet, cut)
    ):
        return 1
    cut.bundled, cut.step = False, cut.size
    return max((cut.bytes + cut.size - 1) // cut.size, 1)


cdef inline bint take(
    Worker *worker, Link *link, WorkerPort *share, const Frame *frame, bint entering, uint64_t number,
    uint64_t earliest
) noexcept nogil:
    """Send a frame along a link, whose mutex is held. False: it passes at once, as it is."""
    cdef Flights *flights = &worker.wire.from_pods if entering else &worker.wire.to_pods
    cdef uint8_t copies[CUT_MOST]
    cdef uint32_t units, i, start, bytes, made = 0
    cdef int fate
    cdef bint plain = True
    cdef Cut whole
    cdef const Cut *cut = NULL
    if link.stages.cut:
        link.counts.cut += 1
        lose_unit(worker, share, frame, NULL, 0, 0, FATE_CUT, entering, number)
        return True
    units = count_units(link, frame, &whole)
    for i in range(units):
        copies[i] = <uint8_t>draw_copies(link)
        plain = plain and copies[i] == 1
    if units > 1 and plain and not link.stages.timed:
        units = 1
    elif units > 1:
        cut = &whole
    for i in range(units):
        start = 0 if cut == NULL else i * cut.size
        bytes = 0 if cut == NULL else min(cut.size, cut.bytes - start)
        for _ in range(max(copies[i], <uint8_t>1)):
            made += 1
            fate = FATE_LOST
            if copies[i]:
                fate = fly(worker, link, flights, frame, cut, start, bytes, cut == NULL and copies[i] == 1, earliest)
            if fate == FATE_PASSES:
                return False
            if fate == FATE_FLIES and entering:
                share.tally.rx_in_flight += 1
            elif fate == FATE_FLIES:
                share.tally.tx_in_flight += 1
            else:
                lose_unit(worker, share, frame, cut, start, bytes, fate, entering, number)
    if not entering:
        share.tally.link_added += made - 1
    return True


cdef inline bint is_landed(const Worker *worker, uint32_t place) noexcept nogil:
    """Whether a frame of the batch came off a link in this breath: these are its first ones."""
    return place < worker.wire.landed_count


cdef inline bint takes_link(Worker *worker, const Frame *frame, uint16_t egress, uint32_t place) noexcept nogil:
    """Send a copy along the egress port's link. False: it passes at once."""
    cdef PortLinks *links = worker.ports[egress].links
    cdef Link *link = links.to_pod
    cdef Link *pair = links.pairs[frame.ingress] if links.pairs != NULL else NULL
    cdef uint64_t earliest = 0
    cdef bint taken
    if pair != NULL and pair.leaving and link != NULL:
        earliest = pair.last_due            # what is on it still comes first
    elif pair != NULL:
        link = pair
    if link == NULL:
        return False
    pthread_mutex_lock(&link.mutex)
    taken = take(worker, link, worker.shares[egress], frame, False, worker.frames + place, earliest)
    pthread_mutex_unlock(&link.mutex)
    return taken


cdef inline void enter_links(Worker *worker) noexcept nogil:
    """Send the received frames along the links of their ports. Those that pass at once stay in the batch."""
    cdef uint32_t i, kept = worker.first
    cdef Frame *frame
    cdef PortLinks *links
    cdef Link *link
    cdef bint taken
    for i in range(worker.first, worker.batch_count):
        frame = &worker.batch[i]
        links = worker.ports[frame.ingress].links
        link = links.from_pod if links != NULL else NULL
        if link != NULL and frame.reason == NO_REASON and not is_landed(worker, i):
            pthread_mutex_lock(&link.mutex)
            taken = take(worker, link, worker.shares[frame.ingress], frame, True, worker.frames + i, 0)
            pthread_mutex_unlock(&link.mutex)
            if taken:
                continue
        if kept != i:
            worker.batch[kept] = frame[0]
        kept += 1
    worker.batch_count = kept


# -- landing -------------------------------------------------------------------------------------------


cdef inline void come_off(Link *link, const Flight *flight) noexcept nogil:
    pthread_mutex_lock(&link.mutex)
    link.waiting -= 1
    link.waiting_bytes -= flight.frame.length
    pthread_mutex_unlock(&link.mutex)


cdef inline void stow(Worker *worker, Flight *flight) noexcept nogil:
    """Put a frame that came off its link into the batch."""
    worker.batch[worker.batch_count] = flight.frame
    worker.batch_count += 1
    worker.wire.landed[worker.wire.landed_count] = flight
    worker.wire.landed_count += 1


cdef inline void land_to_pod(Worker *worker, Flight *flight) noexcept nogil:
    """Queue a copy to be sent now."""
    cdef uint16_t egress = <uint16_t>flight.link.egress
    cdef WorkerPort *share = worker.shares[egress]
    come_off(flight.link, flight)
    share.tally.tx_in_flight -= 1
    if not is_open(worker.ports[egress]):
        share.tally.tx_dropped[<int>TX_PORT_DOWN] += 1
        if worker.taps != NULL:
            watch_loss(worker, egress, &flight.frame, worker.frames, TX_PORT_DOWN)
        free_flight(&worker.wire, flight)
        return
    enqueue_copy(worker, egress, worker.batch_count)
    stow(worker, flight)


cdef inline void land_to_pods(Worker *worker, uint32_t most) noexcept nogil:
    """Begin the batch with copies that are due, at most so many."""
    cdef Flights *flights = &worker.wire.to_pods
    while worker.batch_count < most and next_due(flights) <= worker.now:
        land_to_pod(worker, pop_flight(flights))
    worker.first = worker.batch_count


cdef inline void land_from_pods(Worker *worker, uint32_t most) noexcept nogil:
    """Put frames into the batch, to be decided, that are due: at most so many."""
    cdef Flights *flights = &worker.wire.from_pods
    cdef Flight *flight
    while worker.batch_count < worker.first + most and next_due(flights) <= worker.now:
        flight = pop_flight(flights)
        come_off(flight.link, flight)
        worker.shares[flight.frame.ingress].tally.rx_in_flight -= 1
        stow(worker, flight)


cdef inline uint64_t first_due(const Worker *worker) noexcept nogil:
    return min(next_due(&worker.wire.to_pods), next_due(&worker.wire.from_pods))


cdef inline void land(Worker *worker) noexcept nogil:
    """Begin the batch with what is due, three quarters of it at most, and say what may be received beside it.

    That is less while more is due: or frames in flight would be behind for ever, and fill the pool."""
    land_to_pods(worker, max(1, worker.quota // 2))
    land_from_pods(worker, max(1, worker.quota // 4))
    worker.most = worker.batch_count + max(1, worker.quota // 4 if first_due(worker) <= worker.now else worker.quota)


cdef inline bint is_due_soon(const Worker *worker, uint64_t now) noexcept nogil:
    """Whether a frame is due before a sleep would be worth while."""
    cdef uint64_t due = first_due(worker)
    return due != <uint64_t>FOR_EVER and due <= now + worker.busy_poll_ns


cdef inline void arm(Worker *worker) noexcept nogil:
    """Have the timer wake the worker as long before the next frame is due as it spins."""
    cdef uint64_t due = first_due(worker)
    cdef itimerspec when
    if due == <uint64_t>FOR_EVER or due == worker.wire.armed:
        return
    worker.wire.armed = due
    due -= min(due - 1, worker.busy_poll_ns)
    when.it_interval.tv_sec = when.it_interval.tv_nsec = 0
    when.it_value.tv_sec, when.it_value.tv_nsec = due // 1000000000, due % 1000000000
    timerfd_settime(worker.wire.timer_fd, TFD_TIMER_ABSTIME, &when, NULL)


# -- the end of a link ---------------------------------------------------------------------------------


cdef inline void cut_off(Worker *worker, Flights *flights, uint32_t port, bint entering) noexcept nogil:
    """Drop the frames in flight of a port's links. NOBODY: those of all links."""
    cdef uint32_t i, kept = 0
    cdef Flight *flight
    cdef Link *link
    cdef WorkerPort *share
    for i in range(flights.count):
        flight = flights.heap[i]
        link = flight.link
        if port != <uint32_t>NOBODY and link.ingress != port and link.egress != port:
            flights.heap[kept] = flight
            kept += 1
            continue
        share = worker.shares[link.ingress if entering else link.egress]
        come_off(link, flight)
        link.counts.cut += 1
        if entering:
            share.tally.rx_in_flight -= 1
        else:
            share.tally.tx_in_flight -= 1
        lose_unit(worker, share, &flight.frame, NULL, 0, 0, FATE_CUT, entering, worker.frames)
        free_flight(&worker.wire, flight)
    flights.count = kept
    order_flights(flights)


cdef inline void cut_off_links(Worker *worker, uint32_t port) noexcept nogil:
    cut_off(worker, &worker.wire.to_pods, port, False)
    cut_off(worker, &worker.wire.from_pods, port, True)
