"""Links: emulated wires between the switch and its pods (link.pxd, emulate.pxd), set and read by Python.

They change while all workers are between two breaths. A link that changes keeps its frames in flight, its queue and
the order of frames.
"""

cimport cython
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from libc.stdint cimport int32_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp

from .barrier cimport load_relaxed32
from .dataplane cimport Dataplane
from .flights cimport FLIGHT_MEMORY
from .link cimport NOBODY, TABLE, Link, LinkStep, Stages, leave_queue, restart as restart_link, take_off
from .link_memory cimport free_link, is_on, make_places, slot_of, tidy_port
from .linux cimport CLOCK_MONOTONIC, TFD_CLOEXEC, TFD_NONBLOCK, close, errno, pthread_mutex_init, timerfd_create
from .port cimport Port, PortLinks
from .receive cimport TIMER, watch
from .worker cimport Worker, lock, monotonic_ns, notify, unlock

import os
from weakref import WeakValueDictionary

#: What the frames in flight of one worker may take, bytes.
MEMORY = FLIGHT_MEMORY

#: How many steps a table of delays has: one less than it has values.
TABLE_STEPS = TABLE


cdef struct Order:              # a link to set, or to take off
    uint32_t ingress, egress
    Stages stages
    uint64_t seed
    bint anew                   # its random numbers and its count of frames begin anew
    Link *fresh                 # NULL: take it off, or the memory is used


@cython.final
cdef class _Arrays:
    """The arrays of links' stages, for the core to read. They live as long as this object."""

    cdef object __weakref__
    cdef tuple made_of                  # lose_frames, table, steps: while they live, no others have their id()
    cdef uint64_t *lose_frames
    cdef int32_t *table
    cdef LinkStep *steps

    def __cinit__(self, stages):
        cdef Py_ssize_t i
        self.made_of = stages.lose_frames, stages.table, stages.steps
        self.lose_frames = <uint64_t *>PyMem_Calloc(len(stages.lose_frames) + 1, sizeof(uint64_t))
        self.table = <int32_t *>PyMem_Calloc(TABLE + 1 if stages.table else 1, sizeof(int32_t))
        self.steps = <LinkStep *>PyMem_Calloc(len(stages.steps) + 1, sizeof(LinkStep))
        if self.lose_frames == NULL or self.table == NULL or self.steps == NULL:
            raise MemoryError("no memory for a link")
        for i, number in enumerate(stages.lose_frames):
            self.lose_frames[i] = number
        for i, value in enumerate(stages.table):
            self.table[i] = value
        for i, (at, rate, delay) in enumerate(stages.steps):
            self.steps[i].at, self.steps[i].rate, self.steps[i].delay = at, rate, delay

    def __dealloc__(self):
        PyMem_Free(self.lose_frames)
        PyMem_Free(self.table)
        PyMem_Free(self.steps)


