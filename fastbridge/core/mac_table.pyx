"""The MAC table (FDB).

`MacTable` owns the memory. The data plane's look-up and learning are the inline functions of mac_table.pxd. Here is the
writer's work: learning new stations, eviction, removal, walks in steps. Memory and growth are in mac_growth.pxd.
"""

cimport cython
from libc.stdint cimport UINT32_MAX, int32_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stddef cimport size_t
from libc.stdlib cimport calloc, free, malloc

from .barrier cimport load_relaxed32, store_relaxed16, store_relaxed32, store_relaxed8
from .codes cimport (
    CHANGE_AGED, CHANGE_EVICTED, CHANGE_FIXED, CHANGE_FORGOTTEN, CHANGE_LEARNED, CHANGE_MOVED, LEARN_DAMPED,
    LEARN_KNOWN, LEARN_MOVED, LEARN_NEW, LEARN_REFUSED, LearnResult,
)
from .fdb_changes cimport note_change
from .linux cimport (
    pthread_mutex_destroy, pthread_mutex_init, pthread_mutex_lock, pthread_mutex_t, pthread_mutex_unlock,
)
from .mac_growth cimport (
    FIRST_BUCKETS, PAGE_BUCKETS, current, empty_some, find, free_table, make_room, make_table, older, put, unlink,
)

import secrets

cdef enum:
    # Buckets looked at for an older entry to evict, 4 KiB of memory. The oldest of some 160 entries goes.
    EVICT_LOOKS = 64
    # Buckets looked at for any entry of the fullest port, some 10 µs. The next search goes on where this one ended.
    EVICT_MOST = 4096
    # Keys that lookup_many and learn_many hash and prefetch ahead, as a breath does. There are enough misses on their
    # way to hide the memory's latency, and few enough lines to stay in L1.
    AHEAD = 64


cdef void count_entry(MacTableState *state, uint16_t port) noexcept nogil:
    state.held[port] += 1
    if port >= state.ports:
        state.ports = <uint32_t>port + 1


cdef void take_out(MacTableState *state, Table *table, Bucket *bucket, int way, uint8_t why) noexcept nogil:
    """Remove an entry for good; why: a ChangeKind."""
    note_change(state.changes, why, bucket.port[way], bucket.port[way], bucket.key[way])
    if not bucket.flags[way] & ENTRY_STATIC:
        state.held[bucket.port[way]] -= 1
    state.count -= 1
    unlink(table, hash_key(state, bucket.key[way]), bucket, way)


cdef Bucket *find_old(
    MacTableState *state, Table *table, uint64_t first, uint16_t port, uint32_t now, int *way
) noexcept nogil:
    """The oldest learned entry of a port in EVICT_LOOKS buckets of a table, from bucket `first` on.

    When there is none: the next one in EVICT_MOST buckets, or NULL."""
    cdef uint64_t buckets = table.mask + 1 - first, looked
    cdef Bucket *bucket
    cdef Bucket *best = NULL
    cdef int i
    for looked in range(min(buckets, <uint64_t>EVICT_MOST)):
        if best != NULL and looked >= EVICT_LOOKS:
            break
        bucket = &table.buckets[first + state.hand % buckets]
        for i in range(WAYS):
            if bucket.key[i] == 0 or bucket.flags[i] & ENTRY_STATIC or bucket.port[i] != port:
                continue
            if best == NULL or age(now, load_relaxed32(&bucket.seen[i])) > age(now, load_relaxed32(&best.seen[way[0]])):
                best, way[0] = bucket, i
        state.hand += 1
    return best


cdef Bucket *choose(MacTableState *state, uint16_t port, uint32_t now, Table **table, int *way) noexcept nogil:
    """The entry that makes room for one of `port`, its table and way: of the port with the most entries, as OVS does
    (lib/mac-learning.c), the oldest one that is met. NULL when that port is `port` itself, so that one port flooding
    the FDB only ever competes with itself.
    """
    cdef uint32_t candidate, fullest = 0
    cdef Bucket *best = NULL
    for candidate in range(state.ports):
        if state.held[candidate] > state.held[fullest]:
            fullest = candidate
    if state.held[port] + 1 >= state.held[fullest]:
        return NULL
    # At first nearly all is in the table being emptied, and at last it has too few buckets for a choice.
    if state.shape & 1 and older(state).mask + 1 >= state.emptied + EVICT_LOOKS:
        table[0] = older(state)
        best = find_old(state, table[0], state.emptied, fullest, now, way)
    if best == NULL:
        table[0] = current(state)
        best = find_old(state, table[0], 0, fullest, now, way)
    return best


