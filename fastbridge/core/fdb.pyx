"""Python's access to the FDB.

Here is all that is done to the MAC table (mac_table.pyx) besides a frame's look-up and learning: copies, many entries
at once, static entries, removal. The table may be a data plane's, in use. Then work on many entries goes in steps, and
frames pass in between. Ports are looked at while worker 0 is between two breaths, so that none comes or goes meanwhile.
Or no data plane has the table; then any number stands for a port.
"""

cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stddef cimport size_t
from libc.stdint cimport int32_t, int64_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, qsort, realloc
from libc.string cimport memcpy, memset

from .dataplane cimport Dataplane
from .fdb_changes cimport CHANGE_SLOTS, FdbChange, FdbChanges
from .linux cimport pthread_mutex_lock, pthread_mutex_unlock
from .mac_table cimport (
    COPY_ROOM, ENTRY_STATIC, SKEW, SWEEP_ALL, SWEEP_EXPIRED, Cursor, Entry, EntryRow, MacTable, MacTableState, age,
    copy_some, hash_key, learn_all, look_up_all, mac_of, make_key, read_entry, refresh_all, remove_key, set_static,
    start_walk, sweep, vid_of,
)
from .worker cimport lock, unlock

from .codes import CHANGE_KINDS as _CHANGE_KINDS

cdef enum:
    # Keys learned between two breaths. At 1 M entries that is at most 40 µs (benchmarks/ group "FDB: growth"), less
    # than the sends of a breath take.
    LEARN_STEP = 128