@cython.final
cdef class Links:
    """The links of a data plane.

    A key is (kind, ingress, egress), with None for no port: ("to_pod", None, 2) is the wire from the switch to the pod
    at port 2, ("from_pod", 2, None) the one back, ("pair", 1, 2) takes the place of the former for frames from port 1.
    """

    cdef Dataplane dataplane
    cdef dict arrays                    # by key: what the links point to …
    cdef dict seeds                     # … and from which seeds they draw
    cdef set emptying                   # ports with links that were taken off and may not be empty yet
    cdef object known                   # _Arrays by the id() of what they are made of: links that are alike share them

    def __cinit__(self, Dataplane dataplane not None):
        self.dataplane = dataplane
        self.arrays, self.seeds, self.emptying, self.known = {}, {}, set(), WeakValueDictionary()

    def set(self, links, *, bint restart=True, now=None):
        """Set many links at once, {key: Stages or None}; the frames in flight stay, and keep their times and order.

        None takes a link off. restart: its random numbers and its count of frames begin anew, as they do with another
        seed. now: ns, for a data plane in memory. Raises IndexError (no such port), ValueError (stages that the core
        cannot hold, or no key of a link), MemoryError, OSError; then nothing has changed."""
        cdef uint32_t count = <uint32_t>len(links), i
        cdef Order *orders = <Order *>calloc(count + 1, sizeof(Order))
        cdef uint64_t time = monotonic_ns() if now is None else now
        cdef dict arrays = {}
        cdef bint done
        try:
            if orders == NULL:
                raise MemoryError("no memory for the links")
            for i, (key, wanted) in enumerate(links.items()):
                arrays[key] = None if wanted is None else self._arrays_of(wanted)
                make_order(&orders[i], key, wanted, arrays[key])
                orders[i].anew = wanted is not None and (restart or self.seeds.get(key) != wanted.seed)
            self._open_timers()
            with nogil:
                self.dataplane._lock()
                done = self._prepare(orders, count)
                if done:
                    for i in range(count):
                        place(&orders[i], self.dataplane.ports, time)
                    self._count()
                self.dataplane._unlock()
            if not done and not all([self._there(&orders[i]) for i in range(count)]):
                raise IndexError("no such port")
            if not done:
                raise MemoryError("no memory for the links")
        finally:
            for i in range(count if orders != NULL else 0):
                free_link(&orders[i].fresh)
            free(orders)
        for key, wanted in links.items():
            if wanted is None:
                self.arrays.pop(key, None)
                self.emptying.add(key[1] if key[2] is None else key[2])     # the port that keeps it
            else:
                self.arrays[key], self.seeds[key] = arrays[key], wanted.seed
        for i in range(self.dataplane.worker_count):
            notify(self.dataplane.workers[i].wake_fd)

    cdef _Arrays _arrays_of(self, stages):
        cdef tuple which = (id(stages.lose_frames), id(stages.table), id(stages.steps))
        cdef _Arrays found = self.known.get(which)
        if found is None:
            found = self.known[which] = _Arrays(stages)
        return found

    cdef bint _there(self, const Order *order) noexcept nogil:
        """Whether there are the ports of a link."""
        return (
            (order.ingress == <uint32_t>NOBODY or self.dataplane._port(order.ingress) != NULL)
            and (order.egress == <uint32_t>NOBODY or self.dataplane._port(order.egress) != NULL)
        )

    cdef bint _prepare(self, const Order *orders, uint32_t count) noexcept nogil:
        """See that there are the ports of all orders, and places for their links."""
        cdef uint32_t i
        for i in range(count):
            if not self._there(&orders[i]):
                return False
        for i in range(count):
            if orders[i].fresh != NULL and not make_places(
                self.dataplane.ports[port_of(&orders[i])], orders[i].ingress, orders[i].egress
            ):
                return False
        return True

    cdef int _open_timers(self) except -1:
        """Give each worker the timer that wakes it for frames in flight."""
        cdef Worker *worker
        cdef uint32_t i
        for i in range(self.dataplane.worker_count):
            worker = &self.dataplane.workers[i]
            if worker.wire.timer_fd > 0:
                continue
            worker.wire.timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC)
            if worker.wire.timer_fd < 0 or watch(worker, worker.wire.timer_fd, TIMER) < 0:
                error = errno
                if worker.wire.timer_fd > 0:
                    close(worker.wire.timer_fd)
                worker.wire.timer_fd = 0        # the next call tries again
                raise OSError(error, os.strerror(error))
        return 0

    cdef void _count(self) noexcept nogil:
        """Tell the workers whether received frames may enter a link."""
        cdef uint32_t i, count = 0
        for i in range(self.dataplane.port_count):
            if self.dataplane.ports[i].links != NULL and self.dataplane.ports[i].links.from_pod != NULL:
                count += 1
        for i in range(self.dataplane.worker_count):
            self.dataplane.workers[i].wire.from_pod_links = count
            self.dataplane.workers[i].wire.used = True

    def tidy(self):
        """Free the links that were taken off and have no frames in flight any more. Returns how many still have."""
        cdef uint32_t index, left, total = 0
        # Port by port: for all pairs of hundreds of ports, frames would wait too long.
        for index in sorted(self.emptying):
            self.emptying.discard(index)        # before: what is taken off meanwhile enters it again
            with nogil:
                self.dataplane._lock()
                left = tidy_port(self.dataplane.ports[index], self.dataplane.port_count)
                self._count()
                self.dataplane._unlock()
            total += left
            if left:
                self.emptying.add(index)
        return total

    def state(self, now=None):
        """Each link's counts, {key: {name: count}}.

        The names: entered (frames, or segments of GSO frames), lost, queue_full, cut, duplicated, corrupted,
        reordered; waiting and waiting_bytes (in flight); queued and queued_bytes (before the rate). now: ns, for a
        data plane in memory."""
        cdef dict found = {}
        cdef uint64_t time = monotonic_ns() if now is None else now
        cdef uint32_t i
        for i in range(load_relaxed32(&self.dataplane.port_count)):
            with nogil:
                self.dataplane._lock()
            try:
                name_links(self.dataplane.ports[i].links, i, self.dataplane.port_count, time, found)
            finally:
                self.dataplane._unlock()
        return found

    def state_of(self, keys, now=None):
        """As state(), of these links alone. Those that are not there are left out."""
        cdef dict found = {}
        cdef uint64_t time = monotonic_ns() if now is None else now
        cdef Order order
        cdef Link *link
        for key in keys:
            make_order(&order, key, None, None)
            with nogil:
                self.dataplane._lock()
            try:
                link = self._link(&order)
                if is_on(link):
                    found[key] = name_link(link, time)
            finally:
                self.dataplane._unlock()
        return found

    cdef Link *_link(self, const Order *order) noexcept nogil:
        """The link that an order is about; NULL: there is none."""
        cdef PortLinks *links = self.dataplane.ports[port_of(order)].links if self._there(order) else NULL
        cdef Link **slot = slot_of(links, order.ingress, order.egress) if links != NULL else NULL
        return NULL if slot == NULL else slot[0]

    @property
    def memory(self):
        """What the frames in flight take, and took at most: a pair of bytes, of all workers."""
        cdef uint64_t now = 0, most = 0
        cdef uint32_t i
        for i in range(self.dataplane.worker_count):
            with nogil:                         # who holds it may wait for the GIL
                lock(&self.dataplane.workers[i])
            now += self.dataplane.workers[i].wire.bytes
            most += self.dataplane.workers[i].wire.most_bytes
            unlock(&self.dataplane.workers[i])
        return now, most