cdef bint evict(MacTableState *state, uint16_t port, uint32_t now) noexcept nogil:
    """Make room for an entry of `port`; False when there is none to be had."""
    cdef Table *table = NULL
    cdef int way = 0
    cdef Bucket *best = choose(state, port, now, &table, &way)
    if best == NULL:
        return False
    take_out(state, table, best, way, CHANGE_EVICTED)
    state.evicted += 1
    return True


cdef uint64_t foresee_eviction(MacTableState *state, uint16_t port, uint32_t now) noexcept nogil:
    cdef uint64_t hand = state.hand
    cdef Table *table = NULL
    cdef int way = 0
    cdef Bucket *best = choose(state, port, now, &table, &way)
    state.hand = hand
    return 0 if best == NULL else best.key[way]


cdef LearnResult insert(
    MacTableState *state, uint64_t key, uint64_t hash, uint16_t port, uint32_t now, uint8_t flags
) noexcept nogil:
    # Evict first: so it is what foresee_eviction() says.
    cdef bint full = state.count >= state.capacity and not flags & ENTRY_STATIC and not evict(state, port, now)
    if state.shape & 1:
        empty_some(state)
    if full or make_room(state) < 0:
        state.refused += 1
        return LEARN_REFUSED
    put(current(state), key, hash, port, now, flags)
    note_change(state.changes, CHANGE_FIXED if flags & ENTRY_STATIC else CHANGE_LEARNED, port, port, key)
    state.count += 1
    if not flags & ENTRY_STATIC:
        count_entry(state, port)
        state.learned += 1
    return LEARN_NEW


cdef LearnResult renew(
    MacTableState *state, Table *table, Bucket *bucket, int way, uint64_t hash, uint16_t port, uint32_t now
) noexcept nogil:
    """Take an expired entry out and put it in again. To readers it is absent in between, as before.

    It goes where new entries go, because the buckets of a table that is being emptied are visited only once."""
    cdef uint64_t key = bucket.key[way]
    note_change(state.changes, CHANGE_AGED, bucket.port[way], bucket.port[way], key)
    state.held[bucket.port[way]] -= 1
    unlink(table, hash, bucket, way)
    put(current(state), key, hash, port, now, 0)
    note_change(state.changes, CHANGE_LEARNED, port, port, key)
    count_entry(state, port)
    state.aged += 1
    state.learned += 1
    return LEARN_NEW


cdef LearnResult learn_entry(
    MacTableState *state, uint64_t key, uint64_t hash, uint16_t port, uint32_t now, uint16_t *was
) noexcept nogil:
    cdef int way = 0
    cdef Table *table = NULL
    cdef Bucket *bucket = find(state, key, hash, &way, &table)
    cdef uint32_t seen
    if bucket == NULL:
        return insert(state, key, hash, port, now, 0)
    seen = load_relaxed32(&bucket.seen[way])
    if bucket.flags[way] & ENTRY_STATIC:
        return LEARN_KNOWN
    if expired(state, seen, bucket.flags[way], now):
        return renew(state, table, bucket, way, hash, port, now)
    was[0] = bucket.port[way]
    if was[0] == port:                  # another worker was faster
        return LEARN_KNOWN
    if state.damping and age(now, seen) < state.damping + <uint32_t>SKEW:
        return LEARN_DAMPED
    state.held[was[0]] -= 1
    store_relaxed16(&bucket.port[way], port)
    store_relaxed32(&bucket.seen[way], now)
    note_change(state.changes, CHANGE_MOVED, was[0], port, key)
    count_entry(state, port)
    state.moved += 1
    return LEARN_MOVED


cdef LearnResult learn_locked(
    MacTableState *state, uint64_t key, uint64_t hash, uint16_t port, uint32_t now, uint16_t *was
) noexcept nogil:
    cdef LearnResult result
    pthread_mutex_lock(state.lock)
    result = learn_entry(state, key, hash, port, now, was)
    pthread_mutex_unlock(state.lock)
    return result


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
                if not expired(state, load_relaxed32(&bucket.seen[i]), bucket.flags[i], now):
                    continue
            elif (port != SWEEP_ALL and bucket.port[i] != port) or (bucket.flags[i] & ENTRY_STATIC and not statics_too):
                continue
            take_out(state, table, bucket, i, CHANGE_AGED if port == SWEEP_EXPIRED else CHANGE_FORGOTTEN)
            removed += 1
    return removed


