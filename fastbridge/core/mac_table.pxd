# MAC table (FDB), one cache line.
#
# (VLAN id, MAC) → port. A bucket is one 64-byte line of four entries, so a look-up that hits touches one
# line of memory; the batch prefetches the lines of all its frames first. A bucket that is
# full passes entries on to the next one and counts them in `overflow`, so a miss knows when to stop and
# removal needs no tombstones.
#
# Growth is incremental, so no frame ever waits for it: the last new entries before it touch the pages of a table of
# twice the size, one after the other; then each new entry empties GROW_STEP buckets of the old table, whose memory
# goes back RELEASE_STEP buckets at a time. To unmap it all at once took 1.5 ms at 1 M entries, and page faults 230 µs
# of a batch of 64 new entries. Now the worst such batch on the way to 1 M takes 40 µs, and of 256 new entries, all that
# a breath can bring, 90 µs (benchmarks/ group "FDB: growth"). (The habit of naming a constant's reason is Snabb's,
# src/apps/bridge/mac_table.lua.)
from libc.stddef cimport size_t
from libc.stdint cimport UINT32_MAX, int32_t, uint8_t, uint16_t, uint32_t, uint64_t
cimport cython
from .barrier cimport prefetch

cdef enum:
    WAYS = 4
    # Old buckets emptied by each new entry while growing: at MAX_LOAD the new table takes 2.5 × the old
    # bucket count of entries before it must grow itself, so 2 a step empties the old one with room to spare.
    GROW_STEP = 2
    # Entries per 8 slots beyond which the table grows: at 5/8 a bucket holds 2.5 of 4 entries on average, and
    # about one bucket in nine has passed an entry on (Poisson, mean 2.5), so few look-ups touch a second line.
    MAX_LOAD_EIGHTHS = 5
    # The share of the entries before growth, 1/8, that prepare it: a page of the next table every 10 entries. Not
    # earlier, or 1 M entries would need more than the 32 MiB of their own table.
    PREPARE_SHARE = 8
    PAGE_BUCKETS = 64           # of 4 KiB
    # Old buckets whose memory goes back at a time, 64 KiB: one call for 512 new entries, 5 to 10 µs.
    RELEASE_STEP = 1024
    FIRST_BUCKETS = 256         # 16 KiB: fits L1 for the small labs most tables serve
    ENTRY_STATIC = 1

cdef enum LearnResult:
    LEARN_KNOWN = 0
    LEARN_NEW = 1
    LEARN_MOVED = 2
    LEARN_REFUSED = 3
    LEARN_DAMPED = 4

cdef struct Bucket:
    uint64_t key[4]             # ENTRY | vid << 48 | mac; 0 = free
    uint32_t seen[4]            # when the source was last heard, ms of the switch's clock
    uint16_t port[4]
    uint8_t flags[4]
    uint16_t overflow           # entries that passed this full bucket on their way to a later one
    uint16_t unused

cdef struct Table:
    Bucket *buckets
    uint64_t mask               # number of buckets - 1

cdef struct MacTableState:
    Table table                 # where entries are put
    Table old                   # being emptied while growing, else buckets == NULL
    uint64_t emptied            # buckets of `old` emptied so far
    uint64_t released           # the first of these, whose memory was given back: not to be touched
    Table next                  # being prepared for the next growth, else buckets == NULL
    uint64_t prepared           # pages of `next` touched so far
    uint64_t growths
    uint64_t count
    uint64_t capacity
    uint64_t seed
    uint32_t ageing             # ms; UINT32_MAX: entries stay
    uint32_t damping            # ms; a station heard more recently than that does not move
    uint16_t moved_from         # where the station of the last LEARN_MOVED or LEARN_DAMPED was before
    uint32_t ports              # 1 + the highest port that ever had a learned entry
    uint64_t hand               # the bucket where the next search for an entry to evict begins
    uint32_t *held              # learned entries by port (65,536 of them: pages never touched cost nothing)
    uint64_t learned, moved, aged, evicted, refused

cdef enum:
    VALID_BIT = 60


cdef inline uint64_t make_key(uint64_t mac, uint64_t vid) noexcept nogil:
    return (<uint64_t>1 << VALID_BIT) | (vid << 48) | mac


cdef inline uint64_t hash_key(const MacTableState *state, uint64_t key) noexcept nogil:
    """Two multiply-xorshift rounds over a secret seed: who does not know it cannot aim at one bucket."""
    cdef uint64_t h = key ^ state.seed
    h = (h ^ (h >> 32)) * <uint64_t>0x9E3779B97F4A7C15ULL
    h = (h ^ (h >> 29)) * <uint64_t>0xBF58476D1CE4E5B9ULL
    return h ^ (h >> 32)


cdef inline void prefetch_bucket(const MacTableState *state, uint64_t hash) noexcept nogil:
    prefetch(&state.table.buckets[hash & state.table.mask])


cdef inline Bucket *find_in(const Table *table, uint64_t key, uint64_t hash, int *way) noexcept nogil:
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


