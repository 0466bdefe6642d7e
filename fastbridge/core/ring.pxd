# RX ring, slot by slot.
#
# TPACKET_V2 (Documentation/networking/packet_mmap.rst): the kernel fills slots in order and hands each over by
# its status word. Slots are small ("ring"), or hold the largest frames too ("big-ring"); a frame that does not fit
# arrives whole by recv() as well (PACKET_COPY_THRESH, TP_STATUS_COPY). The copy is queued under the same lock that
# hands out the slot (net/packet/af_packet.c, tpacket_rcv), so the receive queue and the flagged slots are in the same
# order.
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
    # Holds a full-size Ethernet frame behind the slot's header, so only GSO and jumbo frames take recv().
    SLOT = 2048
    BLOCK = 65536               # what the kernel allocates at a time: a multiple of SLOT and of the page size
    VNET_HEADER = 10            # sizeof(struct virtio_net_hdr), right before the frame

cdef struct Ring:
    uint8_t *memory
    uint32_t slots
    uint32_t slot_size
    uint32_t head               # the next slot to read
    uint32_t tail               # the next slot to give back

cdef struct BlockRing:
    # TPACKET_V3's, blocks.pxd
    uint8_t *memory
    uint32_t blocks, block_size
    uint32_t head               # blocks read to their end so far, free-running
    uint32_t tail               # … and given back
    uint32_t left               # frames not yet taken of the block at `head`; 0: not begun
    uint8_t *next               # the first of them


cdef inline int request_ring(int fd, uint32_t slots, uint32_t slot_size, uint32_t block_size) noexcept nogil:
    """Ask the kernel for a ring on a socket, of whole blocks; 0, or an errno when it refuses.

    Takes some 10 ms: the kernel waits until nobody looks at the socket any more (synchronize_net).
    """
    cdef tpacket_req request
    request.tp_block_size = block_size
    request.tp_block_nr = slots // (block_size // slot_size)
    request.tp_frame_size = slot_size
    request.tp_frame_nr = slots
    return 0 if setsockopt(fd, SOL_PACKET, PACKET_RX_RING, &request, sizeof(request)) == 0 else errno


cdef inline int map_memory(int fd, size_t size, uint8_t **memory) noexcept nogil:
    """Map what was requested on a socket; 0, or an errno."""
    cdef void *mapped = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0)
    if mapped == MAP_FAILED:
        return errno
    memory[0] = <uint8_t *>mapped
    return 0


cdef inline int map_ring(Ring *ring, int fd, uint32_t slots, uint32_t slot_size) noexcept nogil:
    """Map a requested ring, of blocks that its slots fill; 0, or an errno."""
    ring.slots, ring.slot_size = slots, slot_size
    ring.head = ring.tail = 0
    return map_memory(fd, <size_t>slots * slot_size, &ring.memory)


cdef inline void close_ring(Ring *ring) noexcept nogil:
    if ring.memory != NULL:
        munmap(ring.memory, <size_t>ring.slots * ring.slot_size)
        ring.memory = NULL


cdef inline tpacket2_hdr *slot_at(const Ring *ring, uint32_t index) noexcept nogil:
    return <tpacket2_hdr *>(ring.memory + <size_t>index * ring.slot_size)


cdef inline tpacket2_hdr *next_slot(Ring *ring) noexcept nogil:
    """The next slot the kernel has filled, taken; NULL when there is none."""
    cdef tpacket2_hdr *slot = slot_at(ring, ring.head)
    if not load_acquire(&slot.tp_status) & TP_STATUS_USER:
        return NULL
    ring.head = ring.head + 1 if ring.head + 1 < ring.slots else 0
    return slot


cdef inline void release_slots(Ring *ring) noexcept nogil:
    """Give every slot taken so far back to the kernel: pointers into them end here."""
    while ring.tail != ring.head:
        store_release(&slot_at(ring, ring.tail).tp_status, TP_STATUS_KERNEL)
        ring.tail = ring.tail + 1 if ring.tail + 1 < ring.slots else 0


cdef inline void restore_tag(Frame *frame, uint32_t status, uint16_t tci, uint16_t tpid) noexcept nogil:
    """Put the outer VLAN tag back, which the kernel had moved to metadata.

    The vnet header and both MACs move 4 bytes towards the memory's start (the kernel leaves at least 4 bytes of
    padding before the vnet header; the big buffers keep as much free), and a pending checksum moves with the tag.
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
