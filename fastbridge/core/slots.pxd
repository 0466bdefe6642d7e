# Reads frames from a ring's slots.
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint16_t, uint32_t

from .batch cimport Frame
from .codes cimport NO_REASON, RX_TRUNCATED
from .linux cimport ENETDOWN, MSG_DONTWAIT, MSG_TRUNC, TP_STATUS_COPY, errno, recv, tpacket2_hdr
from .port cimport WorkerPort
from .ring cimport VNET_HEADER, next_slot, restore_tag
from .worker cimport BIG_HEADROOM, BIG_MOST, BIG_SIZE, Worker, big_is_full, lose_link, start_frame


cdef inline void receive_big(Worker *worker, WorkerPort *share, Frame *frame) noexcept nogil:
    """Fetch a frame that did not fit its slot into a big buffer, vnet header first."""
    cdef uint8_t *buffer = worker.big + worker.big_used + BIG_HEADROOM
    cdef ssize_t length = recv(share.rx_fd, buffer, BIG_MOST - BIG_HEADROOM, MSG_DONTWAIT | MSG_TRUNC)
    if length < 0 and errno == ENETDOWN:        # reported once; the frame is still there
        lose_link(worker, share)
        length = recv(share.rx_fd, buffer, BIG_MOST - BIG_HEADROOM, MSG_DONTWAIT | MSG_TRUNC)
    if length <= VNET_HEADER or length > BIG_MOST - BIG_HEADROOM:
        frame.reason = RX_TRUNCATED
        return
    worker.big_count += 1
    worker.big_used += max(<size_t>BIG_SIZE, (BIG_HEADROOM + <size_t>length + 63) & ~<size_t>63)
    frame.data = buffer + VNET_HEADER
    frame.length = <uint32_t>length - VNET_HEADER


cdef inline uint32_t fill_from_slots(Worker *worker, WorkerPort *share, uint16_t index, uint32_t limit) noexcept nogil:
    """Put at most `limit` frames of a port into the batch. Their slots stay taken until the batch is released."""
    cdef uint32_t n = 0
    cdef tpacket2_hdr *slot
    cdef Frame *frame
    while n < limit and not big_is_full(worker):
        slot = next_slot(&share.ring)
        if slot == NULL:
            break
        frame = &worker.batch[worker.batch_count + n]
        start_frame(frame, index)
        frame.length = slot.tp_len
        frame.data = <uint8_t *>slot + slot.tp_mac
        if slot.tp_status & TP_STATUS_COPY:
            receive_big(worker, share, frame)
        elif slot.tp_snaplen < slot.tp_len:
            frame.reason = RX_TRUNCATED
        if frame.reason == NO_REASON:
            restore_tag(frame, slot.tp_status, slot.tp_vlan_tci, slot.tp_vlan_tpid)
        n += 1
    return n
