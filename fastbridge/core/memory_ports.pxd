# Frames from memory: Python's bytes into a batch, and a decided batch's copies back to Python.
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.stdlib cimport calloc
from libc.string cimport memcpy

from .batch cimport Frame
from .codes cimport FLOODED, FORWARDED
from .port cimport WorkerPort
from .ring cimport VNET_HEADER
from .worker cimport Worker, may_flood


cdef inline size_t place_of(size_t length) noexcept nogil:
    """A frame's part of a block of memory, with its vnet header. The next frame's header is aligned."""
    return (VNET_HEADER + length + 7) & ~<size_t>7


cdef inline uint8_t *copy_frames(list messages, size_t before) except NULL:
    """Copy bytes objects into one block of memory, which the caller frees.

    There is a frame every place_of() bytes, the first one after VNET_HEADER bytes. Before it is the vnet header of
    `before` bytes that its object begins with, or zeros. Raises TypeError, ValueError, MemoryError."""
    cdef size_t room = 1, at = VNET_HEADER
    cdef uint8_t *memory
    for message in messages:
        if not isinstance(message, bytes):
            raise TypeError(f"a frame must be bytes, not {type(message).__name__}")
        if <size_t>len(<bytes>message) < before:
            raise ValueError(f"{len(<bytes>message)} bytes are no vnet header and frame")
        room += place_of(<size_t>len(<bytes>message) - before)
    memory = <uint8_t *>calloc(1, room)
    if memory == NULL:
        raise MemoryError(f"no memory for {len(messages)} frames")
    for message in messages:
        memcpy(memory + at - before, <const char *><bytes>message, <size_t>len(<bytes>message))
        at += place_of(<size_t>len(<bytes>message) - before)
    return memory


cdef inline int collect_copies(Worker *worker, list frames, list out) except -1:
    """Append the copies of a decided batch, (egress port, frame), in arrival order.

    The frames are the bytes objects that the batch is made of."""
    cdef Frame *frame
    cdef uint16_t egress
    cdef uint32_t i, j
    for i in range(worker.batch_count):
        frame = &worker.batch[i]
        if frame.action == FORWARDED:
            out.append((frame.egress, frames[i]))
        elif frame.action == FLOODED:
            for j in range(worker.flood_count[frame.flood]):
                egress = worker.flood[frame.flood][j]
                if may_flood(worker, frame, egress):
                    out.append((egress, frames[i]))
    return 0


cdef inline bytes read_frame(const Frame *frame, uint32_t before):
    """A frame as a bytes object, with so many bytes before it."""
    return PyBytes_FromStringAndSize(<const char *>frame.data - before, frame.length + before)


cdef inline int collect_queued(Worker *worker, uint32_t before, list out) except -1:
    """Append what the ports' queues hold of a batch of one frame, (egress port, frame)."""
    cdef WorkerPort *share
    cdef uint32_t i, j
    for i in range(worker.touched_count):
        share = worker.shares[worker.touched[i]]
        for j in range(share.queued):
            out.append((share.index, read_frame(&worker.batch[share.queue[j]], before)))
    return 0
