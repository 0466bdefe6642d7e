# Transmit: send each egress port's queue, from where the frames lie, in as few calls as possible.
#
# A frame is sent with its vnet header straight from the RX slot that it arrived in, without a copy in user space. For a
# run that leaves as one (coalesce.pxd) only the headers are made anew. So slots go back to the kernel only after the
# whole batch is sent. The TX socket is not the RX socket, and no thread watches it: a watched socket wakes the watcher
# for every frame sent (sock_wfree). There is no TX ring, which would cost another copy (docs/performance.md).
#
# veth delivers on the sender's CPU. A pod's packet sockets, filters and XDP programs run inside the send, and every
# other pod waits. So after a long breath the time of sends is measured, port by port. Ports at which a frame takes
# longer than COSTLY_NS are sent to last, in turn, frame by frame. All of them together get 1/COSTLY_SHARE of the time;
# the rest of their frames is dropped as `costly`. The average rises by an eighth of a slow send's excess over it, and
# falls by a sixteenth. So a pod that is slow for one frame in ten is costly, too. The time that other threads had of
# the CPU in a send is subtracted: a frame that wakes a pod's program makes it run at once, where they share a CPU. So
# is the time that the hypervisor took, where it shows: if the kernel counts a pod's part of a send (a softirq) as CPU
# time of the thread, which short sends tell, a send takes no more than that. CONFIG_IRQ_TIME_ACCOUNTING counts it
# apart.
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport strtoull
from libc.string cimport memset

from .batch cimport BATCH, Frame
from .coalesce cimport HEADERS, Run, find_run, gather_run, may_be_ip, read_mtu
from .codes cimport (
    EVENT_COSTLY, EVENT_TAGGED, FLAG_COALESCE, TAKES_ALL, TX_COSTLY, TX_FULL, TX_NO_BUFFER, TX_PORT_DOWN, TX_REFUSED,
    TX_TAGGED_TOO_BIG, TX_TOO_BIG,
)
from .cut cimport Cut, make_messages, must_cut
from .ethernet cimport ETHERNET_HEADER, network_offset
from .flights cimport free_landed
from .linux cimport (
    EAGAIN, EINTR, EMSGSIZE, ENETDOWN, ENOBUFS, ENOMEM, ENXIO, MSG_DONTWAIT, VIRTIO_NET_HDR_GSO_NONE,
    VIRTIO_NET_HDR_GSO_UDP_L4, errno, pread, sendmmsg, virtio_net_hdr,
)
from .port cimport Port, WorkerPort
from .ring cimport VNET_HEADER, release_slots
from .watch cimport watch_loss
from .worker cimport Worker, lose_link, monotonic_ns, tell, thread_ns

cdef enum:
    # A frame is dropped as `full` after so many tries against a full send buffer.
    TX_TRIES = 4
    LONG_BREATH_NS = 500000     # as long as sends of 250 frames: after a longer breath sends are timed
    TIMED_NS = 1000000000       # they are timed for so long after it
    # A port is costly beyond so much for each 16 KB begun. A frame of 60 bytes takes 2 µs; one of 64 KB that must be
    # segmented in the pod, some 200 µs.
    COSTLY_NS = 200000
    SHORT_NS = 20000            # nothing else had the CPU in a send as short as this
    LATE_NS = 1000000           # so much of short sends tells what is counted; older ones count by half
    COSTLY_SHARE = 16           # costly ports get one part in so many of the time …
    COSTLY_BURST_NS = 2000000   # … and so much at once
    COSTLY_TOLD_NS = 1000000000


cdef inline int send_failed(Worker *worker, WorkerPort *share, uint32_t *tries) noexcept nogil:
    """Why the frame at which sendmmsg stopped is dropped (a TxReason). -1: try it again."""
    cdef int error = errno
    tries[0] += 1
    if error == EINTR:
        return -1
    if error == EAGAIN:
        return TX_FULL if tries[0] > TX_TRIES else -1
    if error == ENETDOWN and tries[0] == 1:     # perhaps an old report, which comes only once
        return -1
    if error == ENETDOWN or error == ENXIO:
        lose_link(worker, share)
        return TX_PORT_DOWN
    if error == EMSGSIZE:
        return TX_TOO_BIG
    # __dev_queue_xmit also returns ENOMEM for a frame whose segmentation or checksumming failed.
    share.tally.shed += error == ENOBUFS or error == ENOMEM
    return TX_NO_BUFFER if error == ENOBUFS or error == ENOMEM else TX_REFUSED


