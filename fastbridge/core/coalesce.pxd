# Coalesce: frames of one flow, one send.
#
# Software GRO in the batch. A send by AF_PACKET costs the kernel some 20 times as much as the switch's own work for a
# frame (docs/performance.md). So consecutive frames of one flow leave as one GSO frame: TCP segments in sequence, or
# UDP datagrams of one size. sendmmsg gathers it: the headers of the first frame, then all payloads from where they lie.
# The kernel cuts it up again where single frames are needed.
#
# The core merges the frames that the kernel's own GRO merges (inet_gro_receive, ipv6_gro_receive, tcp_gro_receive,
# udp_gro_receive_segment, inet_gro_flush). It merges fewer where segmentation (TSO, USO) would not give back the frames
# that came in. So merging is invisible: boundaries, order and bytes are the same. The kernel's GRO and the core share
# one exception. Packets that may not be fragmented (DF) and all have the same IPv4 ID may leave with ascending IDs. No
# receiver may look at the ID of such packets (RFC 6864 §4.1).
#
# The order of frames from one port to another never changes, not even between flows. So frames of several ports are not
# merged, nor frames with another frame of the same ingress port in between. Not merged either: flooded frames, GSO
# frames, IPv4 options, IPv6 extension headers, fragments, padding, empty segments, SYN, RST, URG, CWR. PSH, FIN or a
# shorter payload end a run. A frame with a wrong checksum stays alone, or it would leave with a right one. Complete and
# pending checksums do not mix. A frame longer than the egress MTU is not merged. Alone it is dropped, and a GSO frame
# must not carry it past that check.
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from .batch cimport Frame
from .checksum cimport add_checksum, fold
from .codes cimport FORWARDED
from .ethernet cimport (
    ETHERNET_HEADER, ETHERTYPE_IPV4, ETHERTYPE_IPV6, IPV6_HEADER, TPID_8021AD, TPID_8021Q, VLAN_TAG, load16, load32,
    network_offset, store16,
)
from .linux cimport (
    SIOCGIFMTU, SIOCGIFNAME, VIRTIO_NET_HDR_F_NEEDS_CSUM, VIRTIO_NET_HDR_GSO_NONE, VIRTIO_NET_HDR_GSO_TCPV4,
    VIRTIO_NET_HDR_GSO_TCPV6, VIRTIO_NET_HDR_GSO_UDP_L4, getsockname, ifreq, ioctl, iovec, sockaddr, sockaddr_ll,
    socklen_t, virtio_net_hdr,
)
from .port cimport WorkerPort
from .ring cimport VNET_HEADER
from .worker cimport Worker

cdef enum:
    # The kernel's UDP_GRO_CNT_MAX: receivers choose their buffers' size by it. Before 6.9 UDP_MAX_SEGMENTS lets out no
    # more, either. TCP has no such limit, but a port gives no more at a time (BURST).
    RUN_MOST = 64
    IP_MOST = 65535             # bytes of an IP packet, headers included: GSO_LEGACY_MAX_SIZE
    MTU_NS = 100000000          # how long a port's MTU is believed
    IPV4_HEADER = 20
    IPV4_DF = 0x4000
    TCP_HEADER = 20
    UDP_HEADER = 8
    PROTOCOL_TCP = 6
    PROTOCOL_UDP = 17
    TCP_CHECK = 16              # the checksum's offset in the header
    UDP_CHECK = 6
    TCP_FIN = 0x01
    TCP_PSH = 0x08
    TCP_NEVER = 0xA6            # CWR, URG, RST, SYN
    # Room for the headers of a merged frame, vnet header first: two tags, IPv6, TCP with all its options.
    HEADERS = 136

cdef struct Segment:
    # A frame that may be merged, and its headers' offsets from `data`.
    const uint8_t *data
    uint32_t length
    uint32_t network, transport, payload
    uint8_t protocol
    bint ipv6

cdef struct Run:
    Segment head
    uint32_t frames, bytes      # bytes of payload
    bint fixed_id
    uint32_t last_length        # the last frame's
    uint8_t last_flags          # … and its TCP flags
    Segment ahead               # the next frame, which did not fit, already read: it is the head …
    uint32_t ahead_at           # … of the next run, at this place of the queue


cdef inline const virtio_net_hdr *vnet_of(const uint8_t *data) noexcept nogil:
    return <const virtio_net_hdr *>(data - VNET_HEADER)


# -- one frame -----------------------------------------------------------------------------------------


