# Events, bounded: what the control thread should hear of: stations that moved, own loop probes that came back.
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef enum:
    EVENT_SLOTS = 1024

cdef enum EventKind:
    EVENT_MOVED = 0
    EVENT_LOOP = 1

cdef struct Event:
    uint8_t kind
    uint16_t was, now           # MOVED: the station's ports; LOOP: the probe's sender, and where it came back
    uint64_t key                # MOVED: the FDB key

cdef struct EventQueue:
    Event events[EVENT_SLOTS]
    uint32_t count
    uint64_t lost


cdef inline void add_event(EventQueue *queue, uint8_t kind, uint16_t was, uint16_t now, uint64_t key) noexcept nogil:
    cdef Event *event
    if queue.count == EVENT_SLOTS:
        queue.lost += 1
        return
    event = &queue.events[queue.count]
    queue.count += 1
    event.kind, event.was, event.now, event.key = kind, was, now, key
