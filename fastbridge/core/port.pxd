# A port: its link, flags and limits. And each worker's share of it: ring, queue and counters.
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from .barrier cimport load_relaxed8
from .batch cimport BATCH
from .bucket cimport TokenBucket
from .codes cimport FLOODS, KINDS, LINK_UP, RX_REASONS, TX_REASONS
from .link cimport Link
from .ring cimport Ring

cdef enum:
    MAX_PORTS = 65535           # a port index fits the FDB's 16 bits

cdef struct Tally:
    uint64_t rx_frames, rx_bytes, forwarded, flooded, consumed, rx_missed, tx_frames, tx_bytes
    uint64_t coalesced          # frames sent inside another one's GSO frame: messages sent = tx_frames - coalesced
    uint64_t split              # GSO frames made of several that the kernel refused: sent frame by frame instead
    uint64_t shed               # messages that the kernel had no room for; the device or its queue counts them, too
    uint64_t rx_in_flight       # frames that wait on the link from the pod; snapshot() adds them to rx_frames
    uint64_t tx_in_flight       # … on the links to the pod
    uint64_t link_added         # copies that these made of others: segments beyond a frame's first, and duplicates
    uint64_t messages           # that the kernel took: one for several merged frames, or several for one cut up
    uint64_t dropped[RX_REASONS]
    uint64_t tx_dropped[TX_REASONS]

cdef enum Blocked:
    BLOCKED_LOOP = 1            # part of a loop, not set up yet, or no longer ours
    BLOCKED_MIRROR = 2          # a mirror's copies leave by it, nothing else

cdef struct PortLinks:
    Link *to_pod                # NULL: none
    Link *from_pod
    Link **pairs                # by ingress port, in place of to_pod; NULL: none has one

cdef struct Port:
    # The part that all workers share. It changes between the breaths of all of them. Only `link` changes at any time:
    # the thread that finds it lost sets it.
    uint8_t link
    uint8_t flags
    uint8_t takes               # a Takes
    bint leaving                # removed, but for FDB entries that still point to the index
    uint8_t blocked             # bit set of why nothing goes in or out (Blocked)
    bint guarded                # sources are checked against the bindings
    bint strict                 # … and those without one are dropped
    bint routes                 # … by MAC alone: there is a router behind it, which forwards others' frames
    bint drop_when_full         # without room in the punt queue a frame is dropped; else it goes its plain way
    uint8_t punt[KINDS]         # a Punt by Kind
    TokenBucket storm[FLOODS]
    TokenBucket arp, nd
    PortLinks *links            # NULL: it has no link

cdef struct WorkerPort:
    # One worker's share of a port.
    uint16_t index              # the port's
    int rx_fd                   # -1: this worker does not read the port
    int tx_fd                   # the same for all workers; -1: a memory port
    bint active                 # it is among the ports that are read every breath
    uint32_t looks              # empty looks in a row
    uint32_t excess             # frames in a row that its limits or guard dropped
    uint64_t paused_until       # ns; after a storm it is not read before that
    uint32_t arrived, taken     # frames that the kernel has put into the ring, and that were read from it; modulo 2³²
    Ring ring                   # without memory: this worker does not read the port
    uint32_t queued
    uint16_t queue[BATCH]       # frames to send, as indices into the batch, in arrival order
    uint32_t punts              # frames in the punt queue
    uint32_t mtu                # as the kernel said last; for coalescing
    uint64_t mtu_until          # ns; it is believed until then
    uint8_t unmergeable         # bit set of GSO types that the kernel refused
    uint32_t cost               # ns that a send of a frame takes, a moving average while sends are timed
    uint64_t counted, short_ns  # of late short sends, ns: CPU time of the worker, and all
    uint64_t costly_until       # ns; no other event says before that it is costly
    bint tagged_told            # an event has said that frames are too big with their tags
    Tally tally


cdef inline bint is_open(const Port *port) noexcept nogil:
    """Whether frames may leave by it."""
    return load_relaxed8(&port.link) == LINK_UP and not port.blocked
