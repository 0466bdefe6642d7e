# Receive: from the ports into the batch.
#
# slots.pxd reads one port's frames. They keep the order of arrival. Until the batch is released they stay where the
# kernel put them, behind their vnet headers.
#
# A port that was just busy ("active") is read from memory: its ring's next status word tells. A port that stays empty
# for IDLE_LOOKS breaths is left to epoll. The loop asks epoll only when no active port has frames, and every DISCOVER
# breaths. A port is either active or known to epoll, never both: for each frame on a watched socket the kernel wakes
# the watcher, on the sender's CPU.
#
# Other frames wait until a breath ends. So a breath takes fewer frames as long as breaths make more than COPIES copies.
# A quarter of them may come from one port. With up to 32 ports no breath makes so many copies.
#
# When a port's limits or guard drop its frames one after the other, the port is checked only every millisecond. Such a
# storm brings the next frame before any sleep. It would keep the thread spinning for nothing, on a CPU that others may
# need. The ring takes the frames that come meanwhile.
from libc.stdint cimport uint16_t, uint32_t, uint64_t

from .batch cimport BATCH, BURST
from .linux cimport (
    EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLLERR, EPOLLIN, SOL_SOCKET, SO_ERROR, epoll_ctl, epoll_event, getsockopt, read,
    socklen_t,
)
from .port cimport WorkerPort
from .slots cimport fill_from_slots
from .worker cimport Worker, big_is_full, lose_link

cdef enum:
    # Copies that a breath may make, 18 ms of sends. So long others wait when one port of 1,500 floods at full rate.
    COPIES = 8192
    IDLE_LOOKS = 64             # empty looks at a port before it is left to epoll
    STORM = 64                  # frames in a row that the port's limits or guard drop: a storm
    PAUSE_MS = 1                # between two looks at such a port, and at ports that epoll has no memory to watch
    WAKE = 0xFFFFFFFF           # epoll's tag of the wake-up eventfd …
    TIMER = 0xFFFFFFFE          # … and of the timer for frames in flight


cdef inline int watch(Worker *worker, int fd, uint32_t tag) noexcept nogil:
    """Let epoll watch a port (by index) or wake_fd. Returns -1, with errno, when it cannot."""
    cdef epoll_event event
    event.events = EPOLLIN
    event.data.u32 = tag
    return epoll_ctl(worker.epoll_fd, EPOLL_CTL_ADD, fd, &event)


cdef inline void activate(Worker *worker, uint16_t index) noexcept nogil:
    cdef epoll_event unused
    worker.shares[index].active = True
    worker.shares[index].looks = 0
    worker.active[worker.active_count] = index
    worker.active_count += 1
    epoll_ctl(worker.epoll_fd, EPOLL_CTL_DEL, worker.shares[index].rx_fd, &unused)


cdef inline bint park(Worker *worker, uint32_t place) noexcept nogil:
    """Leave the port at this place of the active list to epoll. False when epoll cannot take it, and it stays."""
    cdef uint16_t index = worker.active[place]
    if watch(worker, worker.shares[index].rx_fd, index) < 0:
        return False
    worker.shares[index].active = False
    worker.active_count -= 1
    worker.active[place] = worker.active[worker.active_count]
    return True


cdef inline bint has_failed(int fd) noexcept nogil:
    """Whether a socket has an error to report. epoll may have spoken of another one, which was removed since."""
    cdef int error = 0
    cdef socklen_t size = sizeof(error)
    return getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) == 0 and error != 0


cdef inline void wake_ready(Worker *worker) noexcept nogil:
    """Put the ports that epoll named among those read every breath. Note which links were lost."""
    cdef uint64_t unused
    cdef uint32_t tag
    cdef int i
    for i in range(worker.ready_count):
        tag = worker.ready[i].data.u32
        if tag == WAKE:
            read(worker.wake_fd, &unused, sizeof(unused))
            continue
        if tag == TIMER:
            read(worker.wire.timer_fd, &unused, sizeof(unused))
            worker.wire.armed = 0
            continue
        # The port was removed since epoll named it, or it is another one by now that this worker does not read.
        if tag >= worker.port_count or worker.shares[tag].rx_fd < 0 or worker.shares[tag].active:
            continue
        if worker.ready[i].events & EPOLLERR and has_failed(worker.shares[tag].rx_fd):
            lose_link(worker, worker.shares[tag])
        activate(worker, tag)
    worker.ready_count = 0


cdef inline uint32_t receive_from(Worker *worker, uint16_t index) noexcept nogil:
    """Take at most BURST frames off one port."""
    cdef WorkerPort *share = worker.shares[index]
    cdef uint32_t limit = min(max(1, worker.quota // (BATCH // BURST)), worker.most - worker.batch_count)
    cdef uint32_t n = fill_from_slots(worker, share, index, limit)
    share.taken += n
    worker.batch_count += n
    return n


cdef inline uint32_t receive(Worker *worker) noexcept nogil:
    """Fill the batch from the active ports, at most BURST from each. Each breath begins with another port.

    Returns how many frames are in it."""
    cdef uint32_t n = worker.active_count, i
    cdef uint16_t index
    cdef WorkerPort *share
    if n == 0:
        return worker.batch_count
    worker.turn += 1
    for i in range(n):
        index = worker.active[(worker.turn + i) % n]
        if worker.batch_count >= worker.most or big_is_full(worker):
            break                               # the other ports come first in the next breath
        share = worker.shares[index]
        if share.paused_until > worker.now:
            continue
        if receive_from(worker, index):
            share.looks = 0
        elif share.excess >= STORM:
            share.paused_until = worker.now + PAUSE_MS * 1000000
            share.excess = 0
        else:
            share.looks += 1
    for i in range(n):
        if worker.shares[worker.active[n - 1 - i]].looks > IDLE_LOOKS:
            park(worker, n - 1 - i)
    return worker.batch_count


cdef inline void adapt_quota(Worker *worker) noexcept nogil:
    """How many frames the next breath may take, by the number of copies in this one, those on links too."""
    cdef uint64_t copies = worker.copies + worker.wire.number - worker.wire.counted
    worker.wire.counted = worker.wire.number
    if copies > COPIES:
        worker.quota = max(1, <uint32_t>(<uint64_t>worker.batch_count * COPIES // copies))
    elif 2 * copies <= COPIES:
        worker.quota = min(<uint32_t>BATCH, 2 * worker.quota)


cdef inline int park_all(Worker *worker) noexcept nogil:
    """Let epoll watch the ports that shall wake the worker. Returns for how many ms it may sleep, -1: for ever."""
    cdef uint32_t n = worker.active_count, i
    for i in range(n):
        if worker.shares[worker.active[n - 1 - i]].paused_until <= worker.now:
            park(worker, n - 1 - i)
    return PAUSE_MS if worker.active_count else -1
