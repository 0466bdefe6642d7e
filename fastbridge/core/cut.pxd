# Cut: GSO frames that AF_PACKET cannot take as they are.
#
# A pod may leave a frame's segmentation to others and says so in the vnet header. That header has room for one protocol
# and one checksum position. Three kinds of frames fit into it on the way in, but not on the way out:
# - GSO inside a tunnel (VXLAN, Geneve, GRE, IPIP, SIT, …): the type is the inner segment's, and csum_start lies behind
#   the inner IP header. Sent again, the kernel takes it for a plain segment and drops it (ENOMEM). Here each segment
#   gets headers of its own, as the kernel's skb_udp_tunnel_segment, gre_gso_segment and inet_gso_segment would make
#   them, and its inner checksum stays pending.
# - BIG TCP: more than an IP packet's 64 KB. It is cut into ordinary GSO frames, without the jumbo payload option.
# - Frames to a port that takes single frames only (TAKES_SINGLE): each of their segments is sent by itself.
#
# An AF_PACKET send costs 2 µs; 40 sends cost as much as a tunnel's 64 KB frame. So where the outer protocol is UDP, the
# segments become the datagrams of one UDP GSO frame (the kernel's UDP_L4), with complete inner checksums. The receiver
# splits it after the tunnel's port is known, and its own GRO merges the inner frames. So the outer UDP checksum, which
# a tunnel may leave out, is present. Kernels before 6.2 know no such frames; there the segments are sent one by one.
#
# A frame counts as sent when all its pieces are sent. The first piece that fails ends the frame and gives the reason.
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

from .batch cimport Frame
from .checksum cimport add_checksum, fold
from .codes cimport FLAG_COALESCE, TAKES_ALL, TAKES_SINGLE
from .ethernet cimport (
    ETHERTYPE_IPV4, ETHERTYPE_IPV6, IPV6_DESTINATION, IPV6_HEADER, IPV6_HOP_BY_HOP, IPV6_ROUTING, load16, load32,
    network_offset, store16,
)
from .linux cimport (
    VIRTIO_NET_HDR_F_NEEDS_CSUM, VIRTIO_NET_HDR_GSO_ECN, VIRTIO_NET_HDR_GSO_NONE, VIRTIO_NET_HDR_GSO_TCPV4,
    VIRTIO_NET_HDR_GSO_TCPV6, VIRTIO_NET_HDR_GSO_UDP_L4, iovec, virtio_net_hdr,
)
from .port cimport Port, WorkerPort
from .ring cimport VNET_HEADER
from .worker cimport PIECES, PIECE_HEADERS, Worker

cdef enum:
    CUT_IP_MOST = 65535         # bytes of an IP packet, headers included
    CUT_MOST = 2048             # segments of one frame: 64 KB with an MSS of 32; no honest frame has more
    PROTO_TCP = 6
    PROTO_UDP = 17
    PROTO_GRE = 47

cdef enum Outer:
    OUTER_NONE = 0              # no tunnel, or one without lengths and checksums of its own (IPIP, plain GRE)
    OUTER_UDP = 1
    OUTER_GRE_CHECKSUM = 2

cdef struct Cut:
    # A GSO frame's headers, as offsets, and how to cut it.
    uint8_t type                # the vnet header's, without ECN
    bint tunnel
    bint outer_v6, inner_v6
    uint8_t outer_kind          # an Outer
    uint8_t protocol            # the innermost: TCP or UDP
    uint32_t outer              # the outer IP header; without a tunnel it is also `inner`
    uint32_t outer_transport    # the header behind it
    uint32_t inner, transport, payload
    uint32_t jumbo              # bytes of a jumbo payload option behind an inner IPv6 header: left out
    uint32_t size               # payload of a segment
    uint32_t step               # … of a piece: a whole number of segments
    uint32_t bytes              # … of the frame
    bint bundled                # as datagrams of a UDP GSO frame


