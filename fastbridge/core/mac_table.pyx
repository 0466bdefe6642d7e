"""MAC table (FDB), one cache line.

`MacTable` owns the memory; the look-up and learning that the data plane runs are the inline functions of
mac_table.pxd. The methods here serve the Python layer, the tests and the benchmarks.
"""

cimport cython
from libc.stdint cimport UINT32_MAX, int32_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stddef cimport size_t
from libc.stdlib cimport calloc, free
from .linux cimport MAP_ANONYMOUS, MAP_FAILED, MAP_PRIVATE, PROT_READ, PROT_WRITE, mmap, munmap

import secrets

import numpy as np

cdef enum:
    EVICT_LOOKS = 64            # buckets looked at for an older entry to evict: 4 KiB of memory
    # Buckets looked at for any entry of the fullest port, some 10 µs; the next search goes on where this one ended.
    EVICT_MOST = 4096
    # Keys hashed and prefetched ahead of the look-ups of lookup_many and learn_many, as in a breath of the
    # data plane: enough misses in flight to hide memory, few enough lines to stay in L1.
    AHEAD = 64

#: One row of MacTable.export(): `seen` is ms of the clock given to learn. The layout of mac_table.pxd's EntryRow.
ENTRY_DTYPE = np.dtype({
    "names": ["mac", "seen", "vlan", "port", "static"],
    "formats": ["u8", "u4", "u2", "u2", "?"],
    "offsets": [0, 8, 12, 14, 16],
    "itemsize": 24,
})

cdef uint64_t MAC_MASK = (<uint64_t>1 << 48) - 1


cdef int make_table(Table *table, uint64_t buckets) noexcept nogil:
    """Map `buckets` (a power of two) empty buckets; -1 when there is no memory."""
    cdef size_t size = buckets * sizeof(Bucket)
    cdef void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
    if memory == MAP_FAILED:
        return -1
    # No huge pages: at 1 M entries they changed nothing for look-ups (15-18 ns either way), and learning was
    # slower by a third, because each first touch then zeroes 2 MiB (benchmarks/ group "fdb").
    table.buckets = <Bucket *>memory
    table.mask = buckets - 1
    return 0


cdef void free_table(Table *table) noexcept nogil:
    if table.buckets != NULL:
        munmap(table.buckets, (table.mask + 1) * sizeof(Bucket))
        table.buckets = NULL


cdef void release_some(MacTableState *state) noexcept nogil:
    """Give back the memory of old buckets that are empty for good: whose entries, those that went on to later
    buckets included, are all carried over. The last one of a step has counted any that went beyond the step."""
    cdef uint64_t end = state.released + RELEASE_STEP
    if state.emptied >= end and end <= state.old.mask and state.old.buckets[end - 1].overflow == 0:
        munmap(&state.old.buckets[state.released], RELEASE_STEP * sizeof(Bucket))
        state.released = end


cdef void finish_growth(MacTableState *state) noexcept nogil:
    munmap(&state.old.buckets[state.released], (state.old.mask + 1 - state.released) * sizeof(Bucket))
    state.old.buckets = NULL
    state.released = 0


