# The forwarding decision: parse reads one frame's headers, classify decides it.
#
# Batching changes nothing. Each frame is learned and looked up before the next one, so a batch of n gives the same as n
# batches of one (tests/core/test_core_equals_model.py). parse runs over the whole batch first. So the FDB's cache lines
# are on their way when classify needs them.
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memset

from .batch cimport Frame
from .bucket cimport take_token
from .codes cimport (
    ARP_GROUP, ARP_UNICAST, BROADCAST, CONSUMED, DROPPED, FLAG_HAIRPIN, FLAG_ISOLATED, FLAG_LEARNING, FLAG_LOCKED,
    FLOODED, FORWARDED, LOOP_PROBE, MULTICAST, ND_GROUP, ND_UNICAST, NO_REASON, ORDINARY, PUNT_NONE, PUNT_TAKE,
    RX_BAD_SOURCE, RX_BAD_TAG, RX_BLOCKED, RX_FILTERED, RX_ISOLATED, RX_LINK_LOCAL, RX_LOCKED, RX_RATE_LIMITED, RX_RUNT,
    RX_SOURCE_GUARD, RX_STORM_BROADCAST, UNKNOWN_UNICAST,
)
from .ethernet cimport (
    ETHERNET_HEADER, ETHERTYPE_ARP, ETHERTYPE_IPV6, ETHERTYPE_LOOP, is_broadcast, is_group, is_link_local, is_nd,
    load16, load_mac, network_offset, read_inner_vid, read_ip_source, read_vid, tags_are_plain,
)
from .mac_table cimport MacTableState, hash_key, holds, learn, look_up, mac_of, make_key, prefetch_bucket, vid_of
from .port cimport Port, is_open

cdef enum:
    LOOP_MAGIC = 16             # bytes of a loop probe that this switch's probes have in common; then come …
    LOOP_TOKEN = 6              # … those of one probe alone

cdef struct Forwarding:
    MacTableState *fdb
    MacTableState *bindings     # the IP addresses that stations may send from, for guarded ports
    Port **ports
    bint filter_link_local
    bint punting                # some port's policy wants ARP or ND
    bint probing                # loop_magic is set
    uint64_t own_mac            # the policies' source address for questions; 0: none
    uint8_t loop_magic[16]
    uint16_t moved_from         # the station's port before the last LEARN_MOVED or LEARN_DAMPED
    uint32_t now_ms
    uint64_t now_ns


cdef inline uint8_t read_kind(const Forwarding *f, const Frame *frame) noexcept nogil:
    """Whether the policy or the loop detection may want the frame."""
    cdef uint32_t at = network_offset(frame.data, frame.length), i
    cdef uint16_t ethertype = load16(frame.data + at - 2)
    cdef bint group = is_group(frame.destination)
    if ethertype == ETHERTYPE_ARP:
        return ARP_GROUP if group else ARP_UNICAST
    if ethertype == ETHERTYPE_IPV6 and is_nd(frame.data + at, frame.length - at):
        return ND_GROUP if group else ND_UNICAST
    if f.probing and ethertype == ETHERTYPE_LOOP and frame.length >= at + LOOP_MAGIC + LOOP_TOKEN:
        for i in range(<uint32_t>LOOP_MAGIC):
            if frame.data[at + i] != f.loop_magic[i]:
                return ORDINARY
        return LOOP_PROBE
    return ORDINARY


cdef inline void parse(const Forwarding *f, Frame *frame) noexcept nogil:
    """Make the FDB keys of a frame's addresses, or note the frame's fault."""
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
    frame.vid = vid
    frame.source = make_key(source, vid)
    frame.source_hash = hash_key(f.fdb, frame.source)
    prefetch_bucket(f.fdb, frame.source_hash)
    frame.destination = make_key(destination, vid)
    if not is_group(destination):
        frame.destination_hash = hash_key(f.fdb, frame.destination)
        prefetch_bucket(f.fdb, frame.destination_hash)
    if f.punting or f.probing:
        frame.kind = read_kind(f, frame)
    frame.for_switch = destination == f.own_mac and destination != 0


cdef inline void drop(Frame *frame, uint8_t reason) noexcept nogil:
    frame.action = DROPPED
    frame.reason = reason


cdef inline void flood(Port *port, Frame *frame, uint8_t what, uint64_t now) noexcept nogil:
    """Flood, within the ingress port's storm control."""
    frame.action = FLOODED
    frame.flood = what
    if not take_token(&port.storm[what], now):
        drop(frame, RX_STORM_BROADCAST + what)


cdef inline uint64_t binding_key(
    const MacTableState *bindings, const uint8_t *ip, uint64_t extra, uint32_t inner
) noexcept nogil:
    """A fingerprint, 48 bits and the VID, of an IP address (16 bytes) and a MAC, within the inner VLAN.

    The seed keeps it unguessable."""
    cdef uint64_t high = 0, low = 0
    cdef int i
    for i in range(8):
        high = high << 8 | ip[i]
        low = low << 8 | ip[8 + i]
    high = hash_key(bindings, hash_key(bindings, high) + low)
    if inner:
        high = hash_key(bindings, high + inner)
    return make_key(mac_of(hash_key(bindings, high + extra)), vid_of(extra))