@cython.final
cdef class FdbAccess:
    """The entries of a data plane's FDB, or of a bare MacTable."""

    cdef Dataplane dataplane            # None: a bare table
    cdef MacTable table
    cdef MacTableState *state           # the table's

    def __cinit__(self, source):
        if isinstance(source, Dataplane):
            self.dataplane = source
            self.table = self.dataplane.fdb
        else:
            self.table = <MacTable?>source
        self.state = &self.table.state

    cdef void _lock(self) noexcept nogil:
        """Be the table's writer."""
        pthread_mutex_lock(self.state.lock)

    cdef void _unlock(self) noexcept nogil:
        pthread_mutex_unlock(self.state.lock)

    cdef void _keep_ports(self) noexcept nogil:
        """Let no port come or go until _let_ports()."""
        if self.dataplane is not None:
            lock(&self.dataplane.workers[0])

    cdef void _let_ports(self) noexcept nogil:
        if self.dataplane is not None:
            unlock(&self.dataplane.workers[0])

    cdef bint _has_port(self, uint16_t port) noexcept nogil:
        return self.dataplane is None or self.dataplane._port(port) != NULL

    def export(self):
        """All entries, live or not, by VLAN and MAC, as bytes: 24 of each, struct's "=QIHH?7x".

        These are mac, seen (ms of the clock given to learn), vlan, port, static. An entry that is there all the time is
        in it once. Raises MemoryError."""
        cdef EntryRow *rows = NULL
        cdef uint64_t count = self._copy(&rows)
        try:
            return PyBytes_FromStringAndSize(<const char *>rows, <Py_ssize_t>(count * sizeof(EntryRow)))
        finally:
            free(rows)

    def rows(self, uint32_t now, ageing=None, mac=None, port=None, vlan=None):
        """The live entries, [(mac, vlan, port, age), …], by VLAN and MAC; or those of a MAC address, a port, a VLAN.

        now, ageing, age: in ms; ageing None: none expires; age None: the entry is static; 0: also that of a station
        heard after `now`. Raises MemoryError."""
        cdef int64_t expired = -1 if ageing is None else ageing
        cdef int64_t of_mac = -1 if mac is None else mac
        cdef int64_t of_port = -1 if port is None else port
        cdef int64_t of_vlan = -1 if vlan is None else vlan
        cdef EntryRow *rows = NULL
        cdef const EntryRow *row
        cdef uint64_t i, count = self._copy(&rows)
        cdef uint32_t later         # its age, plus SKEW
        cdef list out = []
        try:
            for i in range(count):
                row = &rows[i]
                later = age(now, row.seen)
                if (
                    (row.fixed or expired < 0 or <int64_t>later < expired + SKEW)
                    and (of_mac < 0 or <int64_t>row.mac == of_mac)
                    and (of_port < 0 or <int64_t>row.port == of_port)
                    and (of_vlan < 0 or <int64_t>row.vlan == of_vlan)
                ):
                    out.append((row.mac, row.vlan, row.port, None if row.fixed else max(later, <uint32_t>SKEW) - SKEW))
        finally:
            free(rows)
        return out

    cdef uint64_t _copy(self, EntryRow **rows) except? 0:
        """Copy all entries, live or not, by VLAN and MAC, into memory that the caller frees. Returns how many."""
        cdef EntryRow *step = <EntryRow *>calloc(COPY_ROOM, sizeof(EntryRow))
        cdef uint64_t count = 0
        if step == NULL:
            raise MemoryError("no memory to copy the FDB")
        memset(step, 0, COPY_ROOM * sizeof(EntryRow))   # touch its pages now: later the data plane waits for us
        with nogil:
            rows[0] = self._walk(step, &count)
            free(step)
            if rows[0] != NULL:
                count = in_order(rows[0], count)
        if rows[0] == NULL:
            raise MemoryError("no memory to copy the FDB")
        return count

    cdef EntryRow *_walk(self, EntryRow *step, uint64_t *count) noexcept nogil:
        """All entries, some perhaps twice, in steps between which frames pass. NULL: no memory."""
        cdef EntryRow *rows
        cdef EntryRow *larger
        cdef uint64_t room, taken
        cdef Cursor cursor
        self._lock()
        room = self.state.count + COPY_ROOM
        self._unlock()
        rows = <EntryRow *>malloc(room * sizeof(EntryRow))
        start_walk(self.state, &cursor)
        while rows != NULL and not cursor.done:
            self._lock()
            taken = copy_some(self.state, &cursor, step)
            self._unlock()
            if cursor.restarted:
                cursor.restarted, count[0] = False, 0
            if count[0] + taken > room:
                room *= 2
                larger = <EntryRow *>realloc(rows, room * sizeof(EntryRow))
                if larger == NULL:
                    free(rows)
                    return NULL
                rows = larger
            memcpy(&rows[count[0]], step, taken * sizeof(EntryRow))
            count[0] += taken
        return rows

    def lookup_many(self, const uint64_t[::1] keys, uint32_t now):
        """The ports of `vlan << 48 | mac` keys, as int32. -1: no live entry."""
        ports = memoryview(bytearray(sizeof(int32_t) * len(keys))).cast("i")
        cdef int32_t[::1] found = ports
        if len(keys):
            with nogil:
                look_up_all(self.state, &keys[0], &found[0], len(keys), now)
        return ports

    def learn_many(self, const uint64_t[::1] keys, const uint16_t[::1] ports, uint32_t now):
        """Learn `vlan << 48 | mac` keys on ports. Returns how many were taken.

        Raises ValueError (lengths), IndexError (no such port, or it has just gone; the keys before it are learned)."""
        if len(keys) != len(ports):
            raise ValueError(f"{len(keys)} keys but {len(ports)} ports")
        cdef size_t start = 0, count, i, taken = 0, total = len(keys)
        cdef size_t step = total if self.dataplane is None else LEARN_STEP
        cdef bint there = True
        with nogil:
            while start < total and there:
                count = min(step, total - start)
                self._keep_ports()
                for i in range(start, start + count):
                    there = there and self._has_port(ports[i])
                if there:
                    taken += learn_all(self.state, &keys[start], &ports[start], count, now)
                self._let_ports()
                start += count
        if not there:
            raise IndexError("no such port")
        return taken

    def refresh_many(
        self, const uint64_t[::1] keys, const uint16_t[::1] ports, const uint32_t[::1] idle, uint32_t now
    ):
        """Note that the fast path heard the stations `vlan << 48 | mac` on these ports `idle` ms before `now`.

        A station that the FDB does not have on that port stays as it is. Raises ValueError (lengths)."""
        if not len(keys) == len(ports) == len(idle):
            raise ValueError(f"{len(keys)} keys, {len(ports)} ports, {len(idle)} times")
        if len(keys):
            with nogil:
                refresh_all(self.state, &keys[0], &ports[0], &idle[0], len(keys), now)

    def find(self, uint64_t mac, uint16_t vlan):
        """The entry of (vlan, mac), live or not: (port, seen in ms, static), or None."""
        cdef uint64_t key = make_key(mac_of(mac), vlan & 0xFFF)
        cdef Entry entry
        if not read_entry(self.state, key, hash_key(self.state, key), &entry):
            return None
        return entry.port, entry.seen, entry.flags & ENTRY_STATIC != 0

    def add(self, uint64_t mac, uint16_t vlan, uint16_t port):
        """Add a static entry, or make the present one static. Raises IndexError (no such port), MemoryError."""
        cdef uint64_t key = make_key(mac_of(mac), vlan & 0xFFF)
        cdef int result = 0
        cdef bint there
        with nogil:
            self._keep_ports()
            there = self._has_port(port)
            if there:
                self._lock()
                result = set_static(self.state, key, port)
                self._unlock()
            self._let_ports()
        if not there:
            raise IndexError("no such port")
        if result < 0:
            raise MemoryError("no memory for the FDB")

    def remove(self, uint64_t mac, uint16_t vlan):
        """Remove the entry of (vlan, mac). Returns whether there was one."""
        cdef uint64_t key = make_key(mac_of(mac), vlan & 0xFFF)
        cdef bint found
        with nogil:
            self._lock()
            found = remove_key(self.state, key)
            self._unlock()
        return found

    def flush(self, port=None, bint statics_too=False):
        """Remove the learned (and static) entries, of one port or all. Returns how many."""
        cdef int which = SWEEP_ALL if port is None else port
        cdef uint64_t removed
        with nogil:
            removed = sweep(self.state, 0, which, statics_too)
        return removed

    def age(self, uint32_t now):
        """Remove the entries that have expired at `now` (ms). Returns how many."""
        cdef uint64_t removed
        with nogil:
            removed = sweep(self.state, now, SWEEP_EXPIRED, False)
        return removed

    def set_damping(self, uint32_t damping_ms):
        """Let no station move that was heard on its port within `damping_ms`. 0: stations move at once."""
        with nogil:
            self._lock()
            self.state.damping = damping_ms
            self._unlock()

    def note_changes(self, bint on):
        """Note what happens to entries from now on, for take_changes(); or no more. Raises MemoryError."""
        cdef FdbChanges *log = self._make_changes() if on else NULL
        with nogil:
            self._lock()
            log, self.state.changes = self.state.changes, log
            self._unlock()
        free(log)

    def take_changes(self):
        """Take what has happened since the last call: [(kind, time in ns, was, now, vlan, mac), …] as fdb_changes.pxd
        has them, the kind by its name in codes.CHANGE_KINDS; and how many older ones are lost. Raises MemoryError."""
        cdef list out = [], kinds = list(_CHANGE_KINDS)
        cdef FdbChanges *log = self._make_changes()
        cdef const FdbChange *change
        cdef uint64_t at, first
        with nogil:
            self._lock()
            if self.state.changes != NULL and self.state.changes.noted:
                log, self.state.changes = self.state.changes, log
            self._unlock()
        first = log.noted - min(log.noted, <uint64_t>CHANGE_SLOTS)
        for at in range(first, log.noted):
            change = &log.changes[at % CHANGE_SLOTS]
            out.append((kinds[change.kind], change.time, change.was, change.now, vid_of(change.key),
                        mac_of(change.key)))
        free(log)
        return out, first

    cdef FdbChanges *_make_changes(self) except NULL:
        cdef FdbChanges *log = <FdbChanges *>calloc(1, sizeof(FdbChanges))
        if log == NULL:
            raise MemoryError("no memory to note the changes of the FDB")
        log.fd = -1 if self.dataplane is None else self.dataplane.events_fd
        return log


cdef uint64_t in_order(EntryRow *rows, uint64_t count) noexcept nogil:
    """Put rows in the order of VLAN and MAC, and leave the latest copy of each entry. Returns how many are left."""
    cdef uint64_t i, left = 0
    for i in range(count):
        rows[i].number = <uint32_t>i
    qsort(rows, count, sizeof(EntryRow), compare)
    for i in range(count):
        if left == 0 or rows[i].mac != rows[left - 1].mac or rows[i].vlan != rows[left - 1].vlan:
            rows[left] = rows[i]
            left += 1
    return left


cdef int compare(const void *one, const void *other) noexcept nogil:
    """By VLAN, then by MAC, then the latest copy first."""
    cdef const EntryRow *a = <const EntryRow *>one
    cdef const EntryRow *b = <const EntryRow *>other
    if a.vlan != b.vlan:
        return -1 if a.vlan < b.vlan else 1
    if a.mac != b.mac:
        return -1 if a.mac < b.mac else 1
    return -1 if a.number > b.number else 1
