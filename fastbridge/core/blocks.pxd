# RX ring, block by block.
#
# TPACKET_V3: the kernel packs frames of any length into a block and hands the whole block over when the next frame
# does not fit, or when it has been open for a while: 1 ms at the least, a jiffy where the kernel counts in those. So
# frames lie close together and wake-ups are few, but at low load every frame waits for that timer, and takes up a
# block.
#
# The vnet header lies before the frame as in V2 (tpacket_rcv). PACKET_COPY_THRESH is none of V3's: a frame longer than
# a block, a GSO frame beyond 256 KiB (BIG TCP), is cut, and dropped as `truncated`; all others are whole. Before one
# that fills its block the kernel hands over an empty one.
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.string cimport memset

from .barrier cimport load_acquire, store_release
from .batch cimport NO_REASON, RX_TRUNCATED, Frame
from .linux cimport (
    PACKET_RX_RING, SOL_PACKET, TP_STATUS_KERNEL, TP_STATUS_USER, errno, munmap, setsockopt, tpacket3_hdr,
    tpacket_block_desc, tpacket_req3,
)
from .plane cimport Plane, start_frame
from .ring cimport BlockRing, map_memory, restore_tag

cdef enum:
    RETIRE_MS = 1               # the shortest there is


cdef inline int request_blocks(int fd, uint32_t blocks, uint32_t block_size) noexcept nogil:
    """Ask the kernel for a ring of blocks on a TPACKET_V3 socket; 0, or an errno when it refuses."""
    cdef tpacket_req3 request
    memset(&request, 0, sizeof(request))
    request.tp_block_size = request.tp_frame_size = block_size
    request.tp_block_nr = request.tp_frame_nr = blocks
    request.tp_retire_blk_tov = RETIRE_MS
    return 0 if setsockopt(fd, SOL_PACKET, PACKET_RX_RING, &request, sizeof(request)) == 0 else errno


cdef inline int map_blocks(BlockRing *ring, int fd, uint32_t blocks, uint32_t block_size) noexcept nogil:
    """Map a requested ring; 0, or an errno."""
    ring.blocks, ring.block_size = blocks, block_size
    ring.head = ring.tail = ring.left = 0
    return map_memory(fd, <size_t>blocks * block_size, &ring.memory)


cdef inline void close_blocks(BlockRing *ring) noexcept nogil:
    if ring.memory != NULL:
        munmap(ring.memory, <size_t>ring.blocks * ring.block_size)
        ring.memory = NULL


cdef inline tpacket_block_desc *block_at(const BlockRing *ring, uint32_t number) noexcept nogil:
    return <tpacket_block_desc *>(ring.memory + <size_t>(number % ring.blocks) * ring.block_size)


cdef inline tpacket3_hdr *next_in_block(BlockRing *ring) noexcept nogil:
    """The next frame, taken; NULL when there is none. A block left before its end is gone on with the next time."""
    cdef tpacket_block_desc *block
    cdef tpacket3_hdr *header
    while ring.left == 0:
        if ring.head - ring.tail == ring.blocks:    # all are taken, and none is given back
            return NULL
        block = block_at(ring, ring.head)
        if not load_acquire(&block.hdr.bh1.block_status) & TP_STATUS_USER:
            return NULL
        ring.left = block.hdr.bh1.num_pkts
        ring.next = <uint8_t *>block + block.hdr.bh1.offset_to_first_pkt
        if ring.left == 0:                          # an empty one goes before a frame that fills a block
            ring.head += 1
    header = <tpacket3_hdr *>ring.next
    ring.next += header.tp_next_offset
    ring.left -= 1
    if ring.left == 0:
        ring.head += 1
    return header


cdef inline void release_blocks(BlockRing *ring) noexcept nogil:
    """Give the blocks read to their end back to the kernel: pointers into them end here."""
    while ring.tail != ring.head:
        store_release(&block_at(ring, ring.tail).hdr.bh1.block_status, TP_STATUS_KERNEL)
        ring.tail += 1


cdef inline uint32_t fill_from_blocks(Plane *plane, BlockRing *ring, uint16_t index, uint32_t limit) noexcept nogil:
    """Put at most `limit` frames of a port into the batch; their blocks stay taken until the batch is released."""
    cdef uint32_t n = 0
    cdef tpacket3_hdr *header
    cdef Frame *frame
    while n < limit:
        header = next_in_block(ring)
        if header == NULL:
            break
        frame = &plane.batch[plane.batch_count + n]
        start_frame(frame, index)
        frame.length = header.tp_len
        frame.data = <uint8_t *>header + header.tp_mac
        if header.tp_snaplen < header.tp_len:
            frame.reason = RX_TRUNCATED
        if frame.reason == NO_REASON:
            restore_tag(frame, header.tp_status, header.hv1.tp_vlan_tci, header.hv1.tp_vlan_tpid)
        n += 1
    return n
