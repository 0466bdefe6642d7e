# The RX ring, slot by slot.
#
# TPACKET_V2 (Documentation/networking/packet_mmap.rst): the kernel fills slots in order and hands each over by its
# status word. A frame that does not fit into its slot arrives whole by recv(), too (PACKET_COPY_THRESH,
# TP_STATUS_COPY). The copy is queued under the lock that hands out the slot (net/packet/af_packet.c, tpacket_rcv). So
# the receive queue and the flagged slots are in the same order.
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.string cimport memmove

from .barrier cimport load_acquire, store_release
from .linux cimport (
    MAP_FAILED, MAP_SHARED, PACKET_RX_RING, PROT_READ, PROT_WRITE, SOL_PACKET, TP_STATUS_KERNEL, TP_STATUS_USER,
    TP_STATUS_VLAN_TPID_VALID, TP_STATUS_VLAN_VALID, VIRTIO_NET_HDR_F_NEEDS_CSUM, errno, mmap, munmap, setsockopt,
    tpacket2_hdr, tpacket_req, virtio_net_hdr,
)
from .batch cimport Frame
from .ethernet cimport TPID_8021Q, VLAN_TAG

cdef enum:
    # A full-size Ethernet frame fits behind the slot's header. Only GSO and jumbo frames take recv().
    SLOT = 2048
    BLOCK = 65536               # the kernel allocates so much at once: a multiple of SLOT and of the page size
    VNET_HEADER = 10            # sizeof(struct virtio_net_hdr), right before the frame

cdef struct Ring:
    uint8_t *memory
    uint32_t slots
    uint32_t head               # the next slot to read
    uint32_t tail               # the next slot to give back


cdef inline int request_ring(int fd, uint32_t slots) noexcept nogil:
    """Ask the kernel for a ring of whole blocks on a TPACKET_V2 socket. Returns 0, or an errno when it refuses.

    This takes some 10 ms: the kernel waits until no CPU uses the socket (synchronize_net).
    """
    cdef tpacket_req request
    request.tp_block_size = BLOCK
    request.tp_block_nr = slots // (BLOCK // SLOT)
    request.tp_frame_size = SLOT
    request.tp_frame_nr = slots
    return 0 if setsockopt(fd, SOL_PACKET, PACKET_RX_RING, &request, sizeof(request)) == 0 else errno


cdef inline int map_ring(Ring *ring, int fd, uint32_t slots) noexcept nogil:
    """Map a requested ring. Returns 0, or an errno."""
    cdef void *mapped = mmap(NULL, <size_t>slots * SLOT, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0)
    if mapped == MAP_FAILED:
        return errno
    ring.memory = <uint8_t *>mapped
    ring.slots = slots
    ring.head = ring.tail = 0
    return 0


cdef inline void close_ring(Ring *ring) noexcept nogil:
    if ring.memory != NULL:
        munmap(ring.memory, <size_t>ring.slots * SLOT)
        ring.memory = NULL


cdef inline tpacket2_hdr *slot_at(const Ring *ring, uint32_t index) noexcept nogil:
    return <tpacket2_hdr *>(ring.memory + <size_t>index * SLOT)


cdef inline tpacket2_hdr *next_slot(Ring *ring) noexcept nogil:
    """Take the next slot that the kernel has filled. NULL when there is none."""
    cdef tpacket2_hdr *slot = slot_at(ring, ring.head)
    if not load_acquire(&slot.tp_status) & TP_STATUS_USER:
        return NULL
    ring.head = ring.head + 1 if ring.head + 1 < ring.slots else 0
    return slot


cdef inline void release_slots(Ring *ring) noexcept nogil:
    """Give every slot taken so far back to the kernel. Pointers into them are void from now on."""
    while ring.tail != ring.head:
        store_release(&slot_at(ring, ring.tail).tp_status, TP_STATUS_KERNEL)
        ring.tail = ring.tail + 1 if ring.tail + 1 < ring.slots else 0


cdef inline void restore_tag(Frame *frame, uint32_t status, uint16_t tci, uint16_t tpid) noexcept nogil:
    """Put the outer VLAN tag back, which the kernel had moved to metadata.

    The vnet header and both MACs move by 4 bytes towards the memory's start. The kernel leaves at least 4 bytes of
    padding before the vnet header, and the big buffers keep as much free. A pending checksum moves with the tag.
    """
    cdef virtio_net_hdr *vnet
    if not status & TP_STATUS_VLAN_VALID:
        return
    if not status & TP_STATUS_VLAN_TPID_VALID:
        tpid = TPID_8021Q
    memmove(frame.data - VNET_HEADER - VLAN_TAG, frame.data - VNET_HEADER, VNET_HEADER + 12)
    frame.data -= VLAN_TAG
    frame.length += VLAN_TAG
    frame.data[12] = tpid >> 8
    frame.data[13] = tpid & 0xFF
    frame.data[14] = tci >> 8
    frame.data[15] = tci & 0xFF
    vnet = <virtio_net_hdr *>(frame.data - VNET_HEADER)
    if vnet.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM:
        vnet.csum_start += VLAN_TAG
    if vnet.hdr_len != 0:
        vnet.hdr_len += VLAN_TAG
