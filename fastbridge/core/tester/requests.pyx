"""Requests between pods, and how long their answers take.

Requests go over TCP connections or as ICMP echoes. The asking program reads all clocks, here: a time is the wait of an
application and has no kernel stamp in it. The loops run without the GIL, because a loop in Python would measure Python.
"""
import os

from libc.stdint cimport uint8_t, uint16_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from .. cimport linux
from .stamp cimport clock_ns

cdef extern from "<errno.h>" nogil:
    int EAGAIN, ECONNRESET, ETIMEDOUT

cdef extern from "<poll.h>" nogil:
    struct pollfd:
        int fd
        short events
    short POLLIN
    int poll(pollfd *fds, unsigned long count, int timeout_ms)

cdef extern from "<sys/time.h>" nogil:
    struct timeval:
        long tv_sec
        long tv_usec

cdef extern from "<sys/socket.h>" nogil:
    struct linger:
        int l_onoff
        int l_linger
    int AF_INET, SOCK_STREAM, SOCK_CLOEXEC, SO_LINGER, SO_RCVTIMEO, SO_SNDTIMEO, MSG_NOSIGNAL, MSG_WAITALL
    int socket(int family, int kind, int protocol)
    int connect(int fd, const linux.sockaddr *address, linux.socklen_t length)
    int accept4(int fd, linux.sockaddr *address, linux.socklen_t *length, int flags)
    ssize_t send(int fd, const void *buf, size_t length, int flags)

cdef enum:
    PATIENCE = 2                # seconds for an answer over TCP, which retransmits losses
    ECHO_PATIENCE_NS = 1_000_000_000
    ECHO_REQUEST = 8            # ICMP types
    ECHO_REPLY = 0
    ECHO = 8 + 56               # bytes: header and payload, as ping has them
    LARGEST_REPLY = 60 + ECHO + 1  # with the longest IPv4 header; a longer reply is not ours


cdef int failed(int error) except -1:
    error = ETIMEDOUT if error == EAGAIN else error  # the kernel's error when a socket's time limit is over
    raise OSError(error, os.strerror(error))


cdef void be_patient(int fd) noexcept nogil:
    cdef timeval limit
    limit.tv_sec, limit.tv_usec = PATIENCE, 0
    linux.setsockopt(fd, linux.SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit))
    linux.setsockopt(fd, linux.SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit))


cdef int put(int fd, const uint8_t *data, ssize_t size) noexcept nogil:
    # 0, or the errno.
    cdef ssize_t done = send(fd, data, size, MSG_NOSIGNAL)
    return 0 if done == size else linux.errno if done < 0 else EAGAIN


cdef int get(int fd, uint8_t *data, ssize_t size) noexcept nogil:
    # 0, or the errno; -1 if the other side has closed.
    cdef ssize_t done = linux.recv(fd, data, size, MSG_WAITALL)
    return 0 if done == size else linux.errno if done < 0 else -1 if done == 0 else ECONNRESET


cdef int exchange(int fd, uint8_t *data, ssize_t size) noexcept nogil:
    cdef int error = put(fd, data, size) or get(fd, data, size)
    return ECONNRESET if error == -1 else error


def answer(int listener, int size, bint each):
    """Answer requests of `size` bytes with as many bytes, until a connection has no request.

    It serves one connection after another. `each`: a connection has one request and closes after the answer. Returns
    the number of answers. Raises OSError.
    """
    cdef bytearray room = bytearray(size)
    cdef uint8_t *data = room
    cdef int fd, error = 0
    cdef uint64_t total = 0, before = 0
    be_patient(listener)  # accepted connections inherit it
    with nogil:
        while error == 0:
            fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC)
            if fd < 0:
                error = linux.errno
                break
            before = total
            while error == 0:
                error = get(fd, data, size) or put(fd, data, size)
                total += error == 0
                if each:
                    break
            linux.close(fd)
            if error == -1:
                if total == before:
                    break
                error = 0
    if error > 0:
        failed(error)
    return total


def converse(int fd, int size, double seconds, uint64_t[::1] sent, uint64_t[::1] arrived):
    """Send requests of `size` bytes over one connection, each after the answer to the one before.

    Writes the times of each request and its answer into the logs, in ns of CLOCK_MONOTONIC. Returns the number of
    requests. Raises OSError.
    """
    cdef bytearray room = bytearray(size)
    cdef uint8_t *data = room
    cdef int error = 0
    cdef Py_ssize_t count = 0, most = min(len(sent), len(arrived))
    cdef uint64_t began, time
    be_patient(fd)
    with nogil:
        began = time = clock_ns(linux.CLOCK_MONOTONIC)
        while count < most and time - began < seconds * 1e9:
            sent[count] = time
            error = exchange(fd, data, size)
            if error:
                break
            time = clock_ns(linux.CLOCK_MONOTONIC)
            arrived[count] = time
            count += 1
    if error:
        failed(error)
    return count


