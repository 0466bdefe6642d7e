# The MAC table (FDB): a look-up reads one cache line.
#
# (VLAN id, MAC) → port. A bucket is one 64-byte line of four entries, so a look-up that hits touches one line of
# memory. The batch prefetches the lines of all its frames first. A full bucket passes entries on to the next one and
# counts them in `overflow`. So a miss knows when to stop, and removal needs no tombstones.
#
# Many threads, one writer. Every worker looks up and refreshes without a lock. A thread that changes the content
# (a new station, a move, ageing, Python) holds `lock` meanwhile, so there is one writer at a time:
# - An entry is in the table while its key is in a slot. The writer clears a key before anything else of the slot
#   changes, counts the bucket's `version` up, fills the slot, and stores the key last (put). A reader that found its
#   key reads the rest and then checks key and version again. If one has changed, it begins anew. No reader ever waits
#   for a writer. (`version` would have to change 65,536 times between two reads to deceive a reader.)
# - In a live entry only the port, `seen` or the flags change, each by one store. An expired entry that is heard again
#   is taken out and put in again.
# - An entry never moves within a table. From an old table to the new one it is put in first, then `carried` counts,
#   then it is taken out; a reader that found nothing looks again if `carried` has changed meanwhile.
# - `shape`, one word, says which table is in use and whether an older one is being emptied. The tables' addresses and
#   sizes never change, and the memory of an emptied one goes back (MADV_DONTNEED) while its addresses stay: a reader
#   that is late reads zeros, an empty table, and not somebody else's memory. All of them are of no more address space
#   than the one in use.
# - Readers refresh `seen`. A late reader may refresh a slot that has another station by now. That station was put there
#   a moment ago, so the only effect is a longer life of an entry that was being carried over.
# - The workers' clocks are read once a breath, so `seen` may be ahead of a reader's `now`: by less than SKEW.
# tests/core/test_workers.py has all that under stress, also with ThreadSanitizer, which knows the accesses of
# barrier.pxd.
from libc.stddef cimport size_t
from libc.stdint cimport UINT32_MAX, int32_t, uint8_t, uint16_t, uint32_t, uint64_t

cimport cython

from .barrier cimport (
    fence_acquire, load_acquire, load_acquire16, load_acquire64, load_relaxed8, load_relaxed16, load_relaxed32,
    load_relaxed64, prefetch, store_relaxed32,
)
from .codes cimport LEARN_KNOWN, LearnResult
from .fdb_changes cimport FdbChanges
from .linux cimport pthread_mutex_t

cdef enum:
    WAYS = 4
    ENTRY_STATIC = 1
    LEVELS = 32                 # tables one after the other, each of twice the size: no memory holds so many
    SKEW = 60000                # ms; a breath is never that long

cdef struct Bucket:
    uint64_t key[4]             # ENTRY | vid << 48 | mac; 0 = free
    uint32_t seen[4]            # when the station was last heard, ms of the switch's clock
    uint16_t port[4]
    uint8_t flags[4]
    uint16_t overflow           # entries that passed this full bucket on their way to a later one
    uint16_t version            # entries put here so far

cdef struct Table:
    Bucket *buckets
    uint64_t mask               # number of buckets - 1

cdef struct Entry:              # a reader's copy of one
    Bucket *bucket
    int way
    uint32_t seen
    uint16_t port
    uint8_t flags

cdef struct MacTableState:
    Table tables[LEVELS]        # before the present level: emptied, or being emptied; behind it: being prepared
    uint32_t shape              # the level times two, plus one while the table before it is being emptied
    uint64_t carried            # entries carried over so far
    uint64_t emptied            # buckets of the old table emptied so far
    uint64_t released           # the first of these, whose memory has gone back: no look-up reads them
    uint64_t prepared           # pages of the next table touched so far
    pthread_mutex_t *lock       # held by the writer
    uint64_t count
    uint64_t capacity
    uint64_t seed
    uint32_t ageing             # ms; UINT32_MAX: entries stay
    uint32_t damping            # ms; a station heard within that time does not move
    uint32_t ports              # 1 + the highest port that ever had a learned entry
    uint64_t hand               # the bucket where the next search for an entry to evict begins
    uint32_t *held              # learned entries by port (65,536 of them: pages never touched cost nothing)
    uint64_t learned, moved, aged, evicted, refused
    FdbChanges *changes         # NULL: nobody monitors

