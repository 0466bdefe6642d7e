# Reads headers, with their bounds checked. Only here are bytes of a frame interpreted.
# IEEE 802.3 §3 (MAC frame), 802.1Q §9 (tags). "Length" is without FCS, as on AF_PACKET.
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

from .linux cimport be16toh, be32toh

cdef enum:
    ETHERNET_HEADER = 14
    VLAN_TAG = 4
    TPID_8021Q = 0x8100
    TPID_8021AD = 0x88A8
    VID_RESERVED = 0xFFF
    ETHERTYPE_IPV4 = 0x0800
    ETHERTYPE_ARP = 0x0806
    ETHERTYPE_IPV6 = 0x86DD
    ETHERTYPE_LOOP = 0x88B5     # IEEE 802 local experimental 1: the switch's loop probes
    IPV6_HEADER = 40
    IPV6_HOP_BY_HOP = 0
    IPV6_ROUTING = 43
    IPV6_FRAGMENT = 44
    ICMPV6 = 58
    IPV6_DESTINATION = 60
    ND_SOLICITATION = 135       # RFC 4861 §4.3, §4.4
    ND_ADVERTISEMENT = 136


cdef inline uint16_t load16(const uint8_t *p) noexcept nogil:
    return <uint16_t>((<uint16_t>p[0] << 8) | p[1])


cdef inline uint32_t load32(const uint8_t *p) noexcept nogil:
    return (<uint32_t>load16(p) << 16) | load16(p + 2)


cdef inline void store16(uint8_t *p, uint32_t value) noexcept nogil:
    """The low 16 bits."""
    p[0] = (value >> 8) & 0xFF
    p[1] = value & 0xFF


cdef inline uint64_t load_mac(const uint8_t *p) noexcept nogil:
    """48 bits in wire order, the first byte most significant."""
    cdef uint32_t high
    cdef uint16_t low
    memcpy(&high, p, 4)         # byte by byte it would be 16 instructions, twice a frame
    memcpy(&low, p + 4, 2)
    return (<uint64_t>be32toh(high) << 16) | be16toh(low)


cdef inline bint is_group(uint64_t mac) noexcept nogil:
    """The I/G bit, the first on the wire (IEEE 802-2014 §8.2). Of a MAC, or of an FDB key made from one."""
    return (mac >> 40) & 1


cdef inline bint is_broadcast(uint64_t mac) noexcept nogil:
    return (mac & <uint64_t>0xFFFFFFFFFFFFULL) == <uint64_t>0xFFFFFFFFFFFFULL


cdef inline bint is_link_local(uint64_t mac) noexcept nogil:
    """Whether an 802.1D bridge keeps it on its link: 01:80:c2:00:00:00 to :0f (802.1D-2004 table 7-10).

    Of a MAC, or of an FDB key made from one."""
    return (mac & <uint64_t>0xFFFFFFFFFFF0ULL) == <uint64_t>0x0180C2000000ULL


cdef inline int read_vid(const uint8_t *data, uint32_t length) noexcept nogil:
    """The outer VLAN id of a frame of at least 14 bytes. 0: untagged; -1: the tag is cut off or reserved."""
    cdef uint16_t ethertype = load16(data + 12)
    cdef uint16_t vid
    if ethertype != TPID_8021Q and ethertype != TPID_8021AD:
        return 0
    if length < ETHERNET_HEADER + VLAN_TAG:
        return -1
    vid = load16(data + 14) & 0xFFF
    return -1 if vid == VID_RESERVED else vid


cdef inline uint32_t read_inner_vid(const uint8_t *data, uint32_t length) noexcept nogil:
    """The VLAN id of the second tag of a frame of at least 14 bytes. 0: none, or a priority tag, which names none."""
    cdef uint16_t outer = load16(data + 12)
    cdef uint16_t inner
    if (outer != TPID_8021Q and outer != TPID_8021AD) or length < ETHERNET_HEADER + 2 * VLAN_TAG:
        return 0
    inner = load16(data + 16)
    if inner != TPID_8021Q and inner != TPID_8021AD:
        return 0
    return load16(data + 18) & 0xFFF


cdef inline uint32_t network_offset(const uint8_t *data, uint32_t length) noexcept nogil:
    """The offset of the payload behind at most two tags, in a frame of at least 14 bytes.

    The two bytes before it are the EtherType."""
    cdef uint32_t at = ETHERNET_HEADER
    cdef uint16_t ethertype
    for _ in range(2):
        ethertype = load16(data + at - 2)
        if (ethertype != TPID_8021Q and ethertype != TPID_8021AD) or length < at + VLAN_TAG:
            break
        at += VLAN_TAG
    return at


cdef inline bint tags_are_plain(const uint8_t *data, uint32_t length) noexcept nogil:
    """Whether a frame has no tag, one, or two of which the outer names a VLAN.

    The receiving kernel strips any number of priority tags (VID 0). So frames with other tags cannot be guarded."""
    cdef uint32_t at = network_offset(data, length)
    cdef uint16_t ethertype = load16(data + at - 2)
    if ethertype == TPID_8021Q or ethertype == TPID_8021AD:
        return False
    return at < ETHERNET_HEADER + 2 * VLAN_TAG or load16(data + ETHERNET_HEADER) & 0xFFF != 0


cdef inline bint is_nd(const uint8_t *ip, uint32_t length) noexcept nogil:
    """Whether a frame is a neighbour solicitation or advertisement (RFC 4861 §4.3, §4.4).

    It may be behind extension headers, or it would get past a guard (RFC 6980, RFC 7113). In a later fragment nobody
    can tell."""
    cdef uint32_t at = IPV6_HEADER
    cdef uint8_t next_header
    if length <= IPV6_HEADER:
        return False
    next_header = ip[6]
    while at + 8 <= length:
        if next_header == ICMPV6:
            return ip[at] == ND_SOLICITATION or ip[at] == ND_ADVERTISEMENT
        if next_header == IPV6_FRAGMENT:
            if load16(ip + at + 2) & 0xFFF8:
                return False
            next_header = ip[at]
            at += 8
        elif next_header == IPV6_HOP_BY_HOP or next_header == IPV6_ROUTING or next_header == IPV6_DESTINATION:
            next_header = ip[at]
            at += (<uint32_t>ip[at + 1] + 1) * 8
        else:
            return False
    return False


cdef inline bint read_ip_source(uint16_t ethertype, const uint8_t *ip, uint32_t length, uint8_t *out) noexcept nogil:
    """Copy the source address of an IPv4 or IPv6 header into 16 bytes.

    IPv4 becomes ff00::a.b.c.d, which no IPv6 station has. False when there is none, or it is
    unspecified: DHCP and duplicate address detection send from that."""
    cdef uint32_t i
    cdef uint8_t some = 0
    for i in range(16):
        out[i] = 0
    if ethertype == ETHERTYPE_IPV4 and length >= 20:
        out[0] = 0xFF
        for i in range(4):
            out[12 + i] = ip[12 + i]
            some |= ip[12 + i]
    elif ethertype == ETHERTYPE_IPV6 and length >= IPV6_HEADER:
        for i in range(16):
            out[i] = ip[8 + i]
            some |= ip[8 + i]
    return some != 0
