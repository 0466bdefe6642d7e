# A link: an emulated wire, in one direction. What it does to one frame, by numbers alone.
#
# The stages are those of netem, in its order: loss and duplication, corruption, a queue with a limit, rate, delay and
# jitter. A link never waits: it says when a frame is due. emulate.pxd holds the frame until then.
#
# Every stage draws from a stream of random numbers of its own. So a link's losses are the same with and without
# jitter. docs/links.md says what is drawn when; tests/support/link_model.py repeats it.
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memset

from .linux cimport pthread_mutex_t

cdef enum:
    TABLE = 4096                # steps of a table of delays, one value less than it has
    NOBODY = 0xFFFFFFFF         # no port
    FOR_EVER = 0xFFFFFFFFFFFFFFFF

cdef enum Stream:
    STREAM_LOSS = 0
    STREAM_DUPLICATE = 1
    STREAM_CORRUPT = 2
    STREAM_DELAY = 3
    STREAM_REORDER = 4
    STREAMS = 5

cdef struct LinkStep:           # of a link that changes with time
    uint64_t at                 # ns since it was set
    int64_t rate                # bit/s; -1: the link's own
    int64_t delay               # ns; -1: the link's own

cdef struct Stages:
    # Probabilities are thresholds: a draw of 64 bits is not above it. 0: never, and nothing is drawn.
    bint cut
    bint per_unit               # a stage acts on what the wire would see: GSO frames are cut
    bint timed                  # … by rate, jitter or reordering: their segments do not stay together
    bint bursts
    bint keeps_order
    uint64_t loss
    uint64_t to_bad, to_good, loss_good, loss_bad
    uint64_t lose_every
    uint64_t duplicate, corrupt, reorder
    uint64_t rate               # bit/s; 0: no limit
    uint32_t overhead           # bytes that a frame takes of the wire, and nobody sees
    uint64_t limit_bytes, limit_ns, limit_frames        # 0: none
    uint64_t delay, jitter      # ns
    uint64_t period             # ns
    uint64_t period_work        # what a period serves: bit/s × ns
    # These three arrays belong to Python (links.pyx), which keeps them as long as the link.
    const uint64_t *lose_frames  # ascending
    uint64_t lose_count
    const int32_t *table        # TABLE + 1 values, 1/65536 of the jitter
    const LinkStep *steps
    uint32_t step_count         # 0: the link does not change

cdef struct Departure:          # a frame in the queue before the rate
    uint64_t at
    uint32_t bytes

cdef struct LinkCounts:
    uint64_t entered            # frames, or segments of GSO frames
    uint64_t lost, queue_full, cut, duplicated, corrupted, reordered

cdef struct Link:
    pthread_mutex_t mutex       # several workers may send by it
    uint32_t ingress, egress    # the ports, or NOBODY
    bint leaving                # taken off: frames in flight still arrive in order, others pass
    Stages stages
    uint64_t epoch              # ns, when the stages began
    uint64_t random[STREAMS]
    uint64_t number             # of the last frame
    uint64_t lose_next          # place in lose_frames
    bint bad                    # the state of bursts
    uint64_t free_at, last_due  # ns
    Departure *queue            # a ring of 2ⁿ places
    uint32_t queue_room, queue_head, queued
    uint64_t queued_bytes
    uint64_t waiting, waiting_bytes     # in flight
    LinkCounts counts


cdef inline uint64_t mix(uint64_t z) noexcept nogil:
    """splitmix64's output function (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014)."""
    z = (z ^ z >> 30) * <uint64_t>0xBF58476D1CE4E5B9
    z = (z ^ z >> 27) * <uint64_t>0x94D049BB133111EB
    return z ^ z >> 31


cdef inline uint64_t draw(Link *link, uint32_t stream) noexcept nogil:
    link.random[stream] += <uint64_t>0x9E3779B97F4A7C15
    return mix(link.random[stream])


cdef inline bint chance(Link *link, uint32_t stream, uint64_t threshold) noexcept nogil:
    return threshold != 0 and draw(link, stream) <= threshold


cdef inline void restart(Link *link, uint64_t seed) noexcept nogil:
    """Begin the random numbers and the count of frames anew."""
    cdef uint32_t i
    for i in range(<uint32_t>STREAMS):
        link.random[i] = mix(seed + <uint64_t>0x9E3779B97F4A7C15 * (i + 1))
    link.number = link.lose_next = 0
    link.bad = False


