# The punt queue: copies of frames on their way to the policy. It is bounded. The data plane fills it until the policy's
# thread takes it and puts an empty one in its place. Neither waits for the other.
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

from .batch cimport Frame
from .checksum cimport finish_checksum
from .linux cimport virtio_net_hdr
from .ring cimport VNET_HEADER

cdef enum:
    # ARP takes 28 bytes, ND with its options seldom over 100 (RFC 4861); both fit with tags and padding. A longer
    # frame is not of a kind that a policy decides. It takes the fallback and is counted as too long.
    PUNT_BYTES = 496
    # About 40 ms of 100,000 requests a second: longer than a scheduling gap of the policy's thread.
    PUNT_SLOTS = 4096
    # A port may fill half of the free slots (Choudhury and Hahne, Dynamic Queue Length Thresholds, 1998), alone 1,024
    # slots, as long as more than PUNT_KEPT are free. Of the last PUNT_KEPT it may fill 1/128 of the free slots. So 300
    # storming ports leave room for another port's questions, even when they all come before it.
    PUNT_KEPT = 1024
    PUNT_SHARE = 2
    PUNT_KEPT_SHARE = 128

cdef struct PuntSlot:
    uint16_t ingress
    uint8_t taken               # 1: the policy decides; 0: a copy
    uint8_t unused
    uint32_t length
    uint64_t since              # ns, when it was received; 0 in memory
    uint8_t data[PUNT_BYTES]

cdef struct PuntQueue:
    PuntSlot *slots             # NULL: no policy
    uint32_t count
    uint64_t missed             # frames that the queue had no room for
    uint64_t too_long           # frames that are longer than a slot
    bint stalled                # the policy does not return: the queue takes no more


cdef inline bint has_room(const PuntQueue *queue, uint32_t queued) noexcept nogil:
    """Whether the queue takes one more frame of a port that has `queued` there."""
    cdef uint32_t free = PUNT_SLOTS - queue.count
    if queue.slots == NULL or queue.stalled:
        return False
    return PUNT_KEPT_SHARE * queued < free or PUNT_KEPT + PUNT_SHARE * queued < free


cdef inline bint punt(PuntQueue *queue, const Frame *frame, bint taken, uint32_t queued, uint64_t now) noexcept nogil:
    """Copy a frame, no longer than a slot, into the queue, if it has room. now: ns, of the breath."""
    cdef PuntSlot *slot
    if not has_room(queue, queued):
        return False
    slot = &queue.slots[queue.count]
    queue.count += 1
    slot.ingress = frame.ingress
    slot.taken = taken
    slot.length = frame.length
    slot.since = now
    memcpy(slot.data, frame.data, frame.length)
    finish_checksum(<const virtio_net_hdr *>(frame.data - VNET_HEADER), slot.data, frame.length)
    return True