cdef inline uint32_t skip_ip(const uint8_t *data, uint32_t length, uint32_t at, uint16_t ethertype,
                             uint8_t *protocol, uint32_t *jumbo) noexcept nogil:
    """The offset of the header behind an IP header, 0: there is none; and its protocol."""
    cdef uint32_t end
    if ethertype == ETHERTYPE_IPV4:
        if length < at + 20 or data[at] >> 4 != 4 or (data[at] & 0xF) < 5 or load16(data + at + 6) & 0x3FFF:
            return 0
        protocol[0] = data[at + 9]
        end = at + (data[at] & 0xF) * 4
        return end if end <= length else 0
    if ethertype != ETHERTYPE_IPV6 or length < at + IPV6_HEADER or data[at] >> 4 != 6:
        return 0
    protocol[0] = data[at + 6]
    end = at + IPV6_HEADER
    while (
        protocol[0] == IPV6_HOP_BY_HOP or protocol[0] == IPV6_ROUTING or protocol[0] == IPV6_DESTINATION
    ) and end + 8 <= length:
        # RFC 2675: one option, of type 0xC2 and 4 bytes (the kernel's struct hop_jumbo_hdr)
        if protocol[0] == IPV6_HOP_BY_HOP and data[end + 1] == 0 and data[end + 2] == 0xC2 and end == at + IPV6_HEADER:
            jumbo[0] = 8
        protocol[0] = data[end]
        end += (<uint32_t>data[end + 1] + 1) * 8
    return end if end <= length else 0


cdef inline uint32_t find_inner_ip(const uint8_t *data, uint32_t length, uint32_t least, uint32_t transport,
                                   uint8_t protocol, bint *v6) noexcept nogil:
    """The inner IP header before a tunnelled transport header, known by its length field; 0: there is none.

    The bytes before it are the tunnel's own, and the same in every segment."""
    cdef uint32_t words, at
    for words in range(5, 16):
        if transport < least + words * 4:
            break
        at = transport - words * 4
        if data[at] == (0x40 | words) and data[at + 9] == protocol and load16(data + at + 2) == length - at:
            v6[0] = False
            return at
    if transport >= least + IPV6_HEADER:
        at = transport - IPV6_HEADER
        if data[at] >> 4 == 6 and data[at + 6] == protocol and load16(data + at + 4) == length - transport:
            v6[0] = True
            return at
    return 0


cdef inline bint locate(const Frame *frame, const virtio_net_hdr *vnet, Cut *cut) noexcept nogil:
    """Find a GSO frame's headers. False when they do not match its vnet header."""
    cdef const uint8_t *data = frame.data
    cdef uint32_t length = frame.length
    cdef uint16_t ethertype
    cdef uint8_t following = 0
    cut.type = vnet.gso_type & <uint8_t>~VIRTIO_NET_HDR_GSO_ECN
    if cut.type == VIRTIO_NET_HDR_GSO_TCPV4 or cut.type == VIRTIO_NET_HDR_GSO_TCPV6:
        cut.protocol = PROTO_TCP
    elif cut.type == VIRTIO_NET_HDR_GSO_UDP_L4:
        cut.protocol = PROTO_UDP
    else:
        return False
    cut.outer = network_offset(data, length)
    ethertype = load16(data + cut.outer - 2)
    cut.jumbo, cut.outer_kind = 0, OUTER_NONE
    cut.outer_v6 = ethertype == ETHERTYPE_IPV6
    cut.outer_transport = skip_ip(data, length, cut.outer, ethertype, &following, &cut.jumbo)
    cut.transport = vnet.csum_start
    cut.size = vnet.gso_size
    if cut.outer_transport == 0 or cut.transport < cut.outer_transport or cut.size == 0:
        return False
    cut.tunnel = cut.transport > cut.outer_transport
    if not cut.tunnel:
        cut.inner, cut.inner_v6 = cut.outer, cut.outer_v6
        if following != cut.protocol:
            return False
    else:
        if cut.jumbo or length - cut.outer > CUT_IP_MOST:
            return False
        cut.inner = find_inner_ip(data, length, cut.outer_transport, cut.transport, cut.protocol, &cut.inner_v6)
        if cut.inner == 0:
            return False
        if following == PROTO_UDP and cut.inner >= cut.outer_transport + 8:
            cut.outer_kind = OUTER_UDP
        elif following == PROTO_GRE:
            if cut.inner < cut.outer_transport + 4:
                return False
            if data[cut.outer_transport] & 0x80:
                if cut.inner < cut.outer_transport + 8:
                    return False
                cut.outer_kind = OUTER_GRE_CHECKSUM
    if cut.protocol == PROTO_TCP:
        if length < cut.transport + 20 or (data[cut.transport + 12] >> 4) < 5:
            return False
        cut.payload = cut.transport + <uint32_t>(data[cut.transport + 12] >> 4) * 4
    else:
        cut.payload = cut.transport + 8
    if cut.payload >= length or cut.payload + VNET_HEADER > PIECE_HEADERS:
        return False
    cut.bytes = length - cut.payload
    return cut.bytes // cut.size < CUT_MOST


