# Candidates: pairs of stations whose frames the kernel could forward by itself, for the fast path to promote.
#
# A frame names its pair when it was just forwarded between two known stations. Learning names no pair, so a MAC flood
# names none. A pair is named again after ASK_AGAIN as long as its frames still come here. The queue is bounded; a pair
# that finds no room is named by its next frame.
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from .batch cimport Frame
from .ethernet cimport (
    ETHERNET_HEADER, ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, TPID_8021AD, TPID_8021Q, load16, read_ip_source,
)

cdef enum:
    CANDIDATE_SLOTS = 1024
    NAMED = 4096                # pairs remembered as named, by fingerprint
    ASK_AGAIN = 7               # 2^7 ms
    LEAST_ETHERTYPE = 0x0600    # below it is a length (IEEE 802.3 §3.2.6)

cdef enum CandidateKind:
    CANDIDATE_PAIR = 0          # promote it
    CANDIDATE_STATION = 1       # `source` has moved: all its promoted pairs are revoked

cdef struct Candidate:
    uint16_t kind, ingress, egress, ethertype
    uint64_t source, destination            # FDB keys
    uint8_t ip[16]                          # the source address that a guard let pass; zeros: no guard looked

cdef struct CandidateQueue:
    Candidate *slots            # NULL: there is no fast path
    uint64_t *named
    uint32_t count
    uint64_t lost


cdef inline bint add_candidate(
    CandidateQueue *queue, uint16_t kind, const Frame *frame, uint16_t ethertype, const uint8_t *ip
) noexcept nogil:
    """False when the queue has no room."""
    cdef Candidate *slot
    if queue.count == CANDIDATE_SLOTS:
        queue.lost += 1
        return False
    slot = &queue.slots[queue.count]
    queue.count += 1
    slot.kind, slot.ingress, slot.egress, slot.ethertype = kind, frame.ingress, frame.egress, ethertype
    slot.source, slot.destination = frame.source, frame.destination
    memcpy(slot.ip, ip, 16)
    return True


cdef inline bint name_pair(CandidateQueue *queue, const Frame *frame, bint by_ip, uint32_t now_ms) noexcept nogil:
    """Name the pair of an untagged frame, with by_ip and for IP together with its source address.

    Returns whether it was named now: not if it was lately, or the queue has no room."""
    cdef uint16_t ethertype = load16(frame.data + 12)
    cdef uint8_t ip[16]
    cdef uint64_t print_
    cdef uint64_t halves[2]
    if ethertype < LEAST_ETHERTYPE or ethertype == ETHERTYPE_ARP or ethertype == TPID_8021Q or ethertype == TPID_8021AD:
        return False
    memset(ip, 0, 16)
    if by_ip and (ethertype == ETHERTYPE_IPV4 or ethertype == ETHERTYPE_IPV6) and not read_ip_source(
        ethertype, frame.data + ETHERNET_HEADER, frame.length - ETHERNET_HEADER, ip
    ):
        return False
    memcpy(halves, ip, 16)
    print_ = (frame.source_hash * 3 + frame.destination_hash) * <uint64_t>0x9E3779B97F4A7C15
    print_ += (<uint64_t>ethertype << 32) + (<uint64_t>frame.ingress << 16) + (now_ms >> ASK_AGAIN)
    print_ += (halves[0] * 5 + halves[1]) * <uint64_t>0xC2B2AE3D27D4EB4F
    if queue.named[(print_ >> 40) % NAMED] == print_ or not add_candidate(
        queue, CANDIDATE_PAIR, frame, ethertype, ip
    ):
        return False
    queue.named[(print_ >> 40) % NAMED] = print_
    return True