cdef enum:
    VALID_BIT = 60


cdef inline uint64_t make_key(uint64_t mac, uint64_t vid) noexcept nogil:
    return (<uint64_t>1 << VALID_BIT) | (vid << 48) | mac


cdef inline uint64_t mac_of(uint64_t key) noexcept nogil:
    """The MAC address of a key, or of a number that comes from Python."""
    return key & <uint64_t>0xFFFFFFFFFFFFULL


cdef inline uint16_t vid_of(uint64_t key) noexcept nogil:
    return (key >> 48) & 0xFFF


cdef inline uint64_t hash_key(const MacTableState *state, uint64_t key) noexcept nogil:
    """Two multiply-xorshift rounds over a secret seed. Without the seed no sender can aim at one bucket."""
    cdef uint64_t h = key ^ state.seed
    h = (h ^ (h >> 32)) * <uint64_t>0x9E3779B97F4A7C15ULL
    h = (h ^ (h >> 29)) * <uint64_t>0xBF58476D1CE4E5B9ULL
    return h ^ (h >> 32)


cdef inline void prefetch_bucket(const MacTableState *state, uint64_t hash) noexcept nogil:
    cdef const Table *table = &state.tables[load_acquire(&state.shape) >> 1]
    prefetch(&table.buckets[hash & table.mask])


cdef inline bint read_in(const Table *table, uint64_t key, uint64_t hash, Entry *entry) noexcept nogil:
    """Copy an entry for a reader. All of it is of one moment."""
    cdef uint64_t at = hash & table.mask
    cdef uint16_t version
    cdef Bucket *bucket
    cdef int i
    while True:
        bucket = &table.buckets[at]
        version = load_acquire16(&bucket.version)
        i = 0
        while i < WAYS and load_relaxed64(&bucket.key[i]) != key:
            i += 1
        if i == WAYS:
            if load_relaxed16(&bucket.overflow) == 0:
                return False
            at = (at + 1) & table.mask
            continue
        fence_acquire()
        entry.bucket, entry.way = bucket, i
        entry.port = load_relaxed16(&bucket.port[i])
        entry.seen = load_relaxed32(&bucket.seen[i])
        entry.flags = load_relaxed8(&bucket.flags[i])
        fence_acquire()
        if load_relaxed64(&bucket.key[i]) == key and load_relaxed16(&bucket.version) == version:
            return True


cdef inline bint read_entry(const MacTableState *state, uint64_t key, uint64_t hash, Entry *entry) noexcept nogil:
    """Copy the entry of a key, live or not, without a lock. False when there is none."""
    cdef uint64_t carried
    cdef uint32_t shape
    cdef const Table *table
    while True:
        carried = load_acquire64(&state.carried)
        shape = load_acquire(&state.shape)
        table = &state.tables[shape >> 1]
        if read_in(table, key, hash, entry):
            return True
        if shape & 1:
            table = &state.tables[(shape >> 1) - 1]
            if hash & table.mask >= load_relaxed64(&state.released) and read_in(table, key, hash, entry):
                return True
        fence_acquire()
        if load_relaxed64(&state.carried) == carried:
            return False


cdef inline uint32_t age(uint32_t now, uint32_t seen) noexcept nogil:
    """Milliseconds since `seen`, plus SKEW: `seen` may be ahead."""
    return now - seen + <uint32_t>SKEW


cdef inline bint expired(const MacTableState *state, uint32_t seen, uint8_t flags, uint32_t now) noexcept nogil:
    """Whether an entry's station was silent for the ageing time (802.1Q §8.8.3)."""
    return (
        state.ageing != UINT32_MAX and not flags & ENTRY_STATIC
        and age(now, seen) >= state.ageing + <uint32_t>SKEW
    )


cdef inline int look_up(const MacTableState *state, uint64_t key, uint64_t hash, uint32_t now) noexcept nogil:
    """The port of a live entry, or -1."""
    cdef Entry entry
    if not read_entry(state, key, hash, &entry) or expired(state, entry.seen, entry.flags, now):
        return -1
    return entry.port


cdef inline bint holds(
    const MacTableState *state, uint64_t key, uint64_t hash, uint16_t port, uint32_t now
) noexcept nogil:
    """Whether a live entry of `key` points to `port`."""
    return look_up(state, key, hash, now) == port