cdef inline bint read_ipv4(Segment *s) noexcept nogil:
    cdef const uint8_t *ip = s.data + s.network
    cdef uint32_t room = s.length - s.network
    if room < IPV4_HEADER or ip[0] != 0x45 or load16(ip + 2) != room or load16(ip + 6) & ~IPV4_DF:
        return False
    s.ipv6 = False
    s.protocol = ip[9]
    s.transport = s.network + IPV4_HEADER
    return True


cdef inline bint read_ipv6(Segment *s) noexcept nogil:
    cdef const uint8_t *ip = s.data + s.network
    cdef uint32_t room = s.length - s.network
    if room < IPV6_HEADER or ip[0] >> 4 != 6 or load16(ip + 4) != room - IPV6_HEADER:
        return False
    s.ipv6 = True
    s.protocol = ip[6]
    s.transport = s.network + IPV6_HEADER
    return True


cdef inline bint read_tcp(Segment *s) noexcept nogil:
    cdef const uint8_t *tcp = s.data + s.transport
    cdef uint32_t header
    if s.length - s.transport < TCP_HEADER or tcp[13] & TCP_NEVER:
        return False
    header = <uint32_t>(tcp[12] >> 4) * 4
    s.payload = s.transport + header
    return header >= TCP_HEADER and s.payload < s.length


cdef inline bint read_udp(Segment *s) noexcept nogil:
    cdef const uint8_t *udp = s.data + s.transport
    cdef uint32_t room = s.length - s.transport
    s.payload = s.transport + UDP_HEADER
    # Without a checksum (0) segmentation makes none, either.
    return room > UDP_HEADER and load16(udp + 4) == room and load16(udp + UDP_CHECK) != 0


cdef inline bint may_be_ip(const Frame *frame) noexcept nogil:
    """Whether a frame is worth a closer look. For one that is not, these few instructions are all."""
    cdef uint16_t ethertype = load16(frame.data + 12)
    return (
        ethertype == ETHERTYPE_IPV4 or ethertype == ETHERTYPE_IPV6
        or ethertype == TPID_8021Q or ethertype == TPID_8021AD
    )


cdef inline bint read_segment(const Frame *frame, Segment *s) noexcept nogil:
    """Find the headers of a frame. False when it may not be merged."""
    cdef uint32_t at = network_offset(frame.data, frame.length)
    cdef uint16_t ethertype = load16(frame.data + at - 2)
    s.data, s.length, s.network = frame.data, frame.length, at
    if ethertype == ETHERTYPE_IPV4:
        if not read_ipv4(s):
            return False
    elif ethertype != ETHERTYPE_IPV6 or not read_ipv6(s):
        return False
    if frame.action != FORWARDED or vnet_of(frame.data).gso_type != VIRTIO_NET_HDR_GSO_NONE:
        return False
    if s.protocol == PROTOCOL_TCP:
        return read_tcp(s)
    return s.protocol == PROTOCOL_UDP and read_udp(s)


cdef inline uint32_t check_offset(const Segment *s) noexcept nogil:
    return TCP_CHECK if s.protocol == PROTOCOL_TCP else UDP_CHECK


cdef inline uint8_t gso_type(const Segment *s) noexcept nogil:
    if s.protocol == PROTOCOL_UDP:
        return VIRTIO_NET_HDR_GSO_UDP_L4
    return VIRTIO_NET_HDR_GSO_TCPV6 if s.ipv6 else VIRTIO_NET_HDR_GSO_TCPV4


cdef inline bint is_pending(const Segment *s) noexcept nogil:
    return vnet_of(s.data).flags & VIRTIO_NET_HDR_F_NEEDS_CSUM != 0


cdef inline uint32_t add_pseudo_header(const Segment *s, uint32_t length) noexcept nogil:
    """The sum of the pseudo header, for `length` bytes from the TCP or UDP header on.

    The field of a pending checksum holds the same sum."""
    cdef uint32_t at = s.network + (8 if s.ipv6 else 12)
    return fold(<uint64_t>add_checksum(s.data + at, s.transport - at) + s.protocol + length)