cdef inline uint8_t refine(Worker *worker, WorkerPort *share, const Frame *frame, int reason) noexcept nogil:
    """The reason, by the frame itself where errno alone says too little."""
    cdef const virtio_net_hdr *vnet = <const virtio_net_hdr *>(frame.data - VNET_HEADER)
    cdef uint32_t at, mtu
    if reason == TX_NO_BUFFER and errno == ENOMEM and vnet.gso_type != VIRTIO_NET_HDR_GSO_NONE:
        return TX_REFUSED
    if reason == TX_TOO_BIG and frame.length >= ETHERNET_HEADER:
        # AF_PACKET lets 4 more bytes out for one 802.1Q tag, and for no other. Nor does the receiver take more for two.
        at = network_offset(frame.data, frame.length)
        mtu = read_mtu(share.tx_fd)
        if at > ETHERNET_HEADER and frame.length - at <= mtu:
            if not share.tagged_told:
                share.tagged_told = True
                tell(worker, EVENT_TAGGED, share.index, share.index, mtu)
            return TX_TAGGED_TOO_BIG
    return <uint8_t>reason


cdef inline uint32_t gather(Worker *worker, WorkerPort *share, uint32_t at, uint32_t split_until) noexcept nogil:
    """Make messages of a port's queue from `at` on, and return how many. With the port's flag a run is one.

    Frames before `split_until` are not merged. A frame that must be cut up ends the messages."""
    cdef uint32_t count = 0, used = 0, merged = 0, frames, vectors
    cdef const Port *port = worker.ports[share.index]
    cdef bint merging = port.flags & FLAG_COALESCE != 0 and port.takes == TAKES_ALL
    cdef uint8_t *headers
    cdef Frame *frame
    cdef Run run
    cdef Cut cut
    memset(&run, 0, sizeof(run))
    run.ahead_at = BATCH                        # none
    while at < share.queued:
        frame = &worker.batch[share.queue[at]]
        if must_cut(port, share, frame, &cut):
            break
        worker.messages[count].msg_hdr.msg_iov = &worker.vectors[used]
        frames = 1
        if merging and at + 1 < share.queued and may_be_ip(frame) and at >= split_until:
            frames = find_run(worker, share, at, &run)
        if frames > 1:
            headers = worker.headers + merged * HEADERS
            vectors = gather_run(worker, share, at, &run, headers, &worker.vectors[used])
            merged += 1
        else:
            worker.vectors[used].iov_base = frame.data - VNET_HEADER
            worker.vectors[used].iov_len = frame.length + VNET_HEADER
            vectors = 1
        worker.messages[count].msg_hdr.msg_iovlen = vectors
        worker.spans[count] = frames
        used += vectors
        at += frames
        count += 1
    return count


cdef inline void count_sent(Worker *worker, WorkerPort *share, uint32_t at, uint32_t frames) noexcept nogil:
    """Count the frames of one message as they came in."""
    cdef uint32_t i
    for i in range(frames):
        share.tally.tx_bytes += worker.batch[share.queue[at + i]].length
    share.tally.tx_frames += frames
    share.tally.coalesced += frames - 1


cdef inline void lose_copies(
    Worker *worker, WorkerPort *share, uint32_t at, uint32_t frames, int reason
) noexcept nogil:
    """Count frames of the queue that are not sent."""
    cdef uint32_t i, place
    share.tally.tx_dropped[reason] += frames
    if worker.taps != NULL:
        for i in range(frames):
            place = share.queue[at + i]
            watch_loss(worker, share.index, &worker.batch[place], worker.frames + place, reason)


cdef inline void note_refusal(Worker *worker, WorkerPort *share, uint32_t message, int reason) noexcept nogil:
    """Note that the kernel refused a GSO frame made of several.

    Unless it was too big, the kernel does not know the kind (UDP before 6.2). Then the port gets no more of these."""
    cdef const virtio_net_hdr *vnet = <const virtio_net_hdr *>worker.messages[message].msg_hdr.msg_iov.iov_base
    share.tally.split += 1
    if reason == TX_REFUSED:
        share.unmergeable |= <uint8_t>(1 << vnet.gso_type)


