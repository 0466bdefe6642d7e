# Frames and batches: the structs that every stage of the data plane works on.
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef enum:
    # Frames taken in one breath: from all ports, and from one port. The second is for fairness: while others have
    # frames waiting, one loud port gets at most BURST of the BATCH.
    BATCH = 256
    BURST = 64

cdef struct Frame:
    uint8_t *data          # the destination MAC's first byte; the vnet header lies right before it
    uint32_t length        # bytes from data on, without FCS, with the VLAN tag
    uint16_t ingress
    uint16_t egress        # FORWARDED: the port to send to
    uint8_t action         # an Action, made by classify
    uint8_t reason         # a Reason, or NO_REASON
    uint8_t learned        # a LearnResult (mac_table.pxd)
    uint8_t kind           # a Kind, made by parse
    uint8_t flood          # FLOODED: the kind of flood (a Flood)
    bint punted            # to be copied into the punt queue
    bint for_switch        # addressed to the switch itself
    bint own               # sent by the switch itself (packet_out.pyx)
    uint16_t vid
    uint64_t source        # FDB keys and their hashes, made by parse
    uint64_t destination
    uint64_t source_hash
    uint64_t destination_hash
