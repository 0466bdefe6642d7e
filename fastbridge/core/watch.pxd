# Watch: which taps see a frame, or the loss of a copy.
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from .barrier cimport load_relaxed8, store_relaxed64
from .batch cimport BATCH, Frame
from .codes cimport DROPPED, FLOODED, FORWARDED, LINK_FREE, RX_TRUNCATED
from .filter cimport run_filter
from .tap cimport TAP_DROPS, TAP_OWN, TAP_SENT, Tap, lose_frame, record_frame
from .worker cimport Worker, enqueue_copy, may_flood, monotonic_ns


cdef inline uint32_t list_copies(Worker *worker, const Frame *frame, uint16_t *ports) noexcept nogil:
    """The ports that a frame's copies go to; returns how many."""
    cdef uint32_t i, count = 0
    if frame.action == FORWARDED:
        ports[0] = frame.egress
        return 1
    if frame.action != FLOODED:
        return 0
    for i in range(worker.flood_count[frame.flood]):
        if may_flood(worker, frame, worker.flood[frame.flood][i]):
            ports[count] = worker.flood[frame.flood][i]
            count += 1
    return count


cdef inline bint wants(const Tap *tap, const Frame *frame) noexcept nogil:
    """By what became of it."""
    if frame.own:
        return tap.wishes & TAP_OWN != 0
    if frame.action == DROPPED:
        return tap.wishes & TAP_DROPS != 0 and tap.reasons >> frame.reason & 1
    return tap.wishes & TAP_SENT != 0


cdef inline bint concerns(const Tap *tap, const Frame *frame, const uint16_t *ports, uint32_t copies) noexcept nogil:
    """Whether it came from one of the tap's ports, or goes to one."""
    cdef uint32_t i
    if tap.ports == NULL or not frame.own and tap.ports[frame.ingress]:
        return True
    for i in range(copies):
        if tap.ports[ports[i]]:
            return True
    return False


cdef inline bint passes(const Tap *tap, const Frame *frame) noexcept nogil:
    return tap.filter == NULL or run_filter(
        tap.filter, frame.data, frame.length if frame.reason != RX_TRUNCATED else 0, frame.length
    ) != 0


cdef inline void mirror(Worker *worker, Tap *tap, const Frame *frame, uint32_t place) noexcept nogil:
    cdef uint16_t port = <uint16_t>tap.mirror
    if (
        frame.reason == RX_TRUNCATED or load_relaxed8(&worker.ports[port].link) == LINK_FREE
        or worker.shares[port].queued == BATCH
    ):
        lose_frame(tap, port)
    else:
        enqueue_copy(worker, port, place)


cdef inline void watch(Worker *worker, const Frame *frame, uint32_t place) noexcept nogil:
    """Show a decided frame to the taps that want it."""
    cdef Tap *tap = worker.taps
    cdef uint32_t copies = list_copies(worker, frame, worker.copy_ports)
    while tap != NULL:
        if wants(tap, frame) and concerns(tap, frame, worker.copy_ports, copies) and passes(tap, frame):
            store_relaxed64(&tap.matched, tap.matched + 1)
            if tap.mirror >= 0:
                mirror(worker, tap, frame, place)
            else:
                record_frame(
                    tap, frame, False, frame.reason, worker.copy_ports, copies, worker.frames + place, monotonic_ns()
                )
        tap = tap.next


cdef inline void watch_loss(
    Worker *worker, uint16_t egress, const Frame *frame, uint64_t number, int reason
) noexcept nogil:
    """Show a copy that is not sent to the taps that want it."""
    cdef Tap *tap = worker.taps
    while tap != NULL:
        if tap.mirror >= 0:
            if tap.mirror == egress:
                lose_frame(tap, egress)
        elif (
            tap.wishes & TAP_DROPS and tap.tx_reasons >> reason & 1 and concerns(tap, frame, &egress, 1)
            and passes(tap, frame)
        ):
            store_relaxed64(&tap.matched, tap.matched + 1)
            record_frame(tap, frame, True, <uint8_t>reason, &egress, 1, number, monotonic_ns())
        tap = tap.next


cdef inline void watch_drop(Worker *worker, const Frame *frame, uint64_t number) noexcept nogil:
    """Show a frame that is dropped before it is decided to the taps that want it. It lies in no batch."""
    cdef Tap *tap = worker.taps
    while tap != NULL:
        if wants(tap, frame) and concerns(tap, frame, NULL, 0) and passes(tap, frame):
            store_relaxed64(&tap.matched, tap.matched + 1)
            if tap.mirror >= 0:
                lose_frame(tap, <uint16_t>tap.mirror)
            else:
                record_frame(tap, frame, False, frame.reason, NULL, 0, number, monotonic_ns())
        tap = tap.next