cdef inline Bucket *find(const MacTableState *state, uint64_t key, uint64_t hash, int *way) noexcept nogil:
    cdef Bucket *bucket = find_in(&state.table, key, hash, way)
    if bucket == NULL and state.old.buckets != NULL and hash & state.old.mask >= state.released:
        bucket = find_in(&state.old, key, hash, way)
    return bucket


cdef inline bint expired(const MacTableState *state, const Bucket *bucket, int way, uint32_t now) noexcept nogil:
    """Whether nothing was heard from the entry for the ageing time (802.1Q §8.8.3)."""
    return (
        state.ageing != UINT32_MAX and not bucket.flags[way] & ENTRY_STATIC
        and <uint32_t>(now - bucket.seen[way]) >= state.ageing
    )


cdef inline void count_entry(MacTableState *state, uint16_t port) noexcept nogil:
    state.held[port] += 1
    if port >= state.ports:
        state.ports = <uint32_t>port + 1


cdef inline int look_up(const MacTableState *state, uint64_t key, uint64_t hash, uint32_t now) noexcept nogil:
    """The port of a live entry, or -1."""
    cdef int way = 0
    cdef Bucket *bucket = find(state, key, hash, &way)
    if bucket == NULL or expired(state, bucket, way, now):
        return -1
    return bucket.port[way]


cdef inline bint holds(
    const MacTableState *state, uint64_t key, uint64_t hash, uint16_t port, uint32_t now
) noexcept nogil:
    """Whether a live entry of `key` points to `port`."""
    return look_up(state, key, hash, now) == port


cdef LearnResult insert(
    MacTableState *state, uint64_t key, uint64_t hash, uint16_t port, uint32_t now, uint8_t flags
) noexcept nogil


cdef inline void change_port(MacTableState *state, Bucket *bucket, int way, uint16_t port) noexcept nogil:
    state.held[bucket.port[way]] -= 1
    bucket.port[way] = port
    count_entry(state, port)


cdef inline LearnResult learn(
    MacTableState *state, uint64_t key, uint64_t hash, uint16_t port, uint32_t now
) noexcept nogil:
    """Note that the source `key` was heard on `port`. Static entries stay as they are."""
    cdef int way = 0
    cdef Bucket *bucket = find(state, key, hash, &way)
    if bucket == NULL:
        return insert(state, key, hash, port, now, 0)
    if bucket.flags[way] & ENTRY_STATIC:
        return LEARN_KNOWN
    if expired(state, bucket, way, now):
        state.aged += 1
        state.learned += 1
        change_port(state, bucket, way, port)
        bucket.seen[way] = now
        return LEARN_NEW
    if bucket.port[way] == port:
        if bucket.seen[way] != now:     # a line that says the same already is not made dirty
            bucket.seen[way] = now
        return LEARN_KNOWN
    state.moved_from = bucket.port[way]
    if <uint32_t>(now - bucket.seen[way]) < state.damping:
        return LEARN_DAMPED
    change_port(state, bucket, way, port)
    bucket.seen[way] = now
    state.moved += 1
    return LEARN_MOVED


cdef enum:
    # What sweep() removes when it is not the entries of a port.
    SWEEP_EXPIRED = -1
    SWEEP_ALL = -2
    # Buckets at a time, 128 KiB: a whole sweep of 1 M entries took 5 ms, one step takes 1/256 of its buckets.
    SWEEP_STEP = 2048

cdef struct EntryRow:           # one entry, copied out; the layout of ENTRY_DTYPE
    uint64_t mac
    uint32_t seen
    uint16_t vlan, port
    uint8_t fixed               # static
    uint8_t unused[7]


# Remove what has expired at `now` (the caller counts it as aged), or what points to a port; returns how many.
cdef uint64_t sweep(MacTableState *state, uint32_t now, int port, bint statics_too) noexcept nogil
# Add, or turn into, a static entry; -1 when there is no memory.
cdef int set_static(MacTableState *state, uint64_t key, uint16_t port) noexcept nogil
cdef bint remove_key(MacTableState *state, uint64_t key) noexcept nogil
# Look up, or learn, `vlan << 48 | mac` keys in prefetched batches of 64. Learning returns how many were neither refused
# nor damped.
cdef void look_up_all(
    const MacTableState *state, const uint64_t *keys, int32_t *ports, size_t count, uint32_t now
) noexcept nogil
cdef size_t learn_all(
    MacTableState *state, const uint64_t *keys, const uint16_t *ports, size_t count, uint32_t now
) noexcept nogil

cdef enum:
    COPY_ROOM = 4 * SWEEP_STEP  # rows one step of copy_some() may fill

cdef struct Cursor:
    # How far a walk in steps has come, between which the table may change. `old` comes first, so what is carried over
    # meanwhile is not missed. When another growth begins so does the walk: at most once for every doubling.
    uint64_t at, growths
    bint in_table               # not in `old` any more
    bint restarted              # everything is met anew
    bint done


cdef inline void start_walk(const MacTableState *state, Cursor *cursor) noexcept nogil:
    cursor.at, cursor.growths = 0, state.growths
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
