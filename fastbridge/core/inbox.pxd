# RX without a ring: recvmmsg.
#
# Frames wait in the socket's receive buffer, as the sender's own memory, uncopied, and are copied into the big buffers
# (plane.pxd) when the switch asks: the only mode that needs no memory a port, at a system call for every look at it.
# How much may wait is the receive buffer's size (SO_RCVBUF; without root at most net.core.rmem_max), in the kernel's
# count: a small frame takes some 700 bytes of it. One queue, so the order is that of arrival; the VLAN tag comes with
# the message (PACKET_AUXDATA).
#
# What the kernel cannot describe by a vnet header it drops when asked for it, with EINVAL: counted as missed, as the
# rings' modes have it in tp_drops. recvmmsg reports an error behind the first frame by its next call.
from libc.stdint cimport uint8_t, uint16_t, uint32_t

from .batch cimport BATCH, BURST, NO_REASON, RX_TRUNCATED, Frame
from .linux cimport (
    CMSG_DATA, CMSG_FIRSTHDR, EINTR, EINVAL, ENETDOWN, MSG_DONTWAIT, MSG_TRUNC, PACKET_AUXDATA, SOL_PACKET, cmsghdr,
    errno, iovec, mmsghdr, recvmmsg, tpacket_auxdata,
)
from .plane cimport BIG_HEADROOM, BIG_SIZE, Inbox, Plane, big_buffer, lose_link, start_frame
from .port cimport Share
from .ring cimport VNET_HEADER, restore_tag


cdef inline void prepare_inbox(Plane *plane) noexcept nogil:
    """Give each place of the batch its message, and that a big buffer."""
    cdef Inbox *inbox = &plane.inbox
    cdef uint32_t i
    for i in range(<uint32_t>BATCH):
        inbox.vectors[i].iov_base = big_buffer(plane, i)
        inbox.vectors[i].iov_len = BIG_SIZE - BIG_HEADROOM
        inbox.messages[i].msg_hdr.msg_iov = &inbox.vectors[i]
        inbox.messages[i].msg_hdr.msg_iovlen = 1
        inbox.messages[i].msg_hdr.msg_control = inbox.controls[i].words
        inbox.messages[i].msg_hdr.msg_controllen = sizeof(inbox.controls[i].words)


cdef inline void read_message(mmsghdr *message, Frame *frame) noexcept nogil:
    """Make a frame of a message, its tag put back."""
    cdef cmsghdr *control = CMSG_FIRSTHDR(&message.msg_hdr)
    cdef tpacket_auxdata *auxiliary
    frame.data = <uint8_t *>message.msg_hdr.msg_iov.iov_base + VNET_HEADER
    frame.length = message.msg_len - VNET_HEADER
    if message.msg_len <= VNET_HEADER or message.msg_len > BIG_SIZE - BIG_HEADROOM:
        frame.length = message.msg_len
        frame.reason = RX_TRUNCATED
    elif control != NULL and control.cmsg_level == SOL_PACKET and control.cmsg_type == PACKET_AUXDATA:
        auxiliary = <tpacket_auxdata *>CMSG_DATA(control)
        restore_tag(frame, auxiliary.tp_status, auxiliary.tp_vlan_tci, auxiliary.tp_vlan_tpid)


cdef inline bint receive_failed(Plane *plane, Share *share) noexcept nogil:
    """Note why recvmmsg gave nothing; True: ask again."""
    if errno == EINVAL:
        share.tally.rx_missed += 1
        share.taken += 1
        return True
    if errno == ENETDOWN:                       # reported once
        lose_link(plane, share)
        return True
    return errno == EINTR


cdef inline uint32_t fill_from_socket(Plane *plane, Share *share, uint16_t index, uint32_t limit) noexcept nogil:
    """Put at most `limit` frames of a port into the batch; their buffers are theirs until it is released."""
    cdef mmsghdr *messages = &plane.inbox.messages[plane.batch_count]
    cdef uint32_t i
    cdef Frame *frame
    cdef int n = -1
    for _ in range(<uint32_t>BURST):
        n = recvmmsg(share.rx_fd, messages, limit, MSG_DONTWAIT | MSG_TRUNC, NULL)
        if n >= 0 or not receive_failed(plane, share):
            break
    if n <= 0:
        return 0
    for i in range(<uint32_t>n):
        frame = &plane.batch[plane.batch_count + i]
        start_frame(frame, index)
        read_message(&messages[i], frame)
        messages[i].msg_hdr.msg_controllen = sizeof(plane.inbox.controls[i].words)   # the kernel wrote what it used
    return n