# Learn a station that is new or has moved. learn() calls it; it takes the lock.
cdef LearnResult learn_locked(
    MacTableState *state, uint64_t key, uint64_t hash, uint16_t port, uint32_t now, uint16_t *was
) noexcept nogil


cdef inline LearnResult learn(
    MacTableState *state, uint64_t key, uint64_t hash, uint16_t port, uint32_t now, uint16_t *was
) noexcept nogil:
    """Note that the station `key` was heard on `port`. Static entries stay as they are.

    was: gets the station's port before, for LEARN_MOVED and LEARN_DAMPED."""
    cdef Entry entry
    if not read_entry(state, key, hash, &entry):
        return learn_locked(state, key, hash, port, now, was)
    if entry.flags & ENTRY_STATIC:
        return LEARN_KNOWN
    if entry.port != port or expired(state, entry.seen, entry.flags, now):
        return learn_locked(state, key, hash, port, now, was)
    if entry.seen != now:       # no store where nothing changes: the cache line stays clean
        store_relaxed32(&entry.bucket.seen[entry.way], now)
    return LEARN_KNOWN


cdef enum:
    # Instead of a port: sweep() removes the expired entries, not those of a port.
    SWEEP_EXPIRED = -1
    SWEEP_ALL = -2
    # Buckets in one step, 128 KiB. A whole sweep of 1 M entries took 5 ms, and one step has 1/256 of its buckets.
    SWEEP_STEP = 2048

cdef struct EntryRow:           # one entry, copied out; FdbAccess.export() says how Python reads it
    uint64_t mac
    uint32_t seen
    uint16_t vlan, port
    uint8_t fixed               # static
    uint32_t number             # of the copy; a later one has a higher one


# Remove the entries that have expired at `now`, counted as aged, or that point to a port. Other threads may write
# between its steps. Returns how many. For any thread.
cdef uint64_t sweep(MacTableState *state, uint32_t now, int port, bint statics_too) noexcept nogil
# The rest is for the writer: the caller holds the lock, or has the table for itself.
#
# Add a static entry, or make the present one static. Returns -1 when there is no memory.
cdef int set_static(MacTableState *state, uint64_t key, uint16_t port) noexcept nogil
cdef bint remove_key(MacTableState *state, uint64_t key) noexcept nogil
# The key of the entry that would make room for one of `port` in a full table; 0: none would, and it is refused.
cdef uint64_t foresee_eviction(MacTableState *state, uint16_t port, uint32_t now) noexcept nogil
# For any thread: look up, or learn, `vlan << 48 | mac` keys in prefetched batches of 64. Learning returns how many were
# neither refused nor damped.
cdef void look_up_all(
    const MacTableState *state, const uint64_t *keys, int32_t *ports, size_t count, uint32_t now
) noexcept nogil
# Refresh the live entries of keys that still point to these ports: others have heard them, `idle` ms ago.
cdef void refresh_all(
    MacTableState *state, const uint64_t *keys, const uint16_t *ports, const uint32_t *idle, size_t count, uint32_t now
) noexcept nogil
cdef size_t learn_all(
    MacTableState *state, const uint64_t *keys, const uint16_t *ports, size_t count, uint32_t now
) noexcept nogil

cdef enum:
    COPY_ROOM = 4 * SWEEP_STEP  # rows that one step of copy_some() may fill

cdef struct Cursor:
    # The place of a walk in steps. The table may change between two steps. `old` comes first, so no entry is missed
    # that is carried over meanwhile. When another growth begins, the walk begins again: at most once for every
    # doubling.
    uint64_t at
    uint32_t level
    bint in_table               # it is past `old`
    bint restarted              # it has begun again: all entries are met anew
    bint done


cdef inline void start_walk(const MacTableState *state, Cursor *cursor) noexcept nogil:
    cursor.at, cursor.level = 0, load_acquire(&state.shape) >> 1
    cursor.in_table = cursor.restarted = cursor.done = False


# As sweep(), in the next SWEEP_STEP buckets.
cdef uint64_t sweep_some(
    MacTableState *state, Cursor *cursor, uint32_t now, int port, bint statics_too
) noexcept nogil
# Copy the entries of the next SWEEP_STEP buckets, live or not; returns how many. An entry that is there from the first
# step to the last is copied, perhaps twice.
cdef uint64_t copy_some(MacTableState *state, Cursor *cursor, EntryRow *rows) noexcept nogil


@cython.final
cdef class MacTable:
    cdef MacTableState state