cdef inline uint32_t port_of(const Order *order) noexcept nogil:
    """The port that keeps a link."""
    return order.ingress if order.egress == <uint32_t>NOBODY else order.egress


cdef int make_order(Order *order, key, wanted, _Arrays arrays) except -1:
    """Read a key and its stages; and get memory for a link, in case there is none."""
    kind, ingress, egress = key
    if (kind, ingress is None, egress is None) not in (
        ("to_pod", True, False), ("from_pod", False, True), ("pair", False, False)
    ):
        raise ValueError(f"{key} is no link's key")
    order.ingress = <uint32_t>NOBODY if ingress is None else <uint32_t>ingress
    order.egress = <uint32_t>NOBODY if egress is None else <uint32_t>egress
    if wanted is None:
        return 0
    read_stages(wanted, arrays, &order.stages)
    order.seed = wanted.seed
    order.fresh = <Link *>calloc(1, sizeof(Link))
    if order.fresh == NULL:
        raise MemoryError("no memory for a link")
    pthread_mutex_init(&order.fresh.mutex, NULL)
    take_off(order.fresh)
    order.fresh.ingress, order.fresh.egress = order.ingress, order.egress
    return 0


cdef bint have_same_steps(const Stages *one, const Stages *other) noexcept nogil:
    return one.step_count == other.step_count and (
        one.steps == other.steps or memcmp(one.steps, other.steps, one.step_count * sizeof(LinkStep)) == 0
    )


cdef void place(Order *order, Port **ports, uint64_t now) noexcept nogil:
    """Carry out an order. Its memory for a link is used if there was none."""
    cdef PortLinks *links = ports[port_of(order)].links
    cdef Link **slot = slot_of(links, order.ingress, order.egress) if links != NULL else NULL
    cdef Link *link
    if order.fresh == NULL:
        if slot != NULL and slot[0] != NULL:
            take_off(slot[0])
        return
    if slot[0] == NULL:
        slot[0] = order.fresh
        order.fresh = NULL
    link = slot[0]
    if slot != &links.to_pod and slot != &links.from_pod and links.to_pod != NULL:
        link.last_due = max(link.last_due, links.to_pod.last_due)       # what is on that way still comes first
    if order.anew or link.leaving or not have_same_steps(&link.stages, &order.stages):
        link.epoch = now                                        # a trace begins when it is set
    if order.anew or link.leaving:
        restart_link(link, order.seed)
    link.stages, link.leaving, link.lose_next = order.stages, False, 0