cdef inline void take_off(Link *link) noexcept nogil:
    """Let frames pass. Those in flight still come first."""
    memset(&link.stages, 0, sizeof(Stages))
    link.stages.keeps_order = True
    link.leaving = True


# -- loss, duplication, corruption ---------------------------------------------------------------------


cdef inline bint is_lost(Link *link) noexcept nogil:
    """Whether the next frame is lost. All rules are asked, so that none shifts the numbers of another."""
    cdef const Stages *stages = &link.stages
    cdef bint lost = chance(link, STREAM_LOSS, stages.loss)
    link.number += 1
    if stages.bursts:
        lost |= chance(link, STREAM_LOSS, stages.loss_bad if link.bad else stages.loss_good)
        if chance(link, STREAM_LOSS, stages.to_good if link.bad else stages.to_bad):
            link.bad = not link.bad
    if stages.lose_every:
        lost |= link.number % stages.lose_every == 0
    while link.lose_next < stages.lose_count and stages.lose_frames[link.lose_next] <= link.number:
        lost |= stages.lose_frames[link.lose_next] == link.number
        link.lose_next += 1
    return lost


cdef inline uint32_t draw_copies(Link *link) noexcept nogil:
    """How many copies of the next frame go on. One that is lost and duplicated is one, as with netem."""
    cdef bint lost = is_lost(link), duplicated = chance(link, STREAM_DUPLICATE, link.stages.duplicate)
    link.counts.entered += 1
    if duplicated:
        link.counts.duplicated += 1
    if lost and not duplicated:
        link.counts.lost += 1
    return 1 - <uint32_t>lost + <uint32_t>duplicated


cdef inline uint64_t draw_corruption(Link *link, uint32_t length) noexcept nogil:
    """Which bit of a copy flips, counted from 1. 0: none."""
    if length == 0 or not chance(link, STREAM_CORRUPT, link.stages.corrupt):
        return 0
    link.counts.corrupted += 1
    return draw(link, STREAM_CORRUPT) % (8 * <uint64_t>length) + 1


# -- queue and rate ------------------------------------------------------------------------------------


cdef inline const LinkStep *step_at(const Link *link, uint64_t time, uint64_t *until) noexcept nogil:
    """The step that holds at a time, and until when."""
    cdef const Stages *stages = &link.stages
    cdef uint64_t since = time - link.epoch if time > link.epoch else 0, begin = 0
    cdef uint32_t low = 0, high = stages.step_count, middle
    if stages.period:
        begin = since // stages.period * stages.period
        since -= begin
    while high - low > 1:
        middle = (low + high) // 2
        if stages.steps[middle].at <= since:
            low = middle
        else:
            high = middle
    if low + 1 < stages.step_count:
        until[0] = link.epoch + begin + stages.steps[low + 1].at
    else:
        until[0] = link.epoch + begin + stages.period if stages.period else <uint64_t>FOR_EVER
    return &stages.steps[low]