cdef inline bint must_cut(const Port *port, const WorkerPort *share, const Frame *frame, Cut *cut) noexcept nogil:
    """Whether a frame can leave a port only in pieces, and how."""
    cdef const virtio_net_hdr *vnet = <const virtio_net_hdr *>(frame.data - VNET_HEADER)
    cdef uint32_t headers
    if vnet.gso_type == VIRTIO_NET_HDR_GSO_NONE or not vnet.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM:
        return False
    if not locate(frame, vnet, cut):
        return False
    cut.bundled = False
    cut.step = cut.size
    if cut.tunnel:
        cut.bundled = (
            cut.outer_kind == OUTER_UDP and port.takes == TAKES_ALL and port.flags & FLAG_COALESCE != 0
            and cut.bytes > cut.size and not share.unmergeable & <uint8_t>(1 << VIRTIO_NET_HDR_GSO_UDP_L4)
            and cut.payload - cut.outer + cut.size <= CUT_IP_MOST // 2
        )
        return True
    if port.takes == TAKES_SINGLE:
        return True
    if frame.length - cut.outer <= CUT_IP_MOST:
        return False
    headers = cut.payload - cut.outer
    if headers + cut.size < CUT_IP_MOST:
        cut.step = (CUT_IP_MOST - headers) // cut.size * cut.size
    return True


# -- one piece -----------------------------------------------------------------------------------------


cdef inline uint32_t sum_pseudo(const Cut *cut, const uint8_t *data, uint32_t ip, bint v6, uint32_t protocol,
                                uint32_t length) noexcept nogil:
    """The pseudo header's sum, as the field of a pending checksum holds it."""
    if v6:
        return fold(<uint64_t>add_checksum(data + ip + 8, 32) + protocol + length)
    return fold(<uint64_t>add_checksum(data + ip + 12, 8) + protocol + length)


cdef inline void fix_ip(uint8_t *data, uint32_t at, bint v6, uint32_t end, uint32_t number) noexcept nogil:
    """Set an IP header's length for a packet that ends at `end`, its ID for this segment, and its checksum."""
    cdef uint32_t header
    if v6:
        store16(data + at + 4, end - at - IPV6_HEADER)
        return
    header = (data[at] & 0xF) * 4
    store16(data + at + 2, end - at)
    store16(data + at + 4, load16(data + at + 4) + number)
    store16(data + at + 10, 0)
    store16(data + at + 10, ~add_checksum(data + at, header))