cdef inline bint checksums_ok(const Segment *s) noexcept nogil:
    """Whether the checksums of IPv4 and of TCP or UDP are right, a pending one too. Segmentation makes such ones.

    (0xffff instead of 0 is right, too, but only UDP's segmentation makes it.)"""
    cdef const virtio_net_hdr *vnet = vnet_of(s.data)
    cdef const uint8_t *ip = s.data + s.network
    cdef uint32_t length = s.length - s.transport, pseudo, check
    if not s.ipv6 and (add_checksum(ip, IPV4_HEADER) != 0xFFFF or load16(ip + 10) == 0xFFFF):
        return False
    pseudo = add_pseudo_header(s, length)
    check = load16(s.data + s.transport + check_offset(s))
    if is_pending(s):
        return vnet.csum_start == s.transport and vnet.csum_offset == check_offset(s) and check == pseudo
    if s.protocol == PROTOCOL_TCP and check == 0xFFFF:
        return False
    return fold(<uint64_t>pseudo + add_checksum(s.data + s.transport, length)) == 0xFFFF


# -- two frames ----------------------------------------------------------------------------------------


cdef inline bint same_ports(const Segment *a, const Segment *b) noexcept nogil:
    """Whether the headers are in the same places, and the ports the same. This tells most flows apart."""
    return (
        a.network == b.network and a.transport == b.transport and a.payload == b.payload and a.protocol == b.protocol
        and load32(a.data + a.transport) == load32(b.data + b.transport)
    )


cdef inline bint same_network(const Segment *a, const Segment *b) noexcept nogil:
    """Whether two frames with headers in the same places have the same MACs, tags and IP header.

    Length, ID and checksum of the IP header may differ."""
    cdef const uint8_t *ip = a.data + a.network
    cdef const uint8_t *other = b.data + b.network
    if memcmp(a.data, b.data, a.network):
        return False
    if a.ipv6:
        return memcmp(ip, other, 4) == 0 and memcmp(ip + 6, other + 6, IPV6_HEADER - 6) == 0
    return (
        ip[1] == other[1] and memcmp(ip + 6, other + 6, 4) == 0
        and memcmp(ip + 12, other + 12, IPV4_HEADER - 12) == 0
    )


cdef inline bint same_tcp(const Segment *a, const Segment *b) noexcept nogil:
    """Whether two frames with headers in the same places have the same TCP header.

    Sequence number, FIN, PSH and checksum may differ."""
    cdef const uint8_t *header = a.data + a.transport
    cdef const uint8_t *other = b.data + b.transport
    return (
        load32(header + 8) == load32(other + 8) and header[12] == other[12]         # acknowledgement, data offset
        and (header[13] ^ other[13]) & ~(TCP_FIN | TCP_PSH) == 0
        and load16(header + 14) == load16(other + 14)                               # window
        and memcmp(header + 18, other + 18, a.payload - a.transport - 18) == 0      # urgent pointer, options
    )


cdef inline bint has_next_id(Run *run, const Segment *s) noexcept nogil:
    """Whether the IPv4 ID is one more than the one before. In frames with DF it may also be the same."""
    cdef const uint8_t *ip = run.head.data + run.head.network
    cdef uint16_t ahead = <uint16_t>(load16(s.data + s.network + 4) - load16(ip + 4))
    if s.ipv6:
        return True
    if run.frames == 1:
        run.fixed_id = ahead == 0 and load16(ip + 6) & IPV4_DF != 0
    return ahead == (0 if run.fixed_id else run.frames)


cdef inline bint continues_run(Run *run, const Segment *s) noexcept nogil:
    """Whether a frame is the next of a run. Its checksums are not looked at."""
    cdef const Segment *head = &run.head
    cdef uint32_t size = head.length - head.payload, more = s.length - s.payload
    if not same_ports(head, s) or more > size or head.payload - head.network + run.bytes + more > IP_MOST:
        return False
    if not same_network(head, s) or is_pending(head) != is_pending(s) or not has_next_id(run, s):
        return False
    if head.protocol == PROTOCOL_UDP:
        return True
    return same_tcp(head, s) and (
        load32(s.data + s.transport + 4) == <uint32_t>(load32(head.data + head.transport + 4) + run.bytes)
    )


# -- a run ---------------------------------------------------------------------------------------------


cdef inline uint32_t read_mtu(int fd) noexcept nogil:
    """The MTU of a socket's interface, whatever its name is now; 0: the kernel does not say."""
    cdef sockaddr_ll address
    cdef socklen_t size = sizeof(address)
    cdef ifreq request
    memset(&request, 0, sizeof(request))
    address.sll_ifindex = 0                     # as in is_dead()
    if getsockname(fd, <sockaddr *>&address, &size) < 0:
        return 0
    request.ifr_ifindex = address.sll_ifindex
    if ioctl(fd, SIOCGIFNAME, &request) < 0 or ioctl(fd, SIOCGIFMTU, &request) < 0:
        return 0
    return <uint32_t>request.ifr_mtu


