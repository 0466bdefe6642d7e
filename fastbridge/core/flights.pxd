# Frames in flight: copies that wait on links, ordered by the time at which they are due.
#
# Each worker has two of these queues: frames on their way to pods, and frames from pods, which it has yet to decide.
# A queue is a binary heap. Frames that are due at the same time keep the order in which they came.
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, realloc

from .batch cimport Frame
from .link cimport FOR_EVER, Link
from .ring cimport VNET_HEADER

cdef enum:
    FLIGHT_HEADROOM = 6         # before the vnet header: the frame's IP header is aligned
    # What the frames in flight of one worker may take, 256 MiB: 300 ms of 7 Gb/s.
    FLIGHT_MEMORY = 268435456

cdef struct Flight:
    uint64_t due                # ns
    uint64_t number             # ascending
    Link *link
    uint32_t room               # bytes, all included
    Frame frame                 # its data is behind this struct

cdef struct Flights:
    Flight **heap
    uint32_t count, room

cdef struct Wire:               # a worker's
    Flights to_pods, from_pods
    uint64_t number             # of the last flight …
    uint64_t counted            # … when copies were last counted
    uint64_t bytes, most_bytes
    Flight **landed             # those in the batch: their memory is free when it is released
    uint32_t landed_count
    bint used                   # the switch has had links
    uint32_t from_pod_links     # ports whose received frames enter a link
    int timer_fd                # 0: none yet
    uint64_t armed              # ns; 0: it is not set


cdef inline bint is_before(const Flight *a, const Flight *b) noexcept nogil:
    return a.due < b.due or a.due == b.due and a.number < b.number


cdef inline uint64_t next_due(const Flights *flights) noexcept nogil:
    return flights.heap[0].due if flights.count else <uint64_t>FOR_EVER


cdef inline bint has_place(Flights *flights) noexcept nogil:
    """Whether there is a place for one more, made if need be."""
    cdef uint32_t room = flights.room * 2 if flights.room else 256
    cdef Flight **heap
    if flights.count < flights.room:
        return True
    heap = <Flight **>realloc(flights.heap, room * sizeof(Flight *))
    if heap == NULL:
        return False
    flights.heap, flights.room = heap, room
    return True


cdef inline void sift_up(Flights *flights, uint32_t place) noexcept nogil:
    cdef Flight *flight = flights.heap[place]
    cdef uint32_t parent
    while place > 0:
        parent = (place - 1) // 2
        if not is_before(flight, flights.heap[parent]):
            break
        flights.heap[place] = flights.heap[parent]
        place = parent
    flights.heap[place] = flight


cdef inline void sift_down(Flights *flights, uint32_t place) noexcept nogil:
    cdef Flight *flight = flights.heap[place]
    cdef uint32_t child
    while 2 * place + 1 < flights.count:
        child = 2 * place + 1
        if child + 1 < flights.count and is_before(flights.heap[child + 1], flights.heap[child]):
            child += 1
        if not is_before(flights.heap[child], flight):
            break
        flights.heap[place] = flights.heap[child]
        place = child
    flights.heap[place] = flight


cdef inline void add_flight(Flights *flights, Flight *flight) noexcept nogil:
    """Add one; there is a place for it."""
    flights.heap[flights.count] = flight
    flights.count += 1
    sift_up(flights, flights.count - 1)


cdef inline Flight *pop_flight(Flights *flights) noexcept nogil:
    cdef Flight *first = flights.heap[0]
    flights.count -= 1
    if flights.count:
        flights.heap[0] = flights.heap[flights.count]
        sift_down(flights, 0)
    return first


cdef inline void order_flights(Flights *flights) noexcept nogil:
    """Make a heap of what may be in any order."""
    cdef uint32_t i
    for i in range(flights.count // 2):
        sift_down(flights, flights.count // 2 - 1 - i)


cdef inline bint pool_is_full(const Wire *wire, uint32_t length) noexcept nogil:
    return wire.bytes + sizeof(Flight) + FLIGHT_HEADROOM + VNET_HEADER + length > FLIGHT_MEMORY


cdef inline Flight *make_flight(Wire *wire, Flights *flights, const Frame *frame, uint32_t most) noexcept nogil:
    """A flight with room for `most` bytes of a frame. NULL: the pool has no room."""
    cdef size_t room = sizeof(Flight) + FLIGHT_HEADROOM + VNET_HEADER + most
    cdef Flight *flight
    if pool_is_full(wire, most) or not has_place(flights):
        return NULL
    flight = <Flight *>malloc(room)
    if flight == NULL:
        return NULL
    wire.bytes += room
    wire.most_bytes = max(wire.most_bytes, wire.bytes)
    wire.number += 1
    flight.number, flight.room = wire.number, <uint32_t>room
    flight.frame = frame[0]
    flight.frame.data = <uint8_t *>flight + sizeof(Flight) + FLIGHT_HEADROOM + VNET_HEADER
    return flight


cdef inline void free_flight(Wire *wire, Flight *flight) noexcept nogil:
    wire.bytes -= flight.room
    free(flight)


cdef inline void free_landed(Wire *wire) noexcept nogil:
    cdef uint32_t i
    for i in range(wire.landed_count):
        free_flight(wire, wire.landed[i])
    wire.landed_count = 0


cdef inline void free_wire(Wire *wire) noexcept nogil:
    """Give all memory back."""
    cdef uint32_t i
    free_landed(wire)
    for i in range(wire.to_pods.count):
        free(wire.to_pods.heap[i])
    for i in range(wire.from_pods.count):
        free(wire.from_pods.heap[i])
    free(wire.to_pods.heap)
    free(wire.from_pods.heap)
    free(wire.landed)