cdef void prepare_growth(MacTableState *state) noexcept nogil:
    """Touch so many pages of the next table that all are touched when it is needed. Without memory for it nothing
    happens: growth itself will tell."""
    cdef uint64_t buckets = state.table.mask + 1, full = buckets * WAYS * MAX_LOAD_EIGHTHS // 8, due
    cdef uint64_t start = full - full // PREPARE_SHARE
    if state.count < start or state.capacity <= full:
        return
    if state.next.buckets == NULL and make_table(&state.next, 2 * buckets) < 0:
        return
    due = (state.count - start + 1) * (2 * buckets // PAGE_BUCKETS) // (full - start)
    while state.prepared < min(due, 2 * buckets // PAGE_BUCKETS):
        state.next.buckets[state.prepared * PAGE_BUCKETS].overflow = 0
        state.prepared += 1


cdef void put(
    Table *table, uint64_t key, uint64_t hash, uint16_t port, uint32_t seen, uint8_t flags
) noexcept nogil:
    """Store an entry that is not in the table; there is always a free slot (the load is bounded)."""
    cdef uint64_t at = hash & table.mask
    cdef Bucket *bucket
    cdef int i
    while True:
        bucket = &table.buckets[at]
        for i in range(WAYS):
            if bucket.key[i] == 0:
                bucket.key[i] = key
                bucket.port[i] = port
                bucket.seen[i] = seen
                bucket.flags[i] = flags
                return
        bucket.overflow += 1
        at = (at + 1) & table.mask


cdef void unlink(Table *table, uint64_t hash, Bucket *bucket, int way) noexcept nogil:
    """Remove the entry at `way` of `bucket`; the full buckets it passed count one less."""
    cdef uint64_t at = hash & table.mask
    while &table.buckets[at] != bucket:
        table.buckets[at].overflow -= 1
        at = (at + 1) & table.mask
    bucket.key[way] = 0


cdef void take_out(MacTableState *state, Table *table, Bucket *bucket, int way) noexcept nogil:
    """Remove an entry for good."""
    if not bucket.flags[way] & ENTRY_STATIC:
        state.held[bucket.port[way]] -= 1
    state.count -= 1
    unlink(table, hash_key(state, bucket.key[way]), bucket, way)


cdef bint evict(MacTableState *state, uint16_t port, uint32_t now) noexcept nogil:
    """Make room for an entry of `port` at the cost of the port with the most entries, as OVS does
    (lib/mac-learning.c): the oldest one of its that is met first. False when that port is `port` itself, so
    that one port flooding the FDB only ever competes with itself.
    """
    cdef uint64_t looked, best_at = 0
    cdef uint32_t candidate, fullest = 0
    cdef Bucket *bucket
    cdef int i, best = -1
    for candidate in range(state.ports):
        if state.held[candidate] > state.held[fullest]:
            fullest = candidate
    if state.held[port] + 1 >= state.held[fullest]:
        return False
    for looked in range(min(state.table.mask + 1, <uint64_t>EVICT_MOST)):
        bucket = &state.table.buckets[state.hand]
        for i in range(WAYS):
            if bucket.key[i] == 0 or bucket.flags[i] & ENTRY_STATIC or bucket.port[i] != fullest:
                continue
            if best < 0 or <uint32_t>(now - bucket.seen[i]) > <uint32_t>(
                now - state.table.buckets[best_at].seen[best]
            ):
                best, best_at = i, state.hand
        state.hand = (state.hand + 1) & state.table.mask
        if best >= 0 and looked >= EVICT_LOOKS:
            break
    if best < 0:
        return False
    take_out(state, &state.table, &state.table.buckets[best_at], best)
    state.evicted += 1
    return True


cdef void empty_some(MacTableState *state) noexcept nogil:
    """Carry GROW_STEP buckets of the old table over; give it back when it is empty."""
    cdef Bucket *bucket
    cdef uint64_t hash
    cdef int i
    for _ in range(<int>GROW_STEP):
        if state.emptied > state.old.mask:
            finish_growth(state)
            return
        bucket = &state.old.buckets[state.emptied]
        for i in range(WAYS):
            if bucket.key[i] != 0:
                hash = hash_key(state, bucket.key[i])
                put(&state.table, bucket.key[i], hash, bucket.port[i], bucket.seen[i], bucket.flags[i])
                unlink(&state.old, hash, bucket, i)
        state.emptied += 1
    release_some(state)


cdef LearnResult insert(
    MacTableState *state, uint64_t key, uint64_t hash, uint16_t port, uint32_t now, uint8_t flags
) noexcept nogil:
    cdef uint64_t slots = (state.table.mask + 1) * WAYS
    if state.count >= state.capacity and not flags & ENTRY_STATIC and not evict(state, port, now):
        state.refused += 1
        return LEARN_REFUSED
    if state.old.buckets != NULL:
        empty_some(state)
    elif state.count * 8 >= slots * MAX_LOAD_EIGHTHS:
        if state.next.buckets == NULL and make_table(&state.next, (state.table.mask + 1) * 2) < 0:
            state.refused += 1
            return LEARN_REFUSED
        state.old, state.table = state.table, state.next
        state.growths += 1
        state.next.buckets = NULL
        state.emptied = state.released = state.prepared = 0
    else:
        prepare_growth(state)
    put(&state.table, key, hash, port, now, flags)
    state.count += 1
    if not flags & ENTRY_STATIC:
        count_entry(state, port)
        state.learned += 1
    return LEARN_NEW


cdef uint64_t sweep_part(
    MacTableState *state, Table *table, uint32_t now, int port, bint statics_too, uint64_t first, uint64_t end
) noexcept nogil:
    cdef uint64_t at, removed = 0
    cdef Bucket *bucket
    cdef int i
    for at in range(first, end):
        bucket = &table.buckets[at]
        for i in range(WAYS):
            if bucket.key[i] == 0:
                continue
            if port == SWEEP_EXPIRED:
                if not expired(state, bucket, i, now):
                    continue
            elif (port != SWEEP_ALL and bucket.port[i] != port) or (bucket.flags[i] & ENTRY_STATIC and not statics_too):
                continue
            take_out(state, table, bucket, i)
            removed += 1
    return removed


cdef uint64_t sweep(MacTableState *state, uint32_t now, int port, bint statics_too) noexcept nogil:
    cdef uint64_t removed = sweep_part(state, &state.table, now, port, statics_too, 0, state.table.mask + 1)
    if state.old.buckets != NULL:
        removed += sweep_part(state, &state.old, now, port, statics_too, state.emptied, state.old.mask + 1)
    return removed


cdef Table *next_part(MacTableState *state, Cursor *cursor, uint64_t *first) noexcept nogil:
    """The buckets of a cursor's next step, from `first` up to cursor.at: part of the table returned."""
    cdef Table *table = &state.table
    if cursor.growths != state.growths:
        cursor.at, cursor.growths, cursor.in_table, cursor.restarted = 0, state.growths, False, True
    if not cursor.in_table and state.old.buckets == NULL:
        cursor.at, cursor.in_table = 0, True
    if not cursor.in_table:
        table = &state.old
        cursor.at = max(cursor.at, state.emptied)       # what is before is empty, and its memory may be gone
    first[0] = cursor.at
    cursor.at = min(cursor.at + SWEEP_STEP, table.mask + 1)
    cursor.done = cursor.in_table and cursor.at > table.mask
    return table


cdef inline void end_part(Cursor *cursor, const MacTableState *state, const Table *table) noexcept nogil:
    if table == &state.old and cursor.at > table.mask:
        cursor.at, cursor.in_table = 0, True


cdef uint64_t sweep_some(
    MacTableState *state, Cursor *cursor, uint32_t now, int port, bint statics_too
) noexcept nogil:
    cdef uint64_t first = 0, removed
    cdef Table *table = next_part(state, cursor, &first)
    removed = sweep_part(state, table, now, port, statics_too, first, cursor.at)
    end_part(cursor, state, table)
    return removed


cdef int set_static(MacTableState *state, uint64_t key, uint16_t port) noexcept nogil:
    cdef int way = 0
    cdef uint64_t hash = hash_key(state, key)
    cdef Bucket *bucket = find(state, key, hash, &way)
    if bucket == NULL:
        return -1 if insert(state, key, hash, port, 0, ENTRY_STATIC) == LEARN_REFUSED else 0
    if not bucket.flags[way] & ENTRY_STATIC:
        state.held[bucket.port[way]] -= 1
    bucket.port[way] = port
    bucket.flags[way] |= ENTRY_STATIC
    return 0


cdef bint remove_key(MacTableState *state, uint64_t key) noexcept nogil:
    cdef uint64_t hash = hash_key(state, key)
    cdef int way = 0
    cdef Table *table = &state.table
    cdef Bucket *bucket = find_in(table, key, hash, &way)
    if bucket == NULL and state.old.buckets != NULL and hash & state.old.mask >= state.released:
        table = &state.old
        bucket = find_in(table, key, hash, &way)
    if bucket == NULL:
        return False
    take_out(state, table, bucket, way)
    return True


cdef uint64_t copy_some(MacTableState *state, Cursor *cursor, EntryRow *rows) noexcept nogil:
    cdef uint64_t at, first = 0, row = 0
    cdef const Table *table = next_part(state, cursor, &first)
    cdef const Bucket *bucket
    cdef int i
    for at in range(first, cursor.at):
        bucket = &table.buckets[at]
        for i in range(WAYS):
            if bucket.key[i] != 0:
                rows[row].mac = bucket.key[i] & MAC_MASK
                rows[row].vlan = (bucket.key[i] >> 48) & 0xFFF
                rows[row].port = bucket.port[i]
                rows[row].seen = bucket.seen[i]
                rows[row].fixed = bucket.flags[i] & ENTRY_STATIC
                row += 1
    end_part(cursor, state, table)
    return row


cdef void look_up_all(
    const MacTableState *state, const uint64_t *keys, int32_t *ports, size_t count, uint32_t now
) noexcept nogil:
    cdef uint64_t key[AHEAD]
    cdef uint64_t hash[AHEAD]
    cdef size_t i, n, start = 0
    while start < count:
        n = min(<size_t>AHEAD, count - start)
        for i in range(n):
            key[i] = make_key(keys[start + i] & MAC_MASK, (keys[start + i] >> 48) & 0xFFF)
            hash[i] = hash_key(state, key[i])
            prefetch_bucket(state, hash[i])
        for i in range(n):
            ports[start + i] = look_up(state, key[i], hash[i], now)
        start += n


cdef size_t learn_all(
    MacTableState *state, const uint64_t *keys, const uint16_t *ports, size_t count, uint32_t now
) noexcept nogil:
    cdef uint64_t key[AHEAD]
    cdef uint64_t hash[AHEAD]
    cdef size_t i, n, start = 0, taken = 0
    while start < count:
        n = min(<size_t>AHEAD, count - start)
        for i in range(n):
            key[i] = make_key(keys[start + i] & MAC_MASK, (keys[start + i] >> 48) & 0xFFF)
            hash[i] = hash_key(state, key[i])
            prefetch_bucket(state, hash[i])
        for i in range(n):
            taken += learn(state, key[i], hash[i], ports[start + i], now) < LEARN_REFUSED
        start += n
    return taken


@cython.final
cdef class MacTable:
    """The forwarding database of one switch.

    capacity: entries that may be learned (static ones are not refused); ageing_ms: time after which an
    entry nothing was heard from no longer counts, None for never. Raises MemoryError and ValueError.
    """

    def __cinit__(self, uint64_t capacity=65536, ageing_ms=300_000):
        self.state.capacity = capacity
        self.state.seed = secrets.randbits(64)
        self.set_ageing(ageing_ms)
        self.state.held = <uint32_t *>calloc(65536, sizeof(uint32_t))
        if self.state.held == NULL or make_table(&self.state.table, FIRST_BUCKETS) < 0:
            raise MemoryError("no memory for the MAC table")

    def __dealloc__(self):
        free_table(&self.state.table)
        free_table(&self.state.next)
        if self.state.old.buckets != NULL:
            finish_growth(&self.state)
        free(self.state.held)

    def __len__(self):
        return self.state.count

    @property
    def memory(self):
        """Bytes of the buckets, those of a table being emptied, or prepared, included."""
        cdef uint64_t buckets = self.state.table.mask + 1 + self.state.prepared * PAGE_BUCKETS
        if self.state.old.buckets != NULL:
            buckets += self.state.old.mask + 1 - self.state.released
        return buckets * sizeof(Bucket)

    @property
    def statistics(self):
        """Events so far: (learned, moved, aged, evicted, refused)."""
        return self.state.learned, self.state.moved, self.state.aged, self.state.evicted, self.state.refused

    def held(self, uint16_t port):
        """How many learned entries point to a port."""
        return self.state.held[port]

    def set_damping(self, uint32_t damping_ms):
        """A station heard within `damping_ms` on its port does not move to another; 0: it moves at once."""
        self.state.damping = damping_ms

    def set_ageing(self, ageing_ms):
        """Set the ageing time in ms; None: entries stay. Raises ValueError outside 0 … 2³¹."""
        if ageing_ms is not None and not 0 <= ageing_ms < 1 << 31:
            raise ValueError(f"ageing must be 0 … {(1 << 31) - 1} ms or None, not {ageing_ms}")
        self.state.ageing = UINT32_MAX if ageing_ms is None else <uint32_t>ageing_ms

    def learn(self, uint64_t mac, uint16_t vlan, uint16_t port, uint32_t now):
        """Note that (vlan, mac) was heard on `port` at `now` (ms); returns a LearnResult as int."""
        cdef uint64_t key = make_key(mac & MAC_MASK, vlan & 0xFFF)
        return <int>learn(&self.state, key, hash_key(&self.state, key), port, now)

    def look_up(self, uint64_t mac, uint16_t vlan, uint32_t now):
        """The port of the live entry of (vlan, mac), or -1."""
        cdef uint64_t key = make_key(mac & MAC_MASK, vlan & 0xFFF)
        return look_up(&self.state, key, hash_key(&self.state, key), now)

    def add_static(self, uint64_t mac, uint16_t vlan, uint16_t port):
        """Add, or turn into, a static entry; raises MemoryError."""
        if set_static(&self.state, make_key(mac & MAC_MASK, vlan & 0xFFF), port) < 0:
            raise MemoryError("no memory for the MAC table")

    def remove(self, uint64_t mac, uint16_t vlan):
        """Remove the entry of (vlan, mac); returns whether there was one."""
        return remove_key(&self.state, make_key(mac & MAC_MASK, vlan & 0xFFF))

    def age(self, uint32_t now):
        """Remove what has expired at `now` (ms); returns how many."""
        cdef uint64_t removed = sweep(&self.state, now, SWEEP_EXPIRED, False)
        self.state.aged += removed
        return removed

    def flush(self, uint16_t port, bint statics_too=False):
        """Remove the learned (and static) entries of a port; returns how many."""
        return sweep(&self.state, 0, port, statics_too)

    def export(self):
        """All entries, live or not, as a structured array of ENTRY_DTYPE, in no order."""
        rows = np.zeros(self.state.count + COPY_ROOM, ENTRY_DTYPE)
        cdef uint8_t[::1] memory = rows.view(np.uint8)
        cdef EntryRow *row = <EntryRow *>&memory[0]
        cdef uint64_t count = 0
        cdef Cursor cursor
        start_walk(&self.state, &cursor)
        while not cursor.done:
            count += copy_some(&self.state, &cursor, row + count)
        return rows[:count]

    def lookup_many(self, const uint64_t[::1] keys, int32_t[::1] ports, uint32_t now):
        """Look up `vlan << 48 | mac` keys (uint64) in prefetched batches; `ports` (int32) gets port or -1.

        Raises ValueError when the arrays differ in length.
        """
        if len(keys) != len(ports):
            raise ValueError(f"{len(keys)} keys but room for {len(ports)} ports")
        if len(keys) == 0:
            return
        with nogil:
            look_up_all(&self.state, &keys[0], &ports[0], len(keys), now)

    def learn_many(self, const uint64_t[::1] keys, const uint16_t[::1] ports, uint32_t now):
        """Learn `vlan << 48 | mac` keys (uint64) on `ports` (uint16); raises ValueError on unequal lengths."""
        if len(keys) != len(ports):
            raise ValueError(f"{len(keys)} keys but {len(ports)} ports")
        if len(keys) == 0:
            return
        with nogil:
            learn_all(&self.state, &keys[0], &ports[0], len(keys), now)