cdef Table *next_part(MacTableState *state, Cursor *cursor, uint64_t *first) noexcept nogil:
    """Go a step on with a cursor. Its buckets are those from `first` up to cursor.at, of the table returned."""
    cdef Table *table = current(state)
    if cursor.level != state.shape >> 1:
        cursor.at, cursor.level, cursor.in_table, cursor.restarted = 0, state.shape >> 1, False, True
    if not cursor.in_table and not state.shape & 1:
        cursor.at, cursor.in_table = 0, True
    if not cursor.in_table:
        table = older(state)
        cursor.at = max(cursor.at, state.emptied)       # the buckets before are empty, and their memory may be gone
    first[0] = cursor.at
    cursor.at = min(cursor.at + SWEEP_STEP, table.mask + 1)
    cursor.done = cursor.in_table and cursor.at > table.mask
    return table


cdef inline void end_part(Cursor *cursor, const Table *table) noexcept nogil:
    if not cursor.in_table and cursor.at > table.mask:
        cursor.at, cursor.in_table = 0, True


cdef uint64_t sweep_some(
    MacTableState *state, Cursor *cursor, uint32_t now, int port, bint statics_too
) noexcept nogil:
    cdef uint64_t first = 0, removed
    cdef Table *table = next_part(state, cursor, &first)
    removed = sweep_part(state, table, now, port, statics_too, first, cursor.at)
    end_part(cursor, table)
    return removed


cdef bint nobody_behind(MacTableState *state, int port) noexcept nogil:
    """Whether no learned entry points to a port."""
    pthread_mutex_lock(state.lock)
    cdef bint none = state.held[port] == 0
    pthread_mutex_unlock(state.lock)
    return none


cdef uint64_t sweep(MacTableState *state, uint32_t now, int port, bint statics_too) noexcept nogil:
    cdef uint64_t removed, total = 0
    cdef Cursor cursor
    if port >= 0 and not statics_too and nobody_behind(state, port):
        return 0
    start_walk(state, &cursor)
    while not cursor.done:
        pthread_mutex_lock(state.lock)
        removed = sweep_some(state, &cursor, now, port, statics_too)
        if port == SWEEP_EXPIRED:
            state.aged += removed
        pthread_mutex_unlock(state.lock)
        total += removed
    return total


cdef int set_static(MacTableState *state, uint64_t key, uint16_t port) noexcept nogil:
    cdef int way = 0
    cdef uint64_t hash = hash_key(state, key)
    cdef Table *table = NULL
    cdef Bucket *bucket = find(state, key, hash, &way, &table)
    if bucket == NULL:
        return -1 if insert(state, key, hash, port, 0, ENTRY_STATIC) == LEARN_REFUSED else 0
    if not bucket.flags[way] & ENTRY_STATIC:
        state.held[bucket.port[way]] -= 1
    store_relaxed16(&bucket.port[way], port)
    store_relaxed8(&bucket.flags[way], bucket.flags[way] | ENTRY_STATIC)
    note_change(state.changes, CHANGE_FIXED, port, port, key)
    return 0


cdef bint remove_key(MacTableState *state, uint64_t key) noexcept nogil:
    cdef int way = 0
    cdef Table *table = NULL
    cdef Bucket *bucket = find(state, key, hash_key(state, key), &way, &table)
    if bucket == NULL:
        return False
    take_out(state, table, bucket, way, CHANGE_FORGOTTEN)
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
                rows[row].mac = mac_of(bucket.key[i])
                rows[row].vlan = vid_of(bucket.key[i])
                rows[row].port = bucket.port[i]
                rows[row].seen = load_relaxed32(&bucket.seen[i])
                rows[row].fixed = bucket.flags[i] & ENTRY_STATIC
                row += 1
    end_part(cursor, table)
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
            key[i] = make_key(mac_of(keys[start + i]), vid_of(keys[start + i]))
            hash[i] = hash_key(state, key[i])
            prefetch_bucket(state, hash[i])
        for i in range(n):
            ports[start + i] = look_up(state, key[i], hash[i], now)
        start += n