cdef inline bint egress_accepts(Worker *worker, WorkerPort *share, const Segment *s) noexcept nogil:
    """Whether the egress port takes frames merged from ones like this. It must let out a single one, too."""
    cdef uint32_t tag = VLAN_TAG if load16(s.data + 12) == TPID_8021Q else 0
    if share.unmergeable & <uint8_t>(1 << gso_type(s)):
        return False
    if share.tx_fd < 0:
        return True
    if worker.now >= share.mtu_until:
        share.mtu = read_mtu(share.tx_fd)
        share.mtu_until = worker.now + MTU_NS
    return s.length <= ETHERNET_HEADER + tag + share.mtu


cdef inline bint is_closed(const Run *run) noexcept nogil:
    """Whether nothing may come after the last frame."""
    return (
        run.frames == RUN_MOST or run.last_length < run.head.length or run.last_flags & (TCP_FIN | TCP_PSH) != 0
    )


cdef inline void append(Run *run, const Segment *s) noexcept nogil:
    run.frames += 1
    run.bytes += s.length - s.payload
    run.last_length = s.length
    run.last_flags = s.data[s.transport + 13] if s.protocol == PROTOCOL_TCP else 0


cdef inline uint32_t find_run(Worker *worker, WorkerPort *share, uint32_t at, Run *run) noexcept nogil:
    """How many frames of a port's queue, from `at` on, leave as one. 1: this one stays alone."""
    cdef const Frame *first = &worker.batch[share.queue[at]]
    cdef const Frame *frame
    run.frames, run.bytes, run.fixed_id = 0, 0, False
    if run.ahead_at == at:
        run.head = run.ahead
    elif not read_segment(first, &run.head):
        return 1
    append(run, &run.head)
    while at + run.frames < share.queued and not is_closed(run):
        frame = &worker.batch[share.queue[at + run.frames]]
        if not read_segment(frame, &run.ahead):
            break
        run.ahead_at = at + run.frames
        if frame.ingress != first.ingress or not continues_run(run, &run.ahead):
            break
        if run.frames == 1 and not (egress_accepts(worker, share, &run.head) and checksums_ok(&run.head)):
            break
        if not checksums_ok(&run.ahead):
            break
        append(run, &run.ahead)
    return run.frames


cdef inline void write_headers(const Run *run, uint8_t *out) noexcept nogil:
    """Write a run's vnet header and headers as GSO wants them: the whole's lengths, a pending checksum."""
    cdef const Segment *head = &run.head
    cdef virtio_net_hdr *vnet = <virtio_net_hdr *>out
    cdef uint8_t *data = out + VNET_HEADER
    cdef uint8_t *ip = data + head.network
    cdef uint8_t *transport = data + head.transport
    cdef uint32_t length = head.payload - head.transport + run.bytes
    memcpy(data, head.data, head.payload)
    vnet.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM
    vnet.gso_type = gso_type(head)
    vnet.gso_size = <uint16_t>(head.length - head.payload)
    vnet.hdr_len = <uint16_t>head.payload
    vnet.csum_start = <uint16_t>head.transport
    vnet.csum_offset = <uint16_t>check_offset(head)
    if head.ipv6:
        store16(ip + 4, length)
    else:
        store16(ip + 2, IPV4_HEADER + length)
        store16(ip + 10, 0)
        store16(ip + 10, ~add_checksum(ip, IPV4_HEADER))
    if head.protocol == PROTOCOL_TCP:
        transport[13] |= run.last_flags
    else:
        store16(transport + 4, length)
    store16(transport + check_offset(head), add_pseudo_header(head, length))


cdef inline uint32_t gather_run(
    const Worker *worker, const WorkerPort *share, uint32_t at, const Run *run, uint8_t *headers, iovec *vectors
) noexcept nogil:
    """Lay out a run that begins at `at` in a port's queue: headers, then payloads. Returns how many vectors."""
    cdef const Frame *frame
    cdef uint32_t i
    write_headers(run, headers)
    vectors[0].iov_base, vectors[0].iov_len = headers, VNET_HEADER + run.head.payload
    for i in range(run.frames):
        frame = &worker.batch[share.queue[at + i]]
        vectors[i + 1].iov_base = frame.data + run.head.payload
        vectors[i + 1].iov_len = frame.length - run.head.payload
    return run.frames + 1
