"""Foresight: what would become of a frame, and a frame that comes from Python as if a port had received it.

Foreseeing runs the data plane's own parse and classify, on copies of all that they change: the ingress port with its
limits, and a table of the two FDB entries that a frame can meet. So it cannot differ from the decision, and changes
nothing. tests/core/test_foresight.py compares both over random histories.
"""

cimport cython
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from .batch cimport Frame
from .codes cimport (
    CONSUMED, DROPPED, FLAG_LEARNING, FLAG_LOCKED, FLOODED, FORWARDED, LEARN_DAMPED, LEARN_MOVED, LEARN_NEW, LOOP_PROBE,
    NO_REASON, ORDINARY, PUNT_NONE, RX_PUNT_FULL, RX_PUNT_TOO_LONG,
)
from .dataplane cimport Dataplane
from .decide cimport decide, fall_back
from .forward cimport Forwarding, classify, look_up_egress, parse
from .linux cimport pthread_mutex_lock, pthread_mutex_unlock
from .mac_table cimport (
    ENTRY_STATIC, Entry, MacTable, MacTableState, foresee_eviction, hash_key, learn, look_up, mac_of, read_entry,
    remove_key, set_static, vid_of,
)
from .memory_ports cimport copy_frames
from .port cimport MAX_PORTS, Port, is_open
from .punt cimport PUNT_BYTES, has_room
from .ring cimport VNET_HEADER
from .send_out cimport send_out
from .worker cimport BIG_SIZE, Worker, may_flood, monotonic_ns, start_frame

from . import codes as _codes

_ACTIONS, _REASONS, _FLOODS = list(_codes.ACTIONS), list(_codes.DROP_REASONS), list(_codes.FLOOD_KINDS)
_KINDS, _LEARNED, _PUNTS = list(_codes.FRAME_KINDS), list(_codes.LEARN_RESULTS), list(_codes.PUNTS)

cdef struct Outcome:
    Port port                   # the ingress port as it was
    Frame frame                 # decided
    Frame plain                 # of one that the policy takes: what it would be without policy
    int known, heard            # the ports that destination and source are known on now, or -1
    uint16_t was                # where a station that moved was before
    uint64_t evicted            # the key of the entry that made room; 0: none
    uint32_t copies, plain_copies
    uint16_t *egress            # the ports of the copies
    uint16_t *plain_egress
    uint32_t open_count
    uint16_t *open              # the ports that a policy may send it to