cdef int name_links(PortLinks *links, uint32_t port, uint32_t count, uint64_t now, dict found) except -1:
    cdef uint32_t i
    if links == NULL:
        return 0
    if is_on(links.to_pod):
        found["to_pod", None, port] = name_link(links.to_pod, now)
    if is_on(links.from_pod):
        found["from_pod", port, None] = name_link(links.from_pod, now)
    for i in range(count if links.pairs != NULL else 0):
        if is_on(links.pairs[i]):
            found["pair", i, port] = name_link(links.pairs[i], now)
    return 0


cdef dict name_link(Link *link, uint64_t now):
    cdef dict named
    leave_queue(link, now)
    named = link.counts
    named.update(
        waiting=link.waiting, waiting_bytes=link.waiting_bytes, queued=link.queued, queued_bytes=link.queued_bytes
    )
    return named


cdef uint64_t threshold(double probability) except? 0:
    """What a draw of 64 bits must not exceed; 0: never."""
    if not 0 <= probability <= 1:
        raise ValueError(f"{probability} is no probability")
    return <uint64_t>min(int(probability * 2.0 ** 64), 2 ** 64 - 1)


cdef int read_stages(wanted, _Arrays arrays, Stages *stages) except -1:
    """Make the core's stages of Python's."""
    cdef Stages made
    made.cut, made.keeps_order = wanted.cut, wanted.keeps_order
    made.loss = threshold(wanted.loss)
    made.bursts = wanted.bursts is not None
    made.to_bad, made.to_good, made.loss_good, made.loss_bad = (
        [threshold(each) for each in wanted.bursts or (0, 0, 0, 0)]
    )
    made.lose_every = wanted.lose_every
    made.duplicate, made.corrupt = threshold(wanted.duplicate), threshold(wanted.corrupt)
    made.reorder = threshold(wanted.reorder)
    made.rate, made.overhead = wanted.rate, wanted.overhead
    made.limit_bytes, made.limit_ns = wanted.limit_bytes, wanted.limit_ns
    made.limit_frames = wanted.limit_frames
    made.period_work = min(work_of(wanted), 2 ** 64 - 1) if wanted.period_ns else 0
    made.delay, made.jitter, made.period = wanted.delay_ns, wanted.jitter_ns, wanted.period_ns
    made.lose_frames, made.lose_count = arrays.lose_frames, len(wanted.lose_frames)
    made.table, made.steps, made.step_count = arrays.table, arrays.steps, len(wanted.steps)
    if made.jitter and len(wanted.table) != TABLE + 1:
        raise ValueError(f"a table of delays has {TABLE + 1} values, not {len(wanted.table)}")
    require_steps(wanted)
    made.timed = made.rate or made.step_count or made.jitter or made.reorder or made.corrupt
    made.per_unit = (
        made.timed or made.loss or made.bursts or made.lose_every or made.lose_count or made.duplicate
    )
    stages[0] = made
    return 0


cdef object work_of(wanted):
    """What the steps of a link serve in a period, bit/s × ns."""
    ends = [at for at, _, _ in wanted.steps[1:]] + [wanted.period_ns]
    return sum([(end - at) * (wanted.rate if rate < 0 else rate) for end, (at, rate, _) in zip(ends, wanted.steps)])


cdef int require_steps(wanted) except -1:
    """A link that changes with time begins at 0, goes on, and lets frames through some time."""
    times = [at for at, _, _ in wanted.steps]
    rates = [wanted.rate if rate < 0 else rate for _, rate, _ in wanted.steps]
    if not times:
        return 0
    if times[0] != 0 or sorted(set(times)) != times or 0 < wanted.period_ns <= max(times):
        raise ValueError("the steps of a link begin at 0 and ascend, within its period")
    if wanted.rate == 0 and all(rate < 0 for _, rate, _ in wanted.steps):
        return 0                                                # they change the delay alone
    if wanted.rate == 0 and any(rate < 0 for _, rate, _ in wanted.steps):
        raise ValueError("a link has a rate in all its steps, or in none")
    if not any(rates if wanted.period_ns else rates[len(rates) - 1:]):
        raise ValueError("a link whose rate stays 0 lets nothing through")
    return 0