cdef inline uint64_t serve(uint64_t bits, uint64_t rate) noexcept nogil:
    """How many ns so many bits take, to the nearest."""
    return (bits * 1000000000 + rate // 2) // rate


cdef inline uint64_t serve_by_steps(const Link *link, uint64_t start, uint64_t bits) noexcept nogil:
    """When so many bits have left that begin at `start`, at a rate that changes; FOR_EVER: not in 500 years."""
    cdef const Stages *stages = &link.stages
    cdef uint64_t work = bits * 1000000000, periods, until, rate
    cdef const LinkStep *step
    if stages.period and work > stages.period_work:         # whole periods, so that few steps are left
        periods = (work - 1) // stages.period_work
        if periods > (<uint64_t>FOR_EVER - start) // stages.period - 1:
            return FOR_EVER
        work -= periods * stages.period_work
        start += periods * stages.period
    while True:
        step = step_at(link, start, &until)
        rate = stages.rate if step.rate < 0 else <uint64_t>step.rate
        if rate != 0 and (until == <uint64_t>FOR_EVER or (work + rate - 1) // rate <= until - start):
            return start + (work + rate // 2) // rate
        if until == <uint64_t>FOR_EVER:
            return FOR_EVER
        work -= (until - start) * rate
        start = until


cdef inline void leave_queue(Link *link, uint64_t now) noexcept nogil:
    """Take the frames out of the queue that have left it by now."""
    cdef Departure *first
    while link.queued:
        first = &link.queue[link.queue_head]
        if first.at > now:
            return
        link.queued_bytes -= first.bytes
        link.queued -= 1
        link.queue_head = link.queue_head + 1 & link.queue_room - 1


cdef inline bint grow_queue(Link *link) noexcept nogil:
    """Make room in the queue for one more."""
    cdef uint32_t room = link.queue_room * 2 if link.queue_room else 64, i
    cdef Departure *queue
    if link.queued < link.queue_room:
        return True
    queue = <Departure *>realloc(link.queue, room * sizeof(Departure))
    if queue == NULL:
        return False
    for i in range(link.queue_head):            # the part that had come round
        queue[link.queue_room + i] = queue[i]
    link.queue, link.queue_room = queue, room
    return True


cdef inline bint queue_is_full(const Link *link, uint64_t now, uint32_t bytes) noexcept nogil:
    cdef const Stages *stages = &link.stages
    return (
        (stages.limit_bytes and link.queued_bytes + bytes > stages.limit_bytes)
        or (stages.limit_frames and link.queued >= stages.limit_frames)
        or (stages.limit_ns and link.free_at > now and link.free_at - now > stages.limit_ns)
    )


cdef inline bint has_rate(const Link *link) noexcept nogil:
    """Whether it has one at any time: in all steps or in none."""
    return link.stages.rate != 0 or (link.stages.step_count != 0 and link.stages.steps[0].rate >= 0)


cdef inline uint64_t depart(Link *link, uint64_t now, uint32_t length) noexcept nogil:
    """When a frame has left the queue by the rate; FOR_EVER: the queue is full."""
    cdef uint32_t bytes = length + link.stages.overhead
    cdef uint64_t start
    cdef Departure *last
    leave_queue(link, now)
    if queue_is_full(link, now, bytes) or not grow_queue(link):
        return FOR_EVER
    start = max(now, link.free_at)
    if link.stages.step_count:
        start = serve_by_steps(link, start, 8 * <uint64_t>bytes)
        if start == <uint64_t>FOR_EVER:
            return FOR_EVER
    else:
        start += serve(8 * <uint64_t>bytes, link.stages.rate)
    link.free_at = start
    last = &link.queue[link.queue_head + link.queued & link.queue_room - 1]
    last.at, last.bytes = start, bytes
    link.queued += 1
    link.queued_bytes += bytes
    return start


# -- delay ---------------------------------------------------------------------------------------------


cdef inline uint64_t draw_delay(Link *link, uint64_t departure) noexcept nogil:
    cdef const Stages *stages = &link.stages
    cdef uint64_t delay = stages.delay, random, unused
    cdef const LinkStep *step
    cdef uint32_t i
    cdef int64_t value
    if stages.step_count:
        step = step_at(link, departure, &unused)
        delay = stages.delay if step.delay < 0 else <uint64_t>step.delay
    if stages.jitter == 0:
        return delay
    random = draw(link, STREAM_DELAY)
    i = <uint32_t>(random >> 52)
    value = stages.table[i]
    value += ((<int64_t>stages.table[i + 1] - value) * <int64_t>(random >> 36 & 0xFFFF)) >> 16
    value = <int64_t>delay + ((<int64_t>stages.jitter * value) >> 16)
    return <uint64_t>value if value > 0 else 0


cdef inline uint64_t arrive(Link *link, uint64_t departure) noexcept nogil:
    """When a frame is due that has left the queue."""
    cdef uint64_t due
    if chance(link, STREAM_REORDER, link.stages.reorder):
        link.counts.reordered += 1
        return departure
    due = departure + draw_delay(link, departure)
    if link.stages.keeps_order:
        link.last_due = due = max(due, link.last_due)
    return due


cdef inline uint64_t schedule(Link *link, uint64_t now, uint32_t length) noexcept nogil:
    """When a frame that enters now is due; FOR_EVER: the queue is full."""
    cdef uint64_t departure = depart(link, now, length) if has_rate(link) else now
    if departure == <uint64_t>FOR_EVER:
        link.counts.queue_full += 1
        return FOR_EVER
    return arrive(link, departure)


cdef inline void free_queue(Link *link) noexcept nogil:
    free(link.queue)
    link.queue = NULL
    link.queue_room = link.queued = link.queue_head = 0