cdef inline uint32_t send(
    Worker *worker, WorkerPort *share, uint32_t at, uint32_t count, uint32_t *split_until
) noexcept nogil:
    """Send the messages that gather() made of a port's queue from `at` on. Returns where that ended.

    That is behind the last message, or at a run that the kernel refused. Its frames, up to `split_until`, must be sent
    one by one."""
    cdef uint32_t sent = 0, tries = 0, i
    cdef int result, reason
    cdef bint stopped = False
    while sent < count:
        # A port in memory has no wire. process() hands its copies over.
        result = <int>count if share.tx_fd < 0 else sendmmsg(
            share.tx_fd, &worker.messages[sent], count - sent, MSG_DONTWAIT
        )
        # Where sendmmsg stopped short, it has tried the next message once and hides the result. That counts as no
        # room, unless our own buffer is full.
        share.tally.shed += stopped and (result > 0 or errno == ENOBUFS or errno == ENOMEM)
        stopped = 0 < result < <int>(count - sent)
        if result > 0:
            share.tally.messages += result
            for i in range(sent, sent + <uint32_t>result):
                count_sent(worker, share, at, worker.spans[i])
                at += worker.spans[i]
            sent += result
            tries = 0
            continue
        reason = send_failed(worker, share, &tries)
        if reason < 0:
            continue
        if worker.spans[sent] > 1 and (reason == TX_TOO_BIG or reason == TX_REFUSED):
            note_refusal(worker, share, sent, reason)
            split_until[0] = at + worker.spans[sent]
            return at
        if worker.spans[sent] == 1:
            reason = refine(worker, share, &worker.batch[share.queue[at]], reason)
        lose_copies(worker, share, at, worker.spans[sent], reason)     # sendmmsg stopped here: skip it, send the rest
        at += worker.spans[sent]
        sent += 1
        tries = 0
    return at


cdef inline int send_some(Worker *worker, WorkerPort *share, uint32_t count) noexcept nogil:
    """Send so many messages of one frame. Returns -1, or why one is not sent (a TxReason)."""
    cdef uint32_t sent = 0, tries = 0
    cdef int result, reason
    worker.copies += count
    while sent < count and share.tx_fd >= 0:
        result = sendmmsg(share.tx_fd, &worker.messages[sent], count - sent, MSG_DONTWAIT)
        if result > 0:
            share.tally.messages += result
            sent += result
            tries = 0
            continue
        reason = send_failed(worker, share, &tries)
        if reason >= 0:
            return reason
    return -1


cdef inline void send_pieces(Worker *worker, WorkerPort *share, uint32_t at, Cut *cut) noexcept nogil:
    """Send a frame that is cut up; it counts as one."""
    cdef const Frame *frame = &worker.batch[share.queue[at]]
    cdef uint32_t start = 0, before = 0, count
    cdef int reason
    while True:
        count = make_messages(worker, frame, cut, &start)
        if count == 0:
            break
        reason = send_some(worker, share, count)
        if reason == TX_REFUSED and cut.bundled:        # this kernel knows no UDP GSO frames (before 6.2)
            share.unmergeable |= <uint8_t>(1 << VIRTIO_NET_HDR_GSO_UDP_L4)
            cut.bundled, start = False, before
        elif reason >= 0:
            lose_copies(worker, share, at, 1, refine(worker, share, frame, reason))
            return
        before = start
    share.tally.tx_frames += 1
    share.tally.tx_bytes += frame.length


cdef inline uint32_t transmit_some(
    Worker *worker, WorkerPort *share, uint32_t at, uint32_t *split_until
) noexcept nogil:
    """Send those frames of a port's queue, from `at` on, that go in one piece. Returns where that ended. See send()."""
    cdef const Frame *frame = &worker.batch[share.queue[at]]
    cdef Cut cut
    if must_cut(worker.ports[share.index], share, frame, &cut):
        send_pieces(worker, share, at, &cut)
        return at + 1
    return send(worker, share, at, gather(worker, share, at, split_until[0]), split_until)


cdef inline void transmit_to(Worker *worker, WorkerPort *share) noexcept nogil:
    """Send a port's queue. Every copy is counted, sent or not."""
    cdef uint32_t at = 0, split_until = 0
    while at < share.queued:
        at = transmit_some(worker, share, at, &split_until)
    share.queued = 0


cdef inline uint32_t units(const Worker *worker, const WorkerPort *share, uint32_t at) noexcept nogil:
    """The weight of a queue from `at` on: one for each frame, of a large one for each 16 KB begun."""
    cdef uint32_t i, sum = 0
    for i in range(at, share.queued):
        sum += 1 + (worker.batch[share.queue[i]].length >> 14)
    return sum


cdef inline uint64_t waited(Worker *worker) noexcept nogil:
    """For how many ns the worker has waited for a CPU since the last call. 0 where the kernel does not say.

    See Documentation/scheduler/sched-stats.rst."""
    cdef char text[80]
    cdef char *rest
    cdef uint64_t before = worker.waited
    cdef ssize_t size = pread(worker.waits_fd, text, sizeof(text) - 1, 0) if worker.waits_fd > 0 else 0
    if size <= 0:
        return 0
    text[size] = 0
    strtoull(text, &rest, 10)                   # the time it has run
    worker.waited = strtoull(rest, NULL, 10)
    return worker.waited - before