cdef void refresh_all(
    MacTableState *state, const uint64_t *keys, const uint16_t *ports, const uint32_t *idle, size_t count, uint32_t now
) noexcept nogil:
    cdef Entry entry
    cdef uint64_t key
    cdef size_t i
    for i in range(count):
        key = make_key(mac_of(keys[i]), vid_of(keys[i]))
        if (
            read_entry(state, key, hash_key(state, key), &entry) and entry.port == ports[i]
            and not entry.flags & ENTRY_STATIC and not expired(state, entry.seen, entry.flags, now)
            and <int32_t>(now - idle[i] - entry.seen) > 0
        ):
            store_relaxed32(&entry.bucket.seen[entry.way], now - idle[i])


cdef size_t learn_all(
    MacTableState *state, const uint64_t *keys, const uint16_t *ports, size_t count, uint32_t now
) noexcept nogil:
    cdef uint64_t key[AHEAD]
    cdef uint64_t hash[AHEAD]
    cdef uint16_t was = 0
    cdef size_t i, n, start = 0, taken = 0
    while start < count:
        n = min(<size_t>AHEAD, count - start)
        for i in range(n):
            key[i] = make_key(mac_of(keys[start + i]), vid_of(keys[start + i]))
            hash[i] = hash_key(state, key[i])
            prefetch_bucket(state, hash[i])
        for i in range(n):
            taken += learn(state, key[i], hash[i], ports[start + i], now, &was) < LEARN_REFUSED
        start += n
    return taken


@cython.final
cdef class MacTable:
    """The forwarding database of one switch.

    capacity: entries that may be learned (static ones are not refused). ageing_ms: an entry does not count when its
    station was silent for so long; None: it always does. Raises MemoryError and ValueError.
    """

    def __cinit__(self, uint64_t capacity=65536, ageing_ms=300_000):
        self.state.capacity = capacity
        self.state.seed = secrets.randbits(64)
        self.set_ageing(ageing_ms)
        self.state.held = <uint32_t *>calloc(65536, sizeof(uint32_t))
        self.state.lock = <pthread_mutex_t *>malloc(sizeof(pthread_mutex_t))
        if self.state.held == NULL or self.state.lock == NULL or make_table(&self.state.tables[0], FIRST_BUCKETS) < 0:
            free(self.state.lock)
            self.state.lock = NULL
            raise MemoryError("no memory for the MAC table")
        pthread_mutex_init(self.state.lock, NULL)

    def __dealloc__(self):
        cdef int level
        for level in range(LEVELS):
            free_table(&self.state.tables[level])
        free(self.state.held)
        free(self.state.changes)
        if self.state.lock != NULL:
            pthread_mutex_destroy(self.state.lock)
            free(self.state.lock)

    def __len__(self):
        return self.state.count

    @property
    def memory(self):
        """Bytes of the buckets, with those of a table that is being emptied or prepared."""
        cdef uint64_t buckets = current(&self.state).mask + 1 + self.state.prepared * PAGE_BUCKETS
        if self.state.shape & 1:
            buckets += older(&self.state).mask + 1 - self.state.released
        return buckets * sizeof(Bucket)

    @property
    def statistics(self):
        """Events so far: (learned, moved, aged, evicted, refused)."""
        return self.state.learned, self.state.moved, self.state.aged, self.state.evicted, self.state.refused

    def held(self, uint16_t port):
        """How many learned entries point to a port."""
        return self.state.held[port]

    def set_ageing(self, ageing_ms):
        """Set the ageing time in ms. None: entries stay. Raises ValueError outside 0 … 2³¹."""
        if ageing_ms is not None and not 0 <= ageing_ms < 1 << 31:
            raise ValueError(f"ageing must be 0 … {(1 << 31) - 1} ms or None, not {ageing_ms}")
        self.state.ageing = UINT32_MAX if ageing_ms is None else <uint32_t>ageing_ms

    def learn(self, uint64_t mac, uint16_t vlan, uint16_t port, uint32_t now):
        """Note that (vlan, mac) was heard on `port` at `now` (ms). Returns a LearnResult as int."""
        cdef uint64_t key = make_key(mac_of(mac), vlan & 0xFFF)
        cdef uint16_t was = 0
        return <int>learn(&self.state, key, hash_key(&self.state, key), port, now, &was)

    def look_up(self, uint64_t mac, uint16_t vlan, uint32_t now):
        """The port of the live entry of (vlan, mac), or -1."""
        cdef uint64_t key = make_key(mac_of(mac), vlan & 0xFFF)
        return look_up(&self.state, key, hash_key(&self.state, key), now)
