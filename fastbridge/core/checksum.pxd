# Checksums, ones' complement: of IPv4 headers, TCP and UDP (RFC 1071).
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

from .ethernet cimport load16
from .linux cimport VIRTIO_NET_HDR_F_NEEDS_CSUM, virtio_net_hdr

cdef enum:
    UDP_CHECK = 6               # where a UDP header has its checksum


cdef inline uint32_t fold(uint64_t total) noexcept nogil:
    """A sum with its carries added in: 16 bits."""
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return <uint32_t>total


cdef inline uint32_t add_checksum(const uint8_t *data, uint32_t length) noexcept nogil:
    """The ones' complement sum, folded, not inverted.

    It adds four bytes at a time, in the machine's byte order. The sum is the same (RFC 1071 §2 B and C), and the
    compiler can use vector instructions.
    """
    cdef uint64_t total = 0
    cdef uint32_t words = length // 4, i, word
    cdef uint16_t folded
    for i in range(words):
        memcpy(&word, data + 4 * i, 4)
        total += word
    if length & 3:
        word = 0
        memcpy(&word, data + 4 * words, length & 3)
        total += word
    folded = <uint16_t>fold(total)
    return load16(<const uint8_t *>&folded)


cdef inline void finish_checksum(const virtio_net_hdr *vnet, uint8_t *data, uint32_t length) noexcept nogil:
    """Compute a checksum that the sender left pending. So the policy sees frames as they would be on a wire.

    A checksum of 0 would mean none to UDP, which has 0xFFFF instead, the same sum (RFC 768). TCP has 0.
    """
    cdef uint32_t start = vnet.csum_start, at = <uint32_t>vnet.csum_start + vnet.csum_offset, value
    if not vnet.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM or start > length or at + 2 > length:
        return
    value = ~add_checksum(data + start, length - start) & 0xFFFF
    if value == 0 and vnet.csum_offset == UDP_CHECK:
        value = 0xFFFF
    data[at] = value >> 8
    data[at + 1] = value & 0xFF