cdef int connected(const uint8_t *address, linux.socklen_t length, int *error) noexcept nogil:
    # The other side closes first, then this one closes at once (linger 0). So neither keeps a port waiting;
    # ports are few.
    cdef linger at_once
    cdef int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)
    if fd >= 0:
        at_once.l_onoff, at_once.l_linger = 1, 0
        linux.setsockopt(fd, linux.SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once))
        be_patient(fd)
        if connect(fd, <const linux.sockaddr *>address, length) == 0:
            return fd
    error[0] = linux.errno
    if fd >= 0:
        linux.close(fd)
    return -1


def connect_each(bytes address, int size, double seconds, uint64_t[::1] sent, uint64_t[::1] arrived):
    """The same with a connection for each request. Connecting counts in its time. `address`: a struct sockaddr_in."""
    cdef bytearray room = bytearray(size)
    cdef uint8_t *data = room
    cdef const uint8_t *target = address
    cdef linux.socklen_t length = len(address)
    cdef int fd, error = 0
    cdef Py_ssize_t count = 0, most = min(len(sent), len(arrived))
    cdef uint64_t began, time
    with nogil:
        began = time = clock_ns(linux.CLOCK_MONOTONIC)
        while count < most and time - began < seconds * 1e9:
            sent[count] = time
            fd = connected(target, length, &error)
            if fd < 0:
                break
            error = exchange(fd, data, size)
            arrived[count] = clock_ns(linux.CLOCK_MONOTONIC)
            if error == 0:
                error = get(fd, data, 1)
            linux.close(fd)
            if error != -1:  # the other side closes after its answer
                error = error or ECONNRESET
                break
            error = 0
            count += 1
            time = clock_ns(linux.CLOCK_MONOTONIC)
    if error:
        failed(error)
    return count


cdef void make_request(uint8_t *echo, uint16_t identifier, uint64_t number) noexcept nogil:
    cdef uint64_t total = 0
    cdef int i
    memset(echo, 0, ECHO)
    echo[0] = ECHO_REQUEST
    echo[4], echo[5], echo[6], echo[7] = identifier >> 8, identifier & 0xff, number >> 8 & 0xff, number & 0xff
    memcpy(echo + 8, &number, 8)
    for i in range(0, ECHO, 2):
        total += <unsigned int>echo[i] << 8 | echo[i + 1]
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    echo[2], echo[3] = ~total >> 8 & 0xff, ~total & 0xff


cdef bint is_answer(const uint8_t *packet, ssize_t size, const uint8_t *request, bint *is_whole) noexcept nogil:
    # Identifier and sequence number tell whose answer it is. The payload tells whether it came back unaltered.
    cdef unsigned int header = (packet[0] & 0xf) * 4
    if size < <ssize_t>header + 8 or packet[header] != ECHO_REPLY or memcmp(packet + header + 4, request + 4, 4) != 0:
        return False
    is_whole[0] = size == <ssize_t>header + ECHO and memcmp(packet + header + 8, request + 8, ECHO - 8) == 0
    return True


def ping(int fd, int identifier, double rate, double seconds, uint64_t[::1] sent, uint64_t[::1] arrived):
    """Send `rate` echo requests a second over a connected raw ICMP socket, one at a time.

    A slow answer delays the next requests. After a second the request counts as lost, with arrival 0. Writes the logs
    as `converse` does. Returns the numbers of requests sent and of altered answers. Raises OSError.
    """
    cdef uint8_t request[ECHO]
    cdef uint8_t reply[LARGEST_REPLY]
    cdef pollfd waiting
    cdef linux.timespec pause
    cdef Py_ssize_t count = 0, most = min(len(sent), len(arrived))
    cdef uint64_t due, end, time, limit, altered = 0, gap = <uint64_t>(1e9 / rate)
    cdef ssize_t size
    cdef int error = 0
    cdef bint is_whole = False
    waiting.fd, waiting.events = fd, POLLIN
    with nogil:
        due = clock_ns(linux.CLOCK_MONOTONIC)
        end = due + <uint64_t>(seconds * 1e9)
        while count < most and due < end and error == 0:
            pause.tv_sec, pause.tv_nsec = due // 1_000_000_000, due % 1_000_000_000
            linux.clock_nanosleep(linux.CLOCK_MONOTONIC, linux.TIMER_ABSTIME, &pause, NULL)
            make_request(request, identifier, count)
            time = clock_ns(linux.CLOCK_MONOTONIC)
            sent[count], arrived[count], limit = time, 0, time + ECHO_PATIENCE_NS
            error = put(fd, request, ECHO)
            while error == 0 and time < limit:
                if poll(&waiting, 1, (limit - time) // 1_000_000 + 1) > 0:
                    size = linux.recv(fd, reply, sizeof(reply), 0)
                    time = clock_ns(linux.CLOCK_MONOTONIC)
                    if size < 0:
                        error = linux.errno
                    elif is_answer(reply, size, request, &is_whole):
                        if is_whole:
                            arrived[count] = time
                        else:
                            altered += 1
                        break
                else:
                    time = clock_ns(linux.CLOCK_MONOTONIC)
            count += 1
            due = max(due + gap, time)
    if error:
        failed(error)
    return count, altered