cdef inline bint mac_allowed(const Forwarding *f, uint16_t ingress, uint64_t source) noexcept nogil:
    """Whether a source MAC (its key) is bound to no other port. The FDB knows only the outer VLAN, so that counts."""
    cdef uint8_t ip[16]
    cdef uint64_t key
    cdef int port
    memset(ip, 0, 16)
    key = binding_key(f.bindings, ip, source, 0)
    port = look_up(f.bindings, key, hash_key(f.bindings, key), 0)
    return port < 0 or port == ingress


cdef inline bint ip_allowed(
    const Forwarding *f, uint16_t ingress, uint64_t source, uint16_t vid, uint32_t inner, const uint8_t *ip
) noexcept nogil:
    """Whether a guarded port may send from an IP source address, by a source MAC (its key)."""
    cdef bint strict = f.ports[ingress].strict
    # Strict: from this MAC on this port. Else from any MAC on it: a VRRP master has two, and takes no other's address.
    cdef uint64_t key = binding_key(f.bindings, ip, source if strict else make_key(0, vid), inner)
    cdef int port = look_up(f.bindings, key, hash_key(f.bindings, key), 0)
    return port == ingress or (port < 0 and not strict)


cdef inline bint source_allowed(const Forwarding *f, const Frame *frame) noexcept nogil:
    """Whether a guarded port may send from the frame's IP source address: yes if it is missing or unspecified."""
    cdef uint8_t ip[16]
    cdef uint32_t at = network_offset(frame.data, frame.length)
    if not read_ip_source(load16(frame.data + at - 2), frame.data + at, frame.length - at, ip):
        return True
    return ip_allowed(f, frame.ingress, frame.source, frame.vid, read_inner_vid(frame.data, frame.length), ip)


cdef inline bint guard(Forwarding *f, Port *port, Frame *frame, bint *may_learn) noexcept nogil:
    """Source guard. It comes before learning, so that a forged source moves no station. False: drop the frame.

    ARP and ND that the policy inspects are left to its verdict, which knows more. But nothing is learned from them.
    """
    cdef bint mac_fits = mac_allowed(f, frame.ingress, frame.source)
    if not tags_are_plain(frame.data, frame.length):
        return False
    if frame.kind != ORDINARY and port.punt[frame.kind] == PUNT_TAKE:
        may_learn[0] = mac_fits
        return True
    return mac_fits and (port.routes or source_allowed(f, frame))


cdef inline bint admit(Forwarding *f, Port *port, Frame *frame) noexcept nogil:
    """Ingress rules and learning. False when the frame ends here."""
    cdef bint may_learn = True
    if frame.kind == LOOP_PROBE:
        frame.action = CONSUMED
        return False
    if port.blocked:
        drop(frame, RX_BLOCKED)
        return False
    if port.flags & FLAG_LOCKED and not holds(f.fdb, frame.source, frame.source_hash, frame.ingress, f.now_ms):
        drop(frame, RX_LOCKED)
        return False
    if port.guarded and not guard(f, port, frame, &may_learn):
        drop(frame, RX_SOURCE_GUARD)
        return False
    if port.flags & FLAG_LEARNING and may_learn:
        frame.learned = learn(f.fdb, frame.source, frame.source_hash, frame.ingress, f.now_ms, &f.moved_from)
    if frame.for_switch and frame.kind == ORDINARY:
        frame.action = CONSUMED
        return False
    return True


cdef inline bint consult(Forwarding *f, Port *port, Frame *frame) noexcept nogil:
    """Rate limit and policy of ARP and ND. False when the frame ends here."""
    cdef bint arp = frame.kind == ARP_GROUP or frame.kind == ARP_UNICAST
    if not take_token(&port.arp if arp else &port.nd, f.now_ns):
        drop(frame, RX_RATE_LIMITED)
        return False
    frame.punted = port.punt[frame.kind] != PUNT_NONE
    # A frame for the switch is a neighbour's answer to a policy's question.
    if port.punt[frame.kind] == PUNT_TAKE or frame.for_switch:
        frame.action = CONSUMED
        return False
    return True


cdef inline void look_up_egress(Forwarding *f, Port *port, Frame *frame) noexcept nogil:
    """Find a frame's way by its destination alone."""
    cdef int egress
    if is_group(frame.destination):
        if f.filter_link_local and is_link_local(frame.destination):
            drop(frame, RX_LINK_LOCAL)
        else:
            flood(port, frame, BROADCAST if is_broadcast(frame.destination) else MULTICAST, f.now_ns)
        return
    egress = look_up(f.fdb, frame.destination, frame.destination_hash, f.now_ms)
    if egress < 0 or not is_open(f.ports[egress]):      # behind a lost link: its entry is about to be flushed
        flood(port, frame, UNKNOWN_UNICAST, f.now_ns)
    elif egress == frame.ingress and not port.flags & FLAG_HAIRPIN:
        drop(frame, RX_FILTERED)
    elif port.flags & FLAG_ISOLATED and f.ports[egress].flags & FLAG_ISOLATED and egress != frame.ingress:
        drop(frame, RX_ISOLATED)
    else:
        frame.action = FORWARDED
        frame.egress = egress


cdef inline void classify(Forwarding *f, Frame *frame) noexcept nogil:
    """Decide one parsed frame: learn its source, then look up its destination (802.1Q §8.7, §8.8)."""
    cdef Port *port = f.ports[frame.ingress]
    if frame.reason != NO_REASON:
        frame.action = DROPPED
    elif admit(f, port, frame) and (frame.kind == ORDINARY or consult(f, port, frame)):
        look_up_egress(f, port, frame)
