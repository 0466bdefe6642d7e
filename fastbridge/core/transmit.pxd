# Transmit: each egress port's queue, from where the frames lie, with as few calls as it takes.
#
# A frame is sent straight from the RX slot it arrived in, vnet header and all: no copy in user space. So slots go
# back to the kernel only after the whole batch is sent. The TX socket is not the RX socket, and nobody watches it:
# a watched socket makes the kernel wake the watcher for every frame sent (sock_wfree), which took 4 % of the
# switch's time.
from libc.stdint cimport uint8_t, uint32_t

from .batch cimport TX_FULL, TX_NO_BUFFER, TX_PORT_DOWN, TX_REFUSED, TX_TOO_BIG, Frame
from .linux cimport (
    EAGAIN, EINTR, EMSGSIZE, ENETDOWN, ENOBUFS, ENOMEM, ENXIO, MSG_DONTWAIT, errno, sendmmsg,
)
from .plane cimport Plane, lose_link
from .port cimport Port
from .ring cimport VNET_HEADER, release_slots

cdef enum:
    # Sends of one frame tried against a full send buffer before the frame is dropped as `full`.
    TX_TRIES = 4


cdef inline int send_failed(Plane *plane, Port *port, uint32_t *tries) noexcept nogil:
    """Why the frame sendmmsg stopped at is dropped (a TxReason), or -1: try it again."""
    cdef int error = errno
    tries[0] += 1
    if error == EINTR:
        return -1
    if error == EAGAIN:
        return TX_FULL if tries[0] > TX_TRIES else -1
    if error == ENETDOWN and tries[0] == 1:     # perhaps an old report: it is made once
        return -1
    if error == ENETDOWN or error == ENXIO:
        lose_link(plane, port)
        return TX_PORT_DOWN
    if error == EMSGSIZE:
        return TX_TOO_BIG
    return TX_NO_BUFFER if error == ENOBUFS or error == ENOMEM else TX_REFUSED


cdef inline void transmit_to(Plane *plane, Port *port) noexcept nogil:
    """Send a port's queue; every copy is counted, sent or not."""
    cdef uint32_t n = port.queued, sent = 0, tries = 0, i
    cdef Frame *frame
    cdef int result, reason
    port.queued = 0
    for i in range(n):
        frame = &plane.batch[port.queue[i]]
        plane.vectors[i].iov_base = frame.data - VNET_HEADER
        plane.vectors[i].iov_len = frame.length + VNET_HEADER
    while sent < n:
        # A port in memory has no wire: process() hands its copies over.
        result = <int>n if port.tx_fd < 0 else sendmmsg(port.tx_fd, &plane.messages[sent], n - sent, MSG_DONTWAIT)
        if result > 0:
            for i in range(<uint32_t>result):
                port.tally.tx_bytes += plane.batch[port.queue[sent + i]].length
            port.tally.tx_frames += result
            sent += result
            tries = 0
            continue
        reason = send_failed(plane, port, &tries)
        if reason >= 0:                         # sendmmsg stopped at this frame: skip it, send the rest
            port.tally.tx_dropped[reason] += 1
            sent += 1
            tries = 0


cdef inline void transmit(Plane *plane) noexcept nogil:
    cdef uint32_t i
    for i in range(plane.touched_count):
        transmit_to(plane, plane.ports[plane.touched[i]])
    plane.touched_count = 0


cdef inline void release(Plane *plane) noexcept nogil:
    """Forget the batch: its slots go back to the kernel, its big buffers are free."""
    cdef uint32_t i
    for i in range(plane.active_count):
        release_slots(&plane.ports[plane.active[i]].ring)
    plane.batch_count = plane.big_count = 0