cdef inline uint64_t time_taken(Worker *worker, WorkerPort *share, uint64_t elapsed, uint64_t counted) noexcept nogil:
    """A send's part of the `elapsed` ns, `counted` of them as the worker's: the time that nobody else had the CPU."""
    cdef uint64_t away
    if elapsed < SHORT_NS:
        share.counted += counted
        share.short_ns += elapsed
        if share.short_ns > LATE_NS:
            share.counted //= 2
            share.short_ns //= 2
    if elapsed <= COSTLY_NS:
        return elapsed
    away = waited(worker)
    if 16 * share.counted > 15 * share.short_ns and counted < elapsed:
        away = max(away, elapsed - counted)
    return elapsed - away if away < elapsed else 0


cdef inline void note_cost(WorkerPort *share, uint64_t took, uint32_t weight) noexcept nogil:
    cdef uint32_t cost = <uint32_t>min(took // weight, <uint64_t>1000000000)
    if cost > share.cost:
        share.cost += (cost - share.cost) // 8
    else:
        share.cost -= (share.cost - cost) // 16


cdef inline uint32_t find_turn(const Worker *worker, uint32_t costly) noexcept nogil:
    """Which of the first so many touched ports has its turn: the next one after the last that was sent to."""
    cdef uint32_t i, found = 0
    cdef uint16_t distance, least = 0xFFFF
    for i in range(costly):
        distance = <uint16_t>(worker.touched[i] - worker.costly_last - 1)
        if distance < least:
            least, found = distance, i
    return found


cdef inline void transmit_costly(Worker *worker, WorkerPort *share, uint64_t *now) noexcept nogil:
    """Send a costly port's queue frame by frame, as far as there is time for it. `now` is ns, and goes on."""
    cdef uint32_t queued = share.queued, at = 0, split_until = 0, weight
    cdef uint64_t began, took, counted, counted_before = thread_ns()
    worker.timed_until = now[0] + TIMED_NS
    while at < queued and worker.costly_from <= now[0] + COSTLY_SHARE * COSTLY_BURST_NS:
        share.queued = at + 1
        weight = units(worker, share, at)
        at = transmit_some(worker, share, at, &split_until)
        began, now[0] = now[0], monotonic_ns()
        took = now[0] - began
        if worker.breathing:
            counted, counted_before = counted_before, thread_ns()
            took = time_taken(worker, share, took, counted_before - counted)
        else:                                   # its waits are not known
            took = min(took, <uint64_t>share.cost * weight)
        worker.costly_last = share.index
        if share.cost > COSTLY_NS:
            worker.costly_from = max(worker.costly_from, began) + COSTLY_SHARE * took
        if worker.breathing:
            note_cost(share, took, weight)
    share.queued = 0
    if at == queued:
        return
    lose_copies(worker, share, at, queued - at, TX_COSTLY)
    if share.costly_until < now[0]:
        share.costly_until = now[0] + COSTLY_TOLD_NS
        tell(worker, EVENT_COSTLY, share.index, share.index, share.cost)


cdef inline void transmit_timed(Worker *worker) noexcept nogil:
    """As transmit(), with costly ports last."""
    cdef uint64_t now = monotonic_ns(), began, counted, counted_before = thread_ns()
    cdef uint32_t i, costly = 0, first, weight
    cdef WorkerPort *share
    if worker.breathing:
        waited(worker)
    for i in range(worker.touched_count):
        share = worker.shares[worker.touched[i]]
        worker.copies += share.queued
        if share.tx_fd >= 0 and share.cost > COSTLY_NS:
            worker.touched[costly] = worker.touched[i]
            costly += 1
            continue
        weight = units(worker, share, 0)
        transmit_to(worker, share)
        began, now = now, monotonic_ns()
        if worker.breathing:                     # else another thread sends, and its waits are not known
            counted, counted_before = counted_before, thread_ns()
            note_cost(share, time_taken(worker, share, now - began, counted_before - counted), weight)
    first = find_turn(worker, costly)
    for i in range(costly):
        transmit_costly(worker, worker.shares[worker.touched[(first + i) % costly]], &now)


cdef inline void transmit(Worker *worker) noexcept nogil:
    cdef uint32_t i
    worker.copies = 0
    if worker.now < worker.timed_until:
        transmit_timed(worker)
    else:
        for i in range(worker.touched_count):
            worker.copies += worker.shares[worker.touched[i]].queued
            transmit_to(worker, worker.shares[worker.touched[i]])
    worker.touched_count = 0


cdef inline void release(Worker *worker) noexcept nogil:
    """Forget the batch. Its slots go back to the kernel, and its big buffers are free."""
    cdef uint32_t i
    cdef WorkerPort *share
    for i in range(worker.active_count):
        share = worker.shares[worker.active[i]]
        release_slots(&share.ring)
    worker.frames += worker.batch_count
    worker.batch_count = worker.big_count = worker.first = 0
    worker.big_used = 0
    if worker.wire.landed_count:
        free_landed(&worker.wire)
