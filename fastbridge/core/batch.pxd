# Frames and batches: the structs that every stage of the data plane works on.
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef enum:
    # Frames taken in one breath, over all ports, and from one port (the fairness bound: while others
    # have frames waiting, one loud port gets at most BURST of the BATCH).
    BATCH = 256
    BURST = 64

cdef enum Action:
    FORWARDED = 0
    FLOODED = 1
    CONSUMED = 2
    DROPPED = 3

cdef enum Reason:
    # Why a received frame is dropped; the names users see are RX_REASON_NAMES in dataplane.pyx, in this order.
    RX_RUNT = 0
    RX_BAD_TAG = 1
    RX_BAD_SOURCE = 2
    RX_LINK_LOCAL = 3
    RX_FILTERED = 4
    RX_TRUNCATED = 5
    RX_BLOCKED = 6          # the port is part of a loop
    RX_LOCKED = 7
    RX_ISOLATED = 8
    RX_STORM_BROADCAST = 9  # storm control; these three in the order of Flood
    RX_STORM_MULTICAST = 10
    RX_STORM_UNICAST = 11
    RX_RATE_LIMITED = 12
    RX_PUNT_FULL = 13       # the policy is behind and its fallback is to drop
    RX_PUNT_TOO_LONG = 14   # … or the frame is longer than ARP and ND are (punt.pxd)
    RX_SOURCE_GUARD = 15
    RX_REASONS = 16
    NO_REASON = 255

cdef enum TxReason:
    # Why a copy is not sent; TX_REASON_NAMES in dataplane.pyx, in this order.
    TX_TOO_BIG = 0          # EMSGSIZE: longer than the egress MTU allows
    TX_NO_BUFFER = 1        # ENOBUFS: the receiver's backlog or the port's queueing discipline is full
    TX_FULL = 2             # EAGAIN: the socket's send buffer stayed full
    TX_PORT_DOWN = 3        # ENETDOWN, ENXIO; or the link was lost after the frame was queued
    TX_REFUSED = 4          # any other: the kernel finds the frame or its vnet header malformed
    TX_COSTLY = 5           # what a frame takes there is more than others shall wait for (transmit.pxd)
    TX_TAGGED_TOO_BIG = 6   # EMSGSIZE, and without its VLAN tags it would fit
    TX_REASONS = 7

cdef enum Flood:
    # What is flooded; storm control and the ports' flags tell them apart.
    BROADCAST = 0
    MULTICAST = 1
    UNKNOWN_UNICAST = 2
    FLOODS = 3

cdef enum Kind:
    # What the policy or the loop detection may want; found by parse only when one of them is on.
    ORDINARY = 0
    ARP_GROUP = 1
    ARP_UNICAST = 2
    ND_GROUP = 3
    ND_UNICAST = 4
    KINDS = 5
    LOOP_PROBE = 5

cdef struct Frame:
    uint8_t *data          # the destination MAC's first byte; the vnet header lies right before it
    uint32_t length        # bytes from data on, without FCS, the VLAN tag put back
    uint16_t ingress
    uint16_t egress        # FORWARDED: the port to send to
    uint8_t action         # an Action, made by classify
    uint8_t reason         # a Reason, or NO_REASON
    uint8_t learned        # a LearnResult (mac_table.pxd)
    uint8_t kind           # a Kind, made by parse
    uint8_t flood          # FLOODED: as what (a Flood)
    bint punted            # to be copied into the punt queue
    bint for_switch        # addressed to the switch itself
    uint16_t vid
    uint64_t source        # FDB keys and their hashes, made by parse
    uint64_t destination
    uint64_t source_hash
    uint64_t destination_hash
