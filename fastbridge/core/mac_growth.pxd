# The MAC table's growth, for the writer, which holds the lock.
#
# Growth is incremental, so no frame ever waits for it. The last new entries before it touch the pages of a table of
# twice the size, one after the other. Then each new entry empties GROW_STEP buckets of the old table. The old memory
# goes back RELEASE_STEP buckets at a time (docs/performance.md has the cost of each step).
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from .barrier cimport (
    fence_release, load_relaxed32, store_relaxed16, store_relaxed32, store_relaxed64, store_relaxed8, store_release,
    store_release64,
)
from .linux cimport (
    MADV_DONTNEED, MAP_ANONYMOUS, MAP_FAILED, MAP_PRIVATE, PROT_READ, PROT_WRITE, madvise, mmap, munmap,
)
from .mac_table cimport WAYS, Bucket, MacTableState, Table, hash_key

cdef enum:
    # Old buckets that each new entry empties while the table grows. At MAX_LOAD the new table takes 2.5 entries for
    # each old bucket before it must grow itself. So 2 at a time empty the old one early enough.
    GROW_STEP = 2
    # The table grows beyond so many entries in 8 slots. At 5/8 a bucket holds 2.5 of 4 entries on average, and about
    # one bucket in nine has passed an entry on (Poisson, mean 2.5). So few look-ups touch a second line.
    MAX_LOAD_EIGHTHS = 5
    # The last 1/8 of the entries before growth prepare it: every 10 entries they touch a page of the next table. If
    # they began earlier, 1 M entries would need more than the 32 MiB of their own table.
    PREPARE_SHARE = 8
    PAGE_BUCKETS = 64           # of 4 KiB
    # Old buckets whose memory goes back at once, 64 KiB: one call for 512 new entries, 5 to 10 µs.
    RELEASE_STEP = 1024
    FIRST_BUCKETS = 256         # 16 KiB: most tables serve small labs, and fit into L1


cdef inline Table *current(MacTableState *state) noexcept nogil:
    """The table that entries are put into. For the writer."""
    return &state.tables[state.shape >> 1]


cdef inline Table *older(MacTableState *state) noexcept nogil:
    """The table that is being emptied, or NULL. For the writer."""
    return &state.tables[(state.shape >> 1) - 1] if state.shape & 1 else NULL


cdef inline Bucket *find_in(const Table *table, uint64_t key, uint64_t hash, int *way) noexcept nogil:
    """The writer's way to an entry, or NULL."""
    cdef uint64_t at = hash & table.mask
    cdef Bucket *bucket
    cdef int i
    while True:
        bucket = &table.buckets[at]
        for i in range(WAYS):
            if bucket.key[i] == key:
                way[0] = i
                return bucket
        if bucket.overflow == 0:
            return NULL
        at = (at + 1) & table.mask


cdef inline Bucket *find(MacTableState *state, uint64_t key, uint64_t hash, int *way, Table **table) noexcept nogil:
    """The writer's way to an entry and the table it is in, or NULL."""
    cdef Bucket *bucket
    table[0] = current(state)
    bucket = find_in(table[0], key, hash, way)
    if bucket == NULL and state.shape & 1 and hash & older(state).mask >= state.released:
        table[0] = older(state)
        bucket = find_in(table[0], key, hash, way)
    return bucket


cdef inline int make_table(Table *table, uint64_t buckets) noexcept nogil:
    """Map `buckets` (a power of two) empty buckets. Returns -1 when there is no memory."""
    cdef size_t size = buckets * sizeof(Bucket)
    cdef void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
    if memory == MAP_FAILED:
        return -1
    # No huge pages: look-ups gain nothing, and learning gets slower, because each first touch then zeroes 2 MiB.
    table.buckets = <Bucket *>memory
    table.mask = buckets - 1
    return 0


cdef inline void free_table(Table *table) noexcept nogil:
    if table.buckets != NULL:
        munmap(table.buckets, (table.mask + 1) * sizeof(Bucket))
        table.buckets = NULL


