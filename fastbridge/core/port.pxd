# A port: its link, flags and limits; and each worker's share of it, with ring, queue and counters.
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from .barrier cimport load_relaxed8
from .batch cimport BATCH
from .bucket cimport TokenBucket
from .codes cimport FLOODS, KINDS, LINK_UP, RX_REASONS, TX_REASONS
from .ring cimport Ring

cdef enum:
    MAX_PORTS = 65535           # a port index fits the FDB's 16 bits

cdef struct Tally:
    uint64_t rx_frames, rx_bytes, forwarded, flooded, consumed, rx_missed, tx_frames, tx_bytes
    uint64_t coalesced          # frames sent inside another one's GSO frame: messages sent = tx_frames - coalesced
    uint64_t split              # GSO frames made of several that the kernel refused: sent frame by frame instead
    uint64_t shed               # messages that the kernel had no room for: the device, or its queue, counts them, too
    uint64_t messages           # that the kernel took: of several frames merged one, of one that is cut up several
    uint64_t dropped[RX_REASONS]
    uint64_t tx_dropped[TX_REASONS]

cdef enum Blocked:
    BLOCKED_LOOP = 1            # part of a loop, not set up yet, or no longer ours
    BLOCKED_MIRROR = 2          # a mirror's copies leave by it, nothing else

cdef struct Port:
    # The part that all workers share. It changes between the breaths of all of them. Only `link` is changed at once, by
    # the thread that finds it lost.
    uint8_t link
    uint8_t flags
    uint8_t takes               # a Takes
    bint leaving                # removed, but for FDB entries that still point to the index
    uint8_t blocked             # bit set of why nothing goes in or out (Blocked)
    bint guarded                # sources are checked against the bindings
    bint strict                 # … and those without one are dropped
    bint routes                 # … by MAC alone: it forwards what others have sent
    bint drop_when_full         # a frame the punt queue has no room for is dropped, else it goes its plain way
    uint8_t punt[KINDS]         # a Punt by Kind
    TokenBucket storm[FLOODS]
    TokenBucket arp, nd

cdef struct WorkerPort:
    # One worker's share of a port: what it reads of it, and sends by it.
    uint16_t index              # the port's
    int rx_fd                   # -1: it reads nothing of it
    int tx_fd                   # the same for all workers; -1: in memory
    bint active                 # in the list of ports read every breath
    uint32_t looks              # empty looks in a row
    uint32_t excess             # frames in a row that its limits or guard dropped
    uint64_t paused_until       # ns; it stormed, and is not looked at before
    uint32_t arrived, taken     # frames the kernel has put where they wait, and read from there; modulo 2³²
    Ring ring                   # without memory: it reads nothing of the port
    uint32_t queued
    uint16_t queue[BATCH]       # frames to send, as indices into the batch, in arrival order
    uint32_t punts              # frames in the punt queue
    uint32_t mtu                # as the kernel said last, for coalescing
    uint64_t mtu_until          # ns; good until then
    uint8_t unmergeable         # bit set of GSO types that the kernel refused
    uint32_t cost               # ns that a frame sent takes, a moving average; while sends are timed
    uint64_t costly_until       # ns; that it is costly is not told before
    bint tagged_told            # that frames are too big with their tags is told
    Tally tally


cdef inline bint is_open(const Port *port) noexcept nogil:
    """Whether frames may leave by it."""
    return load_relaxed8(&port.link) == LINK_UP and not port.blocked