cdef inline void fix_transport(const Cut *cut, uint8_t *data, uint32_t start, uint32_t bytes, uint32_t transport,
                               uint32_t payload) noexcept nogil:
    """Set the transport header of the piece with `bytes` of payload from `start` on. Its checksum stays pending."""
    cdef uint8_t *header = data + transport
    cdef uint32_t sequence
    if cut.protocol == PROTO_TCP:
        sequence = load32(header + 4) + start
        store16(header + 4, sequence >> 16)
        store16(header + 6, sequence)
        if start + bytes < cut.bytes:
            header[13] &= <uint8_t>~0x09        # FIN, PSH
        if start:
            header[13] &= <uint8_t>~0x80        # CWR
    else:
        store16(header + 4, 8 + bytes)
    store16(
        header + (16 if cut.protocol == PROTO_TCP else 6),
        sum_pseudo(cut, data, cut.inner, cut.inner_v6, cut.protocol, payload - transport + bytes),
    )


cdef inline void fix_outer(const Cut *cut, uint8_t *data, uint32_t end, uint32_t number) noexcept nogil:
    """Set the headers of the tunnel around a piece that ends at `end`.

    The outer checksum covers a part with a pending checksum. It needs none of the bytes of that part: once complete,
    they sum up to the complement of the inner pseudo header (Documentation/networking/checksum-offloads.rst, LCO)."""
    cdef uint32_t at = cut.outer_transport, check, total, inner_check
    fix_ip(data, cut.outer, cut.outer_v6, end, number)
    if cut.outer_kind == OUTER_NONE:
        return
    if cut.outer_kind == OUTER_UDP:
        store16(data + at + 4, end - at)
        check = at + 6
        if load16(data + check) == 0:
            return
    else:
        check = at + 4
    store16(data + check, 0)
    inner_check = cut.transport + (16 if cut.protocol == PROTO_TCP else 6)
    total = fold(<uint64_t>add_checksum(data + at, cut.transport - at) + (~load16(data + inner_check) & 0xFFFF))
    if cut.outer_kind == OUTER_UDP:
        total = fold(<uint64_t>total + sum_pseudo(cut, data, cut.outer, cut.outer_v6, PROTO_UDP, end - at))
        if total == 0xFFFF:
            total = 0                           # a checksum of 0 would mean: none
    store16(data + check, ~total)


cdef inline uint32_t write_piece(const Cut *cut, const Frame *frame, uint32_t start, uint32_t bytes,
                                 uint8_t *out) noexcept nogil:
    """Write vnet header and headers of a piece. Returns how many bytes they have."""
    cdef const virtio_net_hdr *whole = <const virtio_net_hdr *>(frame.data - VNET_HEADER)
    cdef virtio_net_hdr *vnet = <virtio_net_hdr *>out
    cdef uint8_t *data = out + VNET_HEADER
    cdef uint32_t number = start // cut.size
    cdef uint32_t kept = cut.inner + IPV6_HEADER if cut.jumbo else cut.payload
    cdef uint32_t transport = cut.transport - cut.jumbo, payload = cut.payload - cut.jumbo
    memcpy(data, frame.data, kept)
    if cut.jumbo:
        data[cut.inner + 6] = frame.data[kept]          # the option's next header
        memcpy(data + kept, frame.data + kept + cut.jumbo, payload - kept)
    fix_ip(data, cut.inner, cut.inner_v6, payload + bytes, number)
    fix_transport(cut, data, start, bytes, transport, payload)
    if cut.tunnel:
        fix_outer(cut, data, payload + bytes, number)
    vnet[0] = whole[0]
    vnet.csum_start = <uint16_t>transport
    if bytes <= cut.size:
        vnet.gso_type, vnet.gso_size, vnet.hdr_len = VIRTIO_NET_HDR_GSO_NONE, 0, 0
    else:
        vnet.gso_type = whole.gso_type if start == 0 else cut.type
        vnet.hdr_len = <uint16_t>payload
    return VNET_HEADER + payload


cdef inline void finish_inner(const Cut *cut, uint8_t *data, const uint8_t *payload, uint32_t bytes) noexcept nogil:
    """Complete the inner checksum of a piece whose headers are at `data`."""
    cdef uint8_t *field = data + cut.transport + (16 if cut.protocol == PROTO_TCP else 6)
    cdef uint32_t total = fold(
        <uint64_t>add_checksum(data + cut.transport, cut.payload - cut.transport) + add_checksum(payload, bytes)
    )
    if total == 0xFFFF and cut.protocol == PROTO_UDP:
        total = 0
    store16(field, ~total)


