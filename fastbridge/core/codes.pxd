# Codes: the core's numbers that Python knows by a name. codes.pyx makes the names of these: "runt" is RX_RUNT. A new
# code needs no other list, but its meaning stands in docs/, too.

cpdef enum Action:
    # What becomes of a received frame.
    FORWARDED = 0
    FLOODED = 1
    CONSUMED = 2
    DROPPED = 3

cpdef enum Reason:
    # Why a received frame is dropped.
    RX_RUNT = 0
    RX_BAD_TAG = 1
    RX_BAD_SOURCE = 2
    RX_LINK_LOCAL = 3
    RX_FILTERED = 4
    RX_TRUNCATED = 5
    RX_BLOCKED = 6          # the port is part of a loop
    RX_LOCKED = 7
    RX_ISOLATED = 8
    RX_STORM_BROADCAST = 9  # by storm control; these three are in the order of Flood
    RX_STORM_MULTICAST = 10
    RX_STORM_UNKNOWN_UNICAST = 11
    RX_RATE_LIMITED = 12
    RX_PUNT_FULL = 13       # the policy is behind, and its fallback drops
    RX_PUNT_TOO_LONG = 14   # … or the frame is longer than ARP and ND are (punt.pxd)
    RX_SOURCE_GUARD = 15
    RX_LINK_LOSS = 16       # by an emulated link (link.pxd); these three are in the order of TX_LINK_LOSS …
    RX_LINK_QUEUE = 17
    RX_LINK_CUT = 18

cpdef enum TxReason:
    # Why a copy is not sent.
    TX_TOO_BIG = 0          # EMSGSIZE: longer than the egress MTU allows
    TX_NO_BUFFER = 1        # ENOBUFS: the receiver's backlog or the port's queueing discipline is full
    TX_FULL = 2             # EAGAIN: the socket's send buffer stayed full
    TX_PORT_DOWN = 3        # ENETDOWN, ENXIO; or the link was lost behind the queue
    TX_REFUSED = 4          # any other error: the kernel finds the frame or its vnet header malformed
    TX_COSTLY = 5           # the port is too slow, and others shall not wait for it (transmit.pxd)
    TX_TAGGED_TOO_BIG = 6   # EMSGSIZE, but without its VLAN tags it would fit
    TX_LINK_LOSS = 7        # by an emulated link, at random
    TX_LINK_QUEUE = 8       # … its queue was full, or the pool of frames in flight
    TX_LINK_CUT = 9         # … it was cut, or went with the frame on it

cpdef enum Flood:
    # Kinds of floods. Storm control and the ports' flags tell them apart.
    BROADCAST = 0
    MULTICAST = 1
    UNKNOWN_UNICAST = 2

cpdef enum Kind:
    # Frames that the policy or the loop detection may want. parse looks for them only when one of them is on.
    ORDINARY = 0
    ARP_GROUP = 1
    ARP_UNICAST = 2
    ND_GROUP = 3
    ND_UNICAST = 4
    LOOP_PROBE = 5

cpdef enum Punt:
    # What the policy does with a kind of frame.
    PUNT_NONE = 0
    PUNT_COPY = 1           # it sees a copy of a frame that goes its way
    PUNT_TAKE = 2           # it decides where the frame goes

cpdef enum LearnResult:
    # What a source did to the FDB.
    LEARN_KNOWN = 0
    LEARN_NEW = 1
    LEARN_MOVED = 2
    LEARN_REFUSED = 3
    LEARN_DAMPED = 4

cpdef enum ChangeKind:
    # What happened to an entry of the FDB.
    CHANGE_LEARNED = 0
    CHANGE_MOVED = 1
    CHANGE_AGED = 2
    CHANGE_EVICTED = 3      # it made room for another port's
    CHANGE_FORGOTTEN = 4    # removed, or flushed; or its port was removed
    CHANGE_FIXED = 5        # entered as static, or made so

cpdef enum Link:
    LINK_FREE = 0           # the index is not in use
    LINK_UP = 1
    LINK_DOWN = 2
    LINK_GONE = 3           # the interface was deleted: the socket is dead
    LINK_BLOCKED = 4        # only told to Python: the port is up, and blocked

cpdef enum PortFlag:
    # The Linux bridge's flags (net/bridge/br_private.h, BR_*; bridge(8)).
    FLAG_LEARNING = 1
    FLAG_BROADCAST_FLOOD = 2    # such frames are flooded to the port; these three are in the order of Flood
    FLAG_MULTICAST_FLOOD = 4
    FLAG_UNICAST_FLOOD = 8
    FLAG_ISOLATED = 16      # it exchanges no frames with other isolated ports
    FLAG_HAIRPIN = 32       # a frame may leave by the port it came in by
    FLAG_LOCKED = 64        # only stations that the FDB has at the port already may send
    FLAG_COALESCE = 128     # consecutive frames of one flow leave as one GSO frame (coalesce.pxd)

cpdef enum Takes:
    # What may leave by a port.
    TAKES_ALL = 0
    TAKES_UNMERGED = 1      # no frames that the switch has merged: its pod wants single ones
    TAKES_SINGLE = 2        # no GSO frame at all: its queueing discipline counts or cuts frames

cpdef enum EventKind:
    EVENT_MOVED = 0
    EVENT_LOOP = 1
    EVENT_DAMPED = 2        # as MOVED, but the station was not moved
    EVENT_COSTLY = 3        # frames for a port were dropped as costly; at most once a second
    EVENT_TAGGED = 4        # a frame for a port was dropped as tagged_too_big; once a worker and port

cdef enum:
    # How many there are. KINDS: those that a policy may want, and ORDINARY.
    RX_REASONS = RX_LINK_CUT + 1
    TX_REASONS = TX_LINK_CUT + 1
    FLOODS = UNKNOWN_UNICAST + 1
    KINDS = ND_UNICAST + 1
    NO_REASON = 255
    FLAGS_DEFAULT = FLAG_LEARNING | FLAG_BROADCAST_FLOOD | FLAG_MULTICAST_FLOOD | FLAG_UNICAST_FLOOD