cdef inline void put(
    Table *table, uint64_t key, uint64_t hash, uint16_t port, uint32_t seen, uint8_t flags
) noexcept nogil:
    """Store an entry that is not in the table. There is always a free slot: the load is bounded."""
    cdef uint64_t at = hash & table.mask
    cdef Bucket *bucket
    cdef int i
    while True:
        bucket = &table.buckets[at]
        for i in range(WAYS):
            if bucket.key[i] == 0:
                store_relaxed16(&bucket.version, bucket.version + 1)
                fence_release()         # a reader that sees the changes below sees another version, too
                store_relaxed16(&bucket.port[i], port)
                store_relaxed32(&bucket.seen[i], seen)
                store_relaxed8(&bucket.flags[i], flags)
                store_release64(&bucket.key[i], key)
                return
        store_relaxed16(&bucket.overflow, bucket.overflow + 1)
        at = (at + 1) & table.mask


cdef inline void unlink(Table *table, uint64_t hash, Bucket *bucket, int way) noexcept nogil:
    """Remove the entry at `way` of `bucket`. The full buckets that it passed count one less."""
    cdef uint64_t at = hash & table.mask
    store_release64(&bucket.key[way], 0)
    while &table.buckets[at] != bucket:
        store_relaxed16(&table.buckets[at].overflow, table.buckets[at].overflow - 1)
        at = (at + 1) & table.mask


cdef inline void release_some(MacTableState *state) noexcept nogil:
    """Give back the memory of old buckets that are empty for good.

    All their entries are carried over, also those that they passed on to later buckets: the last bucket of a step has
    counted those that went beyond the step."""
    cdef Table *old = older(state)
    cdef uint64_t end = state.released + RELEASE_STEP
    if state.emptied >= end and end <= old.mask and old.buckets[end - 1].overflow == 0:
        store_relaxed64(&state.released, end)
        madvise(&old.buckets[end - RELEASE_STEP], RELEASE_STEP * sizeof(Bucket), MADV_DONTNEED)


cdef inline void finish_growth(MacTableState *state) noexcept nogil:
    cdef Table *old = older(state)
    cdef uint64_t released = state.released
    store_release(&state.shape, state.shape & ~<uint32_t>1)
    madvise(&old.buckets[released], (old.mask + 1 - released) * sizeof(Bucket), MADV_DONTNEED)


cdef inline void prepare_growth(MacTableState *state) noexcept nogil:
    """Touch as many pages of the next table as are due, so that all are touched when it is needed.

    Without memory for it nothing happens. Growth itself will report that."""
    cdef uint64_t buckets = current(state).mask + 1, full = buckets * WAYS * MAX_LOAD_EIGHTHS // 8, due
    cdef uint64_t start = full - full // PREPARE_SHARE
    cdef Table *next = current(state) + 1
    if state.count < start or state.capacity <= full:
        return
    if next.buckets == NULL and make_table(next, 2 * buckets) < 0:
        return
    due = (state.count - start + 1) * (2 * buckets // PAGE_BUCKETS) // (full - start)
    while state.prepared < min(due, 2 * buckets // PAGE_BUCKETS):
        next.buckets[state.prepared * PAGE_BUCKETS].overflow = 0
        state.prepared += 1


cdef inline void empty_some(MacTableState *state) noexcept nogil:
    """Carry GROW_STEP buckets of the old table over. Give the table back when it is empty."""
    cdef Table *old = older(state)
    cdef Bucket *bucket
    cdef uint64_t hash
    cdef int i
    for _ in range(<int>GROW_STEP):
        if state.emptied > old.mask:
            finish_growth(state)
            return
        bucket = &old.buckets[state.emptied]
        for i in range(WAYS):
            if bucket.key[i] != 0:
                hash = hash_key(state, bucket.key[i])
                put(current(state), bucket.key[i], hash, bucket.port[i], load_relaxed32(&bucket.seen[i]),
                    bucket.flags[i])
                store_release64(&state.carried, state.carried + 1)
                unlink(old, hash, bucket, i)
        state.emptied += 1
    release_some(state)


cdef inline int make_room(MacTableState *state) noexcept nogil:
    """Before an entry is put, prepare growth, or begin it when the table is loaded. Returns -1 without memory."""
    cdef Table *table = current(state)
    cdef uint64_t slots = (table.mask + 1) * WAYS
    if state.shape & 1 or state.count * 8 < slots * MAX_LOAD_EIGHTHS:
        prepare_growth(state)
        return 0
    if table[1].buckets == NULL and make_table(&table[1], (table.mask + 1) * 2) < 0:
        return -1
    state.emptied = state.prepared = 0
    store_relaxed64(&state.released, 0)
    store_release(&state.shape, state.shape + 3)    # the next level, and growing
    return 0