# -- messages ------------------------------------------------------------------------------------------


cdef inline uint32_t make_pieces(Worker *worker, const Frame *frame, const Cut *cut, uint32_t *start) noexcept nogil:
    """Make messages of a frame's payload from `start` on, one for each piece, at most PIECES. Returns how many."""
    cdef uint32_t count = 0, bytes
    cdef uint8_t *headers
    cdef iovec *vectors
    while count < PIECES and start[0] < cut.bytes:
        bytes = min(cut.step, cut.bytes - start[0])
        headers = worker.piece_headers + count * PIECE_HEADERS
        vectors = &worker.vectors[2 * count]
        vectors[0].iov_base, vectors[0].iov_len = headers, write_piece(cut, frame, start[0], bytes, headers)
        vectors[1].iov_base, vectors[1].iov_len = frame.data + cut.payload + start[0], bytes
        worker.messages[count].msg_hdr.msg_iov = vectors
        worker.messages[count].msg_hdr.msg_iovlen = 2
        start[0] += bytes
        count += 1
    return count


cdef inline uint32_t make_bundle(Worker *worker, const Frame *frame, const Cut *cut, uint32_t *start) noexcept nogil:
    """Make one message, a UDP GSO frame, of as many of a tunnelled frame's segments as it can hold. Returns 1."""
    cdef uint32_t inside = cut.outer_transport + 8          # a datagram's payload begins here
    cdef uint32_t total = 0, count = 0, bytes
    cdef virtio_net_hdr *vnet = <virtio_net_hdr *>worker.piece_headers
    cdef uint8_t *first = worker.piece_headers + VNET_HEADER
    cdef uint8_t *headers
    cdef iovec *vectors
    while count < PIECES and start[0] < cut.bytes:
        bytes = min(cut.size, cut.bytes - start[0])
        if inside - cut.outer + total + cut.payload - inside + bytes > CUT_IP_MOST:
            break
        headers = worker.piece_headers + count * PIECE_HEADERS
        vectors = &worker.vectors[2 * count]
        write_piece(cut, frame, start[0], bytes, headers)
        finish_inner(cut, headers + VNET_HEADER, frame.data + cut.payload + start[0], bytes)
        vectors[0].iov_base = headers if count == 0 else headers + VNET_HEADER + inside
        vectors[0].iov_len = cut.payload + VNET_HEADER if count == 0 else cut.payload - inside
        vectors[1].iov_base, vectors[1].iov_len = frame.data + cut.payload + start[0], bytes
        total += cut.payload - inside + bytes
        start[0] += bytes
        count += 1
    fix_ip(first, cut.outer, cut.outer_v6, inside + total, 0)
    store16(first + cut.outer_transport + 4, 8 + total)
    store16(
        first + cut.outer_transport + 6,
        sum_pseudo(cut, first, cut.outer, cut.outer_v6, PROTO_UDP, 8 + total),
    )
    vnet.csum_start, vnet.csum_offset = <uint16_t>cut.outer_transport, 6
    if count > 1:
        vnet.gso_type = VIRTIO_NET_HDR_GSO_UDP_L4
        vnet.gso_size = <uint16_t>(cut.payload - inside + cut.size)
        vnet.hdr_len = <uint16_t>inside
    worker.messages[0].msg_hdr.msg_iov = worker.vectors
    worker.messages[0].msg_hdr.msg_iovlen = 2 * count
    return 1


cdef inline uint32_t make_messages(Worker *worker, const Frame *frame, const Cut *cut, uint32_t *start) noexcept nogil:
    """Make the next messages of a frame that is cut up, from `start` of its payload on. 0: there are no more."""
    if start[0] >= cut.bytes:
        return 0
    return make_bundle(worker, frame, cut, start) if cut.bundled else make_pieces(worker, frame, cut, start)
