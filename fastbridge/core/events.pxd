# Events for the control thread, a bounded queue: stations that moved, the switch's loop probes that came back.
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from .codes cimport EVENT_LOOP

cdef enum:
    EVENT_SLOTS = 1024
    MOVE_SLOTS = 960            # moves leave room for the loop probes that they cause

cdef struct Event:
    uint8_t kind
    uint16_t was, now           # MOVED, DAMPED: the station's; LOOP: now is where it came back; else both are the port
    uint64_t key                # the FDB key; LOOP: the probe's token; COSTLY: ns that a frame takes; TAGGED: its MTU

cdef struct EventQueue:
    Event events[EVENT_SLOTS]
    uint32_t count
    uint64_t lost


cdef inline void add_event(EventQueue *queue, uint8_t kind, uint16_t was, uint16_t now, uint64_t key) noexcept nogil:
    cdef Event *event
    if queue.count == EVENT_SLOTS or (kind != EVENT_LOOP and queue.count >= MOVE_SLOTS):
        queue.lost += 1
        return
    event = &queue.events[queue.count]
    queue.count += 1
    event.kind, event.was, event.now, event.key = kind, was, now, key