@cython.final
cdef class Foresight:
    """Of the frames of a data plane."""

    cdef Dataplane dataplane

    def __cinit__(self, Dataplane dataplane not None):
        self.dataplane = dataplane

    def foresee(self, uint32_t ingress, bytes frame, uint64_t now):
        """What would become of a frame that a port received at `now` (ns of the data plane's clock); nothing changes.

        A dict: source, destination and vlan (None of a frame that is not read), kind, learned, was, evicted (vlan,
        mac), punt (what the policy wants of it), punted, for_switch, action, reason, flood, known and heard (the ports
        of destination and source in the FDB), egress (of each copy); of a frame that the policy takes `plain`,
        {action, reason, flood, egress} without it, and `open`, the ports that it may send it to; of the port guarded,
        blocked, is_open, learning and locked. Raises IndexError (no such port), ValueError (too
        long), MemoryError."""
        cdef MacTable fdb = MacTable(1 << 20, None)
        cdef Port **ports = <Port **>calloc(MAX_PORTS, sizeof(Port *))
        cdef uint8_t *memory = NULL
        cdef bint there
        cdef Outcome outcome
        try:
            make_outcome(&outcome)
            memory = hold(frame)
            if ports == NULL:
                raise MemoryError("no memory to foresee a frame")
            outcome.frame.data, outcome.frame.length = memory + VNET_HEADER, <uint32_t>len(frame)
            with nogil:
                self.dataplane._lock()
                there = self.dataplane._port(ingress) != NULL
                if there:
                    self._foresee(ingress, now, &fdb.state, ports, &outcome)
                self.dataplane._unlock()
            if not there:
                raise IndexError("no such port")
            return name_outcome(&outcome)
        finally:
            free_outcome(&outcome)
            free(ports)
            free(memory)

    cdef void _foresee(
        self, uint32_t ingress, uint64_t now, MacTableState *fdb, Port **ports, Outcome *outcome
    ) noexcept nogil:
        cdef Worker *worker = self._reader(ingress)
        cdef Forwarding forwarding = worker.forwarding
        cdef Frame *frame = &outcome.frame
        cdef Port own
        memcpy(ports, self.dataplane.ports, self.dataplane.port_count * sizeof(Port *))
        outcome.port = ports[ingress][0]
        ports[ingress] = &own
        forwarding.ports, forwarding.fdb = ports, fdb
        forwarding.now_ns, forwarding.now_ms = now, <uint32_t>(now // 1000000)
        own = outcome.port
        start_frame(frame, ingress)
        parse(&forwarding, frame)
        if frame.reason == NO_REASON:
            outcome.evicted = copy_entries(worker.forwarding.fdb, fdb, frame, forwarding.now_ms)
        outcome.plain = frame[0]
        classify(&forwarding, frame)
        if frame.learned != LEARN_NEW:
            outcome.evicted = 0
        elif outcome.evicted == frame.destination:      # it is not there any more when it is looked up
            own, frame[0] = outcome.port, outcome.plain
            remove_key(fdb, frame.source)
            remove_key(fdb, frame.destination)
            classify(&forwarding, frame)
        outcome.was = forwarding.moved_from
        if frame.punted and frame.length > PUNT_BYTES:
            fall_back(&forwarding, &own, frame, RX_PUNT_TOO_LONG)
        elif frame.punted and not has_room(&worker.punts, worker.shares[ingress].punts):
            fall_back(&forwarding, &own, frame, RX_PUNT_FULL)
        outcome.plain = frame[0]
        if frame.action == CONSUMED:
            look_up_egress(&forwarding, &own, &outcome.plain)
        fill_outcome(worker, &forwarding, outcome)

    def inject(self, uint32_t ingress, bytes frame, now=None):
        """Have a frame forwarded as if a port had received it, now (a data plane in memory: at `now`, ns); as
        foresee(), of what happened. Raises the same."""
        cdef uint8_t *memory = NULL
        cdef bint there
        cdef Outcome outcome
        cdef uint64_t at = 0 if now is None else now
        cdef bint live = now is None
        try:
            make_outcome(&outcome)
            memory = hold(frame)
            outcome.frame.data, outcome.frame.length = memory + VNET_HEADER, <uint32_t>len(frame)
            with nogil:
                self.dataplane._lock()
                there = self.dataplane._port(ingress) != NULL
                if there:
                    self._inject(ingress, live, at, &outcome)
                self.dataplane._unlock()
            if not there:
                raise IndexError("no such port")
            return name_outcome(&outcome)
        finally:
            free_outcome(&outcome)
            free(memory)

    cdef void _inject(self, uint32_t ingress, bint live, uint64_t now, Outcome *outcome) noexcept nogil:
        cdef Worker *worker = self._reader(ingress)
        outcome.port = worker.ports[ingress][0]
        start_frame(&outcome.frame, ingress)
        worker.batch[0], worker.batch_count = outcome.frame, 1
        worker.now = now
        if live:
            worker.now = monotonic_ns()
            now = worker.now - worker.epoch_ns
        decide(worker, now)
        outcome.frame = outcome.plain = worker.batch[0]
        outcome.was = worker.forwarding.moved_from
        fill_outcome(worker, &worker.forwarding, outcome)
        send_out(worker)

    cdef Worker *_reader(self, uint32_t ingress) noexcept nogil:
        """The worker that reads a port, or the first of them."""
        cdef uint32_t i
        for i in range(self.dataplane.worker_count):
            if self.dataplane.workers[i].shares[ingress].rx_fd >= 0:
                return &self.dataplane.workers[i]
        return self.dataplane.workers


cdef uint8_t *hold(bytes frame) except NULL:
    """A frame in memory that the caller frees, behind an empty vnet header."""
    if len(frame) > BIG_SIZE:
        raise ValueError(f"a frame of {len(frame)} bytes is too large")
    return copy_frames([frame], 0)


cdef int make_outcome(Outcome *outcome) except -1:
    memset(outcome, 0, sizeof(outcome[0]))
    outcome.egress = <uint16_t *>calloc(MAX_PORTS, sizeof(uint16_t))
    outcome.plain_egress = <uint16_t *>calloc(MAX_PORTS, sizeof(uint16_t))
    outcome.open = <uint16_t *>calloc(MAX_PORTS, sizeof(uint16_t))
    if outcome.egress == NULL or outcome.plain_egress == NULL or outcome.open == NULL:
        raise MemoryError("no memory for a frame's outcome")
    return 0


cdef void free_outcome(Outcome *outcome) noexcept:
    free(outcome.egress)
    free(outcome.plain_egress)
    free(outcome.open)


cdef uint64_t copy_entries(
    MacTableState *table, MacTableState *copy, const Frame *frame, uint32_t now
) noexcept nogil:
    """Copy the entries of a frame's addresses into an empty table, and its rules. Returns the key of the entry that
    would make room for the source, 0 for none; where it would be refused, the copy refuses it."""
    cdef uint64_t evicted = 0
    pthread_mutex_lock(table.lock)
    copy_entry(table, copy, frame.destination)
    if not copy_entry(table, copy, frame.source) and table.count >= table.capacity:
        evicted = foresee_eviction(table, frame.ingress, now)
        if evicted == 0:
            copy.capacity = 0
    copy.ageing, copy.damping = table.ageing, table.damping
    pthread_mutex_unlock(table.lock)
    return evicted


cdef bint copy_entry(MacTableState *table, MacTableState *copy, uint64_t key) noexcept nogil:
    """Copy the entry of a key; False when there is none."""
    cdef uint16_t was = 0
    cdef Entry entry
    if not read_entry(table, key, hash_key(table, key), &entry):
        return False
    if entry.flags & ENTRY_STATIC:
        set_static(copy, key, entry.port)
    else:
        learn(copy, key, hash_key(copy, key), entry.port, entry.seen, &was)
    return True


cdef uint32_t list_copies(const Worker *worker, const Frame *frame, uint16_t *egress) noexcept nogil:
    cdef uint32_t i, count = 0
    if frame.action == FORWARDED:
        egress[0] = frame.egress
        return 1
    if frame.action == FLOODED:
        for i in range(worker.flood_count[frame.flood]):
            if may_flood(worker, frame, worker.flood[frame.flood][i]):
                egress[count] = worker.flood[frame.flood][i]
                count += 1
    return count


cdef void fill_outcome(const Worker *worker, const Forwarding *f, Outcome *outcome) noexcept nogil:
    """Where the addresses are known, the ports of the copies, and those that a policy may send it to."""
    cdef const Frame *frame = &outcome.frame
    cdef uint32_t i
    outcome.known = look_up(f.fdb, frame.destination, frame.destination_hash, f.now_ms)
    outcome.heard = look_up(f.fdb, frame.source, frame.source_hash, f.now_ms)
    outcome.copies = list_copies(worker, &outcome.frame, outcome.egress)
    outcome.plain_copies = list_copies(worker, &outcome.plain, outcome.plain_egress)
    for i in range(worker.port_count):
        if is_open(worker.ports[i]) and may_flood(worker, frame, i):
            outcome.open[outcome.open_count] = i
            outcome.open_count += 1


cdef dict name_fate(const Frame *frame, uint32_t copies, const uint16_t *egress):
    return {
        "action": _ACTIONS[frame.action],
        "reason": _REASONS[frame.reason] if frame.action == DROPPED else None,
        "flood": _FLOODS[frame.flood] if frame.action == FLOODED else None,
        "egress": [egress[i] for i in range(copies)],
    }


cdef dict name_outcome(const Outcome *outcome):
    cdef const Frame *frame = &outcome.frame
    cdef bint parsed = frame.source != 0
    cdef bint wanted = ORDINARY < frame.kind < LOOP_PROBE
    return {
        **name_fate(frame, outcome.copies, outcome.egress),
        "source": mac_of(frame.source) if parsed else None,
        "destination": mac_of(frame.destination) if parsed else None,
        "vlan": frame.vid if parsed else None,
        "kind": "loop_probe" if frame.kind == LOOP_PROBE else _KINDS[frame.kind],
        "learned": _LEARNED[frame.learned],
        "was": outcome.was if frame.learned == LEARN_MOVED or frame.learned == LEARN_DAMPED else None,
        "evicted": (vid_of(outcome.evicted), mac_of(outcome.evicted)) if outcome.evicted else None,
        "known": outcome.known if parsed and outcome.known >= 0 else None,
        "heard": outcome.heard if parsed and outcome.heard >= 0 else None,
        "punt": _PUNTS[outcome.port.punt[frame.kind] if wanted else <uint8_t>PUNT_NONE],
        "punted": frame.punted,
        "for_switch": frame.for_switch,
        "plain": name_fate(&outcome.plain, outcome.plain_copies, outcome.plain_egress),
        "open": [outcome.open[i] for i in range(outcome.open_count)],
        "guarded": outcome.port.guarded,
        "blocked": outcome.port.blocked,
        "is_open": is_open(&outcome.port),
        "learning": outcome.port.flags & FLAG_LEARNING != 0,
        "locked": outcome.port.flags & FLAG_LOCKED != 0,
    }
