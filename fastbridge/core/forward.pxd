# The forwarding decision: parse reads one frame's headers, classify decides it.
#
# Batching changes nothing: each frame is learned and then looked up before the next one, so a batch of n is
# n batches of one (tests/test_core_equals_model.py). parse runs over the whole batch first only so that
# the FDB's cache lines are on their way when classify needs them.
from libc.stdint cimport uint32_t, uint64_t

from .batch cimport (
    DROPPED, FLOODED, FORWARDED, NO_REASON, RX_BAD_SOURCE, RX_BAD_TAG, RX_FILTERED, RX_LINK_LOCAL, RX_RUNT, Frame,
)
from .ethernet cimport ETHERNET_HEADER, is_group, is_link_local, load_mac, read_vid
from .mac_table cimport MacTableState, hash_key, learn, look_up, make_key, prefetch_bucket


cdef inline void parse(const MacTableState *fdb, Frame *frame) noexcept nogil:
    """Make the FDB keys of a frame's addresses, or note what is wrong with it."""
    cdef uint64_t source, destination
    cdef int vid
    if frame.reason != NO_REASON:
        return
    if frame.length < ETHERNET_HEADER:
        frame.reason = RX_RUNT
        return
    vid = read_vid(frame.data, frame.length)
    if vid < 0:
        frame.reason = RX_BAD_TAG
        return
    destination = load_mac(frame.data)
    source = load_mac(frame.data + 6)
    if source == 0 or is_group(source):     # no station has such an address (802.1Q §8.7)
        frame.reason = RX_BAD_SOURCE
        return
    frame.source = make_key(source, vid)
    frame.source_hash = hash_key(fdb, frame.source)
    prefetch_bucket(fdb, frame.source_hash)
    frame.destination = make_key(destination, vid)
    if not is_group(destination):
        frame.destination_hash = hash_key(fdb, frame.destination)
        prefetch_bucket(fdb, frame.destination_hash)


cdef inline void classify(MacTableState *fdb, Frame *frame, uint32_t now, bint filter_link_local) noexcept nogil:
    """Decide one parsed frame: learn its source, look its destination up. (802.1Q §8.7, §8.8)"""
    cdef int port
    if frame.reason != NO_REASON:
        frame.action = DROPPED
        return
    frame.learned = learn(fdb, frame.source, frame.source_hash, frame.ingress, now)
    if is_group(frame.destination):
        frame.action = FLOODED
        if filter_link_local and is_link_local(frame.destination):
            frame.action = DROPPED
            frame.reason = RX_LINK_LOCAL
        return
    port = look_up(fdb, frame.destination, frame.destination_hash, now)
    if port < 0:
        frame.action = FLOODED
    elif port == frame.ingress:
        frame.action = DROPPED
        frame.reason = RX_FILTERED
    else:
        frame.action = FORWARDED
        frame.egress = port
